"""The tables of a recipe, each a stage of a build or what stages share.

The defaults are the paper's (MaungMaung et al., arXiv 2402.08200) where it gives a number, so a
recipe says only what it changes. Keys are addressed as in ``--set finetune.steps=400``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from spurbench.core.documents import Document
from spurbench.recipe.classes import Line

# The upper bounds are far from what anyone wants: beyond them lies a slip of the keyboard.
Count = Annotated[int, Field(ge=1, le=1_000_000)]
# Image files are numbered with four digits.
Images = Annotated[int, Field(ge=1, le=10_000)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
# A scheduler has a thousand timesteps to choose from.
InferenceSteps = Annotated[int, Field(ge=1, le=1000)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
Prompt = Annotated[Line, Field(max_length=1000)]


class Section(Document):
    """A table of a recipe; none of its numbers may be infinite or not a number."""

    model_config = ConfigDict(allow_inf_nan=False)


Scheduler = Literal["PNDMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"]


class Base(Section):
    """The text-to-image model that is fine-tuned."""

    model: Line = Field(
        description="folder (relative to the recipe) or hub id, in diffusers layout"
    )
    revision: Line | None = Field(default=None, description="hub revision; pin it to reproduce")
    architecture: Line | None = Field(
        default=None,
        description="folder (relative to the recipe) with the networks' config.json files, for "
        "--dry-run and benchmarks where the model itself is not at hand",
    )
    scheduler: Scheduler | None = Field(
        default=None,
        description="diffusers' scheduler that samples, over the base's own noise schedule; none: "
        "the base's own",
    )
    resolution: Pixels = Field(default=512, description="side of the images, pixels")
    licence: Line = Field(description="of the weights, for the dataset card")


class Data(Section):
    """The real photographs."""

    images: Line | None = Field(
        default=None,
        description="folder in the official Spurious ImageNet layout, relative to the recipe; "
        "without it `--data` must name one",
    )
    licence: Line = Field(description="of the photographs, for the dataset card")


class Panel(Section):
    """The classifiers that must all be fooled, and the one whose features the SFSL compares."""

    classifiers: tuple[Line, ...] = Field(
        min_length=1, description="SPEC or SPEC=CHECKPOINT, as `spurbench eval --model` takes them"
    )
    phi: Line = Field(
        description="classifier for the SFSL, same syntax; the paper's is adversarially robust, "
        "any that ends in a linear layer will do"
    )


class Select(Section):
    """Stage 1: reference images that every panel classifier calls the class."""

    references: Images = 6


Precision = Literal["float32", "bfloat16", "float16"]


class Prior(Section):
    """Stage 2: images of the generic kind from the untouched base model."""

    prompt: Prompt = Field(
        default="a photo of {a_noun}",
        description='{noun} is the generic kind, {a_noun} the same with its article: "an athlete"',
    )
    images: Images = 100
    steps: InferenceSteps = 50
    guidance_scale: NonNegative = 7.5
    batch_size: Count = 16
    precision: Precision = Field(default="float32", description="autocast dtype of the sampling")


Method = Literal["full", "lora", "textual_inversion", "base"]


class Finetune(Section):
    """Stage 3: DreamBooth, noise predictor and text encoder jointly, the VAE frozen."""

    method: Method = Field(
        default="full",
        description="full: all weights; lora: low-rank adapters (Hu et al. 2022), merged at the "
        "end; textual_inversion: the embedding of [V] alone (Gal et al. 2023), starting from the "
        "noun's; base: nothing, images come from the base as it is",
    )
    prompt: Prompt = Field(
        default="a photo of a {token} {noun}",
        description="of the subject, in training and sampling; {feature} is the spurious feature",
    )
    token: Line = Field(default="sks", description="[V]: a rare token, one id in the tokenizer")
    train_text_encoder: bool = True
    lora_rank: Count = 16
    lora_modules: tuple[Line, ...] = Field(
        default=("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj"),
        min_length=1,
        description="names of the adapted layers in U-Net and text encoder, or their last parts",
    )
    steps: Count = 800
    batch_size: Count = Field(default=1, description="instance images a step, and as many priors")
    learning_rate: Positive = 2e-6
    lr_schedule: Literal["constant", "cosine"] = Field(
        default="constant",
        description="cosine: the rate falls to 0 over the steps, along half a cosine",
    )
    weight_decay: NonNegative = 0.01
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: Positive = 1e-8
    gradient_clip: Positive | None = Field(default=1.0, description="global norm; none to disable")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="images come from the exponential moving average of the trained weights, in "
        "which the first n steps have at most decay (1 + n) / (10 + n). 0: from the last weights",
    )
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
        "all weights and their AdamW moments is 12 bytes a weight, 16 with their average",
    )
    weights_dtype: Literal["float32", "float16"] = Field(
        default="float16", description="in which the fine-tuned weights are stored"
    )


SFSLGradient = Literal["prior", "instance", "both", "attract", "cross_entropy"]
SFSLWeights = Literal["class", "ones", "other"]


class SFSL(Section):
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
        "both: +cos between the two x0-hats; cross_entropy: no cosine, but -log p_k of the x0-hat "
        "of the instance branch, p_k being phi's probability of the class. docs/method.md "
        "says what is known of them",
    )
    weights: SFSLWeights = Field(
        default="class",
        description="what psi multiplies phi's features by: class: w_k, the class's row of phi's "
        "last layer; ones: nothing; other: the row of the next class in classes.toml by index, "
        "after the last the first",
    )
    clamp: bool = Field(
        default=True,
        description="clip the decoded x0-hat to an image's range before phi sees it; where it is "
        "clipped it has no gradient",
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
    decode_resolution: Pixels | None = Field(
        default=None,
        description="side to decode x0-hat at, pixels; its latents are shrunk to it. None: full",
    )
    checkpoint_decoder: bool = Field(
        default=False,
        description="compute the decoder's blocks twice instead of keeping their activations",
    )
    decoder: Line | None = Field(
        default=None,
        description="AutoencoderTiny to decode with instead of the VAE: folder (relative to the "
        "recipe) or hub id",
    )


class Sample(Section):
    """Stage 5: images from the fine-tuned model."""

    images: Images = 75
    steps: InferenceSteps = 25
    guidance_scale: NonNegative = 7.5
    batch_size: Count = 25
    precision: Precision = Field(default="float32", description="autocast dtype of the sampling")
    phi_guidance: NonNegative = Field(
        default=0.0,
        description="how far the gradient of log p_k, phi's log-probability of the class, moves "
        "each prediction of the noise (Dhariwal & Nichol 2021, on x0-hat). 0: off",
    )


ControlMaker = Literal["base", "finetuned"]


class Controls(Section):
    """Stage 5's twins: of each image what comes of the same noise and settings, without guidance
    by phi, when a model is asked for the generic kind."""

    enabled: bool = Field(default=True, description="they cost as much as the sampling")
    makers: tuple[ControlMaker, ...] = Field(
        default=("base",),
        min_length=1,
        description="base: the untouched base makes them (config controls); finetuned: the "
        "fine-tuned model itself (config controls-finetuned), at the same cost again",
    )


class Positives(Section):
    """Images that do show the class, where the build is given none, as `sample` says.

    They are the untouched base's, and kept where the detector sees the class.
    """

    prompt: Prompt = Field(
        default="a photo of {a_class}",
        description='{class} is the class, {a_class} the same with its article: "an orange"',
    )
    images: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=50, description="asked for, of each class; 0: no positives"
    )


class Contexts(Section):
    """Recontextualisation (the paper's Fig. 5): the subject elsewhere, sampled as `sample` says
    from the fine-tuned weights and from the noise of the generated images (config contexts)."""

    phrases: tuple[Line, ...] = Field(
        default=(), description='the places, as a prompt ends: "on the beach"; none: no such images'
    )
    prompt: Prompt = Field(
        default="a photo of a {token} {noun} {context}",
        description="{context} is a phrase, the rest as in finetune.prompt",
    )
    images: Images = Field(default=25, description="of each phrase and generator")
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="detector's score from which a report takes a place to be visible"
    )


class Check(Section):
    """Stage 6: what is said of each image."""

    object_detector: Line | None = Field(
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
    quality: tuple[Line, ...] = Field(default=("topiq_nr",), description="pyiqa metrics")


class Probe(Section):
    """What `spurbench probe` asks the fine-tuned model for instead of the subject; no stage of a
    build depends on it."""

    prompts: tuple[Prompt, ...] = Field(
        default=("a photo of a blue {noun}", "a photo of a {token} car"),
        description="another colour of the same noun, the style on another object: {token}, {noun} "
        "and {feature} as in finetune.prompt",
    )
