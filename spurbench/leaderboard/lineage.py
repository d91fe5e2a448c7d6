"""Where a classifier comes from: architecture family and training data, read off what names it.

Both are looked up in the libraries' own registries and naming schemes; what they don't tell is
``unknown``.
"""

from __future__ import annotations

import re

from spurbench.classifiers.info import ClassifierInfo

UNKNOWN = "unknown"

TRAINING_DATA = {
    "in1k": "ImageNet-1k",
    "imagenet1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
    "inw21k": "ImageNet-21k (winter)",
    "inat21": "iNaturalist 2021",
    "cc12m": "CC12M",
    "datacomp1b": "DataComp-1B",
    "datacompxl": "DataComp-XL",
    "dfn2b": "DFN-2B",
    "dfn5b": "DFN-5B",
    "ig1b": "IG-1B",
    "jft": "JFT-300M",
    "laion2b": "LAION-2B",
    "laion400m": "LAION-400M",
    "laiona": "LAION-Aesthetics",
    "lvd142m": "LVD-142M",
    "lvd1689m": "LVD-1689M",
    "merged2b": "Merged-2B",
    "metaclip": "MetaCLIP",
    "openai": "WIT-400M (OpenAI)",
    "sa1b": "SA-1B",
    "swag": "IG-3.6B",
    "webli": "WebLI",
    "yfcc15m": "YFCC-15M",
    "yfcc100m": "YFCC-100M",
}
"""Words of timm's pretrained tags and torchvision's weight names, and the data they stand for."""


def family(info: ClassifierInfo) -> str:
    """The module that defines the architecture in its library, e.g. ``resnet``, ``convnext``."""
    entry = _torchvision_entry if info.source == "torchvision" else _timm_entry
    module = entry(info.architecture)
    return module.rpartition(".")[2] if module else UNKNOWN


def training_data(info: ClassifierInfo) -> str:
    """The data its weights were trained on, in the order that its tag names them.

    A local classifier's ``config.json`` may say it; weights given with ``--checkpoint`` are not
    those of the tag.
    """
    if info.training_data is not None:
        return info.training_data
    if info.checkpoint is not None:
        return UNKNOWN
    words = re.split(r"[._]", info.name.partition(".")[2].lower())
    named = dict.fromkeys(TRAINING_DATA[word] for word in words if word in TRAINING_DATA)
    return " + ".join(named) or UNKNOWN


def _timm_entry(architecture: str) -> str | None:
    import timm

    if not timm.is_model(architecture):
        return None
    module: str = timm.models.model_entrypoint(architecture).__module__
    return module


def _torchvision_entry(architecture: str) -> str | None:
    from torchvision import models

    try:
        module: str = models.get_model_builder(architecture).__module__
    except ValueError:
        return None
    return module
