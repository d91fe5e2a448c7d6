"""Draw mutants, run each against the tests that cover its line, say which survive.

    PYTHONPATH=tests python -m mutants --count 300 --seed 0

Goes on where it stopped; any change of code, tests or data starts anew. Ends with status 1 where
fewer are killed than asked for, or where a survivor stands without a reason in docs/testing.md.
"""

from __future__ import annotations

import argparse
import functools
import gc
import hashlib
import json
import re
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mutants import covering, runs
from mutants.covering import Covering
from mutants.mutations import Mutant, Source, difference, draw, read

ROOT = Path(__file__).parents[2]
REASONS = Path("docs/testing.md")
TARGETS = (
    "spurbench/evaluation/*.py",
    "spurbench/diffusion/losses.py",
    "spurbench/diffusion/objective.py",
    "spurbench/diffusion/sample.py",
    "spurbench/diffusion/finetune.py",
    "spurbench/build/examine.py",
    "spurbench/build/sampling.py",
    "spurbench/build/stages.py",
    "spurbench/build/stages/*.py",
    "spurbench/dataset/rows.py",
    "spurbench/dataset/write.py",
    "spurbench/leaderboard/entries.py",
    "spurbench/leaderboard/boards.py",
)
KILLED = ("killed", "timed out", "crashed")


def main() -> int:
    """Parse, run, report."""
    arguments = _arguments()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(
        str(path.relative_to(ROOT))
        for pattern in arguments.files or TARGETS
        for path in ROOT.glob(pattern)
    )
    if not files:
        sys.exit(f"no file matches {arguments.files}")
    runs.load_libraries(out / "bytecode")
    sources = [read(ROOT, file) for file in files]
    drawn = list(draw(sources, arguments.count, arguments.seed))
    state = _state(files, arguments.tests)
    tests = _covering(out, state, files, arguments.tests)
    log = out / "outcomes.jsonl"
    outcomes = _read(log, None if arguments.only_survivors else state)
    if arguments.only_survivors:
        drawn = [
            (m, text) for m, text in drawn if outcomes.pop(m.id, {}).get("outcome") == "survived"
        ]
    wanted = [(mutant, text) for mutant, text in drawn if mutant.id not in outcomes]
    for done, outcome in enumerate(_run(wanted, sources, tests, arguments.jobs), 1):
        outcomes[outcome["id"]] = outcome
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"state": state, **outcome}) + "\n")
        if not arguments.quiet:
            print(f"{done}/{len(wanted)} {_line(outcome)}", flush=True)
    found = [outcomes[mutant.id] for mutant, _ in drawn]
    wrong = _control(found, tests)
    report = _report(found, sources, tests, wrong, arguments)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return _print(report, sources)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="how many mutants to draw")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--files", nargs="+", metavar="GLOB", help="sources, from the root")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="as pytest takes them")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--threshold", type=float, default=0.85, help="share to be killed")
    parser.add_argument(
        "--only-survivors", action="store_true", help="run the last survivors again"
    )
    parser.add_argument("--quiet", action="store_true", help="no line for each mutant")
    parser.add_argument("--out", type=Path, default=Path("out/mutants"))
    return parser.parse_args()


