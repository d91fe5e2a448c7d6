"""Classifiers of timm, by their names."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spurbench.classifiers.sources import OwnWeights, Source
from spurbench.core import hub
from spurbench.core.errors import SpurbenchError
from spurbench.core.hub import HubFile, TorchFile

if TYPE_CHECKING:
    from torch import nn

    from spurbench.classifiers.classifier import Loaded

log = logging.getLogger(__name__)


def _load(name: str, own: OwnWeights | None) -> Loaded:
    import timm

    from spurbench.classifiers.checkpoints import fit_state_dict, read_state_dict

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=5)
        hint = f"nearest: {', '.join(near)}" if near else "timm.list_models() lists the names"
        raise SpurbenchError(f"timm has no model {name!r}; {hint}")
    # A tag that is given with local weights says which preprocessing goes with them.
    full = architecture if own is not None and not tag else full_name(architecture, tag)
    if full != name:
        log.warning("%s is read as %s", name, full)
    if own is not None:
        head = {} if own.outputs is None else {"num_classes": own.outputs}
        network = timm.create_model(full, pretrained=False, **head)
        fit_state_dict(network, read_state_dict(own.file), str(own.file))
        # Whatever they are, they are not the published ones, so they don't go by their name.
        return loaded(network, architecture, architecture, network.pretrained_cfg)
    if not timm.models.is_model_pretrained(full):
        raise SpurbenchError(f"timm has no pretrained weights for {full}; give --checkpoint FILE")
    hub.use_cache_if_unreachable()
    network = hub.fetched(full, lambda: timm.create_model(full, pretrained=True))
    return loaded(network, full, architecture, network.pretrained_cfg)


def full_name(architecture: str, tag: str) -> str:
    """The name with its pretrained tag in full.

    A partial tag is one or more whole words of a tag's beginning (``augreg`` of
    ``augreg_in21k_ft_in1k``, but not of ``augreg2_in21k_ft_in1k``). timm lists an architecture's
    tags in its own order of preference, so the first that matches and has an ImageNet-1k head is
    meant, or the first that matches.

    Raises:
        SpurbenchError: if the architecture has no such tag.
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


def loaded(network: nn.Module, name: str, architecture: str, data: Mapping[str, Any]) -> Loaded:
    """A network with the evaluation transform that timm makes of its data settings.

    Args:
        network: on normalised pixels.
        name: what to call it.
        architecture: what it is.
        data: ``pretrained_cfg``, or the part of it that images need.
    """
    from timm.data import resolve_data_config

    from spurbench.classifiers.classifier import Loaded

    config = resolve_data_config({}, pretrained_cfg=dict(data))
    _, height, width = config["input_size"]
    scale = config["crop_pct"] or 1.0
    resize: tuple[int, ...] = (math.floor(height / scale), math.floor(width / scale))
    if config["crop_mode"] != "squash" and height == width:
        resize = resize[:1]
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


def _published(name: str) -> list[HubFile | TorchFile]:
    import timm

    config = timm.models.get_pretrained_cfg(full_name(*name.partition(".")[::2]))
    if config is not None and config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        files = ("model.safetensors", "pytorch_model.bin")
        names = (config.hf_hub_filename,) if config.hf_hub_filename else files
        return [HubFile(repository, file, revision or None) for file in names]
    return [TorchFile(config.url)] if config is not None and config.url else []


SOURCE = Source("timm", _load, published=_published, takes_checkpoint=True)
