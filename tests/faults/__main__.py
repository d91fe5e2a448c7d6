"""``make test-faults``: all faults, the table of their counts, and what is not as it should be."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

VERDICTS = ("refused", "accepted", "executed", "hung", "unexpected", "silent", "left behind")
DISTURBED = ("torn", "not again", "other content", "not one line", "not killed", "left behind")
FINE = ("refused", "accepted")

_work: list[Callable[[], Any]] = []
"""What is to be done, by position: processes are forked with it, so nothing is pickled."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--only", default="", help="pattern in a kind's or a command's name")
    parser.add_argument("--part", choices=["all", "inputs", "writing"], default="all")
    parser.add_argument("--share", type=float, default=1, help="of all, drawn with a fixed seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--seconds", type=float, default=20, help="of processor time, after which it hangs"
    )
    parser.add_argument("--output", type=Path, default=Path("out/faults"))
    parser.add_argument("--keep", action="store_true", help="keep the folders of what failed")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    # Before anything is imported that looks at them.
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(root / "hf"),
        "TORCH_HOME": str(root / "torch"),
        "MPLBACKEND": "agg",
    }
    try:
        return _drive(options, root)
    finally:
        if options.keep:
            _say(f"kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


def _drive(options: argparse.Namespace, root: Path) -> int:
    started = time.monotonic()
    from faults import process

    process.import_everything()
    from faults import (
        bad_archives,
        bad_arguments,
        bad_data,
        bad_documents,
        bad_models,
        bad_parts,
        bad_sources,
        commands,
        writing,
    )
    from faults.case import judge
    from faults.world import World

    world = World(root / "world")
    world.make()
    _say(f"made a recipe, its dataset and results in {time.monotonic() - started:.0f} s")

    rng = random.Random(0)

    def chosen(name: str) -> bool:
        return bool(re.search(options.only, name)) and rng.random() < options.share

    kinds = (bad_documents, bad_data, bad_parts, bad_models, bad_sources, bad_archives)
    kinds += (bad_arguments,)
    cases = [
        case
        for kind in kinds
        if options.part != "writing"
        for case in kind.cases(world)
        if chosen(case.kind)
    ]
    outcomes = _each(
        [
            lambda i=i, case=case: judge(case, root / "cases" / str(i), options.seconds)
            for i, case in enumerate(cases)
        ],
        options.jobs,
        "bad inputs",
        lambda i, o: (
            ""
            if o.verdict in FINE
            else f"{o.verdict}: {cases[i].kind}: {cases[i].name}: {o.seen!r:.400}"
        ),
    )
    trials = [
        writing.Trial(command, root / "writing" / str(i))
        for i, command in enumerate(commands.commands(world))
        if options.part != "inputs" and re.search(options.only, command.name)
    ]
    prepared = _each([trial.prepare for trial in trials], options.jobs, "undisturbed")
    for trial, undisturbed in zip(trials, prepared, strict=True):
        trial.undisturbed = undisturbed
    attempts = _each(
        [
            lambda trial=trial, failure=failure, at=at, i=i: trial.disturb(failure, at, f"at-{i}")
            for trial in trials
            for i, (failure, at) in enumerate(trial.attempts())
            if rng.random() < options.share
        ],
        options.jobs,
        "kills and full disks",
        lambda i, a: f"{a.failure} {a.command} at {a.at}: {a.faults!r:.400}" if a.faults else "",
    )

    tables = [
        _table(
            "Bad input",
            [(case.kind, [outcome.verdict]) for case, outcome in zip(cases, outcomes, strict=True)],
            VERDICTS,
        ),
        *(
            _table(
                title,
                [
                    (attempt.command, list(attempt.faults) or ["clean"])
                    for attempt in attempts
                    if attempt.failure == failure
                ],
                ("clean", *DISTURBED),
            )
            for title, failure in (("Killed", "kill"), ("Disk full", "full"))
        ),
    ]
    text = "\n\n".join(filter(None, tables))
    _say(f"\n{text}\n")
    bad = [outcome for outcome in outcomes if outcome.verdict not in FINE]
    torn = [attempt for attempt in attempts if attempt.faults]
    options.output.mkdir(parents=True, exist_ok=True)
    document = {
        "counts": {
            "bad inputs": len(cases),
            "kills": sum(attempt.failure == "kill" for attempt in attempts),
            "full disks": sum(attempt.failure == "full" for attempt in attempts),
            "not clean": len(bad) + len(torn),
        },
        "operations": {trial.command.name: trial.undisturbed.operations for trial in trials},
        "inputs": [
            {"kind": c.kind, "name": c.name, "arguments": c.arguments, **asdict(o)}
            for c, o in zip(cases, outcomes, strict=True)
        ],
        "disturbed": [asdict(attempt) for attempt in attempts],
    }
    (options.output / "faults.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    (options.output / "faults.md").write_text(text + "\n", encoding="utf-8")
    counts = ", ".join(f"{count} {what}" for what, count in document["counts"].items())
    _say(f"{counts}; {time.monotonic() - started:.0f} s; {options.output}/faults.json")
    return 1 if bad or torn else 0


def _each(
    work: list[Callable[[], Any]],
    jobs: int,
    what: str,
    describe: Callable[[int, Any], str] = lambda position, result: "",
) -> list[Any]:
    """Do ``work`` in processes; say how far it is, and what is wrong with a result."""
    _work[:] = work
    start, results = time.monotonic(), []
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        for result in pool.map(_do, range(len(work))):
            results.append(result)
            if wrong := describe(len(results) - 1, result):
                _say(wrong)
            if len(results) % 50 == 0:
                _say(f"{what}: {len(results)} of {len(work)}, {time.monotonic() - start:.0f} s")
    return results


def _do(position: int) -> Any:
    return _work[position]()


def _table(title: str, rows: Sequence[tuple[str, Sequence[str]]], columns: Sequence[str]) -> str:
    """Markdown: a line for each kind with its counts, and their sums; nothing of nothing."""
    if not rows:
        return ""
    kinds = [*dict.fromkeys(kind for kind, _ in rows), "all"]
    counts = {kind: Counter[str]() for kind in kinds}
    for kind, found in rows:
        for column in found:
            counts[kind][column] += 1
            counts["all"][column] += 1
    tried = Counter(kind for kind, _ in rows) | {"all": len(rows)}
    lines = [f"| {title} | tried | {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) + 1)]
    lines += [
        f"| {kind} | {tried[kind]} | {' | '.join(str(counts[kind][c]) for c in columns)} |"
        for kind in kinds
    ]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text.encode("utf-8", "backslashreplace").decode(), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
