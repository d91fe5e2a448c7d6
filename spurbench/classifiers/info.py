"""Which classifier was measured and how its pixels were made: what results say, without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from spurbench.core.documents import Document

Mode = Literal["whole", "model"]

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

SourceName = Literal[
    "timm",
    "torchvision",
    "robustbench",
    "hf-hub",
    "transformers",
    "open_clip",
    "onnx",
    "folder",
    "mini",
    "module",
    "vlm",
]

YES_NO = "yes/no"
"""The head of what is asked whether a class is there."""


class Mended(Document):
    """What `spurbench mend` made a classifier of, as its config.json says."""

    base: str = Field(pattern=r"^[0-9a-f]{64}$", description="its weights_sha256 before")
    method: str = Field(max_length=100)
    dataset: str | None = Field(
        default=None, max_length=500, description="of the images that were what is not the class"
    )


class ClassifierInfo(Document):
    """Which classifier was measured."""

    spec: str = Field(description="as asked for")
    name: str = Field(
        description="resolved in full, e.g. vit_base_patch16_224.augreg_in21k_ft_in1k"
    )
    source: SourceName = Field(description="module: given as a network through the Python API")
    architecture: str
    parameters: int
    head: str = Field(
        description="label space: imagenet-1k, or one of its own with outputs and hash of labels"
    )
    weights_sha256: str = Field(
        description="over the loaded state dict, not over a file; open_clip: with the prompts; "
        "onnx: over the files"
    )
    checkpoint: str | None = Field(default=None, description="file name given with --checkpoint")
    training_data: str | None = Field(
        default=None, description="what a local classifier's config.json says of it"
    )
    mended: Mended | None = None

    @model_serializer(mode="wrap")
    def _unchanged_unless_mended(self, handler: SerializerFunctionWrapHandler) -> Any:
        # Keys of answers and builds are hashes over these values.
        values = handler(self)
        if self.mended is None:
            values.pop("mended", None)
        return values


class Preprocessing(Document):
    """From a decoded RGB image to the classifier's pixels, in this order."""

    mode: Mode = Field(
        description="whole: short side to the input size, then centre crop; "
        "model: the classifier's own evaluation transform"
    )
    resize: tuple[int, ...] = Field(description="(short side,) or (height, width), pixels")
    crop: tuple[int, int] | None = Field(
        default=None,
        description="centre crop, (height, width), pixels; null for a model that takes images of "
        "any size",
    )
    interpolation: Interpolation | None = Field(default=None, description="null with a transform")
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    transform: str | None = Field(
        default=None,
        description="repr of the function that made the pixels instead, given through the Python "
        "API; only the size of what it returns (crop) is known then. Or the settings of a model's "
        "own processor of images",
    )
    prompt: str | None = Field(
        default=None,
        description="what an image-text model is asked, its chat template included, of a class "
        "called KLASS",
    )
    answers: dict[str, list[str]] | None = Field(
        default=None, description="the tokens that are taken for the answers no and yes to it"
    )

    @model_serializer(mode="wrap")
    def _unchanged_without_a_function(self, handler: SerializerFunctionWrapHandler) -> Any:
        # Keys of results and builds are hashes over these values.
        values = handler(self)
        for key in ("transform", "prompt", "answers"):
            if getattr(self, key) is None:
                values.pop(key, None)
        return values


def display_name(name: str, checkpoint: str | None) -> str:
    """What a classifier is called in tables: its name, with its checkpoint where it has one."""
    return f"{name} + {checkpoint}" if checkpoint else name
