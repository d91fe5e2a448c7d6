"""How fast the leaderboard's page is with 300 classifiers on 100 classes: to build, load and use.

    python -m benchmarks.page

Makes the entries of as many made-up classifiers, the same at every run: real names of timm, answers
drawn at random to 75 real and 75 generated images of each class, to their twins and to positives.
`spurbench leaderboard build` renders them; then a headless Chromium opens the page and filters and
sorts it, as a user would. Times of the page are from the key or click until the browser is ready to
show the result (the second frame after it). Beside seconds on the clock stand those of processor
time (the page's: of its main thread, with what it draws afterwards), which other programs disturb
less.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.report import publish, spread, spread_text, surroundings
from spurbench.classifiers.info import ClassifierInfo, Preprocessing
from spurbench.core.identity import file_sha256
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.evaluation import metrics
from spurbench.evaluation.results import (
    BOOTSTRAP,
    ClassResult,
    Effect,
    Interval,
    Recognition,
    SignedInterval,
    SplitResult,
    Summary,
)
from spurbench.images.records import DatasetInfo, Role, Source, Split
from spurbench.leaderboard.answers import UNITS, ClassAnswers, images_digest
from spurbench.leaderboard.entries import Entry, EntryClassifier

FEATURES = ("red flowers", "graffiti", "water jets", "row houses", "bird feeders", "snow")
NAME, VERSION = "made-up", "1.0.0"

Hashes = Mapping[tuple[Source, int], list[str]]
"""sha256 of the images, by source and class, in the order of the answers."""


def save_images(folder: Path, classes: Sequence[int], images: int, side: int) -> Hashes:
    """A dataset of smooth noise, as ``spurbench build`` lays it out; twins share their colours."""
    (folder / "data").mkdir(parents=True)
    hashes: dict[tuple[Source, int], list[str]] = {}
    parts = {"real": "real", "generated": "generated", "control": "controls-generated"}
    twins: dict[str, str] = {}
    for source, part in parts.items():
        rows = []
        for index in classes:
            for i in range(images):
                rng = np.random.default_rng([index, i, source == "real"])
                coarse = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
                if source == "control":
                    coarse[2:5, 2:5] = 128
                buffer = io.BytesIO()
                picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
                picture.save(buffer, "JPEG", quality=90)
                sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
                if source == "generated":
                    twins[f"{index}/{i}"] = sha256
                rows.append(
                    {
                        "image": {"bytes": buffer.getvalue(), "path": None},
                        "image_sha256": sha256,
                        "twin_of": twins[f"{index}/{i}"] if source == "control" else None,
                        "class_index": index,
                        "source": "real" if source == "real" else "generated",
                        "file_name": f"{source}/{index}/{i}.jpg",
                        "class_name": imagenet_names()[index],
                        "spurious_feature": FEATURES[index % len(FEATURES)],
                        "object_absent": True,
                        "feature_present": source != "control",
                        "is_reference": False,
                        "replicate": 0,
                    }
                )
        file = folder / f"data/{part}-00000.parquet"
        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=100)
        for index in classes:
            own = [row for row in rows if row["class_index"] == index]
            own.sort(key=lambda row: row["twin_of"] or row["image_sha256"])
            hashes[source, index] = [row["image_sha256"] for row in own]  # type: ignore[index]
    files = {f"data/{file.name}": file_sha256(file) for file in (folder / "data").iterdir()}
    nobody = {"weights_sha256": "0"}
    manifest = {
        "schema": "spurbench.dataset/2",
        "name": NAME,
        "version": VERSION,
        "files": files,
        "provenance": {"panel": [nobody], "phi": nobody},
    }
    (folder / "spurbench.json").write_text(json.dumps(manifest))
    return hashes


def made_up_hashes(classes: Sequence[int], images: int) -> Hashes:
    """Of images that nobody has."""
    sources: tuple[Source, ...] = ("real", "generated", "control")
    return {
        (source, index): [
            hashlib.sha256(f"{source} {index} {i}".encode()).hexdigest() for i in range(images)
        ]
        for source in sources
        for index in classes
    }


def made_up_entries(count: int, classes: Sequence[int], hashes: Hashes) -> Iterator[Entry]:
    """Classifiers of all kinds: good ones and poor, one untrained, and those that chose images."""
    import timm

    names = timm.list_pretrained()
    names = [names[i] for i in np.linspace(0, len(names) - 1, count).astype(int)]
    roles: dict[int, Role] = {1: "phi", 2: "panel", 3: "panel"}
    for i, name in enumerate(names):
        rng = np.random.default_rng(i)
        skill = 0.001 if i == 0 else rng.uniform(0.6, 0.93)
        reliance = 0.001 if i == 0 else skill * rng.beta(2, 3)
        shares: dict[Source, float] = {
            "real": 0.9 * reliance,
            "generated": reliance,
            "control": 0.35 * reliance,
            "positive": skill,
        }
        answers = {
            source: [_answers(rng, source, index, share, hashes) for index in classes]
            for source, share in shares.items()
        }
        splits: tuple[Split, ...] = ("real", "generated")
        yield Entry(
            classifier=EntryClassifier.of(
                ClassifierInfo(
                    spec=name,
                    name=name,
                    source="timm",
                    architecture=name.partition(".")[0],
                    parameters=int(10 ** rng.uniform(6.3, 8.8)),
                    head="imagenet-1k",
                    weights_sha256=hashlib.sha256(name.encode()).hexdigest(),
                )
            ),
            role=roles.get(i),
            dataset=(images := _info(repr(sorted(hashes)))),
            positives=images,
            controls=images,
            config="default",
            protocol="spurbench",
            preprocessing=Preprocessing(
                mode="whole",
                resize=(224,),
                crop=(224, 224),
                interpolation="bicubic",
                mean=(0.5, 0.5, 0.5),
                std=(0.5, 0.5, 0.5),
            ),
            splits={split: _split(split, classes, answers) for split in splits},
            answers=answers,
            damaged=0,
            settings=BOOTSTRAP,
            environment={"device": "cpu"},
            created=f"2026-0{1 + i % 9}-01T00:00:00+00:00",
        )


def _info(images: str) -> DatasetInfo:
    digest = hashlib.sha256(images.encode()).hexdigest()
    return DatasetInfo(name=NAME, version=VERSION, kind="dataset", fingerprint=digest)


def _answers(
    rng: np.random.Generator, source: Source, index: int, share: float, hashes: Hashes
) -> ClassAnswers:
    own = hashes.get((source, index)) or [f"{source} {index} {i}" for i in range(50)]
    n = len(own)
    # Some classes fool everybody more than others; who knows no class is fooled by none.
    called = rng.random(n) < (share ** np.exp(np.sin(index)) if share > 0.01 else share)
    other = (index + rng.integers(1, 1000, n)) % 1000
    probability = np.where(called, rng.uniform(0.5, 1, n), rng.uniform(0, 0.5, n))
    return ClassAnswers(
        index=index,
        images=images_digest(own),
        predictions=np.where(called, index, other),
        ten_thousandths=np.rint(UNITS * probability).astype(np.int16),
    )


def _split(
    split: Split, classes: Sequence[int], answers: Mapping[Source, Sequence[ClassAnswers]]
) -> SplitResult:
    results = [
        _class(split, *own)
        for own in zip(answers[split], answers["positive"], answers["control"], strict=True)
    ]
    worst = max(results, key=lambda c: c.spurious_accuracy)
    share = float(np.mean([c.spurious_accuracy for c in results]))
    recognitions = [c.recognition for c in results if c.recognition]
    effects = [c.effect for c in results if c.effect]
    accuracy = float(np.mean([r.accuracy for r in recognitions]))
    auroc = float(np.mean([r.auroc for r in recognitions]))
    effect = float(np.mean([e.effect for e in effects])) if effects else 0.0
    return SplitResult(
        summary=Summary(
            n=sum(c.n for c in results),
            classes=len(results),
            generators=1 if split == "generated" else 0,
            spurious_accuracy=share,
            spurious_accuracy_interval=_around(share),
            top5=float(np.mean([c.top5 for c in results])),
            mean_probability=float(np.mean([c.mean_probability for c in results])),
            worst_class=worst.name,
            worst_class_spurious_accuracy=worst.spurious_accuracy,
            worst_class_n=worst.n,
            recognition=Recognition(
                n=sum(r.n for r in recognitions),
                accuracy=accuracy,
                interval=_around(accuracy),
                auroc=auroc,
                auroc_interval=_around(auroc),
                average_precision=auroc,
            ),
            chance=metrics.chance([a.predictions for a in answers["positive"]], classes, 1000),
            effect=Effect(
                pairs=sum(e.pairs for e in effects),
                accuracy=float(np.mean([e.accuracy for e in effects])),
                control_accuracy=float(np.mean([e.control_accuracy for e in effects])),
                effect=effect,
                interval=SignedInterval(low=max(-1, effect - 0.02), high=min(1, effect + 0.02)),
                p_value=0.0,
            )
            if effects
            else None,
        ),
        classes=results,
    )


def _class(
    split: Split, own: ClassAnswers, positives: ClassAnswers, controls: ClassAnswers
) -> ClassResult:
    n = len(own.predictions)
    share, control = float(own.fooled.mean()), float(controls.fooled.mean())
    low, high = _wilson(share, n)
    recognised = float(positives.fooled.mean())
    auroc = metrics.auroc(positives.probabilities, own.probabilities)
    return ClassResult(
        index=own.index,
        name=imagenet_names()[own.index],
        wnid=imagenet_wnids()[own.index],
        spurious_feature=FEATURES[own.index % len(FEATURES)],
        n=n,
        spurious_accuracy=share,
        spurious_accuracy_interval=Interval(low=low, high=high),
        top5=share,
        mean_probability=float(own.probabilities.mean()),
        recognition=Recognition(
            n=len(positives.predictions),
            accuracy=recognised,
            interval=_around(recognised),
            auroc=auroc,
            auroc_interval=_around(auroc),
            average_precision=auroc,
        ),
        effect=Effect(
            pairs=n,
            accuracy=share,
            control_accuracy=control,
            effect=share - control,
            interval=SignedInterval(low=-1, high=1),
            p_value=1.0,
        )
        if split == "generated"
        else None,
    )


def _around(share: float) -> Interval:
    return Interval(low=max(0.0, share - 0.01), high=min(1.0, share + 0.01))


def _wilson(share: float, n: int) -> tuple[float, float]:
    z = 1.96
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def timed_build(board: Path, data: Path | None) -> tuple[float, float]:
    """Seconds of the command, on the clock and of processor time."""
    command = [sys.executable, "-c", "from spurbench.cli.main import main; main()"]
    command += [
        "leaderboard",
        "build",
        "--output",
        str(board),
        *(["--data", str(data)] if data else []),
    ]
    started, before = time.perf_counter(), sum(os.times()[2:4])
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started, sum(os.times()[2:4]) - before


TYPE = """
const began = performance.now();
const field = document.getElementById("find");
field.value = arguments[0];
field.dispatchEvent(new Event("input", { bubbles: true }));
"""
SORT = """
const began = performance.now();
document.querySelector(`#ranking thead .${arguments[0]} button`).click();
"""
READY = """
const done = (now) => arguments[1]((performance.now() - began) / 1000);
requestAnimationFrame(() => requestAnimationFrame(done));
"""
"""Until the second frame after an action: the first draws what it changed."""


class Browser:
    """A headless Chromium of 1440 x 900."""

    def __init__(self) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
        for argument in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1440,900"):
            options.add_argument(f"--{argument}")
        self.driver = webdriver.Chrome(
            options, webdriver.ChromeService(shutil.which("chromedriver"))
        )
        self.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    def load(self, page: Path) -> dict[str, float]:
        """Seconds until the first rows are drawn, and until all is loaded; nodes then."""
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument",
            {
                "source": """
                new MutationObserver((_, observer) => {
                  if (!document.querySelector("#ranking tbody tr[data-row]")) return;
                  observer.disconnect();
                  const now = () => (window.firstTable = performance.now() / 1000);
                  requestAnimationFrame(() => setTimeout(now));
                }).observe(document, { childList: true, subtree: true });
                """
            },
        )
        self.driver.get(page.resolve().as_uri())
        time.sleep(1)
        return {
            "first_table": self.driver.execute_script("return window.firstTable"),
            "loaded": self.driver.execute_script(
                "return performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"
            ),
            "processor": self._busy(),
            "nodes": self.driver.execute_script("return document.querySelectorAll('*').length"),
        }

    def seconds(self, action: str, argument: str) -> tuple[float, float]:
        """Of one action, on the clock and of processor time."""
        before = self._busy()
        found: float = self.driver.execute_async_script(action + READY, argument)
        time.sleep(0.5)  # what it does afterwards is not the next one's
        return found, self._busy() - before

    def _busy(self) -> float:
        """Seconds that the page's main thread has run."""
        metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return next(m["value"] for m in metrics if m["name"] == "TaskDuration")


