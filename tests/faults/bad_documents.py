"""Bad TOML and JSON: recipes, classes, ablations, panels, manifests, results, entries."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults.case import Case
from faults.generate import as_json, as_toml, changed, examples
from faults.world import World

RAW_TOML = {
    "not UTF-8": b"name = '\xff\xfe'\n",
    "UTF-16": "name = 'x'\n".encode("utf-16"),
    "empty": b"",
    "junk": bytes(range(256)),
    "nested 100,000 deep": b"name = " + b"[" * 100_000 + b"]" * 100_000,
    "tables 100,000 deep": b"[" + b".".join([b"a"] * 100_000) + b"]\n",
    "a number of 5,000 digits": b"name = " + b"9" * 5_000,
    "NUL": b"name = 'a\0b'\n",
    "a key twice": b"name = 'a'\nname = 'b'\n",
    "a list at the top": b"[[name]]\n",
}
RAW_JSON = {
    "empty": b"",
    "not UTF-8": b'{"schema": "\xff"}',
    "UTF-16": '{"schema": 1}'.encode("utf-16"),
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "a string": b'"spurbench.result/1"',
    "nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "objects 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "NaN": b"NaN",
    "cut short": b'{"schema": "spurbench.',
    "surrogates": b'{"schema": "\\ud800"}',
}


def cases(world: World) -> Iterator[Case]:
    """Every kind of document, mutated and raw, to the commands that read it."""
    yield from _tomls(world)
    yield from _manifests(world)
    yield from _results(world)
    yield from _checked(world)
    yield from _explicit(world)


def _tomls(world: World) -> Iterator[Case]:
    plan = ("build", "--recipe", "recipe", "--dry-run")
    ablate = ("ablate", "--recipe", "recipe", "--classes", "none such")
    panel = ("eval", "--data", str(world.photographs), "--panel", "panel.toml")
    yield from _mutated(world, "recipe.toml", plan, 50)
    yield from _mutated(world, "classes.toml", ("classes", "--recipe", "recipe"), 24)
    yield from _mutated(world, "classes.toml", plan, 12)
    yield from _mutated(world, "ablation.toml", ablate, 24)
    for name, document in (
        ("panel.toml", {"classifiers": [str(world.model), str(world.other_model)]}),
        ("classes.toml", tomllib.loads((world.recipe / "classes.toml").read_text())),
    ):
        for i, made in enumerate(examples(changed(document), 14)):
            keeps: tuple[str, ...] = ()
            if name == "panel.toml":
                lay, arguments = _text(name, as_toml(made)), panel
                keeps = ("out/",)  # results of those classifiers that are sound
            else:  # beside photographs, whose features it names
                lay = _beside(world.photographs, name, as_toml(made).encode("utf-8", "replace"))
                arguments = world.evaluation("photographs")
            yield Case(
                f"{name[:-5]} for eval",
                f"change {i}: {str(made)[:200]}",
                arguments,
                lay,
                output=("out/",),
                keeps=keeps,
            )
    board = ("leaderboard", "build", "--output", "board")
    reported = (
        "[[tables]]\ntitle='t'\nmeasure='m'\nsource='s'\nurl='https://x.org'\n"
        "scores=[{classifier='c',score=0.5}]\n"
    )
    for i, made in enumerate(examples(changed(tomllib.loads(reported)), 14)):
        data = as_toml(made).encode("utf-8", "replace")
        yield Case(
            "reported.toml",
            f"change {i}: {str(made)[:200]}",
            board,
            _beside(world.board, "reported.toml", data, "board"),
            output=("board/",),
        )
    for name, data in RAW_TOML.items():
        for file, arguments in (
            ("recipe.toml", plan),
            ("classes.toml", plan),
            ("ablation.toml", ablate),
        ):
            yield Case(file, name, arguments, _beside(world.recipe, file, data, "recipe"))
        yield Case("panel for eval", name, panel, _bytes("panel.toml", data))
        yield Case(
            "reported.toml",
            name,
            board,
            _beside(world.board, "reported.toml", data, "board"),
            output=("board/",),
        )


def _mutated(world: World, file: str, arguments: tuple[str, ...], count: int) -> Iterator[Case]:
    document = tomllib.loads((world.recipe / file).read_text(encoding="utf-8"))
    for i, made in enumerate(examples(changed(document), count)):
        data = as_toml(made).encode("utf-8", "replace")
        lay = _beside(world.recipe, file, data, "recipe")
        name = f"{arguments[0]}, change {i}: {_difference(document, made)}"
        yield Case(file, name, arguments, lay)


def _manifests(world: World) -> Iterator[Case]:
    manifest = json.loads((world.dataset / "spurbench.json").read_text(encoding="utf-8"))
    readers = _dataset_readers(world)
    texts = [
        (f"change {i}: {_difference(manifest, made)}", as_json(made).encode())
        for i, made in enumerate(examples(changed(manifest), 84))
    ]
    texts += list(RAW_JSON.items()) * 2
    for i, (name, data) in enumerate(texts):
        arguments, output = readers[i % len(readers)]
        lay = _beside(world.dataset, "spurbench.json", data, "data")
        yield Case("manifest", f"{arguments[0]}, {name}", arguments, lay, output=output)


def _dataset_readers(world: World) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Commands that read the dataset ``data``, and what they write."""
    return [
        (("verify", "data"), ()),
        (world.evaluation("data"), ("out/",)),
        (("diff", "data", str(world.successor)), ()),
        (("push", "data", "--repo-id", "o/n", "--dry-run"), ()),
        (("quality", "data"), ("data/",)),
        (
            ("export", "data", "--output", "exported", "--format", "imagefolder"),
            ("exported/",),
        ),
        (
            (
                "build",
                "--recipe",
                str(world.recipe),
                "--output",
                "new",
                "--version",
                "1.0.1",
                "--previous",
                "data",
                "--classes",
                "hummingbird",
                "--set",
                "base.model=nowhere",
            ),
            ("new/", ".stages/"),
        ),
    ]


