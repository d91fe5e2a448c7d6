"""How much memory commands on datasets take, and how that grows with the number of images.

    python -m benchmarks.scale

Makes datasets of noise, about 0.5 MB an image, half of them real and half generated, and a quarter
of them in the config `curated` too. Then every command runs in a process of its own: writing the
dataset out of image files, as `spurbench build` does at its end; `spurbench eval` with a small
classifier of the embedded recipe, and the same from a dataset as the hub's client keeps it;
`verify`, `diff` (of the dataset with itself), `export` in both layouts, and `push --dry-run`
against a stand-in for the hub that has no repository (nothing is uploaded).

Peak memory is the system's (Linux: VmHWM), which is what goals are judged by. The hub's client
keeps datasets as files that it maps into memory: their pages count there, though the system takes
them back whenever it needs them. So anonymous memory (RssAnon, looked at every 5 ms) stands beside
it, and the hub's case is judged by that.
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
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from benchmarks.report import publish, surroundings
from spurbench.core.documents import read_bytes
from spurbench.core.imagenet import imagenet_wnids
from spurbench.dataset.changelog import first
from spurbench.dataset.manifest import Provenance
from spurbench.dataset.rows import PartName, Row
from spurbench.images.records import SPLITS, Answer, Split
from spurbench.recipe.load import read_recipe
from spurbench.recipe.schema import Recipe

SIDE = 408
"""Pixels of a side: as PNG of noise, uncompressed, half a megabyte."""
MODEL = "mini:resnet_v1"
PANEL = ("one", "two", "three", "four")
PEAK_MB = 1500
RATIO = 1.2
MAPPED = "eval, hub"
"""The case that is judged by anonymous memory."""


def write_images(folder: Path, count: int) -> None:
    """``count`` PNG files of noise, each another."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png", compress_level=0)


def emit(images: Path, output: Path) -> None:
    """Write the dataset of a folder's images."""
    from spurbench.dataset.write import write_dataset

    files = sorted(images.iterdir(), key=lambda file: int(file.stem))
    half = len(files) // 2
    parts: dict[PartName, list[Row]] = {
        split: [_row(split, i, file) for i, file in enumerate(of_split)]
        for split, of_split in zip(SPLITS, (files[:half], files[half:]), strict=True)
    }
    write_dataset(
        output,
        parts,
        _provenance(),
        name="noise",
        version="1.0.0",
        quality=["topiq_nr"],
        changelog=first("1.0.0", None),
    )


def eval_from_hub(folder: Path, output: Path) -> None:
    """Measure the classifier on a dataset as the hub's client has it: files mapped into memory."""
    import torch

    from spurbench.classifiers.load import load_classifier
    from spurbench.evaluation.evaluate import EvaluationRequest, evaluate
    from spurbench.images.published import open_hub

    images = open_hub(str(folder), SPLITS, "default", decode=False)
    classifier = load_classifier(MODEL, device=torch.device("cpu"))
    evaluate(classifier, EvaluationRequest(images), output)


@cache
def _recipe() -> Recipe:
    return read_recipe("mini")


def _row(split: Split, i: int, file: Path) -> Row:
    made = split == "generated"
    classes = _recipe().classes
    its = classes[i % len(classes)]
    fools = i % 4 == 0
    answers = (Answer(name, its.index if fools else 1, 0.5, 1 if fools else 2) for name in PANEL)
    return Row(
        read=partial(read_bytes, file),
        label=its.index,
        class_index=its.index,
        class_name=its.name,
        wnid=imagenet_wnids()[its.index],
        spurious_feature=its.spurious_feature,
        component=its.component,
        source=split,
        prompt=f"a photo of a sks {its.noun}" if made else None,
        seed=2**52 + i if made else None,
        guidance_scale=3.0 if made else None,
        num_inference_steps=25 if made else None,
        kappa=1.0 if made else None,
        base_model="base" if made else None,
        is_reference=False,
        replicate=0,
        consistently_spurious=fools,
        object_absent=True,
        object_score=0.1,
        feature_present=True,
        feature_score=0.9,
        panel=tuple(answers),
        file_name=f"{its.folder}/{i}.png",
        image_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        twin_of=None,
        quality={"topiq_nr": 0.25 + i / 10**6},
    )


def _provenance() -> Provenance:
    weights = [{"name": name, "weights_sha256": f"{i}" * 64} for i, name in enumerate(PANEL)]
    source = {"name": "noise", "fingerprint": "f" * 64}
    return Provenance.model_validate(
        {
            "recipe": json.loads(_recipe().model_dump_json()),
            "seed": 0,
            "device": "cpu",
            "base_model": source,
            "panel": weights,
            "phi": weights[0],
            "object_detector": "oracle",
            "real_images": source,
            "positive_images": None,
            "positives": {},
            "replicates": 1,
            "damaged": [],
            "failed_classes": {},
            "versions": {},
            "licences": {"images": "none", "weights": "none"},
        }
    )


