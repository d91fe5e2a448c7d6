"""A frozen classifier on pixels, which one it is, and how images become its pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from spurbench.core.documents import Document
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import head_wnids

Mode = Literal["whole", "model"]


Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True)
class Loaded:
    """What a source gives: the network and its own evaluation transform."""

    network: nn.Module
    name: str
    architecture: str
    input_size: tuple[int, int]
    resize: tuple[int, ...]
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    training_data: str | None = None


class Classifier(nn.Module):
    """A frozen ImageNet classifier on pixels in [0, 1]; normalisation is part of it.

    Attributes:
        info: which classifier it is.
        input_size: (height, width) of the pixels it takes.
    """

    def __init__(self, loaded: Loaded, info: ClassifierInfo) -> None:
        super().__init__()
        self.info = info
        self.input_size = loaded.input_size
        self.mean: Tensor
        self.std: Tensor
        self._loaded = loaded
        self.network = loaded.network
        self.register_buffer("mean", torch.tensor(loaded.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(loaded.std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.mean.device

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, C) of pixels (N, 3, height, width) in [0, 1]; differentiable in them."""
        logits: Tensor = self.network((pixels - self.mean) / self.std)
        return logits

    def features(self, pixels: Tensor) -> Tensor:
        """Penultimate features phi (N, D): what the last linear layer multiplies.

        Raises:
            SpurbenchError: if the network does not end in a linear layer.
        """
        caught: list[Tensor] = []
        hook = self._head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            self(pixels)
        finally:
            hook.remove()
        if len(caught) != 1 or caught[0].dim() != 2:
            raise SpurbenchError(f"{self.info.name} has no single vector of penultimate features")
        return caught[0]

    @property
    def head_weight(self) -> Tensor:
        """Weights of the last linear layer, (C, D); row k is w_k."""
        return self._head.weight

    @property
    def _head(self) -> nn.Linear:
        linear = [m for m in self.network.modules() if isinstance(m, nn.Linear)]
        if not linear:
            raise SpurbenchError(f"{self.info.name} does not end in a linear layer")
        return linear[-1]

    def columns(self, wnids: Sequence[str]) -> Tensor:
        """The head's column for each WordNet id, (len(wnids),) int64.

        Raises:
            SpurbenchError: if the head has no such class.
        """
        column = {wnid: i for i, wnid in enumerate(head_wnids(self.info.head))}
        missing = [wnid for wnid in wnids if wnid not in column]
        if missing:
            raise SpurbenchError(
                f"{self.info.name} ({self.info.head} head) has no class {', '.join(missing[:5])}"
            )
        return torch.tensor([column[wnid] for wnid in wnids], dtype=torch.int64)

    def preprocessing(self, mode: Mode = "whole") -> Preprocessing:
        """From an image to this classifier's pixels.

        Args:
            mode: ``whole``: bicubic to the input size on the short side, then centre crop, as the
                authors of Spurious ImageNet do; ``model``: the classifier's own evaluation
                transform.
        """
        loaded = self._loaded
        height, width = loaded.input_size
        whole = (height,) if height == width else (height, width)
        return Preprocessing(
            mode=mode,
            resize=whole if mode == "whole" else loaded.resize,
            crop=loaded.input_size,
            interpolation="bicubic" if mode == "whole" else loaded.interpolation,
            mean=loaded.mean,
            std=loaded.std,
        )


def transform(preprocessing: Preprocessing) -> Callable[[Image.Image], Tensor]:
    """Resize and crop an RGB image as ``preprocessing`` says.

    Returns:
        A function from an image to (3, height, width) uint8; divide by 255 for a
        :class:`Classifier`. PIL's antialiased resampling is used, as timm and torchvision do on
        images.
    """
    resample = Image.Resampling[preprocessing.interpolation.upper()]
    height, width = preprocessing.crop

    def apply(image: Image.Image) -> Tensor:
        from torchvision.transforms.v2 import functional as tv

        if len(preprocessing.resize) == 2:
            size = (preprocessing.resize[1], preprocessing.resize[0])
        else:
            short = preprocessing.resize[0]
            # The long side is truncated, as torchvision's Resize does.
            if image.width <= image.height:
                size = (short, max(short, int(short * image.height / image.width)))
            else:
                size = (max(short, int(short * image.width / image.height)), short)
        resized = image if image.size == size else image.resize(size, resample)
        pixels: Tensor = tv.center_crop(tv.pil_to_tensor(resized), [height, width])
        return pixels

    return apply


def weights_sha256(network: nn.Module) -> str:
    """Hex sha256 over a network's state dict: names, types, shapes and values, sorted by name."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class ClassifierInfo(Document):
    """Which classifier was measured."""

    spec: str = Field(description="as asked for")
    name: str = Field(
        description="resolved in full, e.g. vit_base_patch16_224.augreg_in21k_ft_in1k"
    )
    source: Literal["timm", "torchvision", "robustbench", "hf-hub", "folder", "mini"]
    architecture: str
    parameters: int
    head: str = Field(description="label space, e.g. imagenet-1k")
    weights_sha256: str = Field(description="over the loaded state dict, not over a file")
    checkpoint: str | None = Field(default=None, description="file name given with --checkpoint")
    training_data: str | None = Field(
        default=None, description="what a local classifier's config.json says of it"
    )


class Preprocessing(Document):
    """From a decoded RGB image to the classifier's pixels, in this order."""

    mode: Literal["whole", "model"] = Field(
        description="whole: short side to the input size, then centre crop; "
        "model: the classifier's own evaluation transform"
    )
    resize: tuple[int, ...] = Field(description="(short side,) or (height, width), pixels")
    crop: tuple[int, int] = Field(description="centre crop, (height, width), pixels")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