def measure(page: Path, repeats: int) -> dict[str, Any]:
    """Times of loading, of typing a name key by key, and of sorting by several columns."""
    loads: list[dict[str, float]] = []
    keys: list[tuple[float, float]] = []
    sorts: list[tuple[float, float]] = []
    with Browser() as browser:
        for _ in range(repeats):
            loads.append(browser.load(page))
            word = "resnet50"
            keys += [browser.seconds(TYPE, word[:i]) for i in range(1, len(word) + 1)]
            browser.seconds(TYPE, "")
            sorts += [
                browser.seconds(SORT, column)
                for column in ("generated", "recognition", "name", "rank")
            ]
    return {
        "nodes": loads[-1]["nodes"],
        "first_table": {
            "seconds": spread([load["first_table"] for load in loads]),
            "processor_seconds": spread([load["processor"] for load in loads]),
        },
        "loaded": {"seconds": spread([load["loaded"] for load in loads])},
        "keystroke": _spreads(keys),
        "sort": _spreads(sorts),
    }


def _spreads(times: Sequence[tuple[float, float]]) -> dict[str, dict[str, float]]:
    clock, processor = zip(*times, strict=True)
    return {"seconds": spread(clock), "processor_seconds": spread(processor)}


@click.command()
@click.option("--classifiers", default=300, show_default=True)
@click.option("--classes", default=100, show_default=True)
@click.option("--images", default=75, show_default=True, help="Of each class and source.")
@click.option("--side", default=256, show_default=True, help="Pixels of an image; 0: no images.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the entries and the page here.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path(__file__).parent / "results" / "page-cpu.json",
    show_default=False,
    help="JSON file. [default: benchmarks/results/page-cpu.json]",
)
def main(
    classifiers: int,
    classes: int,
    images: int,
    side: int,
    repeats: int,
    keep: Path | None,
    output: Path,
) -> None:
    """Time the leaderboard's page."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        board = folder / "board"
        indices = [int(i) for i in np.linspace(0, 999, classes).astype(int)]
        data = folder / "data" if side else None
        hashes = (
            save_images(data, indices, images, side) if data else made_up_hashes(indices, images)
        )
        for entry in made_up_entries(classifiers, indices, hashes):
            entry.write(board / entry.folder / entry.file_name)
        builds = [timed_build(board, data) for _ in range(2)]
        page = board / "index.html"
        document = {
            "surroundings": surroundings(torch.device("cpu")),
            "classifiers": classifiers,
            "classes": classes,
            "images_per_class_and_source": images,
            "entries_bytes": sum(file.stat().st_size for file in board.glob("*/*.json")),
            "build": _spreads(builds),
            "bytes": page.stat().st_size,
            **measure(page, repeats),
        }
    publish(document, output, "The leaderboard's page", _table(document))


def _table(document: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        ("", "on the clock", "processor", "asked for"),
        ("size, MB", f"{document['bytes'] / 1e6:.2f}", "", "3"),
        ("nodes", f"{document['nodes']}", "", ""),
        *(
            (
                f"{key.replace('_', ' ')}, s",
                spread_text(document[key]["seconds"]),
                spread_text(document[key]["processor_seconds"]),
                limit,
            )
            for key, limit in (
                ("build", "10"),
                ("first_table", "1"),
                ("keystroke", "0.1"),
                ("sort", "0.3"),
            )
        ),
    ]


if __name__ == "__main__":
    main()
