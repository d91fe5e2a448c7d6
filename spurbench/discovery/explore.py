"""One class: its components, their top images, and pictures of what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from spurbench.classifiers.classifier import Classifier
from spurbench.core import atomic
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.core.progress import progress
from spurbench.core.scratch import scratch
from spurbench.discovery.attack import maximise, radius_for
from spurbench.discovery.documents import (
    CLASS,
    COMPONENTS,
    ClassFound,
    Component,
    Feature,
    Listed,
    Picture,
    Settings,
    write_listing,
)
from spurbench.discovery.heat import GREY, attributions, heat_map, overlay
from spurbench.discovery.lens import Lens, scaled
from spurbench.discovery.neural_pca import Components, Moments
from spurbench.images.pixels import decode
from spurbench.images.records import Damaged, ImageRecord
from spurbench.images.sheets import contact_sheet

SHEET_SIDE = 112
"""Pixels of an image on a contact sheet."""


@dataclass(frozen=True)
class Explorer:
    """A classifier that is looked into, and how.

    Attributes:
        classifier: which ends in a linear layer.
        settings: every number.
        batch_size: images at a time.
        decoders: threads that decode meanwhile; 0 decodes in between.
    """

    classifier: Classifier
    settings: Settings
    batch_size: int
    decoders: int

    def explore(self, index: int, images: Sequence[ImageRecord], folder: Path) -> None:
        """Write what is found of a class to a new folder, whole or not at all.

        The features lie on disk meanwhile: memory does not grow with the images.

        Args:
            index: of the class.
            images: its training images.
            folder: as :mod:`spurbench.discovery.documents` says.

        Raises:
            SpurbenchError: if the classifier lacks the class, fewer than two images can be read,
                a feature is not finite, or the folder can't be written.
        """
        wnid = imagenet_wnids()[index]
        column = int(self.classifier.columns([wnid])[0])
        weight = self.classifier.head_weight[column].detach().double().cpu().numpy()
        with scratch() as place, atomic.folder(folder) as new:
            features, readable, damaged = self._features(images, place / "features")
            moments = Moments(len(weight))
            for part in self._parts(features):
                moments.add(part * weight)
            components = Components.of(moments, weight, self.settings.components)
            alphas = np.concatenate([components.alphas(part) for part in self._parts(features)])
            kept = [images[i] for i in readable]
            looking = _Looking(self, column, Lens(self.classifier, components), new)
            found = ClassFound(
                index=index,
                wnid=wnid,
                name=imagenet_names()[index],
                images=len(kept),
                damaged=tuple(damaged),
                components=tuple(
                    looking.component(position, components, alphas[:, position], kept)
                    for position in range(len(components.sums))
                ),
            )
            components.save(new / COMPONENTS, alphas)
            write_listing(new, tuple(Listed(path=i.path, sha256=i.sha256) for i in kept))
            text = found.model_dump_json(by_alias=True, indent=2)
            (new / CLASS).write_text(text + "\n", encoding="utf-8")

    def pixels(self, images: Sequence[ImageRecord]) -> Tensor:
        """Readable images as the classifier takes them, (N, 3, height, width) in [0, 1]."""
        preprocessing = self.classifier.preprocessing(self.settings.preprocess)
        (batch,) = decode(images, preprocessing, batch_size=len(images), decoders=self.decoders)
        assert isinstance(batch.pixels, Tensor)
        return scaled(batch.pixels, self.classifier)

    def _features(
        self, images: Sequence[ImageRecord], file: Path
    ) -> tuple[NDArray[np.float32], list[int], list[Damaged]]:
        """Features (N, D) of readable images, in a file; their positions; the other images."""
        classifier, name = self.classifier, self.classifier.info.name
        size = classifier.head_weight.shape[1]
        readable: list[int] = []
        damaged: list[Damaged] = []
        batches = decode(
            images,
            classifier.preprocessing(self.settings.preprocess),
            batch_size=self.batch_size,
            decoders=self.decoders,
        )
        with progress(name, len(images), unit="img") as advance, file.open("wb") as out:
            for batch in batches:
                damaged += [
                    Damaged(path=images[i].path, reason=why) for i, why in batch.damaged.items()
                ]
                if len(batch.positions):
                    assert isinstance(batch.pixels, Tensor)
                    with torch.inference_mode():
                        features = classifier.features(scaled(batch.pixels, classifier))
                    values = features.float().cpu().numpy()
                    if not np.isfinite(values).all():
                        raise SpurbenchError(
                            f"{name} has features that are NaN or infinite; its weights are damaged"
                        )
                    values.tofile(out)
                    readable += batch.positions.tolist()
                advance(len(batch.positions) + len(batch.damaged))
        if not readable:
            raise SpurbenchError(
                f"none of the {len(images)} images of {images[0].class_name} "
                f"can be read; the first: {damaged[0].reason}"
            )
        return np.memmap(file, np.float32, "r", shape=(len(readable), size)), readable, damaged

    def _parts(self, features: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        return [features[i : i + 1024] for i in range(0, len(features), 1024)]


@dataclass(frozen=True)
class _Looking:
    """Makes the pictures of one class's components."""

    explorer: Explorer
    column: int
    lens: Lens
    folder: Path

    def component(
        self,
        position: int,
        components: Components,
        alphas: NDArray[np.float64],
        images: Sequence[ImageRecord],
    ) -> Component:
        """A component, its pictures written; ``alphas`` (N,) are the images' own."""
        settings = self.explorer.settings
        order = np.argsort(-alphas, kind="stable")[: settings.top]
        chosen = [images[i] for i in order]
        pixels = self.explorer.pixels(chosen)
        found = Component(
            number=position + 1,
            variance=min(1.0, components.variances[position] / components.total_variance)
            if components.total_variance > 0
            else 0.0,
            sum=float(components.sums[position]),
            pictures=(),
            features=(),
        )
        (self.folder / found.name).mkdir()
        shown = [_image(one) for one in pixels]
        heated = [
            overlay(image, heat_map(attribution))
            for image, attribution in zip(shown, self._attributions(pixels, position), strict=True)
        ]
        pictures = [
            Picture(
                path=image.path,
                sha256=image.sha256,
                alpha=float(alphas[i]),
                probability=probability,
                file=self._save(shown[rank], f"{found.name}/top_{rank + 1}.jpg"),
                heat=self._save(heated[rank], f"{found.name}/heat_{rank + 1}.jpg"),
            )
            for rank, (i, image, probability) in enumerate(
                zip(order, chosen, self._probabilities(pixels), strict=True)
            )
        ]
        features, visible = self._features(position, pixels[:1], found.name)
        found = found.model_copy(update={"pictures": tuple(pictures), "features": tuple(features)})
        title = f"{images[0].class_name}, component {found.number}"
        rows = [
            (f"{title}: {found.variance:.0%} of the variance, <1, v> {found.sum:.2f}", None),
            (f"alpha {pictures[0].alpha:.1f}..{pictures[-1].alpha:.1f}", shown),
            ("heat", heated),
            *([("from grey, from first", visible)] if visible else []),
        ]
        contact_sheet(rows, side=SHEET_SIDE).save(self.folder / f"{found.name}.png", optimize=True)
        return found

    def _attributions(self, pixels: Tensor, position: int) -> NDArray[np.float32]:
        size = self.explorer.batch_size
        parts = [attributions(self.lens, part, position).cpu() for part in pixels.split(size)]
        return torch.cat(parts).numpy()

    def _features(
        self, position: int, top: Tensor, name: str
    ) -> tuple[list[Feature], list[Image.Image]]:
        settings = self.explorer.settings
        if not settings.features:
            return [], []
        starts = torch.cat([torch.full_like(top, GREY), top])
        which = torch.full((len(starts),), position, device=starts.device)
        radius = settings.radius or radius_for(self.lens.classifier.input_size)
        found = maximise(self.lens, starts, which, radius=radius)
        with torch.inference_mode():
            alphas = self.lens(found)[:, position].tolist()
        images = [_image(one) for one in found]
        centres: tuple[Literal["grey", "top"], ...] = ("grey", "top")
        features = [
            Feature(
                start=start,
                alpha=alpha,
                probability=probability,
                file=self._save(image, f"{name}/feature_{start}.jpg"),
            )
            for start, alpha, probability, image in zip(
                centres, alphas, self._probabilities(found), images, strict=True
            )
        ]
        return features, images

    def _probabilities(self, pixels: Tensor) -> list[float]:
        with torch.inference_mode():
            return self.lens.classifier(pixels).double().softmax(1)[:, self.column].tolist()

    def _save(self, image: Image.Image, file: str) -> str:
        image.save(self.folder / file, quality=92, subsampling=0)
        return file


def _image(pixels: Tensor) -> Image.Image:
    """(3, height, width) in [0, 1] as an image."""
    return Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).cpu().numpy())
