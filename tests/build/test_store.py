from __future__ import annotations

import json

import pytest

from spurbench.build.store import MARKER, StageStore
from spurbench.core.identity import derive_seed, fingerprint


class Maker:
    """Writes what it is told, and counts how often."""

    def __init__(self, text="made"):
        self.text, self.calls, self.found = text, 0, []

    def __call__(self, folder):
        self.calls += 1
        self.found.append(sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")))
        (folder / "out.txt").write_text(self.text)


def test_a_finished_stage_is_not_made_again(tmp_path):
    maker = Maker()
    first = StageStore(tmp_path).run("cls", "s", {"a": 1}, maker)
    second = StageStore(tmp_path).run("cls", "s", {"a": 1}, maker)
    assert maker.calls == 1
    assert (first.reused, second.reused) == (False, True)
    assert (second.folder / "out.txt").read_text() == "made"
    assert second.seconds == first.seconds > 0


def test_other_inputs_are_another_stage(tmp_path):
    maker, store = Maker(), StageStore(tmp_path)
    a = store.run("cls", "s", {"a": 1}, maker)
    b = store.run("cls", "s", {"a": 2}, maker)
    assert maker.calls == 2
    assert a.folder != b.folder
    assert a.folder.exists()


@pytest.mark.parametrize("damage", ["change", "delete", "marker"])
def test_a_damaged_stage_is_noticed_and_made_again(tmp_path, damage, caplog):
    maker, store = Maker(), StageStore(tmp_path)
    stage = store.run("cls", "s", {"a": 1}, maker)
    match damage:
        case "change":
            (stage.folder / "out.txt").write_text("tampered")
        case "delete":
            (stage.folder / "out.txt").unlink()
        case "marker":
            (stage.folder / MARKER).write_text("{")
    again = StageStore(tmp_path).run("cls", "s", {"a": 1}, maker)
    assert maker.calls == 2
    assert (again.folder / "out.txt").read_text() == "made"
    assert "damaged" in caplog.text


def test_a_folder_without_marker_is_not_taken_for_finished(tmp_path):
    maker = Maker()
    stage = StageStore(tmp_path).run("cls", "s", {"a": 1}, maker)
    (stage.folder / MARKER).unlink()
    StageStore(tmp_path).run("cls", "s", {"a": 1}, maker)
    assert maker.calls == 2


def test_an_interrupted_stage_finds_what_it_left(tmp_path):
    def interrupted(folder):
        (folder / "checkpoint").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StageStore(tmp_path).run("cls", "s", {"a": 1}, interrupted)
    maker = Maker()
    stage = StageStore(tmp_path).run("cls", "s", {"a": 1}, maker)
    assert maker.found == [["checkpoint"]]
    assert set(json.loads((stage.folder / MARKER).read_text())["files"]) == {
        "checkpoint",
        "out.txt",
    }


def test_force_makes_again_but_once_a_run(tmp_path):
    maker = Maker()
    StageStore(tmp_path).run("shared", "s", {}, maker)
    forced = StageStore(tmp_path, force=True)
    forced.run("shared", "s", {}, maker)
    forced.run("shared", "s", {}, maker)  # a second class that shares the stage
    assert maker.calls == 2


def test_fingerprints_ignore_key_order_and_see_values():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})
    assert fingerprint({"b": [1, 2]}) != fingerprint({"b": [2, 1]})


def test_seeds_differ_by_purpose_and_do_not_collide():
    seeds = {
        derive_seed(seed, purpose, index, i)
        for seed in (0, 1)
        for purpose in ("sample", "finetune")
        for index in (94, 105)
        for i in range(500)
    }
    assert len(seeds) == 4000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "a", 11) != derive_seed(0, "a1", 1)
    # A published data set must be reproducible by later versions: the derivation never changes.
    assert derive_seed(0, "sample", 94, 3) == 7630398070290119248