def _results(world: World) -> Iterator[Case]:
    result = json.loads(world.result().read_text(encoding="utf-8"))
    entry = json.loads(world.entry().read_text(encoding="utf-8"))
    rank = ("leaderboard", "show", "results", "--output", "tables")
    board = ("leaderboard", "build", "results", "--output", "board")
    compare = ("compare", "results/bad.json", str(world.result(1)), "--output", "comparison")
    publish = ("leaderboard", "build", "--output", "results")
    print_json = ("leaderboard", "show", "results", "--json", "--limit", "1")
    submit = ("submit", "results/bad.json", "--to", "board")
    card = ("submit", "results/bad.json", "--model-card", "card.yaml", "--dataset", "o/n")
    outputs = ("tables/", "board/", "comparison/", "results/", "card.yaml")
    for kind, document, commands, count in (
        ("result", result, (rank, board, compare, print_json, submit, card), 90),
        ("entry", entry, (rank, publish, compare, print_json, submit), 70),
    ):
        texts = [
            (f"change {i}: {_difference(document, made)}", as_json(made).encode())
            for i, made in enumerate(examples(changed(document), count))
        ]
        texts += RAW_JSON.items()
        for i, (name, data) in enumerate(texts):
            arguments = commands[i % len(commands)]
            lay = _result(world, data)
            yield Case(kind, f"{arguments[-1]}, {name}", arguments, lay, output=outputs)


def _checked(world: World) -> Iterator[Case]:
    """An entry where it belongs, beside the datasets that are known."""
    document = json.loads(world.entry().read_text(encoding="utf-8"))
    place = world.entry().relative_to(world.board)
    check = ("leaderboard", "check", f"board/{place}")
    known = {"datasets": [{"name": "toy", "version": "1.0.0", "fingerprints": []}]}
    texts = [
        (f"change {i}: {_difference(document, made)}", as_json(made).encode())
        for i, made in enumerate(examples(changed(document), 12))
    ]
    for name, data in [*texts, *RAW_JSON.items()]:
        lay = _beside(world.board, str(place), data, "board")
        yield Case("leaderboard check", name, check, lay, "refused")
    tomls = [
        (f"change {i}", as_toml(made).encode("utf-8", "replace"))
        for i, made in enumerate(examples(changed(known), 6))
    ]
    for name, data in [*tomls, *RAW_TOML.items()]:
        lay = _beside(world.board, "datasets.toml", data, "board")
        yield Case("leaderboard check", f"datasets.toml, {name}", check, lay)


