"""Surveys of small pictures, their server as a process of its own, and raters who are made up."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from makers.measured import save_dataset
from spurbench.images.records import DatasetInfo
from spurbench.studies.survey.answers import Grades
from spurbench.studies.survey.design import Attention, Item, Survey, new_token, orders
from spurbench.studies.survey.make import SurveyRequest, make


def made_survey(folder: Path, *, classes=(94, 565), images=6, data=None, **settings) -> Survey:
    """A survey in ``folder / "survey"`` of a dataset that is made for it."""
    if data is None:
        save_dataset(folder / "data", images=images, classes=classes)
    request = SurveyRequest(
        data=str(data or folder / "data"),
        output=folder / "survey",
        images_per_class=images,
        **settings,
    )
    return make(request)


def links(folder: Path) -> list[dict[str, str]]:
    """The rows of a survey's links."""
    with (folder / "links.csv").open() as file:
        return list(csv.DictReader(file))


class Server:
    """`spurbench survey serve` in a process of its own."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        code = "from spurbench.cli.main import main; main()"
        command = [sys.executable, "-c", code, "survey", "serve", str(folder), "--port", str(port)]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        said = ""
        for line in self._process.stdout:
            said += line
            if found := re.search(r"listening at (http://\S+:(\d+))", line):
                self.address, self.port = found[1], int(found[2])
                return
        raise RuntimeError(f"the server did not start: {said}")

    def kill(self) -> str:
        """As a crash would; what it said meanwhile."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout.closed:
            return ""
        with self._process.stdout:
            return self._process.stdout.read()


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        yield server
    finally:
        server.kill()


def designed(*, items: int = 40, raters: int = 10, repeats: int = 6, classes: int = 4) -> Survey:
    """A design without a folder; images of two sources in turn, class after class."""
    return Survey(
        schema="spurbench.survey/1",
        id=new_token(),
        dataset=DatasetInfo(name="toy", kind="dataset", fingerprint="f"),
        images_per_class=items // classes,
        side=32,
        seed=0,
        attention=Attention(repeats=repeats, apart=1, failing=0.34),
        contact="",
        created="2024-02-13T00:00:00+00:00",
        items=tuple(
            Item(
                image=new_token(),
                sha256=f"{i:064x}",
                class_index=i * classes // items,
                class_name=f"class {i * classes // items}",
                spurious_feature=None,
                source="generated" if i % 2 else "real",
            )
            for i in range(items)
        ),
        orders=orders(items, raters, repeats, 0),
    )


def simulated(
    survey: Survey,
    rng: np.random.Generator,
    *,
    bias: float = 0.0,
    severity: float = 0.5,
    taste: float = 0.3,
    quality: float = 0.0,
    noise: float = 0.7,
) -> Grades:
    """Grades of raters who round what they feel to a star.

    Args:
        survey: the design.
        rng: whence it is drawn.
        bias: how much less natural generated images feel on the average.
        severity: spread of the raters' means.
        taste: spread of the raters' biases.
        quality: spread of the images' means.
        noise: spread of one rater's feelings about one image.
    """
    raters, items = len(survey.orders), len(survey.items)
    generated = np.array([item.source == "generated" for item in survey.items])
    felt = (
        3.2
        + rng.normal(0, severity, (raters, 1))
        + rng.normal(0, quality, items)
        - generated * (bias + rng.normal(0, taste, (raters, 1)))
    )

    def grades() -> np.ndarray:
        return np.clip(np.round(felt + rng.normal(0, noise, felt.shape)), 1, 5)

    twice = np.array([[order.count(item) == 2 for item in range(items)] for order in survey.orders])
    return Grades(
        raters=np.arange(raters),
        first=grades(),
        again=np.where(twice, grades(), np.nan),
        asked=np.array([len(order) for order in survey.orders]),
    )


def rounded_mean(mean: float, spread: float) -> float:
    """The mean grade of feelings from a normal distribution, rounded to stars."""
    from scipy.stats import norm

    return 1 + sum(norm.sf(edge, mean, spread) for edge in (1.5, 2.5, 3.5, 4.5))
