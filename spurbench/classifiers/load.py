"""One loader for the classifiers of timm, torchvision, robustbench, the hub and local folders."""

from __future__ import annotations

import difflib
import importlib.util
import json
import logging
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spurbench.classifiers.checkpoints import fit_state_dict, read_state_dict
from spurbench.classifiers.classifier import (
    Classifier,
    ClassifierInfo,
    Loaded,
    weights_sha256,
)
from spurbench.core import hub
from spurbench.core.errors import SpurbenchError
from spurbench.core.resources import builders

log = logging.getLogger(__name__)


# Widths of ImageNet heads, with timm's table of their WordNet ids.
_HEADS = {1000: "imagenet-1k", 11821: "imagenet-12k", 21841: "imagenet-22k", 21843: "imagenet-21k"}


def load_classifier(
    spec: str, *, checkpoint: Path | None = None, device: str | torch.device = "cpu"
) -> Classifier:
    """Load a classifier.

    Args:
        spec: a timm name, ``torchvision:ARCH.WEIGHTS``, ``robustbench:NAME``,
            ``hf-hub:OWNER/NAME``, ``mini:NAME`` (the embedded panel) or a folder in timm's hub
            format (``config.json`` and ``model.safetensors``).
        checkpoint: local weights for a timm or torchvision architecture; then nothing is fetched.
        device: where it runs.

    Raises:
        SpurbenchError: for an unknown name (with the nearest ones), weights that can't be had or
            don't fit, or a head that is not ImageNet's.
    """
    prefix, separator, rest = spec.partition(":")
    source: Any = prefix if separator and prefix in _SOURCES else "timm"
    if source != "timm":
        loaded = _SOURCES[source](rest, checkpoint)
    elif (Path(spec) / "config.json").is_file():
        source, loaded = "folder", _from_folder(spec, checkpoint)
    else:
        loaded = _from_timm(spec, checkpoint)
    network = loaded.network.float()
    info = ClassifierInfo(
        spec=spec,
        name=loaded.name,
        source=source,
        architecture=loaded.architecture,
        parameters=sum(p.numel() for p in network.parameters()),
        head=_head_name(network, loaded),
        weights_sha256=weights_sha256(network),
        checkpoint=checkpoint.name if checkpoint else None,
        training_data=loaded.training_data,
    )
    return Classifier(loaded, info).to(device)


def _head_name(network: nn.Module, loaded: Loaded) -> str:
    height, width = loaded.input_size
    with torch.inference_mode():
        outputs = network.eval()(torch.zeros(1, 3, height, width))
    count = outputs.shape[-1] if isinstance(outputs, Tensor) else 0
    if count not in _HEADS:
        known = ", ".join(f"{width} ({name})" for width, name in _HEADS.items())
        raise SpurbenchError(
            f"{loaded.name} has a head of {count} outputs; Spurious ImageNet's classes can be "
            f"found in heads of {known} outputs"
        )
    return _HEADS[count]


def _from_timm(name: str, checkpoint: Path | None) -> Loaded:
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=5)
        hint = f"nearest: {', '.join(near)}" if near else "timm.list_models() lists the names"
        raise SpurbenchError(f"timm has no model {name!r}; {hint}")
    # Local weights are not those of the default tag, so their name must not claim it.
    full = name if checkpoint is not None and not tag else _full_name(architecture, tag)
    if full != name:
        log.warning("%s is read as %s", name, full)
    if checkpoint is not None:
        network = timm.create_model(full, pretrained=False)
        fit_state_dict(network, read_state_dict(checkpoint), str(checkpoint))
    else:
        if not timm.models.is_model_pretrained(full):
            raise SpurbenchError(
                f"timm has no pretrained weights for {full}; give --checkpoint FILE"
            )
        hub.use_cache_if_unreachable()
        network = _fetch(full, lambda: timm.create_model(full, pretrained=True))
    return _timm_loaded(network, full, architecture)


def _full_name(architecture: str, tag: str) -> str:
    """The name with its pretrained tag in full.

    A partial tag is one or more whole words of a tag's beginning (``augreg`` of
    ``augreg_in21k_ft_in1k``, but not of ``augreg2_in21k_ft_in1k``). timm lists an architecture's
    tags in its own order of preference, so the first that matches and has an ImageNet-1k head is
    meant, or the first that matches.
    """
    # timm's public listing sorts the tags; only the registry itself keeps their order.
    from timm.models._registry import _model_default_cfgs

    default = _model_default_cfgs.get(architecture)
    order = [t for t in default.cfgs if t] if default else []
    if not order:
        if tag:
            raise SpurbenchError(f"timm has no pretrained tags for {architecture}; drop {tag!r}")
        return architecture
    if not tag:
        return f"{architecture}.{order[0]}"
    if tag in order:
        return f"{architecture}.{tag}"
    matching = [t for t in order if t.startswith(f"{tag}_")]
    if not matching:
        names = ", ".join(f"{architecture}.{t}" for t in order)
        raise SpurbenchError(f"timm's {architecture} has no pretrained tag {tag!r}; it has {names}")
    with_1k = [t for t in matching if t.endswith("in1k")]
    return f"{architecture}.{(with_1k or matching)[0]}"