@contextmanager
def empty_hub() -> Iterator[str]:
    """The address of a hub that has no repository."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - what the server calls

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def run(arguments: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    """Run Python with arguments; peak and anonymous memory in MB, seconds on the clock."""
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], env=os.environ | environment, stdout=said, stderr=said
        )
        peak = anonymous = 0
        while process.poll() is None:
            # Not ru_maxrss: it begins with what the process that started this one had.
            status = Path(f"/proc/{process.pid}/status").read_text()
            found = dict(line.split(":", 1) for line in io.StringIO(status))
            if "VmHWM" in found:  # until it has ended
                peak = int(found["VmHWM"].split()[0])
                anonymous = max(anonymous, int(found["RssAnon"].split()[0]))
            time.sleep(0.005)
        if process.returncode:
            said.seek(0)
            lines = said.read().decode(errors="replace").splitlines()
            raise click.ClickException(f"{' '.join(arguments)}:\n" + "\n".join(lines[-5:]))
    return {
        "peak_mb": peak * 1024 / 1e6,
        "anonymous_mb": anonymous * 1024 / 1e6,
        "seconds": time.perf_counter() - began,
    }


def measure(folder: Path, count: int) -> dict[str, dict[str, float]]:
    """Every command on a dataset of ``count`` images, which is made in ``folder``."""
    dataset, out, cache = folder / "dataset", folder / "out", folder / "cache"
    write_images(folder / "images", count)
    cache.mkdir()
    spurbench = ["-c", "from spurbench.cli.main import main; main()"]
    here = [str(dataset)]
    there = ["--output", str(out)]
    code = (
        "from pathlib import Path; from benchmarks import scale; scale.{}(Path({!r}), Path({!r}))"
    )
    with empty_hub() as hub:
        commands = {
            "emit": ["-c", code.format("emit", str(folder / "images"), str(dataset))],
            "eval": [*spurbench, "eval", "--model", MODEL, "--data", *here, *there],
            MAPPED: ["-c", code.format("eval_from_hub", str(dataset), str(out))],
            "verify": [*spurbench, "verify", *here],
            "diff": [*spurbench, "diff", *here, *here],
            "export imagefolder": [
                *(*spurbench, "export", *here, "--format", "imagefolder", *there),
            ],
            "export webdataset": [
                *(*spurbench, "export", *here, "--format", "webdataset", *there),
            ],
            "push": [*spurbench, "push", *here, "--repo-id", "owner/noise", "--dry-run"],
        }
        environment = {
            "TMPDIR": str(cache),
            "HF_HOME": str(cache),
            "HF_DATASETS_CACHE": str(cache / "datasets"),
            "HF_ENDPOINT": hub,
            "CUDA_VISIBLE_DEVICES": "",
        }
        found = {}
        for name, arguments in commands.items():
            found[name] = run(arguments, environment)
            figures = ", ".join(f"{key} {value:.0f}" for key, value in found[name].items())
            print(f"{count} images, {name}: {figures}", flush=True)
            for used in (out, cache):
                shutil.rmtree(used, ignore_errors=True)
            cache.mkdir()
            if name == "emit":
                shutil.rmtree(folder / "images")
    return found


def growth(found: dict[int, dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """What each command's memory does from the first number of images to the last."""
    counts = sorted(found)
    *_, before, last = [counts[0], *counts]
    rows = []
    for name in found[last]:
        judged = "anonymous_mb" if name == MAPPED else "peak_mb"
        at = {count: found[count][name] for count in counts}
        slopes = {
            f"{kind}_an_image": float(np.polyfit(counts, [at[c][kind] for c in counts], 1)[0])
            if len(counts) > 1
            else None
            for kind in ("peak_mb", "anonymous_mb")
        }
        ratio = at[last][judged] / at[before][judged]
        reached = at[before][judged] <= PEAK_MB and ratio <= RATIO
        rows.append(
            {"command": name, "judged_by": judged, **slopes, "ratio": ratio, "reached": reached}
        )
    return rows


@click.command()
@click.option("--images", default="1000,4000,16000", show_default=True, help="Of each dataset.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where datasets are made: 2 MB an image. [default: the system's temporary folder]",
)
@click.option("--keep", is_flag=True, help="Keep the datasets.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path(__file__).parent / "results" / "scale-cpu.json",
    help="JSON file. [default: benchmarks/results/scale-cpu.json]",
)
def main(images: str, folder: Path | None, keep: bool, output: Path) -> None:
    """Peak memory of commands on datasets, against their number of images."""
    import torch

    counts = sorted({int(count) for count in images.split(",")})
    where = surroundings(torch.device("cpu"))  # before: the load is the other programs'
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    found: dict[int, dict[str, dict[str, float]]] = {}
    for count in counts:
        place = Path(tempfile.mkdtemp(prefix=f"scale-{count}-", dir=folder))
        try:
            found[count] = measure(place, count)
        finally:
            if keep:
                print(f"Kept {place}")
            else:
                shutil.rmtree(place)
    grown = growth(found)
    document = {
        "command": "python -m benchmarks.scale",
        "surroundings": where,
        "settings": {"images": counts, "side": SIDE, "image_bytes": _image_bytes(), "model": MODEL},
        "goals": {"peak_mb": PEAK_MB, "ratio": RATIO, "of": counts[-2:]},
        "growth": grown,
        "cases": [
            {"command": name, "images": count, **case}
            for count, cases in found.items()
            for name, case in cases.items()
        ],
    }
    rows = [["command", *(f"{c:,} images" for c in counts), "KB an image", "ratio", "reached"]]
    for entry in grown:
        name, judged = entry["command"], entry["judged_by"]
        slope = entry[f"{judged}_an_image"]
        rows.append(
            [
                name,
                *(
                    f"{found[c][name]['peak_mb']:.0f} ({found[c][name]['anonymous_mb']:.0f})"
                    for c in counts
                ),
                "" if slope is None else f"{1000 * slope:.1f}",
                f"{entry['ratio']:.2f}",
                "yes" if entry["reached"] else "no",
            ]
        )
    publish(document, output, "Peak MB (anonymous)", rows)


def _image_bytes() -> int:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(buffer, "PNG", compress_level=0)
    return len(buffer.getvalue())


if __name__ == "__main__":
    main()
