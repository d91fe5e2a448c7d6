"""Networks in timm's hub format, ``config.json`` and ``model.safetensors``; nothing is run."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AliasChoices, AliasPath, ConfigDict, Field, ValidationError

from spurbench.classifiers import foreign
from spurbench.classifiers.info import Interpolation, Mended
from spurbench.classifiers.names import name_of
from spurbench.classifiers.sources import OwnWeights, Source
from spurbench.core.documents import Document, read_json, validated
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.resources import builders

if TYPE_CHECKING:
    from torch import nn

    from spurbench.classifiers.classifier import Loaded

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SPUFIX = "spufix.safetensors"
"""What `spurbench mend --method spufix` takes off the logits, where there is such a file."""

Side = Annotated[int, Field(ge=1, le=4096)]
Mean = Annotated[float, Field(allow_inf_nan=False)]
Deviation = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class DataConfig(Document):
    """What a network wants of its images: all that is taken from timm's ``pretrained_cfg``.

    The rest of it names files and addresses to load weights from, which are no business of a
    folder that brings its own.
    """

    model_config = ConfigDict(extra="ignore")

    input_size: tuple[Literal[3], Side, Side] | None = None
    interpolation: Interpolation | None = None
    mean: tuple[Mean, Mean, Mean] | None = None
    std: tuple[Deviation, Deviation, Deviation] | None = None
    crop_pct: float | None = Field(default=None, ge=0.05, le=2)
    crop_mode: Literal["center", "squash", "border"] | None = None


class Config(Document):
    """What is read of a ``config.json``; other keys are notes of whoever wrote it."""

    model_config = ConfigDict(extra="ignore")

    architecture: str = Field(pattern=r"^\w+(\.\w+)?$", description="of timm's registry")
    num_classes: int = Field(ge=1, le=1_000_000)
    model_args: dict[str, Any] = Field(default={}, description="settings of the architecture")
    pretrained_cfg: DataConfig
    label_names: tuple[str | int, ...] | None = Field(
        default=None,
        # Where timm's own writing and reading of it have put them over the years.
        validation_alias=AliasChoices(
            "label_names", "labels", AliasPath("pretrained_cfg", "label_names")
        ),
    )
    training_data: str | None = None
    mended: Any = Field(default=None, description="what `spurbench mend` did to it")

    @property
    def fixed(self) -> bool:
        """Whether the network is to be taken with what :data:`SPUFIX` takes off its logits."""
        return isinstance(self.mended, dict) and self.mended.get("method") == "spufix"

    @property
    def lineage(self) -> Mended | None:
        """What it was made of; None if that is not said as `spurbench mend` says it."""
        match self.mended:
            case {"method": method, "of": {"weights_sha256": base}, **more}:
                spurious = more.get("spurious")
                dataset = spurious.get("name") if isinstance(spurious, dict) else None
                with suppress(ValidationError):
                    return Mended(base=base, method=method, dataset=dataset)
        return None


@dataclass(frozen=True)
class TimmFolder:
    """A network with its weights, and what its ``config.json`` says of it.

    Attributes:
        data: ``pretrained_cfg``, completed with what the architecture's own says.
    """

    network: nn.Module
    architecture: str
    config: Config
    data: Mapping[str, Any]


def read_folder(config: Path, weights: Path) -> TimmFolder:
    """Make the network that a ``config.json`` describes, with weights from a safetensors file.

    Only settings of the architecture get through to timm: neither a path nor an address in the
    file is followed, and nothing is unpickled.

    Args:
        config: ``architecture``, ``num_classes``, ``pretrained_cfg`` and perhaps ``model_args``.
        weights: a safetensors file.

    Raises:
        SpurbenchError: if the file is missing or wrong, asks for anything but settings of the
            architecture, or the weights don't fit.
    """
    import timm

    from spurbench.classifiers.checkpoints import fit_state_dict, read_state_dict

    described = _read_config(config)
    architecture = described.architecture.partition(".")[0]
    if not timm.is_model(architecture):
        raise SpurbenchError(f"{config} describes no timm model: unknown model {architecture!r}")
    settings = _settings(architecture, described.model_args, config)
    try:
        network = timm.create_model(architecture, num_classes=described.num_classes, **settings)
    except Exception as error:  # what constructors raise on odd settings has no common ancestor
        raise SpurbenchError(f"{config} describes no timm model: {reason(error)}") from None
    fit_state_dict(network, read_state_dict(weights), str(weights))
    own = described.pretrained_cfg.model_dump(exclude_none=True)
    return TimmFolder(network, architecture, described, {**network.pretrained_cfg, **own})


def _read_config(path: Path) -> Config:
    try:
        return validated(Config, read_json(path), str(path))
    except FileNotFoundError:
        raise SpurbenchError(
            f"no {path}; a classifier's folder holds {CONFIG}, {WEIGHTS}"
        ) from None


def loaded(folder: TimmFolder, name: str) -> Loaded:
    """A folder's network with its evaluation transform, called ``name``."""
    from spurbench.classifiers import timm

    config = folder.config
    return replace(
        timm.loaded(folder.network, name, folder.architecture, folder.data),
        training_data=config.training_data,
        mended=config.lineage,
        labels=config.label_names,
    )


