"""Bad documents and bytes out of sound ones, by Hypothesis, the same at every run."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SEED = 20_260_101


class Raw(str):
    """What a document says literally, where no value of Python's would come out so."""


DEEP = Raw("[" * 100_000 + "]" * 100_000)
LONG_NUMBER = Raw("9" * 5_000)

PATHS = st.sampled_from(
    ["../../../OUTSIDE", "/", ".", "..", "/dev/zero", "a/../../OUTSIDE", "~", "CON", "a\\b", " "]
)
MARKUP = st.sampled_from(
    [
        "humming[/b]bird",
        "[red]x",
        "[/]",
        "</script><script>alert(1)</script>",
        "| a | b |",
        "x\nError: forged",
        "\x1b[2J\x1b]0;title\x07",
        "\x00",
        "\u202egnp.exe",
        "\ud800",
        "{noun.x}",
        "{0}",
        "{token!r:>99999999999}",
        "{",
        "²",
        "٩٤",
        "x" * 100_000,
    ]
)
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([10**12, 10**20, -(2**63), 2**63, 2**64, 5000, LONG_NUMBER]),
    st.sampled_from([0.0, -0.5, 1.5, 1e308, float("inf"), float("-inf"), float("nan")]),
)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    MARKUP,
    PATHS,
    st.text(max_size=20),
    st.sampled_from([[], {}, [[]], [None], {"": None}, {"a": 1}, "", DEEP]),
)
"""Values that a document does not expect."""


def examples(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """The first ``count`` different examples of a strategy; of a narrow one, what there is."""
    found: dict[str, Any] = {}

    @seed(SEED)
    @settings(
        max_examples=4 * count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(example: Any) -> None:
        found.setdefault(repr(example), example)

    draw()
    return list(found.values())[:count]


def changed(document: Any) -> st.SearchStrategy[Any]:
    """``document`` with one node replaced, removed, doubled or added."""
    places = list(_places(document))

    @st.composite
    def change(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
        place = draw(st.sampled_from(places))
        made = copy.deepcopy(document)
        if not place:
            return draw(ODD)
        holder = made
        for part in place[:-1]:
            holder = holder[part]
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "double"]))
        if action == "remove":
            del holder[place[-1]]
        elif action == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(["unknown", "", "a.b", "__class__"]))] = draw(ODD)
        elif action == "double" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[place[-1]]))
        else:
            holder[place[-1]] = draw(ODD)
        return made

    return change()


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """``data`` cut short, with bytes overwritten, or with something before or behind it."""
    position = st.integers(0, max(len(data) - 1, 0))
    return st.one_of(
        position.map(lambda at: data[:at]),
        st.tuples(position, st.binary(min_size=1, max_size=64)).map(
            lambda edit: data[: edit[0]] + edit[1] + data[edit[0] + len(edit[1]) :]
        ),
        st.binary(min_size=1, max_size=8).map(lambda junk: junk + data),
        position.map(lambda at: data[:at] + bytes(64) + data[at + 64 :]),
    )


def as_json(document: Any) -> str:
    """JSON, with ``NaN`` and literal parts as they are."""
    return _with_raw(json.dumps(_marked(document, literals := []), ensure_ascii=True), literals)


def as_toml(document: Any) -> str:
    """TOML: a line for each key, tables inside it; ``none`` stands where TOML has no value."""
    if not isinstance(document, dict):
        return f"value = {_toml(document)}\n"
    return "".join(f"{_key(key)} = {_toml(value)}\n" for key, value in document.items())


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = list(enumerate(value))[:4]
    for key, item in items:
        yield from _places(item, (*place, key))


def _marked(value: Any, literals: list[Raw]) -> Any:
    if isinstance(value, Raw):
        literals.append(value)
        return f"@@{len(literals) - 1}@@"
    if isinstance(value, dict):
        return {key: _marked(item, literals) for key, item in value.items()}
    return [_marked(item, literals) for item in value] if isinstance(value, list) else value


def _with_raw(text: str, literals: list[Raw]) -> str:
    for i, literal in enumerate(literals):
        text = text.replace(f'"@@{i}@@"', literal)
    return text


def _key(key: str) -> str:
    return json.dumps(key)


def _toml(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=True)
    return "none" if value is None else str(value)
