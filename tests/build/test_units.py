from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from makers.toy import save_noise_images, toy_recipe
from spurbench.build.build import build
from spurbench.build.request import BuildRequest
from spurbench.build.store import MARKER
from spurbench.build.units import BuildWork
from spurbench.core.errors import SpurbenchError
from spurbench.dataset.manifest import Manifest
from spurbench.dataset.verify import verify
from spurbench.engines.ledger import Ledger
from spurbench.engines.local import LocalEngine
from spurbench.recipe.load import read_recipe

FEW = ("controls.enabled=false", "positives.images=0", "finetune.checkpoint_every=9")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return toy_recipe(tmp_path_factory.mktemp("toy") / "recipe")


def request(recipe: Path, folder: Path, *overrides: str, **changes) -> BuildRequest:
    read = read_recipe(str(recipe), (*FEW, *overrides))
    options = {"classes": read.classes.select("all"), "data": None, "version": "1.0.0", "seed": 0}
    paths = {"output": folder / "out", "work": folder / "work"}
    return BuildRequest(read, **{**options, **paths, "device": torch.device("cpu"), **changes})


class InThisProcess:
    """An engine that does the units one after another, here."""

    def __init__(self):
        self.did = []

    def run(self, work):
        ledger, do = Ledger(work), None
        while not ledger.finished:
            unit = ledger.ready()[0]
            ledger.begin(unit)
            do = do or pickle.loads(pickle.dumps(work)).open()
            self.did.append(unit.name)
            try:
                do(unit)
            except Exception as error:  # as a worker does
                ledger.fail(unit, str(error))
            else:
                ledger.succeed(unit)
        return ledger.failed


@pytest.fixture(scope="module")
def alone(recipe, tmp_path_factory):
    """A build in one process, of hummingbird; koala has no references and fails."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, build(request(recipe, folder))


def files(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(folder.glob("data/*.parquet"))}


def test_two_worker_processes_make_the_bytes_of_one(recipe, alone, tmp_path):
    folder, by_one = alone
    built = build(request(recipe, tmp_path), LocalEngine.on_cores(2))
    assert built.failed == by_one.failed and "koala" in built.failed
    assert files(tmp_path / "out") == files(folder / "out")
    held, expected = Manifest.read(tmp_path / "out"), Manifest.read(folder / "out")
    assert held.content == expected.content
    assert (held.provenance.device, held.provenance.threads) == ("cpu", 1)
    assert {check.status for check in verify(tmp_path / "out")} == {"ok"}
    assert not any(reused for _, reused in built.seconds.values())


def test_a_class_without_given_positives_is_built_by_workers_as_by_one_process(recipe, tmp_path):
    save_noise_images(tmp_path / "given" / "n01882714", 2, seed=3)  # koala's, not hummingbird's
    asked = request(recipe, tmp_path, positives=tmp_path / "given")
    alone = build(replace(asked, output=tmp_path / "alone", work=tmp_path / "other"))
    shared_out = build(asked, InThisProcess())
    assert shared_out.failed == alone.failed and "hummingbird" not in alone.failed
    assert files(tmp_path / "out") == files(tmp_path / "alone")


def test_one_process_computes_with_one_thread_and_gives_the_others_back(
    recipe, tmp_path, monkeypatch
):
    seen = []

    def note(*_):
        seen.append(torch.get_num_threads())
        raise SpurbenchError("enough")

    monkeypatch.setattr(import_module("spurbench.build.build"), "build_class", note)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        build(request(recipe, tmp_path))
        assert seen == [1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_unit_is_done_when_its_stages_are_in_the_store_and_of_this_request(
    recipe, alone, tmp_path
):
    shutil.copytree(alone[0] / "work", tmp_path / "work")
    asked = request(recipe, tmp_path)
    work = BuildWork.of(asked)
    assert [u.name for u in work.units] == [
        "prior/flower",
        "prior/tree",
        "094_hummingbird",
        "105_koala",
    ]
    flower, _, hummingbird, _ = work.units
    assert hummingbird.needs == ("prior/flower",)
    assert not work.done(hummingbird)
    engine = InThisProcess()
    assert build(asked, engine).complete
    assert sorted(engine.did) == sorted(unit.name for unit in work.units)
    assert work.done(flower) and work.done(hummingbird)
    assert pickle.loads(pickle.dumps(work)).done(hummingbird)

    others = {
        "seed": replace(asked, seed=1),
        "replicates": replace(asked, replicates=2),
        "recipe": request(recipe, tmp_path, "finetune.steps=4"),
    }
    for name, other in others.items():
        assert not BuildWork.of(other).done(hummingbird), name
    assert BuildWork.of(others["replicates"]).done(flower)
    assert not BuildWork.of(asked, run="forced").done(hummingbird)
    (sample,) = (tmp_path / "work" / "094_hummingbird").glob(f"sample-*/{MARKER}")
    sample.unlink()
    assert not work.done(hummingbird) and work.done(flower)


def test_a_photograph_that_changes_is_a_unit_to_be_done_again(recipe, tmp_path):
    data = shutil.copytree(recipe / "real", tmp_path / "data")
    asked = request(recipe, tmp_path, data=data)
    before = BuildWork.of(asked)
    hummingbird = before.units[2]
    path = before._path(hummingbird)
    photograph = next(data.rglob("*.png"))
    photograph.write_bytes(photograph.read_bytes() + b"\0")
    assert BuildWork.of(asked)._path(hummingbird) != path
    assert BuildWork.of(asked)._path(before.units[0]) == before._path(before.units[0])


def test_a_stage_that_is_not_what_is_asked_for_is_made_again_by_the_engine(
    recipe, alone, tmp_path, monkeypatch
):
    """A model may be another under the same name, which the units' records can't know."""
    asked = request(recipe, tmp_path)
    engine = InThisProcess()
    build(asked, engine)
    (image,) = (tmp_path / "work" / "094_hummingbird").glob("sample-*/0000.png")
    image.write_bytes(b"other")
    engine.did.clear()
    built = build(replace(asked, output=tmp_path / "again"), engine)
    assert "094_hummingbird" in engine.did and "hummingbird" not in built.failed
    assert files(tmp_path / "again") == files(alone[0] / "out")
    labels = {label for (_, label), (_, reused) in built.seconds.items() if not reused}
    assert labels == {"sample"}


@pytest.mark.slow
def test_force_has_every_stage_made_again_once(recipe, tmp_path):
    asked = request(recipe, tmp_path)
    build(asked, InThisProcess())
    markers = {f: f.stat().st_mtime_ns for f in (tmp_path / "work").rglob(MARKER)}
    built = build(replace(asked, force=True), InThisProcess())
    assert not any(reused for _, reused in built.seconds.values())
    again = {f: f.stat().st_mtime_ns for f in (tmp_path / "work").rglob(MARKER)}
    assert again.keys() == markers.keys()
    assert all(again[f] > before for f, before in markers.items() if "koala" not in str(f))
