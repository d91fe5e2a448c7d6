"""What the build of a recipe will need, a line each, before the hour that it takes to find out.

Nothing is fetched, and no weight is read: sources are asked how large a file is.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import timm
import torch
import torchvision

from spurbench.build.plan import TERA, Plan, plan
from spurbench.build.request import BuildRequest
from spurbench.classifiers.load import find_source, read_member
from spurbench.core import hub
from spurbench.core.checks import Check, Status
from spurbench.core.errors import SpurbenchError
from spurbench.core.hub import HubFile
from spurbench.dataset.quality import PUBLISHED
from spurbench.doctor import probes
from spurbench.doctor.probes import Waiting, guarded, size
from spurbench.images import official
from spurbench.images.decode import fault
from spurbench.images.records import ImageRecord
from spurbench.images.sources import open_images
from spurbench.recipe.schema import Recipe

SLOW = 1e15
"""Operations from which a build without a GPU takes hours."""


class _File(Protocol):
    """A file of weights, here or elsewhere."""

    @property
    def name(self) -> str: ...
    def cached(self) -> Path | None: ...
    def size(self) -> int | None: ...


@dataclass(frozen=True)
class _Local:
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def cached(self) -> Path | None:
        return self.path if self.path.is_file() else None

    def size(self) -> int | None:
        raise SpurbenchError(f"{self.path} is not there")


@dataclass(frozen=True)
class _Weights:
    """Weights that a build loads.

    Attributes:
        role: what for.
        name: as the recipe calls them.
        files: of each file those that serve for it, the preferred first.
        instead: what to do where they can't be had.
        about: gives their bytes, as far as they follow from the architecture; 0: they don't.
        optional: whether a build does without.
    """

    role: str
    name: str
    files: Sequence[Sequence[_File]]
    instead: str
    about: Callable[[], float] = float
    optional: bool = False

    @property
    def if_missing(self) -> Status:
        return "warn" if self.optional else "fail"


def needs(request: BuildRequest) -> list[Check]:
    """Look for everything that a build will need: a few seconds, and no exception.

    Args:
        request: what is to be built.

    Returns:
        A line for each of weights, photographs, memory, precision and disk. ``fail`` is what the
        build would stop at; ``warn`` is what it does without, or what could not be looked at.
    """
    planned = _planned(request)
    to_fetch: list[float] = []
    # Sources are waited for in the background while the photographs are decoded.
    waiting = [
        Waiting(weights.role, partial(_look, weights, to_fetch), weights.if_missing)
        for weights in _weights(request.recipe, planned)
    ]
    photographs = guarded("photographs", partial(_photographs, request), "fail")
    # Of a host that takes connections and answers none, two formats of a file are asked for.
    deadline = time.monotonic() + probes.PATIENCE + 2 * hub.PATIENCE
    checks = [check for one in waiting for check in one.result(deadline)]
    checks += photographs
    checks += guarded("precision", partial(_precision, request), "fail")
    if planned is None:
        detail = "memory and disk can't be foreseen: the base's configuration is not here"
        return [*checks, Check("plan", "warn", detail, "`spurbench build --dry-run` fetches it")]
    checks += guarded("memory", partial(_memory, request, planned), "fail")
    checks += guarded("disk", partial(_disk, request, planned, sum(to_fetch)), "fail")
    return checks


def _planned(request: BuildRequest) -> Plan | None:
    """What ``build --dry-run`` foresees; None where the base's configuration is not at hand."""
    try:
        return plan(
            request.recipe,
            request.classes,
            replicates=request.replicates,
            make_positives=request.positives is None,
            fetch=False,
        )
    except SpurbenchError:
        return None


def _weights(recipe: Recipe, planned: Plan | None) -> Iterator[_Weights]:
    """All that a build loads, each once."""
    yield _base(recipe, planned)
    roles: dict[str, list[str]] = {}
    for role, asked in [
        *(("panel", c) for c in recipe.panel.classifiers),
        ("phi", recipe.panel.phi),
    ]:
        roles.setdefault(asked, []).append(role)
    for asked, of in roles.items():
        yield _Weights(
            role=" and ".join(of),
            name=asked,
            files=_of_classifier(asked, recipe.folder),
            instead="give a file: SPEC=FILE in panel.classifiers and panel.phi",
            about=partial(_bytes_of, asked, recipe.folder),
        )
    if recipe.sfsl.decoder:
        yield _Weights(
            role="decoder",
            name=recipe.sfsl.decoder,
            files=[_either(recipe, recipe.sfsl.decoder, "diffusion_pytorch_model")],
            instead="--set sfsl.decoder=FOLDER, or none for the base's own",
        )
    if recipe.check.object_detector:
        _, _, name = recipe.check.object_detector.rpartition(":")
        yield _Weights(
            role="detector",
            name=recipe.check.object_detector,
            files=[_either(recipe, name, "model")],
            instead="--set check.object_detector=none leaves presence unchecked",
        )
    for metric in recipe.check.quality:
        yield _Weights(
            role="quality",
            name=metric,
            files=[[file] for file in PUBLISHED.get(metric, ())],
            instead="its column stays null, and `spurbench quality DIR` fills it in later",
            optional=True,
        )