def _state(files: list[str], tests: list[str]) -> str:
    """Hash of all that an outcome follows from."""
    digest = hashlib.sha256(json.dumps([files, tests]).encode())
    folders = ("spurbench", "tests", "builders", "dataset_cards")
    for path in sorted(p for folder in folders for p in (ROOT / folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and "mutants" not in path.parts:
            digest.update(f"{path.relative_to(ROOT)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _covering(out: Path, state: str, files: list[str], paths: list[str]) -> Covering:
    """Which tests cover what, measured unless that was done for this very state."""
    cache = out / "covering.json"
    if cache.is_file() and (known := json.loads(cache.read_text()))["state"] == state:
        return Covering(known["found"])
    print(f"measuring which of {' '.join(paths)} cover what", flush=True)
    task = functools.partial(covering.measure, root=ROOT, files=files, paths=paths)
    child = runs.start(task, ROOT, quiet=False)
    _, ended = runs.wait({child.pid: child})
    if ended.answer is None:
        sys.exit(f"the tests could not be measured (signal {ended.signal})")
    cache.write_text(json.dumps({"state": state, "found": ended.answer}))
    return Covering(ended.answer)


def _read(log: Path, state: str | None) -> dict[str, dict[str, Any]]:
    """Outcomes so far by mutant: of a state, or the last of any."""
    if not log.is_file():
        return {}
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return {line["id"]: line for line in lines if state in (None, line["state"])}


def _run(
    wanted: list[tuple[Mutant, str]], sources: list[Source], tests: Covering, jobs: int
) -> Iterable[dict[str, Any]]:
    """Outcomes, as they come."""
    texts = {source.file: source.text for source in sources}
    waiting, children, mutants = deque(wanted), {}, {}
    while waiting or children:
        while waiting and len(children) < jobs:
            mutant, text = waiting.popleft()
            limits = tests.of(mutant.file, mutant.lines)
            if not limits:
                yield _outcome(
                    mutant, texts[mutant.file], text, 0, "survived", why="no test covers it"
                )
                continue
            mutated = runs.Mutated(ROOT, mutant.file, text)
            task = functools.partial(runs.run_tests, limits=limits, mutated=mutated)
            child = runs.start(task, ROOT)
            children[child.pid], mutants[child.pid] = child, (mutant, text, limits)
        if children:
            child, ended = runs.wait(children)
            mutant, text, limits = mutants.pop(child.pid)
            yield _outcome(mutant, texts[mutant.file], text, len(limits), *_verdict(ended), ended)


def _verdict(ended: runs.Ended) -> tuple[str, str, str]:
    """Outcome, by which test, and why."""
    answer = ended.answer
    if ended.signal == signal.SIGALRM:
        return "timed out", "", "a test took five times its time"
    if ended.signal:
        return "crashed", "", signal.Signals(ended.signal).name
    if answer is None:
        return "error", "", "the child gave no answer"
    if answer["failed"]:
        return "killed", *answer["failed"]
    if not answer["ran"] or not answer["loaded"]:
        return "error", "", "no test ran, or none imported the mutant"
    return "survived", "", ""


def _outcome(
    mutant: Mutant,
    before: str,
    after: str,
    covered_by: int,
    outcome: str,
    by: str = "",
    why: str = "",
    ended: runs.Ended | None = None,
) -> dict[str, Any]:
    return {
        "id": mutant.id,
        "file": mutant.file,
        "function": mutant.function,
        "operator": mutant.operator,
        "line": mutant.line,
        "outcome": outcome,
        "by": by,
        "why": why,
        "covered_by": covered_by,
        "seconds": round(ended.seconds, 1) if ended else 0.0,
        "diff": difference(before, after),
    }


def _control(found: list[dict[str, Any]], tests: Covering) -> str:
    """Whether all tests that killed pass, in the same way, where nothing is mutated."""
    killers = {outcome["by"] for outcome in found} & tests.tests.keys()
    if not killers:
        return ""
    limits = {name: 10 + 5 * tests.seconds(name) for name in sorted(killers)}
    child = runs.start(functools.partial(runs.run_tests, limits=limits, mutated=None), ROOT)
    _, ended = runs.wait({child.pid: child})
    outcome, by, why = _verdict(ended)
    return "" if outcome == "survived" else f"{outcome} without a mutant: {by} {why}"


def _report(
    found: list[dict[str, Any]],
    sources: list[Source],
    tests: Covering,
    wrong: str,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    left_out: Counter[str] = sum((source.left_out for source in sources), Counter())
    killed = sum(outcome["outcome"] in KILLED for outcome in found)
    share = killed / len(found) if found else 0.0
    reasons = (ROOT / REASONS).read_text(encoding="utf-8") if (ROOT / REASONS).is_file() else ""
    known = set(re.findall(r"^\| `([0-9a-f]{10})` \|", reasons, re.MULTILINE))
    alive = [outcome for outcome in found if outcome["outcome"] not in KILLED]
    return {
        "seed": arguments.seed,
        "mutants": sum(len(source.mutants) for source in sources),
        "left_out": dict(left_out),
        "drawn": len(found),
        "killed": killed,
        "share": share,
        "enough": share >= arguments.threshold,
        "seconds": round(sum(outcome["seconds"] for outcome in found)),
        "failing_unmutated": tests.failed,
        "control": wrong,
        "without_reason": [outcome["id"] for outcome in alive if outcome["id"] not in known],
        "survivors": alive,
        "outcomes": found,
    }


def _print(report: dict[str, Any], sources: list[Source]) -> int:
    by_file: dict[str, Counter[str]] = {source.file: Counter() for source in sources}
    for outcome in report["outcomes"]:
        by_file[outcome["file"]][outcome["outcome"]] += 1
    by_file["all"] = sum(by_file.values(), Counter())
    print(f"\n{'file':44} drawn killed timed out crashed survived  killed")
    for file, counts in by_file.items():
        total = counts.total()
        if total:
            alive = counts["survived"] + counts["error"]
            print(
                f"{file:44}{total:6}{counts['killed']:7}{counts['timed out']:10}"
                f"{counts['crashed']:8}{alive:9}{1 - alive / total:8.1%}"
            )
    for outcome in report["survivors"]:
        mark = "" if outcome["id"] in report["without_reason"] else " (reason in docs)"
        print(f"\n{_line(outcome)}{mark}\n{outcome['diff']}")
    left_out = ", ".join(f"{count} {reason}" for reason, count in report["left_out"].items())
    print(
        f"\n{report['mutants']} mutants in all, {report['drawn']} drawn with seed {report['seed']}"
    )
    print(f"not counted: {left_out}")
    print(f"{report['seconds']} seconds of tests")
    if report["failing_unmutated"]:
        print(f"not used, for they fail as it is: {', '.join(report['failing_unmutated'])}")
    complaints = []
    if report["control"]:
        complaints.append(report["control"])
    if not report["enough"]:
        complaints.append(f"only {report['share']:.1%} are killed")
    if report["without_reason"]:
        missing = ", ".join(report["without_reason"])
        complaints.append(f"survivors without a reason in {REASONS}: {missing}")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return bool(complaints)


def _line(outcome: dict[str, Any]) -> str:
    where = f"{outcome['file']} {outcome['function']} {outcome['operator']}"
    how = f"{outcome['seconds']} s of {outcome['covered_by']} tests"
    return f"{outcome['id']} {outcome['outcome']}: {where} ({how}) {outcome['by']} {outcome['why']}"


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"{time.monotonic() - started:.0f} seconds in all")
    gc.unfreeze()
    sys.exit(status)
