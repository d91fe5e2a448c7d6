"""A frozen classifier on pixels, which one it is, and how images become its pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from spurbench.classifiers.info import (
    ClassifierInfo,
    Interpolation,
    Mended,
    Mode,
    Preprocessing,
    SourceName,
)
from spurbench.classifiers.labels import UnknownClassError, wnids_of
from spurbench.classifiers.networks import last_linear
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import fingerprint, weights_sha256
from spurbench.core.imagenet import HEADS, head_wnids, imagenet_names, imagenet_wnids


@dataclass(frozen=True)
class Loaded:
    """What a source gives: the network and its own evaluation transform.

    Attributes:
        labels: of the outputs, where they are not those of one of ImageNet's heads; see
            :func:`spurbench.classifiers.labels.wnids_of`.
        interpolation: None with a ``transform``.
        transform: makes the network's input, (3, height, width), of an RGB image, in place of
            resize, crop and normalisation.
        weights_sha256: what the weights are known by, where that is not the network's state dict.
        parameters: how many it has, where that is not what the network holds.
    """

    network: nn.Module
    name: str
    architecture: str
    input_size: tuple[int, int]
    resize: tuple[int, ...]
    interpolation: Interpolation | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    training_data: str | None = None
    mended: Mended | None = None
    labels: Sequence[str | int] | None = None
    transform: Callable[[Image.Image], Tensor] | None = None
    weights_sha256: str | None = None
    parameters: int | None = None


class Classifier(nn.Module):
    """A frozen ImageNet classifier on pixels in [0, 1]; normalisation is part of it.

    Attributes:
        info: which classifier it is.
        input_size: (height, width) of the pixels it takes.
        wnids: the WordNet id of each output; an output that is no class of ImageNet's has its own
            label instead.
    """

    def __init__(self, loaded: Loaded, info: ClassifierInfo, wnids: tuple[str, ...]) -> None:
        super().__init__()
        self.info = info
        self.input_size = loaded.input_size
        self.wnids = wnids
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

    def answer(self, pixels: Tensor | Sequence[Image.Image], wnids: Sequence[str]) -> Tensor:
        """Logits (N, C) of images as they are read for it.

        Args:
            pixels: (N, 3, height, width), bytes or what :attr:`own_transform` gives.
            wnids: the class that each is measured for.
        """
        assert isinstance(pixels, Tensor), "images as they are, are for those that ask for them"
        scaled = pixels.to(self.device).float()
        if pixels.dtype == torch.uint8:
            scaled.div_(255)
        if scaled.device.type == "cpu":  # where convolutions are up to twice as fast so
            scaled = scaled.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self(scaled)
        return logits

    def features(self, pixels: Tensor) -> Tensor:
        """Penultimate features phi (N, D): what the last linear layer multiplies.

        Raises:
            SpurbenchError: if the network does not end in a linear layer.
        """
        return self.features_and_logits(pixels)[0]

    def features_and_logits(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Penultimate features (N, D) and the logits (N, C) that come of them.

        Raises:
            SpurbenchError: if the network does not end in a linear layer.
        """
        caught: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            logits = self(pixels)
        finally:
            hook.remove()
        if len(caught) != 1 or caught[0].dim() != 2:
            raise SpurbenchError(f"{self.info.name} has no single vector of penultimate features")
        return caught[0], logits

    def log_probability(self, pixels: Tensor, wnid: str) -> Tensor:
        """log p_k of class ``wnid`` among all outputs, (N,); differentiable in the pixels.

        Args:
            pixels: (N, 3, height, width) in [0, 1].
            wnid: WordNet id of the class.

        Raises:
            SpurbenchError: if it has no such class, or answers without a gradient.
        """
        logits = self(pixels)
        if pixels.requires_grad and not logits.requires_grad:
            raise SpurbenchError(
                f"{self.info.name} can't be differentiated; take a network of torch as panel.phi"
            )
        return logits.float().log_softmax(dim=1)[:, int(self.columns([wnid])[0])]

    @property
    def head_weight(self) -> Tensor:
        """Weights of the last linear layer, (C, D); row k is w_k."""
        return self.head.weight

    @property
    def head(self) -> nn.Linear:
        """The last linear layer.

        Raises:
            SpurbenchError: if there is none.
        """
        linear = last_linear(self.network)
        if linear is None:
            raise SpurbenchError(
                f"{self.info.name} does not end in a linear layer that can be looked into"
            )
        return linear

    def columns(self, wnids: Sequence[str]) -> Tensor:
        """The head's column for each WordNet id, (len(wnids),) int64.

        Raises:
            UnknownClassError: if the head has no such class.
        """
        column = {wnid: i for i, wnid in enumerate(self.wnids)}
        missing = [wnid for wnid in wnids if wnid not in column]
        if missing:
            named = dict(zip(imagenet_wnids(), imagenet_names(), strict=True))
            listed = ", ".join(f"{w} ({named[w]})" if w in named else w for w in missing)
            raise UnknownClassError(
                f"{self.info.name} ({self.info.head} head) has no class {listed}; measure it on "
                "data of its own classes"
            )
        return torch.tensor([column[wnid] for wnid in wnids], dtype=torch.int64)

    def preprocessing(self, mode: Mode = "whole") -> Preprocessing:
        """From an image to this classifier's pixels.

        Args:
            mode: ``whole``: bicubic to the input size on the short side, then centre crop, as the
                authors of Spurious ImageNet do; ``model``: the classifier's own evaluation
                transform, which is also taken where it is a function of the user's own.
        """
        loaded = self._loaded
        height, width = loaded.input_size
        whole = (height,) if height == width else (height, width)
        if loaded.transform is not None:
            mode = "model"
        return Preprocessing(
            mode=mode,
            resize=whole if mode == "whole" else loaded.resize,
            crop=loaded.input_size,
            interpolation="bicubic" if mode == "whole" else loaded.interpolation,
            mean=loaded.mean,
            std=loaded.std,
            transform=" ".join(repr(loaded.transform).split()) if loaded.transform else None,
        )

    @property
    def own_transform(self) -> Callable[[Image.Image], Tensor | Image.Image] | None:
        """The function of the user's own that makes its input, (3, height, width) of any dtype."""
        return self._loaded.transform

    @property
    def default_batch_size(self) -> int:
        """Images at a time where nothing else is asked for."""
        return 128 if self.device.type == "cuda" else 32


