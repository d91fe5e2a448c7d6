"""What a user's own classifiers are called: never as published ones are."""

from __future__ import annotations

from pathlib import Path


def is_published(name: str) -> bool:
    """Whether timm or torchvision publish weights by this name, such as ``resnet50.a1_in1k``."""
    from timm.models import list_pretrained
    from torchvision.models import get_model_weights, list_models

    architecture, tagged, tag = name.partition(".")
    if not tagged:
        return False
    return name in list_pretrained(f"{architecture}.*") or (
        architecture in list_models() and tag in get_model_weights(architecture).__members__
    )


def name_of(path: Path) -> str:
    """What a local classifier is called: as its folder or file is, unless that is published."""
    name = path.resolve().name
    return f"{name} (local)" if is_published(name) else name
