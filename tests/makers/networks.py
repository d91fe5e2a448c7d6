"""Tiny networks of other libraries, saved as those save them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor


def save_toy_vit(
    folder: Path, labels: Sequence[str] | None = None, outputs: int = 1000, **processor: object
) -> Path:
    """Save a tiny random image classifier of transformers; 32 pixels."""
    torch.manual_seed(0)
    named = {} if labels is None else {"id2label": dict(enumerate(labels))}
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        num_labels=outputs if labels is None else len(labels),
        **named,
    )
    network = ViTForImageClassification(config)
    nn.init.normal_(network.classifier.weight)  # as made, it answers much the same to all images
    network.save_pretrained(folder)
    ViTImageProcessor(**{"size": {"height": 32, "width": 32}, **processor}).save_pretrained(folder)
    return folder


def save_toy_clip(folder: Path, architecture: str) -> tuple[nn.Module, Path]:
    """Tell open_clip of a tiny architecture; a random one of it, and its weights; 32 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 16,
            "patch_size": 8,
            "head_width": 8,
        },
        "text_cfg": {"context_length": 77, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / f"{architecture}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{architecture}.json")
    torch.manual_seed(0)
    model = open_clip.create_model(architecture).eval()
    save_file(model.state_dict(), folder / "clip.safetensors")
    return model, folder / "clip.safetensors"


def save_onnx(network: nn.Module, file: Path, *, size: tuple[int, int]) -> Path:
    """Export a network that takes any number of images at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(2, 3, *size),),
            file,
            dynamic_shapes=({0: torch.export.Dim("images")},),
            external_data=False,
            verbose=False,
        )
    return file