def assemble(
    loaded: Loaded, *, spec: str, source: SourceName, checkpoint: str | None = None
) -> Classifier:
    """A classifier of what a source gives, on the CPU in float32.

    Args:
        loaded: what the source gives.
        spec: what was asked for.
        source: where it comes from.
        checkpoint: the file name of the weights that were given with it.

    Raises:
        SpurbenchError: if it can't answer on an image of its input size, or its outputs are not
            known to be ImageNet's classes.
    """
    network = loaded.network.float()
    head, wnids = _label_space(loaded, _count_outputs(loaded))
    info = ClassifierInfo(
        spec=spec,
        name=loaded.name,
        source=source,
        architecture=loaded.architecture,
        parameters=loaded.parameters or sum(p.numel() for p in network.parameters()),
        head=head,
        weights_sha256=loaded.weights_sha256 or weights_sha256(network.state_dict()),
        checkpoint=checkpoint,
        training_data=loaded.training_data,
        mended=loaded.mended,
    )
    return Classifier(loaded, info, wnids)


def _count_outputs(loaded: Loaded) -> int:
    """How many logits there are for an image, which must be finite."""
    height, width = loaded.input_size
    with torch.inference_mode():
        try:
            outputs = loaded.network.eval()(torch.zeros(1, 3, height, width))
        except Exception as error:  # what networks raise on a size they don't take has no ancestor
            raise SpurbenchError(
                f"{loaded.name} can't take an image of {height} x {width} pixels: {reason(error)}"
            ) from None
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or len(outputs) != 1:
        raise SpurbenchError(f"{loaded.name} does not return a tensor of logits, (images, classes)")
    if not outputs.isfinite().all():
        raise SpurbenchError(f"{loaded.name} answers NaN or infinity; its weights are broken")
    return outputs.shape[1]


def _label_space(loaded: Loaded, count: int) -> tuple[str, tuple[str, ...]]:
    """The head's name, and the WordNet id of each of its columns."""
    if loaded.labels is None:
        if count not in HEADS:
            known = ", ".join(f"{width} ({name})" for width, name in HEADS.items())
            raise SpurbenchError(
                f"{loaded.name} has a head of {count} outputs and no labels; Spurious ImageNet's "
                f"classes can be found in heads of {known} outputs, or by labels (--labels FILE)"
            )
        return HEADS[count], head_wnids(HEADS[count])
    if len(loaded.labels) != count:
        raise SpurbenchError(
            f"{loaded.name} has {count} outputs and {len(loaded.labels)} labels; give one for each"
        )
    wnids = wnids_of(loaded.labels, loaded.name)
    for head in HEADS.values():
        if wnids == head_wnids(head):
            return head, wnids
    return f"own labels ({count}, {fingerprint(wnids)[:8]})", wnids


def transform(preprocessing: Preprocessing) -> Callable[[Image.Image], Tensor]:
    """Resize and crop an RGB image as ``preprocessing`` says.

    Returns:
        A function from an image to (3, height, width) uint8; divide by 255 for a
        :class:`Classifier`. PIL's antialiased resampling is used, as timm and torchvision do on
        images.
    """
    from torchvision.transforms import v2

    assert preprocessing.interpolation and preprocessing.crop, "a transform of its own is used"
    return v2.Compose(
        [
            v2.Resize(
                list(preprocessing.resize), v2.InterpolationMode(preprocessing.interpolation)
            ),
            v2.PILToTensor(),
            v2.CenterCrop(list(preprocessing.crop)),
        ]
    )
