"""The commands that write, as they are disturbed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from faults.archive import IMAGES, URL, served
from faults.world import ARCHITECTURE, SEEN, World
from makers.photographs import official_archive


@dataclass(frozen=True)
class Command:
    """A command that writes.

    Attributes:
        name: in the table.
        arguments: of the command line, relative to the folder it runs in.
        published: files and folders that others read.
        kills: how many times it is killed.
        fills: how many times its disk is full.
        earlier: commands that make what it finds.
        whole: a published folder is replaced as a whole; otherwise file by file.
        before: called in its process.
        hub: whether it needs a hub; what it publishes is there then.
        momentary: published files whose every run's content is another, by how long things took.
        once: it refuses to write again what it has finished.
    """

    name: str
    arguments: tuple[str, ...]
    published: tuple[str, ...]
    kills: int
    fills: int
    earlier: tuple[tuple[str, ...], ...] = ()
    whole: bool = False
    before: Callable[[], None] | None = None
    hub: bool = False
    momentary: frozenset[str] = frozenset()
    once: bool = False


def commands(world: World) -> list[Command]:
    """All that write, with toy recipes and models."""
    build = ("build", "--recipe", str(world.recipe), "--classes", "hummingbird")
    given = (*build, "--positives", str(world.positives))
    rebuild = (*build, "--set", f"check.{SEEN}", "--output", "data")
    measure = (*world.evaluation(world.dataset), "--model", str(world.other_model))
    measure += ("--positives", str(world.positives), "--output", "results")
    ablate = ("ablate", "--recipe", str(world.recipe), "--classes", "hummingbird", "--seeds", "1")
    rank = ("leaderboard", "show", str(world.results), "--output", "tables")
    board = ("leaderboard", "build", str(world.result()), "--data", str(world.dataset))
    more = ("leaderboard", "build", str(world.results), "--data", str(world.dataset))
    select = ("select", "--data", str(world.photographs), "--panel", str(world.model))
    compare = ("compare", str(world.result(0)), str(world.result(1)), "--output", "comparison")
    quality = ("quality", "data", "--metric", "brightness")
    export = ("export", str(world.dataset), "--output", "exported")
    submit = ("submit", str(world.result()))
    curated = ("--config", "curated", "--protocol", "neuhaus", "--labels", str(world.labels))
    others = (f"transformers:{world.vit}", f"onnx:{world.onnx}", f"vlm:{world.vlm}")
    others += (f"open_clip:{ARCHITECTURE}={world.clip}",)
    copy = (("build", *rebuild[1:]),)
    return [
        Command("build", rebuild, ("data",), 20, 6, whole=True),
        Command("build over another", (*rebuild, "--seed", "1"), ("data",), 12, 4, copy, True),
        Command(
            "build --positives --replicates",
            (*given, "--replicates", "2", "--output", "data"),
            ("data",),
            12,
            4,
            whole=True,
        ),
        Command(
            "fetch",
            ("fetch", "spurious-imagenet", "--from", URL, "--to", "photographs"),
            ("photographs",),
            12,
            5,
            whole=True,
            before=served(official_archive(IMAGES), cuts=[20_000, 10_000]),
        ),
        Command("eval", measure, ("results",), 12, 5),
        Command(
            "eval without --data",
            ("eval", "--model", str(world.model), "--json", "--limit", "4"),
            ("out/results",),
            8,
            3,
            ((*given, "--output", "out/toy"),),
        ),
        Command(
            "eval --config --protocol --labels",
            (*world.evaluation(world.dataset), *curated, "--output", "results"),
            ("results",),
            6,
            3,
        ),
        Command(
            "eval of other libraries' models",
            (
                "eval",
                *(part for spec in others for part in ("--model", spec)),
                *("--data", str(world.photographs), "--output", "results"),
            ),
            ("results", "cache"),
            10,
            4,
        ),
        Command("eval --force", (*measure, "--force"), ("results",), 8, 3, (measure,)),
        Command(
            "ablate",
            (*ablate, "--output", "ablation"),
            ("ablation",),
            8,
            4,
            momentary=frozenset({"ablation/ablation.md", "ablation/ablation.png"}),
        ),
        Command("leaderboard show", rank, ("tables",), 8, 3),
        Command("leaderboard build", (*board, "--output", "board"), ("board",), 8, 4),
        Command(
            "leaderboard build on",
            (*more, "--output", "board"),
            ("board",),
            8,
            4,
            ((*board, "--output", "board"),),
        ),
        Command(
            "diff --json",
            ("diff", str(world.dataset), str(world.successor), "--json", "out/diff.json"),
            ("out",),
            5,
            2,
        ),
        Command("select", (*select, "--output", "out/chosen.json"), ("out",), 6, 3),
        Command("compare", (*compare, "--data", str(world.dataset)), ("comparison",), 8, 3),
        Command("mini positives", ("mini", "positives", "out", "--images", "2"), ("out",), 6, 3),
        Command("mini preview", ("mini", "preview", "sheet.png"), ("sheet.png",), 5, 2),
        Command(
            "mini preview over another",
            ("mini", "preview", "sheet.png", "--seed", "1"),
            ("sheet.png",),
            5,
            2,
            (("mini", "preview", "sheet.png"),),
        ),
        Command("quality", quality, ("data",), 10, 4, copy, True, _brightness),
        *(
            Command(
                f"export {to}",
                (*export, "--format", to),
                ("exported",),
                6,
                3,
                whole=True,
                once=True,
            )
            for to in ("imagefolder", "webdataset")
        ),
        Command(
            "export --config",
            (*export, "--format", "imagefolder", "--config", "controls"),
            ("exported",),
            4,
            2,
            whole=True,
            once=True,
        ),
        Command("submit", (*submit, "--to", "board"), ("board",), 5, 3),
        Command(
            "submit --model-card",
            (*submit, "--model-card", "card.yaml", "--dataset", "o/toy"),
            ("card.yaml",),
            4,
            2,
        ),
        Command("push", ("push", str(world.dataset), "--repo-id", "o/toy"), (), 12, 0, hub=True),
    ]


def _brightness() -> None:
    """A metric that needs no weights."""
    from spurbench.dataset import quality

    quality._metric = lambda name, device: lambda pixels: pixels.mean()  # type: ignore[assignment]
