"""Which tests run which lines, and how long each takes: one run of the suite, measured."""

from __future__ import annotations

import importlib
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

from mutants.runs import module_name, pytest_arguments


def measure(folder: Path, root: Path, files: list[str], paths: list[str]) -> dict[str, Any]:
    """Run the fast tests under coverage; in a child.

    A fixture that several tests share is a context of its own: its lines count for every test that
    asks for it, not only for the one that happens to be first.

    Args:
        folder: a temporary one.
        root: the repository's.
        files: whose lines are wanted, from the root.
        paths: the tests, as pytest takes them.

    Returns:
        ``tests``: outcome, seconds and shared fixtures of each; ``fixtures``: seconds of each;
        ``lines``: file, line number, contexts; a line that runs on import has the context "".
    """
    measured = coverage.Coverage(
        data_file=None, include=[str(root / file) for file in files], config_file=False
    )
    measured.start()
    # In the context of no test, whichever test would have imported it first.
    for file in files:
        importlib.import_module(module_name(file))
    recorder = _Recorder(measured)
    pytest.main([*pytest_arguments(folder, paths), "--tb=line"], plugins=[recorder])
    measured.stop()
    data = measured.get_data()
    return {
        "tests": recorder.tests,
        "fixtures": recorder.fixtures,
        "lines": {file: data.contexts_by_lineno(str(root / file)) for file in files},
    }


class _Recorder:
    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured, self.context = measured, ""
        self.tests: dict[str, dict[str, Any]] = {}
        self.fixtures: dict[str, float] = defaultdict(float)
        self.shared = 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._switch(item.nodeid)
        names = list(getattr(item, "fixturenames", ()))
        self.tests[item.nodeid] = {"outcome": "passed", "seconds": 0.0, "fixtures": names}
        self.shared, started = 0.0, time.monotonic()
        try:
            return (yield)
        finally:
            seconds = time.monotonic() - started - self.shared
            self.tests[item.nodeid]["seconds"] = round(seconds, 3)
            self._switch("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self.tests[report.nodeid]["outcome"] = report.outcome

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Iterator[Any]:
        if fixturedef.scope == "function":
            return (yield)
        outer, started, inner = self.context, time.monotonic(), self.shared
        key = f"{fixturedef.baseid}::{fixturedef.argname}"
        self._switch(f"fixture {key}")
        try:
            return (yield)
        finally:
            self._switch(outer)
            seconds = time.monotonic() - started
            self.fixtures[key] += seconds - (self.shared - inner)
            self.shared = inner + seconds

    def _switch(self, context: str) -> None:
        self.context = context
        self.measured.switch_context(context)


class Covering:
    """Answers, from what :func:`measure` found, which tests a mutant is run against."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.tests = {n: t for n, t in found["tests"].items() if t["outcome"] == "passed"}
        self.failed = sorted(n for n, t in found["tests"].items() if t["outcome"] == "failed")
        self.fixtures: dict[str, float] = found["fixtures"]
        self.lines: dict[str, dict[int, list[str]]] = {
            file: {int(line): contexts for line, contexts in lines.items()}
            for file, lines in found["lines"].items()
        }
        users: dict[str, set[str]] = defaultdict(set)
        for name in self.tests:
            for key in self._shared(name):
                users[f"fixture {key}"].add(name)
        self.users = users

    def of(self, file: str, lines: tuple[int, ...]) -> dict[str, float]:
        """The tests that run any of the lines, in the order to run them, and each one's limit.

        A line that runs on import concerns every test that runs anything in its file.

        Returns:
            Seconds after which a test is taken for endless, by test: quick tests first, then
            those with shared fixtures file by file, so that no fixture is made twice.
        """
        known = self.lines[file]
        contexts = {context for line in lines for context in known.get(line, ())}
        if "" in contexts:
            contexts = {context for found in known.values() for context in found}
        names = {name for context in contexts for name in self._tests(context)}
        per_file: dict[str, float] = defaultdict(float)
        for name in names:
            per_file[name.split("::")[0]] += self.tests[name]["seconds"]

        def order(name: str) -> tuple[bool, float, str, float, str]:
            module, seconds = name.split("::")[0], self.tests[name]["seconds"]
            if not self._shared(name):
                return False, 0.0, "", seconds, name
            return True, per_file[module], module, seconds, name

        return {name: 10 + 5 * self.seconds(name) for name in sorted(names, key=order)}

    def seconds(self, name: str) -> float:
        """How long a test takes alone, shared fixtures included."""
        shared = sum(self.fixtures[key] for key in self._shared(name))
        return float(self.tests[name]["seconds"] + shared)

    def _tests(self, context: str) -> set[str]:
        return {context} & self.tests.keys() | self.users.get(context, set())

    def _shared(self, name: str) -> list[str]:
        keys = []
        for key in self.fixtures:
            folder, fixture = key.rsplit("::", 1)
            if name.startswith(folder) and fixture in self.tests[name]["fixtures"]:
                keys.append(key)
        return keys