def _timm_loaded(network: Any, name: str, architecture: str) -> Loaded:
    from timm.data import resolve_data_config

    config = resolve_data_config({}, model=network)
    _, height, width = config["input_size"]
    scale = config["crop_pct"] or 1.0
    resize: tuple[int, ...]
    if config["crop_mode"] == "squash":
        resize = (math.floor(height / scale), math.floor(width / scale))
    elif height == width:
        resize = (math.floor(height / scale),)
    else:
        resize = (math.floor(height / scale), math.floor(width / scale))
    return Loaded(
        network=network,
        name=name,
        architecture=architecture,
        input_size=(height, width),
        resize=resize,
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _from_torchvision(name: str, checkpoint: Path | None) -> Loaded:
    from torchvision import models

    architecture, _, wanted = name.partition(".")
    try:
        choices = models.get_model_weights(architecture)
    except ValueError:
        near = difflib.get_close_matches(architecture, models.list_models(models), n=5)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise SpurbenchError(f"torchvision has no classifier {architecture!r}{hint}") from None
    names = [weights.name for weights in choices]
    wanted = wanted or choices.DEFAULT.name
    if wanted not in names:
        raise SpurbenchError(
            f"torchvision's {architecture} has no weights {wanted!r}; it has {', '.join(names)}"
        )
    full = f"{architecture}.{wanted}"
    if full != name:
        log.warning("torchvision:%s is read as torchvision:%s", name, full)
    if checkpoint is not None:
        network = models.get_model(architecture, weights=None)
        fit_state_dict(network, read_state_dict(checkpoint), str(checkpoint))
    else:
        network = _fetch(full, lambda: models.get_model(architecture, weights=choices[wanted]))
    preset = choices[wanted].transforms()
    side, resize = preset.crop_size[0], preset.resize_size[0]
    return Loaded(
        network=network,
        name=full,
        architecture=architecture,
        input_size=(side, side),
        resize=(resize,),
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _from_robustbench(name: str, checkpoint: Path | None) -> Loaded:
    if checkpoint is not None:
        raise SpurbenchError("--checkpoint goes with a timm or torchvision architecture")
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
    network = _fetch(
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


def _from_hub(name: str, checkpoint: Path | None) -> Loaded:
    import timm

    if checkpoint is not None:
        raise SpurbenchError("--checkpoint goes with a timm or torchvision architecture")
    hub.use_cache_if_unreachable()
    network = _fetch(name, lambda: timm.create_model(f"hf-hub:{name}", pretrained=True))
    return _timm_loaded(network, name, network.pretrained_cfg.get("architecture") or name)


def _from_folder(folder: str, checkpoint: Path | None) -> Loaded:
    import timm

    path = Path(folder)
    if checkpoint is not None:
        raise SpurbenchError("--checkpoint goes with a timm or torchvision architecture")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        architecture, own = config["architecture"], config["pretrained_cfg"]
        network = timm.create_model(
            architecture, num_classes=config["num_classes"], **config.get("model_args", {})
        )
    except KeyError as error:
        raise SpurbenchError(f"{path / 'config.json'} has no key {error}") from None
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise SpurbenchError(f"{path / 'config.json'} describes no timm model: {error}") from None
    weights = path / "model.safetensors"
    fit_state_dict(network, read_state_dict(weights), str(weights))
    network.pretrained_cfg = {**network.pretrained_cfg, **own}
    loaded = _timm_loaded(network, path.name, architecture)
    return replace(loaded, training_data=config.get("training_data"))


def _from_mini(name: str, checkpoint: Path | None) -> Loaded:
    panel = builders()["mini"] / "assets" / "panel"
    names = sorted(path.parent.name for path in panel.glob("*/config.json"))
    if name not in names:
        raise SpurbenchError(f"the embedded panel has no {name!r}; it has {', '.join(names)}")
    return _from_folder(str(panel / name), checkpoint)


_SOURCES: dict[str, Callable[[str, Path | None], Loaded]] = {
    "torchvision": _from_torchvision,
    "robustbench": _from_robustbench,
    "hf-hub": _from_hub,
    "mini": _from_mini,
}


def _fetch(name: str, load: Callable[[], Any]) -> Any:
    """Load weights that may have to be fetched; what goes wrong on the way is one line."""
    try:
        return load()
    except SpurbenchError:
        raise
    except Exception as error:  # hub, HTTP, socket and file errors have no common ancestor
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        sentence = reason.split(". ")[0][:200]
        raise SpurbenchError(
            f"weights of {name} can't be had ({sentence}); check the network, or give "
            "--checkpoint FILE with local weights"
        ) from error
