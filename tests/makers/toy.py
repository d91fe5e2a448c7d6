"""Toy-sized models of the real architectures, for tests that must finish in seconds."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import timm
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from spurbench.diffusion.objective import Subject


def toy_pipeline(prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    """A randomly initialised Stable Diffusion: 32 px, 8 x 8 latents, thousands of parameters.

    With ``v_prediction`` it is built as 2.x is: heads by block, linear projections around the
    attention, and another activation in the text encoder.
    """
    second = prediction_type == "v_prediction"
    torch.manual_seed(0)
    letters = [*string.ascii_lowercase, *(c + "</w>" for c in string.ascii_lowercase)]
    merges = [("s", "k"), ("sk", "s</w>")]
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *letters, "sk", "sks</w>"]
    tokenizer = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(vocabulary)},
        merges=merges,
        model_max_length=24,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=24,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
            hidden_act="gelu" if second else "quick_gelu",
        )
    )
    blocks = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    vae = AutoencoderKL(
        latent_channels=4,
        sample_size=32,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=[2, 4] if second else 2,
        use_linear_projection=second,
        **blocks,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        set_alpha_to_one=False,
        prediction_type=prediction_type,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_toy_pipeline(folder: Path, prediction_type: str = "epsilon") -> Path:
    """Save a toy pipeline to ``folder`` and return it."""
    toy_pipeline(prediction_type).save_pretrained(folder)
    return folder


def noise_images(
    count: int, seed: int, side: int = 32, width: int | None = None
) -> list[Image.Image]:
    """Images of noise, ``side`` pixels high and, unless ``width`` says otherwise, as wide."""
    shape = (side, width or side, 3)
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def toy_subject(**changes: object) -> Subject:
    """A subject of noise, wide and high, with a small random convolutional network as phi."""
    torch.manual_seed(1)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 5, stride=4),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(96, 7),
    ).requires_grad_(False)
    subject = Subject(
        index=94,
        references=noise_images(3, 0, side=32, width=48),
        priors=noise_images(4, 1, side=44, width=32),
        reference_names=["r0.png", "r1.png", "r2.png"],
        prior_names=["p0.png", "p1.png", "p2.png", "p3.png"],
        instance_prompt="a photo of a sks flower",
        prior_prompt="a photo of a flower",
        noun="flower",
        resolution=32,
        kappa=1.0,
        phi=network,
        phi_input=(20, 20),
        class_weight=torch.linspace(-1, 1, 7),
        log_probability=lambda pixels: network(pixels).log_softmax(dim=1)[:, 2],
    )
    return replace(subject, **changes)


def save_toy_classifier(folder: Path, *, favourite: int | None, seed: int) -> Path:
    """Save a tiny random ImageNet-1k classifier in timm's hub format.

    With a ``favourite`` class it answers that, whatever it is shown, yet its probabilities and
    features depend on the image.
    """
    torch.manual_seed(seed)
    arguments = {"channels": [8, 8, 16, 16], "stem_width": 8}
    model = timm.create_model("resnet10t", num_classes=1000, **arguments)
    if favourite is not None:
        with torch.no_grad():
            model.fc.bias[favourite] += 20
    return _save_timm(folder, model, {"num_classes": 1000, "model_args": arguments})


def save_toy_detector(folder: Path, labels: Sequence[str]) -> Path:
    """Save a tiny random multi-label detector with outputs such as ``object:NAME``."""
    torch.manual_seed(3)
    arguments = {"channels": [8, 8, 16, 16], "stem_width": 8}
    model = timm.create_model("resnet10t", num_classes=len(labels), **arguments)
    return _save_timm(
        folder,
        model,
        {"num_classes": len(labels), "model_args": arguments, "label_names": list(labels)},
    )


def _save_timm(folder: Path, model: torch.nn.Module, config: dict[str, object]) -> Path:
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    config |= {
        "architecture": "resnet10t",
        "pretrained_cfg": {
            "input_size": [3, 32, 32],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def save_noise_images(
    folder: Path, count: int, seed: int, side: int = 32, width: int | None = None
) -> Path:
    """Save PNG files of noise."""
    folder.mkdir(parents=True)
    for i, image in enumerate(noise_images(count, seed, side, width)):
        image.save(folder / f"{i}.png")
    return folder


def toy_recipe(folder: Path) -> Path:
    """A whole recipe that builds in seconds: classes hummingbird and koala, toy models and noise.

    Every panel classifier answers hummingbird always, so koala has no references and must fail.
    No two settings that might be taken for each other have one value, and no photograph is square.
    """
    save_toy_pipeline(folder / "base")
    save_toy_classifier(folder / "one", favourite=94, seed=1)
    save_toy_classifier(folder / "two", favourite=94, seed=2)
    save_toy_detector(folder / "detector", ["object:hummingbird", "object:koala"])
    for slug, seed in (("094_hummingbird_component_2", 1), ("105_koala_component_3", 2)):
        save_noise_images(folder / "real" / f"spurious_class_{slug}", 5, seed, width=48)
    (folder / "recipe.toml").write_text(
        f"""
name = "toy"
description = "Noise."
[base]
model = "base"
resolution = 32
licence = "none"
[data]
images = "real"
licence = "none"
[panel]
classifiers = ["{folder / "one"}", "{folder / "two"}"]
phi = "{folder / "two"}"
[select]
references = 3
[prior]
images = 5
steps = 3
guidance_scale = 3.5
batch_size = 4
[finetune]
steps = 3
learning_rate = 1e-3
weight_decay = 0.2
beta1 = 0.8
beta2 = 0.95
epsilon = 1e-6
gradient_clip = 0.6
prior_weight = 0.9
checkpoint_every = 1
[sfsl]
default_kappa = 0.4
gradient = "both"
decode_resolution = 16
max_timestep = 0.85
[sample]
images = 4
steps = 2
guidance_scale = 5.5
batch_size = 2
[positives]
images = 6
[check]
object_detector = "detector"
object_threshold = 0.45
feature_threshold = 0.55
quality = []
"""
    )
    (folder / "classes.toml").write_text(
        """
[[classes]]
index = 94
wnid = "n01833805"
name = "hummingbird"
spurious_feature = "red <b>flowers</b> | pipes"
component = 2
noun = "flower"
kappa = 0.7
[[classes]]
index = 105
wnid = "n01882714"
name = "koala"
spurious_feature = "eucalyptus"
component = 3
noun = "tree"
"""
    )
    return folder
