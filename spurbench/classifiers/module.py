"""Networks that are given as they are, through the Python API."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image
from torch import Tensor, nn

from spurbench.classifiers import timm
from spurbench.classifiers.classifier import Classifier, Loaded, assemble
from spurbench.classifiers.folder import DataConfig
from spurbench.classifiers.names import is_published
from spurbench.core.documents import validated
from spurbench.core.errors import SpurbenchError, reason


def from_module(
    network: nn.Module,
    *,
    name: str,
    transform: Callable[[Image.Image], Tensor] | None = None,
    labels: Sequence[str | int] | None = None,
    input_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Classifier:
    """A classifier of any network; a copy of it, so that nothing happens to the one that is given.

    Args:
        network: from normalised images (N, 3, height, width) to logits (N, classes).
        name: what to call it; not the name of published weights, for nobody knows that it has them.
        transform: makes the network's input, (3, height, width) and normalised if need be, of an
            RGB image, as torchvision's transforms do. Without it images are resized as
            :meth:`Classifier.preprocessing` says, and normalised with ``mean`` and ``std``.
        labels: of the outputs, for a head that is not one of ImageNet's: WordNet ids, names or
            indices of ImageNet-1k.
        input_size: side, or (height, width), in pixels. Default: what a timm network says of
            itself, else 224.
        mean: of the normalisation, three of them. Default: a timm network's own, else ImageNet's.
        std: of the normalisation; see ``mean``.

    Returns:
        The classifier, on the CPU, in float32.

    Raises:
        SpurbenchError: if the name is that of published weights, the network does not answer or
            its labels are not known, or a transform is given together with what it replaces.
    """
    if not name.strip():
        raise SpurbenchError("a network needs a name; say name='...'")
    if is_published(name):
        raise SpurbenchError(
            f"{name!r} is the name of published weights; give the network a name of its own, or "
            "measure those by their SPEC"
        )
    try:
        own = copy.deepcopy(network).cpu()
    except Exception as error:  # what can't be copied says so in many ways
        raise SpurbenchError(f"{name} can't be copied: {reason(error)}") from None
    given = {"input_size": input_size, "mean": mean, "std": std}
    if transform is not None:
        double = [key for key, value in given.items() if value is not None]
        if double:
            raise SpurbenchError(f"{name}: {double[0]} is the transform's to say; leave it out")
        loaded = _with_transform(own, name, transform)
    else:
        if isinstance(input_size, int):
            given["input_size"] = (input_size, input_size)
        loaded = timm.loaded(own, name, type(network).__name__, _data(own, name, given))
    return assemble(replace(loaded, labels=labels), spec=f"module:{name}", source="module")


def _data(network: nn.Module, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a timm network says of its images, and over it what is given."""
    said = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None)
    said = said if isinstance(said, Mapping) else {"crop_pct": 1.0}
    known = {key: said[key] for key in DataConfig.model_fields if said.get(key) is not None}
    known |= {key: tuple(value) for key, value in given.items() if value is not None}
    if given["input_size"] is not None:
        known["input_size"] = (3, *given["input_size"])
    return validated(DataConfig, known, name).model_dump(exclude_none=True)


@dataclass(frozen=True)
class _Checked:
    """A function of the user's own, held to what it gave for the first image."""

    transform: Callable[[Image.Image], Tensor]
    name: str
    size: tuple[int, int] | None = None

    def __call__(self, image: Image.Image) -> Tensor:
        try:
            pixels = self.transform(image)
        except Exception as error:  # a function of the user's own raises what it likes
            raise SpurbenchError(f"{self.name}: its transform fails: {reason(error)}") from error
        if not isinstance(pixels, Tensor) or pixels.dim() != 3 or len(pixels) != 3:
            raise SpurbenchError(f"{self.name}: its transform gives no tensor (3, height, width)")
        if self.size not in (None, tuple(pixels.shape[1:])):
            raise SpurbenchError(
                f"{self.name}: its transform gives images of several sizes; end it in a crop"
            )
        # As it is, whatever its type: bytes would be taken for an image still to be scaled.
        return pixels.float()

    def __repr__(self) -> str:
        return repr(self.transform)


def _with_transform(
    network: nn.Module, name: str, transform: Callable[[Image.Image], Tensor]
) -> Loaded:
    """The network with a transform of the user's own, whose output's size one image tells."""
    height, width = _Checked(transform, name)(Image.new("RGB", (320, 256))).shape[1:]
    return Loaded(
        network=network,
        name=name,
        architecture=type(network).__name__,
        input_size=(height, width),
        resize=(),
        interpolation=None,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        transform=_Checked(transform, name, (height, width)),
    )
