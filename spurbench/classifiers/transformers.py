"""Image classifiers of transformers, ``transformers:OWNER/NAME`` or ``transformers:FOLDER``.

Of a folder three files are read: ``config.json``, ``preprocessor_config.json`` and
``model.safetensors``; whatever else lies there (code, adapters, pickles) is not looked at.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spurbench.classifiers import folder, foreign
from spurbench.classifiers.names import name_of
from spurbench.classifiers.sources import OwnWeights, Source
from spurbench.core import hub
from spurbench.core.documents import read_json
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.imagenet import HEADS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from spurbench.classifiers.classifier import Loaded

log = logging.getLogger(__name__)

PROCESSOR = "preprocessor_config.json"

_TIMM = (None, "timm_wrapper")
"""``model_type`` of networks in timm's own format, which transformers wraps."""


def describes(path: Path) -> bool:
    """Whether a folder's ``config.json`` is one that transformers wrote of a network of its own."""
    try:
        said = read_json(path / folder.CONFIG)
    except (OSError, ValueError, SpurbenchError):
        return False
    return isinstance(said, dict) and said.get("model_type") not in _TIMM


def _check(name: str) -> None:
    path = Path(name)
    try:
        there = path.is_dir()
    except (OSError, ValueError):
        there = False
    if not there:
        if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", name):
            raise SpurbenchError(
                f"transformers:{name} is neither a folder nor transformers:OWNER/NAME, with "
                "@REVISION at will"
            )
        return
    foreign.refuse(path)
    needed = _files(name) if describes(path) else _files(name)[:2]
    for file in needed:
        if not file.is_file():
            raise SpurbenchError(
                f"no {file.name} in {path}; a classifier of transformers has "
                f"{', '.join(file.name for file in needed)}"
            )


def _files(name: str) -> list[Path]:
    return [Path(name) / file for file in (folder.CONFIG, folder.WEIGHTS, PROCESSOR)]


def _local_files(name: str) -> list[Path] | None:
    return _files(name) if Path(name).is_dir() else None


def _load(name: str, own: OwnWeights | None) -> Loaded:
    path, called = Path(name), name
    if path.is_dir():
        called = name_of(path)
    else:
        repository, _, revision = name.partition("@")
        hub.use_cache_if_unreachable()
        config, _ = (
            hub.download(repository, file, revision=revision or None)
            for file in (folder.CONFIG, folder.WEIGHTS)
        )
        path = config.parent
        if describes(path):
            hub.download(repository, PROCESSOR, revision=revision or None)
    config, weights, _ = _files(str(path))
    if not describes(path):
        return folder.loaded(folder.read_folder(config, weights), called)
    return _loaded(path, called)


def _loaded(path: Path, name: str) -> Loaded:
    """A folder's network with its evaluation transform, called ``name``."""
    from spurbench.classifiers.classifier import Loaded
    from spurbench.classifiers.networks import Logits
    from spurbench.classifiers.processors import evaluation_of

    own = evaluation_of(path / PROCESSOR, name)
    assert own.crop is not None, "a network's input has a size"
    network = _network(read_json(path / folder.CONFIG), path)
    return Loaded(
        network=Logits(network),
        name=name,
        architecture=type(network).__name__,
        input_size=own.crop,
        resize=own.resize,
        interpolation=own.interpolation,
        mean=own.mean,
        std=own.std,
        labels=_labels(network.config.id2label, name),
    )


def _network(described: Mapping[str, Any], path: Path) -> PreTrainedModel:
    """The network that a ``config.json`` describes, with the weights beside it.

    It is made of transformers' own classes and given its weights, without a path or a name by
    which transformers could find anything else.
    """
    import torch
    from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    from spurbench.classifiers.checkpoints import read_state_dict

    config_file, kind = path / folder.CONFIG, str(described["model_type"])[:80]
    if kind not in CONFIG_MAPPING:
        raise SpurbenchError(
            f"{config_file}: transformers has no model_type {kind!r}; code that comes with weights "
            "is not run"
        )
    if described.get("quantization_config"):
        raise SpurbenchError(f"{config_file}: its weights are quantised; save them dequantised")
    state = read_state_dict(path / folder.WEIGHTS)
    layers = described.get("num_hidden_layers", 0)
    if isinstance(layers, int) and layers > len(state):  # or it would be made for ever
        raise SpurbenchError(
            f"{path / folder.WEIGHTS} does not fit {config_file}: {layers} layers have more than "
            f"its {len(state)} tensors"
        )
    try:
        config = CONFIG_MAPPING[kind].from_dict(dict(described))
    except Exception as error:  # what configurations raise on odd values has no common ancestor
        raise SpurbenchError(f"{config_file} describes no network: {reason(error)}") from None
    if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise SpurbenchError(f"{config_file} is of a {kind} network, which is no image classifier")
    made = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
    if isinstance(made, tuple):  # with and without a teacher, say
        named = {network.__name__: network for network in made}
        made = named.get(next(iter(config.architectures or ()), ""), made[0])
    try:
        with _in_silence():
            network, loading = made.from_pretrained(
                None,
                config=config,
                state_dict=state,
                torch_dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
            )
    except Exception as error:  # as above
        said = " ".join(str(error).split())[:200]
        raise SpurbenchError(
            f"{path / folder.WEIGHTS} does not fit {config_file}: {said}"
        ) from None
    missing = sorted(map(str, loading["missing_keys"]))
    if missing:
        raise SpurbenchError(
            f"{path / folder.WEIGHTS} does not fit {config_file}: {len(missing)} tensors of "
            f"{made.__name__} are missing, the first {missing[0]}; are these a classifier's?"
        )
    return network


@contextmanager
def _in_silence() -> Iterator[None]:
    """Without transformers' bar, and its table of what is missing, which is said in one line."""
    from transformers.utils import logging as notes

    before, bars = notes.get_verbosity(), notes.is_progress_bar_enabled()
    notes.set_verbosity_error()
    notes.disable_progress_bar()
    try:
        yield
    finally:
        notes.set_verbosity(before)
        if bars:
            notes.enable_progress_bar()


def _labels(id2label: Mapping[int, str], name: str) -> list[str] | None:
    """Labels by output; None for the placeholders that stand where nobody gave any."""
    labels = [id2label[i] for i in sorted(id2label)]
    if any(label != f"LABEL_{i}" for i, label in enumerate(labels)):
        return labels
    if len(labels) in HEADS:
        log.warning(
            "%s says no labels; its %d outputs are taken for %s in order",
            name,
            len(labels),
            HEADS[len(labels)],
        )
    return None


SOURCE = Source("transformers", _load, _check, _local_files)
