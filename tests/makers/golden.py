"""A small dataset of fixed values: nothing in it depends on a recipe, a library or a machine."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

IMAGE = base64.b64decode(
    "Qk1GAAAAAAAAADYAAAAoAAAAAgAAAAIAAAABABgAAAAAABAAAADEDgAAxA4AAAAAAAAAAAAA/wAACQkJAAAAAP8A"
    "/wAAAA=="
)

PROVENANCE: dict[str, Any] = {
    "recipe": {
        "name": "fixed",
        "description": "Nothing | is <made>.",
        "finetune": {
            "method": "full",
            "steps": 4,
            "batch_size": 1,
            "learning_rate": 2e-6,
            "train_text_encoder": True,
        },
        "sfsl": {"gradient": "prior", "timestep_weighting": "alpha_bar"},
        "select": {"references": 2},
        "sample": {"images": 3, "steps": 25, "guidance_scale": 7.5},
        "check": {"object_threshold": 0.5, "feature_threshold": 0.5},
    },
    "seed": 7,
    "device": "cpu",
    "base_model": {"name": "base <model>", "fingerprint": "f" * 64},
    "panel": [
        {"spec": "timm:vit", "name": "vit", "weights_sha256": "a" * 64, "checkpoint": None},
        {"spec": "timm:resnet", "name": "resnet", "weights_sha256": "c" * 64, "checkpoint": "x"},
    ],
    "phi": {"spec": "timm:vit", "name": "vit", "weights_sha256": "a" * 64, "checkpoint": None},
    "object_detector": None,
    "real_images": {
        "name": "photographs\nof things",
        "version": None,
        "kind": "folder",
        "fingerprint": "b" * 64,
    },
    "positive_images": None,
    "positives": {"hummingbird": {"asked": 5, "kept": 0}},
    "replicates": 2,
    "damaged": [{"path": "3.png", "reason": "cut off"}],
    "failed_classes": {"koala": "no images"},
    "versions": {"python": "3", "torch": "2"},
    "licences": {"images": "MIT", "weights": "CC BY 4.0"},
}


def columns(split: str, i: int) -> dict[str, Any]:
    """A row with its image, as JSON values but for that."""
    made = split == "generated"
    image = IMAGE + bytes([i, made])  # bytes after the last pixel are ignored
    return {
        "image": image,
        "label": 94,
        "class_index": 94,
        "class_name": "hummingbird",
        "wnid": "n01833805",
        "spurious_feature": "red flowers",
        "component": 2,
        "source": split,
        "prompt": "a photo of a sks flower" if made else None,
        "seed": 2**52 + i if made else None,
        "guidance_scale": 7.5 if made else None,
        "num_inference_steps": 25 if made else None,
        "kappa": 0.8 if made else None,
        "base_model": "base <model>" if made else None,
        "is_reference": not made and i < 2,
        "replicate": i // 2 if made else 0,
        "consistently_spurious": i != 1,
        "object_absent": None if i == 2 else i == 0,
        "object_score": None if i == 2 else 0.25 + i / 2,
        "feature_present": None if i == 2 else True,
        "feature_score": None if i == 2 else 0.75,
        "entropy": 7.5 if i else None,
        "topiq_nr": None,
        "panel": [
            {"classifier": "vit", "prediction": 94, "probability": 0.5 + i / 8, "rank": 1},
            {
                "classifier": "resnet",
                "prediction": -1 if i == 1 else 94,
                "probability": 0.125,
                "rank": 3 if i == 1 else 1,
            },
        ],
        "file_name": f"{split}/{i}.png",
        "image_sha256": hashlib.sha256(image).hexdigest(),
        "twin_of": None,
    }
