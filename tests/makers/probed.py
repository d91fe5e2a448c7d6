"""Pictures of a striped disc, and classifiers that know it by its colour, outline or texture."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from spurbench.classifiers.classifier import Classifier, Loaded, assemble
from spurbench.images.records import ImageRecord, ImageSet

SIDE, CLASS = 64, 94
CENTRE = 0.5, 0.5


def disc(radius: float) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    return (y - CENTRE[0]) ** 2 + (x - CENTRE[1]) ** 2 < radius**2


def background(seed: int) -> np.ndarray:
    y, _ = np.mgrid[:SIDE, :SIDE]
    shade = np.random.default_rng(seed).uniform(20, 50)
    return np.repeat((shade + y / 8)[..., None], 3, axis=2).astype(np.uint8)


def picture(seed: int) -> np.ndarray:
    """A red disc with fine stripes, light and dark, before grey."""
    pixels = background(seed)
    stripes = np.where(np.arange(SIDE) // 2 % 2, 1.0, 0.55)[None, :, None]
    pixels[disc(0.3)] = (stripes * (245, 120, 95) + 0 * pixels)[disc(0.3)].astype(np.uint8)
    return pixels


def by_colour(pixels: Tensor) -> Tensor:
    """How red it is, on the whole."""
    red, green, blue = pixels.mean(dim=(2, 3)).T
    return red - torch.maximum(green, blue) - 0.05


def by_outline(pixels: Tensor) -> Tensor:
    """How much brighter the disc is than the rest."""
    value = pixels.max(dim=1).values
    inside = torch.from_numpy(disc(0.3))
    return value[:, inside].mean(dim=1) - value[:, ~inside].mean(dim=1) - 0.25


def by_texture(pixels: Tensor) -> Tensor:
    """How much changes over a few pixels, anywhere."""
    value = pixels.max(dim=1, keepdim=True).values
    return (value - avg_pool2d(value, 5, 1, 2)).abs().mean(dim=(1, 2, 3)) - 0.04


class _Rule(nn.Module):
    """Answers the class where a rule gives more than 0, and class 0 else."""

    def __init__(self, rule: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rule = rule
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, pixels: Tensor) -> Tensor:
        logits = torch.zeros(len(pixels), 1000)
        logits[:, CLASS] = 10 * self.rule(pixels)
        return logits


@dataclass(frozen=True)
class RuleMember:
    """What a probe asks for: loads a classifier that follows a rule."""

    rule: Callable[[Tensor], Tensor]

    def load(self, device: object) -> Classifier:
        name = self.rule.__name__
        loaded = Loaded(
            network=_Rule(self.rule),
            name=name,
            architecture="rule",
            input_size=(SIDE, SIDE),
            resize=(SIDE,),
            interpolation="bicubic",
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            weights_sha256=hashlib.sha256(name.encode()).hexdigest(),
        )
        return assemble(loaded, spec=name, source="timm")


RULES = [RuleMember(rule) for rule in (by_colour, by_outline, by_texture)]


def record(pixels: np.ndarray, source: str, twin_of: str | None = None) -> ImageRecord:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    data = buffer.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    return ImageRecord(
        path=f"{source}/{sha256[:6]}",
        class_index=CLASS,
        source=source,
        sha256=sha256,
        read=partial(bytes, data),
        class_name="hummingbird",
        spurious_feature="striped disc",
        twin_of=twin_of,
    )


def image_set(real: int = 2, generated: int = 3, twins: Sequence[int] = (0, 1)) -> ImageSet:
    """Real and generated pictures, of which some of the latter have their twin."""
    made = [record(picture(100 + i), "generated") for i in range(generated)]
    records = [record(picture(i), "real") for i in range(real)] + made
    controls = [record(background(100 + i), "control", made[i].sha256) for i in twins]
    of = partial(ImageSet.of, damaged=[], name="discs", kind="dataset", where="discs")
    images = of(records)
    return ImageSet(
        images.records,
        (),
        images.info,
        controls=of(controls) if controls else None,
    )
