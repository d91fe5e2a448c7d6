"""Are the class object and the spurious feature in the image? ``check.object_detector``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from PIL import Image
from torch import Tensor

from spurbench.classifiers.folder import CONFIG, WEIGHTS, read_folder
from spurbench.core import hub
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import file_sha256
from spurbench.core.text import with_article
from spurbench.recipe.classes import SpuriousClass

What = Literal["object", "feature"]


class ObjectDetector(Protocol):
    """Scores images for the presence of a class's object, of its spurious feature, of a context."""

    name: str
    """Which detector, with its version or weights' hash: part of a build's fingerprint."""

    def scores(
        self, images: Sequence[Image.Image], spurious_class: SpuriousClass, what: What
    ) -> list[float] | list[None]:
        """The score in [0, 1] for each image; None if this detector does not know the feature.

        Raises:
            SpurbenchError: if it does not know the object.
        """
        ...

    def context_scores(
        self, images: Sequence[Image.Image], context: str
    ) -> list[float] | list[None]:
        """As :meth:`scores`, of a place such as "on the beach"; None if it does not know it."""
        ...


def load_detector(spec: str, *, device: torch.device) -> ObjectDetector:
    """Load ``owlv2:HUB_ID``, or the multi-label classifier in a folder.

    Args:
        spec: as in a recipe's ``check.object_detector``.
        device: where it runs.

    Raises:
        SpurbenchError: for an unknown kind, or weights that can't be had.
    """
    kind, separator, name = spec.partition(":")
    if separator and kind in _KINDS:
        return _KINDS[kind](name, device)
    folder = Path(spec)
    if (folder / CONFIG).is_file():
        return MultiLabelDetector(folder, device)
    raise SpurbenchError(
        f"object detector {spec!r} is neither a folder with a config.json nor one of "
        f"{', '.join(f'{kind}:NAME' for kind in _KINDS)}; set check.object_detector"
    )


class MultiLabelDetector:
    """A timm classifier with sigmoid outputs ``object:NAME`` and, at will, ``feature:NAME``.

    The folder holds ``config.json`` (timm's hub format, with ``label_names``) and
    ``model.safetensors``.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        config, weights = folder / CONFIG, folder / WEIGHTS
        read = read_folder(config, weights)
        labels = read.config.label_names or ()
        if len(labels) != read.config.num_classes:
            raise SpurbenchError(
                f"{config} has {len(labels)} label_names for {read.config.num_classes} outputs"
            )
        self.name = f"{folder.name}@{file_sha256(weights)[:16]}"
        self.labels = list(labels)
        self.network: Any = read.network.float().to(device).eval()
        self._device = device
        self._data = read.data

    def scores(
        self, images: Sequence[Image.Image], spurious_class: SpuriousClass, what: What
    ) -> list[float] | list[None]:
        """See :class:`ObjectDetector`; the sigmoid of the class's own output."""
        label = f"{what}:{spurious_class.name}"
        if label not in self.labels and what == "object":
            raise SpurbenchError(f"object detector {self.name} has no output {label!r}")
        return self._output(images, label)

    def context_scores(
        self, images: Sequence[Image.Image], context: str
    ) -> list[float] | list[None]:
        """See :class:`ObjectDetector`; the sigmoid of the context's output."""
        return self._output(images, f"context:{context}")

    def _output(self, images: Sequence[Image.Image], label: str) -> list[float] | list[None]:
        if label not in self.labels:
            return [None] * len(images)
        own: list[float] = self.probabilities(images)[:, self.labels.index(label)].tolist()
        return own

    @torch.inference_mode()
    def probabilities(self, images: Sequence[Image.Image]) -> Tensor:
        """Every output's sigmoid, (N, len(labels)) on the CPU."""
        return torch.cat([self.network(pixels).sigmoid().cpu() for pixels in self._batches(images)])

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """Penultimate features, (N, D) on the CPU."""
        parts = []
        for pixels in self._batches(images):
            maps = self.network.forward_features(pixels)
            parts.append(self.network.forward_head(maps, pre_logits=True).cpu())
        return torch.cat(parts)

    def _batches(self, images: Sequence[Image.Image], size: int = 64) -> Iterator[Tensor]:
        from torchvision.transforms.v2 import functional as tv

        _, height, width = self._data["input_size"]
        mean = torch.tensor(self._data["mean"], device=self._device).view(3, 1, 1)
        std = torch.tensor(self._data["std"], device=self._device).view(3, 1, 1)
        for start in range(0, len(images), size):
            resized = [
                image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
                for image in images[start : start + size]
            ]
            pixels = torch.stack([tv.pil_to_tensor(image) for image in resized])
            yield (pixels.to(self._device) / 255 - mean) / std


class Owlv2Detector:
    """Open-vocabulary detection (OWLv2, Minderer et al. 2023) of "a photo of" a class's queries.

    Its scores are no probabilities: where a threshold lies, photographs have to say.
    """

    def __init__(self, hub_id: str, device: torch.device) -> None:
        from transformers import pipeline

        self.name = f"owlv2:{hub_id}"
        hub.use_cache_if_unreachable()
        try:
            self._detect = pipeline("zero-shot-object-detection", model=hub_id, device=device)
        except (OSError, ValueError) as error:
            raise SpurbenchError(
                f"object detector {hub_id} can't be loaded; check the network, or leave object "
                "presence unchecked with --set check.object_detector=none"
            ) from error

    def scores(
        self, images: Sequence[Image.Image], spurious_class: SpuriousClass, what: What
    ) -> list[float] | list[None]:
        """See :class:`ObjectDetector`; the score of the most confident box, 0 without one."""
        if what == "object":
            query = spurious_class.object_query or with_article(spurious_class.name)
        else:
            query = spurious_class.feature_query or spurious_class.spurious_feature
        return self._best(images, f"a photo of {query}")

    def context_scores(
        self, images: Sequence[Image.Image], context: str
    ) -> list[float] | list[None]:
        """See :class:`ObjectDetector`; of "a photo CONTEXT", as a prompt ends."""
        return self._best(images, f"a photo {context}")

    def _best(self, images: Sequence[Image.Image], label: str) -> list[float]:
        results = self._detect(
            [{"image": image, "candidate_labels": [label]} for image in images], threshold=0.0
        )
        return [max((box["score"] for box in boxes), default=0.0) for boxes in results]


_KINDS: dict[str, Callable[[str, torch.device], ObjectDetector]] = {"owlv2": Owlv2Detector}
