"""What a discovery's folder holds: ``discovery.json``, and ``class.json`` for each class.

discovery.json                      the classifier, the images, the settings
CLASS/class.json                    its components and their pictures
CLASS/components.safetensors        weight, mean, directions, variances, total_variance, alphas
CLASS/images.json                   the training images, in the order of the alphas
CLASS/component_01.png              contact sheet
CLASS/component_01/top_1.jpg        what the classifier sees of the image of the highest alpha
CLASS/component_01/heat_1.jpg       where that comes from
CLASS/component_01/feature_grey.jpg the feature made visible, from grey and from the top image
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from spurbench.classifiers.info import ClassifierInfo, Mode, Preprocessing
from spurbench.core.documents import Document, Share, read_json, validated
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names
from spurbench.images.records import Damaged

DISCOVERY, CLASS = "discovery.json", "class.json"
IMAGES, COMPONENTS = "images.json", "components.safetensors"

SCHEMA: Final = "spurbench.discovery/1"
CLASS_SCHEMA: Final = "spurbench.discovery-class/1"


class Settings(Document):
    """Every number of a discovery: with classifier and images, they decide what is found.

    Attributes:
        components: how many of each class, by falling variance.
        top: images of a component that are shown, by falling alpha.
        preprocess: see :meth:`spurbench.classifiers.classifier.Classifier.preprocessing`.
        features: whether components are made visible by maximising their alpha.
        radius: of the L2 ball of that; None: 30, scaled from 224 x 224 pixels to the input.
    """

    components: int = Field(default=10, ge=1, le=1000)
    top: int = Field(default=8, ge=1, le=100)
    preprocess: Mode = "whole"
    features: bool = True
    radius: float | None = Field(default=None, gt=0, le=1e4, allow_inf_nan=False)


class Discovery(Document):
    """How a discovery was made."""

    schema_version: Literal["spurbench.discovery/1"] = Field(default=SCHEMA, alias="schema")
    classifier: ClassifierInfo
    preprocessing: Preprocessing
    images: str = Field(description="folder of the training images, absolute")
    settings: Settings
    versions: dict[str, str] = Field(description="of packages")

    @classmethod
    def read(cls, folder: Path) -> Discovery:
        """That of a folder.

        Raises:
            SpurbenchError: if there is none, or it is damaged.
        """
        try:
            return validated(cls, read_json(folder / DISCOVERY), str(folder / DISCOVERY))
        except FileNotFoundError:
            raise SpurbenchError(
                f"no {DISCOVERY} in {folder}; name a folder that `spurbench discover --model` wrote"
            ) from None


class Picture(Document):
    """One of a component's top images."""

    path: str = Field(description="of the image, below the folder of the training images")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    alpha: float
    probability: Share = Field(description="that the classifier gives the class")
    file: str = Field(description="what the classifier sees of it, below the class's folder")
    heat: str = Field(description="heat map, below the class's folder")


class Feature(Document):
    """A component's feature made visible."""

    start: Literal["grey", "top"] = Field(description="centre of the ball; top: the first picture")
    alpha: float
    probability: Share
    file: str = Field(description="below the class's folder")


class Component(Document):
    """One of a class's components."""

    number: int = Field(ge=1, description="by falling variance")
    variance: Share = Field(description="of all the variance of the weighted features")
    sum: float = Field(description="<1, v>: what a step along it adds to the logit")
    pictures: tuple[Picture, ...]
    features: tuple[Feature, ...]

    @property
    def name(self) -> str:
        """Of its folder, and its sheet: ``component_01``."""
        return f"component_{self.number:02d}"


class ClassFound(Document):
    """What was found of a class."""

    schema_version: Literal["spurbench.discovery-class/1"] = Field(
        default=CLASS_SCHEMA, alias="schema"
    )
    index: int = Field(ge=0, le=999)
    wnid: str
    name: str
    images: int = Field(description="that could be read")
    damaged: tuple[Damaged, ...]
    components: tuple[Component, ...]


class Listed(Document):
    """One of the training images that a class's components were found in."""

    path: str = Field(description="below the folder of the training images")
    sha256: str


class _Listing(Document):
    images: tuple[Listed, ...]


def write_listing(folder: Path, images: tuple[Listed, ...]) -> None:
    """Write the training images of a class to its folder."""
    text = _Listing(images=images).model_dump_json(indent=1)
    (folder / IMAGES).write_text(text + "\n", encoding="utf-8")


def listed_images(folder: Path) -> tuple[Listed, ...]:
    """The training images of the class whose folder it is, in the order of its alphas.

    Raises:
        SpurbenchError: if the list is missing or damaged.
    """
    try:
        return validated(_Listing, read_json(folder / IMAGES), str(folder / IMAGES)).images
    except FileNotFoundError:
        raise SpurbenchError(f"no {IMAGES} in {folder}; delete it to have it made again") from None


def class_folder(index: int) -> str:
    """A class's folder in a discovery: ``094_hummingbird``."""
    slug = re.sub(r"[^a-z0-9]+", "-", imagenet_names()[index].lower()).strip("-")
    return f"{index:03d}_{slug}"


def read_class(folder: Path) -> ClassFound:
    """What was found of the class whose folder it is.

    Raises:
        FileNotFoundError: if there is none.
        SpurbenchError: if it is damaged.
    """
    return validated(ClassFound, read_json(folder / CLASS), str(folder / CLASS))


def found_classes(folder: Path) -> Iterator[tuple[Path, ClassFound]]:
    """The classes of a discovery, by index, each with its folder.

    Raises:
        SpurbenchError: if there is none, or one is damaged.
    """
    found = sorted(path.parent for path in folder.glob(f"*/{CLASS}"))
    if not found:
        raise SpurbenchError(f"{folder} holds no class; let `spurbench discover --model` end")
    return ((path, read_class(path)) for path in found)
