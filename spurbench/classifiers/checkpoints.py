"""Reading weights from local files and fitting them to a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spurbench.core.errors import SpurbenchError, reason

log = logging.getLogger(__name__)

# Where training scripts put the weights in what they save, and what they wrap the model in.
_NESTS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.model.", "module.", "model.", "_orig_mod.", "timm_model.")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file, or from a torch file without unpickling code.

    Raises:
        SpurbenchError: if the file is missing, can't be read safely, or holds no state dict.
    """
    if not path.is_file():
        raise SpurbenchError(f"no checkpoint at {path}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise SpurbenchError(f"{path} is not a safetensors file: {error}") from None
    try:
        with torch.serialization.safe_globals(_numbers()):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what unpickling junk raises has no common ancestor
        said = f"{type(error).__name__}: {reason(error)}"
        raise SpurbenchError(
            f"{path} can't be read as weights only ({said[:120]}); nothing is unpickled here: "
            "save the bare state dict, best as safetensors"
        ) from None
    for nest in _NESTS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(nest), Mapping):
            loaded = loaded[nest]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise SpurbenchError(f"{path} holds no state dict; save model.state_dict()")
    return {key: value for key, value in loaded.items() if isinstance(value, Tensor)}


def _numbers() -> list[Any]:
    """NumPy's scalars: training scripts save accuracies as such beside the weights."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}
    # By the name of NumPy 1 too, under which older checkpoints have it.
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def fit_state_dict(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load ``state`` into ``model``, whatever its keys are called.

    Names are tried as they are, then without a wrapper's prefix (``module.model.`` of Madry-style
    checkpoints among them); when they still differ but every shape agrees in order, tensors are
    taken in order. Whatever was done is logged.

    Args:
        model: whose parameters and buffers are filled.
        state: the weights, of any float dtype.
        source: what to call them in messages.

    Raises:
        SpurbenchError: naming the first tensor that does not fit.
    """
    wanted = model.state_dict()
    state = _without_prefix(wanted, state, source)
    if wanted.keys() != state.keys():
        state = _by_order(wanted, state, source)
    for key, tensor in wanted.items():
        if state[key].shape != tensor.shape:
            raise SpurbenchError(
                f"{source} does not fit: {key} has shape {tuple(state[key].shape)}, the model's is "
                f"{tuple(tensor.shape)}"
            )
        if state[key].is_floating_point() and not state[key].isfinite().all():
            raise SpurbenchError(f"{source} holds NaN or infinity in {key}; its weights are broken")
    model.load_state_dict({key: value.to(wanted[key].dtype) for key, value in state.items()})


def _without_prefix(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str
) -> Mapping[str, Tensor]:
    for prefix in _PREFIXES:
        stripped = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if wanted.keys() <= stripped.keys() and not wanted.keys() <= state.keys():
            ignored = len(state) - len(wanted)
            log.warning(
                "%s: took the %d tensors under %r%s",
                source,
                len(wanted),
                prefix,
                f" and ignored {ignored} others (a wrapper's normaliser or attacker)"
                if ignored
                else "",
            )
            return {key: stripped[key] for key in wanted}
    return state


def _by_order(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    ours, theirs, kept = list(wanted.items()), list(state.items()), dict[str, Tensor]()
    if len(ours) != len(theirs):
        # Old checkpoints lack BatchNorm's step counters, which evaluation does not use.
        kept = {k: v for k, v in ours if k.endswith("num_batches_tracked")}
        ours = [(k, v) for k, v in ours if k not in kept]
        theirs = [(k, v) for k, v in theirs if not k.endswith("num_batches_tracked")]
    for (key, tensor), (name, value) in zip(ours, theirs, strict=False):
        if tensor.shape != value.shape:
            raise SpurbenchError(
                f"{source} does not fit: its {name} has shape {tuple(value.shape)} where the model "
                f"has {key} of shape {tuple(tensor.shape)}"
            )
    if len(ours) != len(theirs):
        extra, where = (ours, "the model") if len(ours) > len(theirs) else (theirs, "the file")
        first = extra[min(len(ours), len(theirs))][0]
        raise SpurbenchError(
            f"{source} does not fit: it has {len(theirs)} tensors and the model {len(ours)}; the "
            f"first without a partner is {first} of {where}"
        )
    renamed = sum(key != name for (key, _), (name, _) in zip(ours, theirs, strict=True))
    if renamed:
        log.warning(
            "%s: %d of %d keys have other names but every shape agrees in order; took them in "
            "order (e.g. %s for %s)",
            source,
            renamed,
            len(ours),
            theirs[0][0],
            ours[0][0],
        )
    return {key: value for (key, _), (_, value) in zip(ours, theirs, strict=True)} | kept