def described(spec: str) -> dict[str, Any] | None:
    """The ``config.json`` of a folder or of the embedded panel, all of it; None of other specs.

    Raises:
        SpurbenchError: if it is damaged.
    """
    path = _panel().get(spec.removeprefix("mini:")) if spec.startswith("mini:") else Path(spec)
    if path is None or not is_file(path / CONFIG):
        return None
    _read_config(path / CONFIG)
    content: dict[str, Any] = read_json(path / CONFIG)
    return content


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for what can't be a path (too long, with NUL in it)."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def with_fix(made: Loaded, file: Path) -> Loaded:
    """The network with what a :data:`SPUFIX` file takes off its logits.

    Raises:
        SpurbenchError: see :func:`spurbench.classifiers.spufix.read`.
    """
    from spurbench.classifiers import spufix

    return replace(made, network=spufix.read(made.network, file))


def _load(path: str, own: OwnWeights | None) -> Loaded:
    folder = Path(path)
    made = loaded(read_folder(folder / CONFIG, folder / WEIGHTS), name_of(folder))
    return with_fix(made, folder / SPUFIX) if is_file(folder / SPUFIX) else made


def _files(path: str) -> list[Path]:
    files = [Path(path) / CONFIG, Path(path) / WEIGHTS]
    return [*files, fix] if is_file(fix := Path(path) / SPUFIX) else files


def _check(path: str) -> None:
    foreign.refuse(Path(path))
    for file in _files(path):
        if not is_file(file):
            raise SpurbenchError(
                f"no {file.name} in {path}; a classifier's folder holds {CONFIG} and {WEIGHTS}"
            )
    if _read_config(Path(path) / CONFIG).fixed and not is_file(Path(path) / SPUFIX):
        raise SpurbenchError(
            f"no {SPUFIX} in {path}, without which the network is not mended as its {CONFIG} "
            "says; copy the whole folder, or mend the classifier again"
        )


def _panel() -> dict[str, Path]:
    """The folders of the embedded panel by name."""
    folders = builders()["mini"] / "assets" / "panel"
    return {path.parent.name: path.parent for path in sorted(folders.glob(f"*/{CONFIG}"))}


def _check_embedded(name: str) -> None:
    if name not in _panel():
        raise SpurbenchError(f"the embedded panel has no {name!r}; it has {', '.join(_panel())}")


def _load_embedded(name: str, own: OwnWeights | None) -> Loaded:
    return _load(str(_panel()[name]), None)


def _files_embedded(name: str) -> list[Path]:
    return _files(str(_panel()[name]))


def _settings(architecture: str, wanted: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """``model_args``, if all of them are settings of the architecture and plain values."""
    declared = _declared(architecture)
    for key, value in wanted.items():
        if key not in declared or _names_a_file(key):
            raise SpurbenchError(
                f"{where}: model_args.{key[:80]!r} is not a setting of {architecture}; a model "
                "folder may only set the architecture's own"
            )
        if not _is_plain(value):
            raise SpurbenchError(
                f"{where}: model_args.{key} is not a plain number, word, list or table of them"
            )
    return dict(wanted)


def _declared(architecture: str) -> set[str]:
    """What the networks in an architecture's module declare as their settings.

    Without what timm's factory takes for itself: of that, some loads files.
    """
    import timm

    module = sys.modules[timm.models.model_entrypoint(architecture).__module__]
    networks = {
        base
        for value in vars(module).values()
        if isinstance(value, type) and (hasattr(value, "forward_features") or is_dataclass(value))
        for base in value.__mro__
    }
    makers = [vars(network)["__init__"] for network in networks if "__init__" in vars(network)]
    names = {name for maker in makers for name in _parameters(maker)}
    return names - _parameters(timm.create_model) - _parameters(timm.models.build_model_with_cfg)


def _parameters(function: Any) -> set[str]:
    return {
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name != "self"
    }


def _names_a_file(key: str) -> bool:
    words = r"pretrained|checkpoint|path|file|url|hub|cache|dir|download|custom_load|script|export"
    return re.search(words, key.lower()) is not None


def _is_plain(value: Any, depth: int = 4) -> bool:
    """Whether a JSON value is a moderate number, a word, or a shallow list or table of them."""
    match value:
        case None | bool():
            return True
        case int() | float():
            return abs(value) <= 1e6 and not math.isnan(value)
        case str():
            return re.fullmatch(r"[\w-]{0,64}", value) is not None
        case list():
            return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
        case dict():
            return depth > 0 and all(
                _is_plain(key) and not _names_a_file(key) and _is_plain(item, depth - 1)
                for key, item in value.items()
            )
    return False


SOURCE = Source("folder", _load, _check, _files)
EMBEDDED = Source("mini", _load_embedded, _check_embedded, _files_embedded)