def _base(recipe: Recipe, planned: Plan | None) -> _Weights:
    networks = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model")

    def about() -> float:
        if planned is None:
            return 0
        costs = planned.costs
        return 4 * (costs.unet.parameters + costs.text_encoder.parameters + costs.vae_parameters)

    return _Weights(
        role="base",
        name=recipe.base.model,
        files=[
            _either(recipe, recipe.base.model, network, recipe.base.revision)
            for network in networks
        ],
        instead="give a folder in diffusers' layout: --base FOLDER",
        about=about,
    )


def _either(recipe: Recipe, name: str, stem: str, revision: str | None = None) -> list[_File]:
    """A file of weights in a folder or on the hub, in either of two formats."""
    located = Path(recipe.locate(name))
    files = [f"{stem}.safetensors", f"{stem.replace('/model', '/pytorch_model')}.bin"]
    if located.is_dir():
        return [_Local(located / file) for file in files]
    return [HubFile(name, file, revision) for file in files]


def _of_classifier(asked: str, folder: Path) -> list[list[_File]]:
    spec, checkpoint = read_member(asked, folder)
    if checkpoint is not None:
        return [[_Local(checkpoint) if isinstance(checkpoint, Path) else checkpoint]]
    source, name = find_source(spec)
    local = source.files(name)
    if local is not None:
        return [[_Local(file)] for file in local]
    published: list[_File] = [*source.published(name)]
    return [published] if published else []


def _bytes_of(asked: str, folder: Path) -> float:
    """Bytes of a classifier's weights in float32, of an architecture without any; 0 if unknown."""
    source, name = find_source(read_member(asked, folder)[0])
    architecture, _, _ = name.partition(".")
    with torch.device("meta"):
        if source.name == "timm":
            network = timm.create_model(architecture)
        elif source.name == "torchvision":
            network = torchvision.models.get_model(architecture, weights=None)
        else:
            return 0
    return 4 * sum(parameter.numel() for parameter in network.parameters())


def _look(weights: _Weights, to_fetch: list[float]) -> list[Check]:
    """Whether weights are here, could be fetched, or neither; what is to be fetched is noted."""
    here, there, missing = 0.0, 0.0, ""
    for files in weights.files:
        cached = next((path for file in files if (path := file.cached())), None)
        if cached is not None:
            here += cached.stat().st_size
            continue
        refusals = []
        for file in files:
            try:
                there += file.size() or 0
                break
            except SpurbenchError as error:
                refusals.append(f"{file.name}: {error}")
        else:
            missing = refusals[0]
            break
    to_fetch.append(there)
    found = {"here": here, "to be fetched": there}
    sizes = ", ".join(f"{size(count)} {where}" for where, count in found.items() if count)
    if not weights.files:
        detail = f"{weights.name}: where its weights lie is known only when it is loaded"
        return [Check(weights.role, "warn", detail)]
    if missing:
        known = weights.about()
        about = f", about {size(known)}" if known else ""
        detail = f"{weights.name}: neither cached nor reachable{about} ({missing})"
        return [Check(weights.role, weights.if_missing, detail, weights.instead)]
    return [Check(weights.role, "ok", f"{weights.name}: {sizes or 'to be fetched'}")]


