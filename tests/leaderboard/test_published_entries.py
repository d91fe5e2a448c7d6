"""The entries that are published: what is written today must still be what stands there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spurbench.core.errors import SpurbenchError
from spurbench.leaderboard import check, entries

PUBLISHED = sorted((Path(__file__).parents[2] / "leaderboards").glob("*/*.json"))
OPTIONAL = {"version", "spurious_feature"}
"""What not every dataset has."""
OPTIONAL |= {"role", "crop", "interpolation"}
"""What not every classifier or measurement has."""


@pytest.fixture(params=PUBLISHED, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


def test_a_published_entry_is_written_again_byte_by_byte(path, tmp_path):
    entries.read(path).write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_published_entry_has_the_name_that_it_would_get_today(path):
    assert entries.read(path).file_name == path.name


def test_a_published_entry_is_what_reviewers_ask_for(path):
    check.check(path)


def test_a_line_of_a_published_entry_is_short_or_holds_a_class_s_answers(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        key = line.strip().partition(":")[0].strip('"')
        assert key in ("predictions", "probabilities", "left_out") or len(line) < 120


def places(value: Any, where: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every key, in the first item of each list."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*where, key)
            yield from places(item, (*where, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*where, 0))


def without(document: Any, where: tuple[str | int, ...]) -> Any:
    copy = json.loads(json.dumps(document))
    parent = copy
    for key in where[:-1]:
        parent = parent[key]
    del parent[where[-1]]
    return copy


def test_every_key_of_an_entry_is_needed_but_for_a_version_a_feature_and_the_environments(tmp_path):
    document = json.loads(PUBLISHED[0].read_text(encoding="utf-8"))
    file = tmp_path / "entry.json"
    for where in places(document):
        file.write_text(json.dumps(without(document, where)))
        # Every positive counts, and there is one generator: said, and so unless it is said.
        nothing = where[0] == "answers" and where[-1] == "generators"
        nothing |= where == ("answers", "positive", 0, "left_out")
        if where[-1] in OPTIONAL or where[:-1] == ("environment",) or nothing:
            entries.read(file)
        else:
            with pytest.raises(SpurbenchError, match=r"entry\.json"):
                entries.read(file)


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("mean_probability", 2e-4),
        ("mean_probability", -2e-4),
        ("spurious_accuracy", 1e-5),
        ("spurious_accuracy", -1e-5),
    ],
)
def test_a_class_whose_number_is_not_that_of_its_answers_is_refused(tmp_path, where, change):
    document = json.loads(PUBLISHED[0].read_text(encoding="utf-8"))
    classes = document["splits"]["generated"]["classes"]
    unsure = next(own for own in classes if 0.1 < own["spurious_accuracy"] < 0.9)
    unsure[where] += change
    (tmp_path / "entry.json").write_text(json.dumps(document))
    with pytest.raises(SpurbenchError, match=f"{where} differs from the answers"):
        entries.read(tmp_path / "entry.json")