def _result(world: World, data: bytes) -> Callable[[Path], None]:
    def lay(folder: Path) -> None:
        shutil.copytree(world.results, folder / "results")
        (folder / "results" / "bad.json").write_bytes(data)

    return lay


def _explicit(world: World) -> Iterator[Case]:
    """What the mutations may miss: each was once taken, or took the program down."""
    build = ("build", "--recipe", "recipe", "--classes", "hummingbird", "--output", "o")
    for noun in (
        "../../../../OUTSIDE flower",
        "/flower",
        "..",
        "a\0b",
        "flower\nError: x",
        "f" * 400,
    ):
        yield Case(
            "nouns",
            repr(noun[:40]),
            (*build, "--work", "work"),
            _class(world, noun=noun),
            output=("o/", "work/"),
            keeps=("work/",),
        )
    for key, name in (("name", "humming[/b]bird"), ("spurious_feature", "[/] flowers [red]")):
        for arguments in (("classes", "--recipe", "recipe"), build):
            yield Case(
                "markup in names",
                f"{arguments[0]} {name}",
                arguments,
                _class(world, **{key: name}),
                output=("o/", ".stages/"),
                keeps=(".stages/",),
            )
    result = json.loads(world.result().read_text(encoding="utf-8"))
    for name in (
        "resnet[/b]",
        "[/]",
        "[bold",
        "\x1b[2J",
        "a\nError: forged",
        "\u202egnp",
        "\ud800",
    ):
        made = {**result, "classifier": {**result["classifier"], "name": name}}
        for arguments in (
            ("leaderboard", "show", "results/bad.json", "--output", "tables"),
            ("leaderboard", "build", "results/bad.json", "--output", "board"),
            ("compare", "results/bad.json", str(world.result(1)), "--output", "comparison"),
        ):
            lay = _result(world, as_json(made).encode())
            yield Case(
                "markup in names",
                f"{' '.join(arguments[:2])} {name!r}",
                arguments,
                lay,
                output=("tables/", "board/", "comparison/"),
            )


def _class(world: World, **changes: str) -> Callable[[Path], None]:
    document = tomllib.loads((world.recipe / "classes.toml").read_text(encoding="utf-8"))
    document["classes"][0] |= changes
    return _beside(world.recipe, "classes.toml", as_toml(document).encode(), "recipe")


def _beside(sound: Path, file: str, data: bytes, name: str | None = None) -> Callable[[Path], None]:
    """The folder ``sound`` with one file of another content."""

    def lay(folder: Path) -> None:
        copied = folder / (name or "photographs")
        shutil.copytree(sound, copied)
        (copied / file).unlink(missing_ok=True)
        (copied / file).write_bytes(data)

    return lay


def _bytes(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def _text(name: str, text: str) -> Callable[[Path], None]:
    return _bytes(name, text.encode("utf-8", "replace"))


def _difference(sound: Any, made: Any, place: str = "") -> str:
    """Where two documents differ, for people."""
    if isinstance(sound, dict) and isinstance(made, dict):
        for key in [*sound, *(key for key in made if key not in sound)]:
            if key not in made:
                return f"{place}.{key} removed"
            if key not in sound:
                return f"{place}.{key} = {made[key]!r:.60}"
            if found := _difference(sound[key], made[key], f"{place}.{key}"):
                return found
        return ""
    if isinstance(sound, list) and isinstance(made, list) and len(sound) == len(made):
        pairs = enumerate(zip(sound, made, strict=True))
        return next((d for i, (a, b) in pairs if (d := _difference(a, b, f"{place}[{i}]"))), "")
    same = type(sound) is type(made) and sound == made
    return "" if same else f"{place} = {made!r:.60}"