def _photographs(request: BuildRequest) -> list[Check]:
    """Whether every class has its photographs, and all of them decode."""
    name, wanted = "photographs", {c.index: c for c in request.classes}
    needed = request.recipe.select.references
    images = open_images(request.images, "real", decode=False, only=wanted)
    with ThreadPoolExecutor() as pool:
        faults = list(pool.map(_fault, images.records))
    whole = Counter(
        r.class_index for r, wrong in zip(images.records, faults, strict=True) if wrong is None
    )
    detail = f"{sum(whole.values())} images of {len(whole)} classes in {request.images}"
    short = [c for c in wanted.values() if whole[c.index] < needed]
    if short:
        said = _some(f"{c.name} {whole[c.index]}" for c in short)
        detail += f"; fewer than the {needed} references that a class needs: {said}"
        hint = f"expected folders like {short[0].folder}; `spurbench fetch spurious-imagenet`"
        return [Check(name, "fail", detail, hint)]
    damaged = [r.path for r, wrong in zip(images.records, faults, strict=True) if wrong]
    damaged += [entry.path for entry in images.damaged]
    if damaged:
        hint = "they would be left out; fetch them again"
        return [Check(name, "warn", f"{detail}; damaged: {_some(damaged)}", hint)]
    fewer = [c for c in wanted.values() if whole[c.index] != official.IMAGES]
    if fewer:
        said = _some(f"{c.name} {whole[c.index]}" for c in fewer)
        detail += f"; not {official.IMAGES}, as Spurious ImageNet has of a class: {said}"
        return [Check(name, "warn", detail)]
    return [Check(name, "ok", f"{detail}, {official.IMAGES} each, all of them whole")]


def _fault(record: ImageRecord) -> str | None:
    try:
        return fault(record.read())
    except (OSError, SpurbenchError) as error:
        return str(error)


def _some(names: Iterable[str], shown: int = 3) -> str:
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more


def _precision(request: BuildRequest) -> list[Check]:
    """Whether the device computes in what the recipe asks for."""
    recipe, device = request.recipe, request.device
    tuning, sampling = recipe.finetune.precision, {recipe.prior.precision, recipe.sample.precision}
    said = f"fine-tuning in {tuning}, sampling in {' and '.join(sorted(sampling))} on {device}"
    if device.type == "cpu" and tuning == "float16" and recipe.finetune.method != "base":
        hint = "--set finetune.precision=float32, or bfloat16"
        return [Check("precision", "fail", f"{said}: no processor fine-tunes in float16", hint)]
    if device.type == "cuda" and "bfloat16" in {tuning, *sampling}:
        major, minor = torch.cuda.get_device_capability(device)
        if major < 8:
            detail = f"{said}, of compute capability {major}.{minor}; bfloat16 needs 8.0"
            return [Check("precision", "fail", detail, "--set finetune.precision=float16")]
    return [Check("precision", "ok", said)]


def _memory(request: BuildRequest, planned: Plan) -> list[Check]:
    """The device's memory against the peak of fine-tuning."""
    device = request.device
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        there = f"{torch.cuda.get_device_name(device)}, {size(free)} of {size(total)} free"
    else:
        total = (
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if os.name == "posix" else 0
        )
        free = total
        there = f"{device}, {size(total)}"
    detail = f"{size(planned.memory)} at the peak of fine-tuning, and the context; {there}"
    if total and total < planned.memory:
        hint = "--set finetune.gradient_checkpointing=true, or finetune.method=lora, needs less"
        return [Check("memory", "fail", detail, hint)]
    if total and free < planned.memory:
        return [Check("memory", "warn", detail, "something else holds the rest; end it first")]
    operations = sum(stage.operations for stage in planned.stages)
    if device.type == "cpu" and operations > SLOW:
        hint = f"{operations / TERA:,.0f} TFLOP take a processor days; it needs a GPU"
        return [Check("memory", "warn", detail, hint)]
    return [Check("memory", "ok", detail)]


def _disk(request: BuildRequest, planned: Plan, to_fetch: float) -> list[Check]:
    """The disks' free space against what stages, checkpoints, dataset and weights take."""
    from huggingface_hub import constants

    stages = sum(stage.disk for stage in planned.stages) + planned.checkpoint
    images = ("sample", "controls", "positives")
    written = {
        request.work: ("stages", stages - _held(request.work)),
        request.output: ("dataset", sum(s.disk for s in planned.stages if s.name in images)),
        Path(constants.HF_HUB_CACHE): ("weights", to_fetch),
    }
    disks: dict[int, list[tuple[Path, str, float]]] = {}
    for folder, (what, needed) in written.items():
        there = next(
            path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
        )
        disks.setdefault(there.stat().st_dev, []).append((there, what, max(0.0, needed)))
    checks = []
    for entries in disks.values():
        needed, free = sum(entry[2] for entry in entries), shutil.disk_usage(entries[0][0]).free
        parts = ", ".join(f"{what} {size(count)}" for _, what, count in entries if count)
        detail = (
            f"{size(needed)} needed ({parts or 'nothing'}), {size(free)} free in {entries[0][0]}"
        )
        if needed > free:
            hint = "--work, --output and HF_HOME can name other disks; or take fewer --classes"
            checks.append(Check("disk", "fail", detail, hint))
        else:
            checks.append(Check("disk", "ok", detail))
    return checks


def _held(folder: Path) -> int:
    """Bytes that a stage store holds already."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
