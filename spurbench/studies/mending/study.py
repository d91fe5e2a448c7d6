"""`spurbench mini mending`: mend, measure before and after, write what was found."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from spurbench.core import atomic
from spurbench.core.environment import environment, one_thread
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.members import Member
from spurbench.mini.training.jobs import start_pool
from spurbench.studies.mending.cells import Mended, doctored_folder, given_of, mend_and_ask
from spurbench.studies.mending.doctored import write_doctored
from spurbench.studies.mending.figures import MEASURES, change, figure, values
from spurbench.studies.mending.goals import goals
from spurbench.studies.mending.plan import MendingRequest, Part, Row
from spurbench.studies.mending.plots import render_plots
from spurbench.studies.mending.report import render_markdown
from spurbench.studies.mending.results import Figures, Group, Mending, RowResult

log = logging.getLogger(__name__)


def study(request: MendingRequest, jobs: int = 1) -> Mending:
    """Mend every classifier in every way; write ``mending.json``, ``mending.md`` and plots.

    What is finished is kept in ``answers`` and ``mended``; the same call goes on after an
    interruption, and of a finished study works the figures out anew.

    Args:
        request: what to mend, and how.
        jobs: processes, each with a classifier of its own; how many decides nothing of the figures.

    Returns:
        The content of ``mending.json``.

    Raises:
        SpurbenchError: if something is missing, or a classifier can't be mended.
    """
    request.require()
    specs = list(request.parts)
    names = [Member.parse(spec).load("cpu").info.name for spec in specs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise SpurbenchError(f"two classifiers are called {twice[0]}; rename the folder of one")
    counts = [row.per_class or 0 for row in request.rows if row.source == "doctored"]
    if counts:
        write_doctored(doctored_folder(request), request.data, max(counts), request.device)
    if jobs > 1:
        with start_pool(jobs, threads=1) as pool:
            mended = list(pool.map(partial(mend_and_ask, request), specs))
    else:
        mended = [mend_and_ask(request, spec) for spec in specs]
    with one_thread():
        found = work_out(request, mended)
    _write(found, request.output)
    return found


def work_out(request: MendingRequest, mended: Sequence[Mended]) -> Mending:
    """Every figure.

    Args:
        request: what was asked for.
        mended: answers of the classifiers, in the request's order.
    """
    shared = given_of(request)
    parts = list(request.parts.values())
    groups = [
        _group(one.info.name, part, [one], request.rows)
        for one, part in zip(mended, parts, strict=True)
    ]
    means = [
        _group(part, part, own, request.rows)
        for part in dict.fromkeys(parts)
        if (own := [one for one, of in zip(mended, parts, strict=True) if of == part])
    ]
    return Mending(
        seed=request.seed,
        scenes=request.scenes,
        fingerprint=shared.scenes.fingerprint,
        images=shared.images,
        spurious=dict(shared.spurious),
        settings={
            method: asdict(settings)
            for method in dict.fromkeys(row.method for row in request.rows)
            if (settings := request.settings(method)) is not None
        },
        means=tuple(means),
        classifiers=tuple(groups),
        goals=goals(groups, mended),
        environment=environment(request.device),
    )


def _group(name: str, part: Part, mended: Sequence[Mended], rows: Sequence[Row]) -> Group:
    before = {measure: values([one.before for one in mended], measure) for measure in MEASURES}
    results = []
    for row in rows:
        after: Figures = {}
        changed: Figures = {}
        for measure in MEASURES:
            if measure == "real" and row.source == "real":  # what it was mended with
                after[measure] = changed[measure] = None
                continue
            own = values([one.after[row.name] for one in mended], measure)
            after[measure] = figure(own)
            changed[measure] = change(before[measure], own)
        results.append(RowResult(**row.model_dump(), after=after, change=changed))
    return Group(
        name=name,
        part=part,
        classifiers=tuple(one.info for one in mended),
        before={measure: figure(own) for measure, own in before.items()},
        rows=tuple(results),
    )


def _write(found: Mending, output: Path) -> None:
    atomic.write_json(output / "mending.json", found.as_json())
    atomic.write_text(output / "mending.md", render_markdown(found))
    for name, picture in render_plots(found).items():
        atomic.write_bytes(output / name, picture)
