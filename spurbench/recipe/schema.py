"""A build's every number, read from ``builders/NAME/recipe.toml`` and validated.

The defaults are the paper's (MaungMaung et al., arXiv 2402.08200), so a recipe says only what it
changes. Keys are addressed as in ``--set finetune.steps=400``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, model_validator

from spurbench.core.documents import Document
from spurbench.recipe.classes import ClassRegistry, SpuriousClass

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Base(Document):
    """The text-to-image model that is fine-tuned."""

    model: str = Field(description="folder (relative to the recipe) or hub id, in diffusers layout")
    revision: str | None = Field(default=None, description="hub revision; pin it to reproduce")
    architecture: str | None = Field(
        default=None,
        description="folder (relative to the recipe) with the networks' config.json files, for "
        "--dry-run and benchmarks where the model itself is not at hand",
    )
    resolution: Count = Field(default=512, description="side of the images, pixels")
    licence: str = Field(description="of the weights, for the dataset card")


class Data(Document):
    """The real photographs."""

    images: str | None = Field(
        default=None,
        description="folder in the official Spurious ImageNet layout, relative to the recipe; "
        "without it `--data` must name one",
    )
    licence: str = Field(description="of the photographs, for the dataset card")


class Panel(Document):
    """The classifiers that must all be fooled, and the one whose features the SFSL compares."""

    classifiers: tuple[str, ...] = Field(
        min_length=1, description="SPEC or SPEC=CHECKPOINT, as `spurbench eval --model` takes them"
    )
    phi: str = Field(description="adversarially robust classifier for the SFSL, same syntax")


class Select(Document):
    """Stage 1: reference images that every panel classifier calls the class."""

    references: Count = 6


Precision = Literal["float32", "bfloat16", "float16"]


class Prior(Document):
    """Stage 2: images of the generic kind from the untouched base model."""

    prompt: str = "a photo of a {noun}"
    images: Count = 100
    steps: Count = 50
    guidance_scale: NonNegative = 7.5
    batch_size: Count = 16
    precision: Precision = Field(default="float32", description="autocast dtype of the sampling")


Method = Literal["full", "lora", "textual_inversion", "base"]


class Finetune(Document):
    """Stage 3: DreamBooth, noise predictor and text encoder jointly, the VAE frozen."""

    method: Method = Field(
        default="full",
        description="full: all weights; lora: low-rank adapters (Hu et al. 2022), merged at the "
        "end; textual_inversion: the embedding of [V] alone (Gal et al. 2023), starting from the "
        "noun's; base: nothing, images come from the base as it is",
    )
    prompt: str = Field(
        default="a photo of a {token} {noun}",
        description="of the subject, in training and sampling; {feature} is the spurious feature",
    )
    token: str = Field(default="sks", description="[V]: a rare token, one id in the tokenizer")
    train_text_encoder: bool = True
    lora_rank: Count = 16
    lora_modules: tuple[str, ...] = Field(
        default=("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj"),
        min_length=1,
        description="names of the adapted layers in U-Net and text encoder, or their last parts",
    )
    steps: Count = 800
    batch_size: Count = Field(default=1, description="instance images a step, and as many priors")
    learning_rate: Positive = 2e-6
    weight_decay: NonNegative = 0.01
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: Positive = 1e-8
    gradient_clip: Positive | None = Field(default=1.0, description="global norm; none to disable")
    prior_weight: NonNegative = Field(default=1.0, description="lambda, the weight of L_PPL")
    precision: Precision = Field(
        default="float32", description="autocast dtype; master weights are always float32"
    )
    gradient_checkpointing: bool = False
    compile: bool = Field(
        default=False,
        description="torch.compile the U-Net while it is trained; compiled once for all classes "
        "where method is full or textual_inversion",
    )
    checkpoint_every: Count = Field(
        default=200,
        description="steps between checkpoints, and between looks at the losses; a checkpoint of "
        "all weights and their AdamW moments is 12 bytes a weight",
    )
    weights_dtype: Literal["float32", "float16"] = Field(
        default="float16", description="in which the fine-tuned weights are stored"
    )


SFSLGradient = Literal["prior", "instance", "both", "attract"]


class SFSL(Document):
    """Stage 3's spurious feature similarity loss.

    Read literally on fixed images, cos(psi(x), psi(x')) has no gradient in the model's weights, so
    images must come from the model: the prediction x0-hat of the step in hand, decoded by the VAE.
    """

    kappa: NonNegative | None = Field(
        default=None, description="for every class; none: as classes.toml says. 0 turns SFSL off"
    )
    default_kappa: NonNegative = Field(
        default=1.0, description="for classes to which classes.toml gives none"
    )
    gradient: SFSLGradient = Field(
        default="attract",
        description="attract: 1 - cos(psi(x0-hat of the instance branch), psi(reference)); "
        "prior: +cos(psi(reference), psi(x0-hat of the prior branch)); "
        "instance: +cos(psi(x0-hat of the instance branch), psi(prior image)); "
        "both: +cos between the two x0-hats. Chosen by the ablation in docs/mini-world.md",
    )
    timestep_weighting: Literal["uniform", "alpha_bar"] = Field(
        default="alpha_bar",
        description="weight of each sample's cosine; alpha_bar trusts x0-hat less the noisier z_t",
    )
    every: Count = Field(default=1, description="apply on every n-th step, n times as strong")
    max_timestep: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="apply only to samples below this share of the timesteps; the others have "
        "weight 0 and cost nothing",
    )
    decode_resolution: Count | None = Field(
        default=None,
        description="side to decode x0-hat at, pixels; its latents are shrunk to it. None: full",
    )
    checkpoint_decoder: bool = Field(
        default=False,
        description="compute the decoder's blocks twice instead of keeping their activations",
    )
    decoder: str | None = Field(
        default=None,
        description="AutoencoderTiny to decode with instead of the VAE: folder (relative to the "
        "recipe) or hub id",
    )


class Sample(Document):
    """Stage 5: images from the fine-tuned model."""

    images: Count = 75
    steps: Count = 25
    guidance_scale: NonNegative = 7.5
    batch_size: Count = 25
    precision: Precision = Field(default="float32", description="autocast dtype of the sampling")


class Check(Document):
    """Stage 6: what is said of each image."""

    object_detector: str | None = Field(
        default=None,
        description="folder (relative to the recipe) of a multi-label classifier with outputs "
        "object:NAME and feature:NAME, or owlv2:HUB_ID; none leaves object_absent and "
        "feature_present null",
    )
    object_threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="score from which the class object counts as present"
    )
    feature_threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="score from which the spurious feature counts as present"
    )
    quality: tuple[str, ...] = Field(default=("topiq_nr",), description="pyiqa metrics")


class Recipe(Document):
    """Everything that decides what a build produces, but for the seed and the classes."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    description: str
    base: Base
    data: Data
    panel: Panel
    select: Select = Select()
    prior: Prior = Prior()
    finetune: Finetune = Finetune()
    sfsl: SFSL = SFSL()
    sample: Sample = Sample()
    check: Check = Check()

    _folder: Path = PrivateAttr()
    _classes: ClassRegistry = PrivateAttr()

    def at(self, folder: Path, classes: ClassRegistry) -> Recipe:
        """This recipe, read from ``folder``, where its relative paths start, with its classes."""
        recipe = self.model_copy()
        recipe._folder, recipe._classes = folder, classes
        return recipe

    @property
    def folder(self) -> Path:
        """The folder it was read from."""
        return self._folder

    @property
    def classes(self) -> ClassRegistry:
        """The (class, spurious feature) pairs that can be built."""
        return self._classes

    def locate(self, name: str) -> str:
        """A folder of the recipe's own by its whole path; a hub id, or whatever else, as it is."""
        folder = self.folder / name
        return str(folder) if folder.is_dir() else name

    @model_validator(mode="after")
    def _prompts_can_be_filled(self) -> Recipe:
        for section, prompt, fields in (
            ("prior", self.prior.prompt, ("noun",)),
            ("finetune", self.finetune.prompt, ("noun", "token", "feature")),
        ):
            try:
                prompt.format(**dict.fromkeys(fields, ""))
            except (KeyError, IndexError, ValueError):
                known = ", ".join(f"{{{field}}}" for field in fields)
                raise ValueError(f"{section}.prompt {prompt!r} may only use {known}") from None
        if "{token}" not in self.finetune.prompt and self.finetune.method != "base":
            raise ValueError("finetune.prompt must contain {token}, the subject's identifier")
        return self

    def kappa_of(self, spurious_class: SpuriousClass) -> float:
        """The SFSL weight of a class: the recipe's if set, else the class's, else the default."""
        for kappa in (self.sfsl.kappa, spurious_class.kappa):
            if kappa is not None:
                return kappa
        return self.sfsl.default_kappa

    def prior_prompt(self, spurious_class: SpuriousClass) -> str:
        """The generic prompt, e.g. "a photo of a flower"."""
        return self.prior.prompt.format(noun=spurious_class.noun)

    def instance_prompt(self, spurious_class: SpuriousClass) -> str:
        """The subject's prompt, e.g. "a photo of a sks flower"."""
        return self.finetune.prompt.format(
            noun=spurious_class.noun,
            token=self.finetune.token,
            feature=spurious_class.spurious_feature,
        )
