"""`spurbench validity`: collect answers, work out the figures, write them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spurbench.core import atomic
from spurbench.core.environment import package_versions
from spurbench.engines.work import Engine
from spurbench.studies.validity import growth
from spurbench.studies.validity.analyse import Analysis
from spurbench.studies.validity.answers import Collected, Key
from spurbench.studies.validity.bootstrap import Draws
from spurbench.studies.validity.collect import Members, collect, load_members
from spurbench.studies.validity.plan import ValidityRequest
from spurbench.studies.validity.plots import render_plots
from spurbench.studies.validity.report import render_markdown
from spurbench.studies.validity.results import Control, Validity, WorldResult
from spurbench.studies.validity.search import choose
from spurbench.studies.validity.table import Place, Table
from spurbench.studies.validity.truth import KINDS, Truths, read_truth

DRAWS = 2000
"""Of the bootstrap."""


def validity(request: ValidityRequest, engine: Engine | None = None) -> Validity:
    """Compare ways of making a test set; write ``validity.json``, ``validity.md`` and plots.

    Results are written after each seed, so that an early look is possible. Of a finished study the
    same call makes nothing and writes them anew.

    Args:
        request: what to compare.
        engine: has the stages of builds made, see :func:`spurbench.build.build.build`.

    Returns:
        The content of ``validity.json``.

    Raises:
        SpurbenchError: if the truth is not that of the classifiers, or images can't be made or
            shown; what is finished is kept.
    """
    members = {world.name: load_members(request, world) for world in request.worlds}
    truths = {world.name: read_truth(world.truth) for world in request.worlds}
    for world in request.worlds:
        names = [c.name for c in world.classes]
        truths[world.name].require(members[world.name].weights, names)
    collected: dict[Key, Collected] = {}
    last = Key(request.worlds[-1].name, request.rows[-1].name, request.seeds[-1])
    changed = False
    for key, answers, new in collect(request, members, engine):
        collected[key] = answers
        changed |= new
        if (key.world, key.making) == (last.world, last.making) and changed and key != last:
            seeds = [seed for seed in request.seeds if seed <= key.seed]
            _write(work_out(request, members, truths, collected, seeds), request.output)
    found = work_out(request, members, truths, collected, request.seeds)
    _write(found, request.output)
    return found


def work_out(
    request: ValidityRequest,
    members: Mapping[str, Members],
    truths: Mapping[str, Truths],
    collected: Mapping[Key, Collected],
    seeds: Sequence[int],
) -> Validity:
    """Every figure, of finished seeds.

    Args:
        request: what is compared.
        members: of each world by name.
        truths: likewise.
        collected: all answers of these seeds.
        seeds: that are finished.
    """
    places = []
    for world in request.worlds:
        own = members[world.name]
        zoo = [c.info.name for c in own.zoo]
        names = [c.name for c in world.classes]
        places.append(
            Place(
                name=world.name,
                classes=[c.index for c in world.classes],
                panel=[c.info.name for c in own.panel],
                zoo=zoo,
                truth=truths[world.name].values(zoo, names),
            )
        )
    table = Table(places, seeds, collected)
    analysis = Analysis(
        table=table,
        draws=Draws(len(seeds), [len(p.classes) for p in places], draws=DRAWS, seed=0),
        other_truths={
            kind: [
                truths[world.name].values(place.zoo, [c.name for c in world.classes], kind)
                for world, place in zip(request.worlds, places, strict=True)
            ]
            for kind in KINDS[1:]
        },
    )
    rows = analysis.rows(request.rows, request.baselines)
    return Validity(
        overrides=request.overrides,
        seeds=tuple(seeds),
        draws=DRAWS,
        baselines=tuple(request.baselines),
        worlds=tuple(
            _world(request, members[place.name], table, position)
            for position, place in enumerate(places)
        ),
        rows=tuple(rows),
        search=choose(request.search, rows) if request.search else None,
        versions=package_versions(),
    )


def _world(request: ValidityRequest, members: Members, table: Table, position: int) -> WorldResult:
    world, place = request.worlds[position], table.places[position]
    names = [c.name for c in world.classes]
    estimates = {}
    for making in request.rows:
        controls: tuple[Control, ...] = ("twin-base", "prior")
        for control in controls:
            pairs = table.pairs(making.name, control)
            if pairs is not None:
                seeds = range(len(table.seeds))
                own = [growth.estimates("effect", pairs[position, seed]) for seed in seeds]
                values = np.mean([told for told in own if told is not None], axis=0)
                estimates[making.name] = _by_name(place.zoo, names, values)
                break
    return WorldResult(
        name=world.name,
        classes=tuple(names),
        panel=tuple(place.panel),
        zoo=tuple(place.zoo),
        left_out=tuple(members.left_out),
        truth=_by_name(place.zoo, names, place.truth),
        estimates=estimates,
    )


def _by_name(
    classifiers: Sequence[str], classes: Sequence[str], values: NDArray[np.float64]
) -> dict[str, dict[str, float | None]]:
    return {
        name: {
            c: float(value) if math.isfinite(value) else None
            for c, value in zip(classes, row, strict=True)
        }
        for name, row in zip(classifiers, values, strict=True)
    }


def _write(found: Validity, output: Path) -> None:
    atomic.write_json(output / "validity.json", found.as_json())
    atomic.write_text(output / "validity.md", render_markdown(found))
    for name, picture in render_plots(found).items():
        atomic.write_bytes(output / name, picture)
