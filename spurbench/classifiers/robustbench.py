"""Classifiers of RobustBench, ``robustbench:NAME``; it comes with an extra of its name."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from spurbench.classifiers.sources import OwnWeights, Source
from spurbench.core import hub
from spurbench.core.errors import SpurbenchError

if TYPE_CHECKING:
    from spurbench.classifiers.classifier import Loaded


def _check(name: str) -> None:
    if importlib.util.find_spec("robustbench") is None:
        raise SpurbenchError(
            f"robustbench:{name} needs robustbench; pip install 'spurbench[robustbench]'"
        )


def _load(name: str, own: OwnWeights | None) -> Loaded:
    import torch

    from spurbench.classifiers.classifier import Loaded

    try:
        # robustbench 1.1.1 depends on pyautoattack and imports it by its former name.
        if importlib.util.find_spec("autoattack") is None:
            for module in ("autoattack", "autoattack.state"):
                sys.modules[module] = importlib.import_module(f"py{module}")
        from robustbench.model_zoo import model_dicts
        from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
        from robustbench.utils import load_model
    except ImportError as error:
        raise SpurbenchError(
            f"robustbench can't be imported ({error}); pip install 'spurbench[robustbench]'"
        ) from None
    known = model_dicts[BenchmarkDataset.imagenet][ThreatModel.Linf]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5)
        hint = f"nearest: {', '.join(near)}" if near else f"it has {', '.join(known)}"
        raise SpurbenchError(f"robustbench has no ImageNet L-inf model {name!r}; {hint}")
    cache = Path(torch.hub.get_dir()) / "robustbench"
    network = hub.fetched(
        name, lambda: load_model(name, model_dir=cache, dataset="imagenet", threat_model="Linf")
    )
    # RobustBench's models normalise by themselves and are evaluated at 224 of 256 pixels.
    return Loaded(
        network=network,
        name=name,
        architecture=name,
        input_size=(224, 224),
        resize=(256,),
        interpolation="bilinear",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


SOURCE = Source("robustbench", _load, _check)
