from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import time

import pytest

from spurbench.build.store import LEASE, MARKER, NotStoredError, StageStore
from spurbench.core.errors import SpurbenchError
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


MARKERS = {
    "cut off": "{",
    "empty": "",
    "a list": "[]",
    "no files": '{"stage": "s", "fingerprint": "", "inputs": {}, "files": null, "seconds": 1}',
    "nested": "[" * 100_000,
    "seconds": '{"seconds": "NaN"}',
}


@pytest.mark.parametrize("damage", ["change", "delete", *MARKERS])
def test_a_damaged_stage_is_noticed_and_made_again(tmp_path, damage, caplog):
    maker, store = Maker(), StageStore(tmp_path)
    stage = store.run("cls", "s", {"a": 1}, maker)
    match damage:
        case "change":
            (stage.folder / "out.txt").write_text("tampered")
        case "delete":
            (stage.folder / "out.txt").unlink()
        case _:
            (stage.folder / MARKER).write_text(MARKERS[damage])
    again = StageStore(tmp_path).run("cls", "s", {"a": 1}, maker)
    assert maker.calls == 2
    assert (again.folder / "out.txt").read_text() == "made"
    assert "damaged" in caplog.text


@pytest.mark.parametrize("value", [None, "ab", ["x"], {"x": 1}, -1, "Infinity"])
@pytest.mark.parametrize("key", ["stage", "fingerprint", "inputs", "files", "seconds"])
def test_a_marker_of_wrong_types_is_a_damaged_stage(tmp_path, key, value, caplog):
    maker = Maker()
    stage = StageStore(tmp_path).run("cls", "s", {"a": 1}, maker)
    marker = json.loads((stage.folder / MARKER).read_text())
    text = json.dumps(marker | {key: value}).replace('"Infinity"', "Infinity")
    (stage.folder / MARKER).write_text(text)
    again = StageStore(tmp_path).run("cls", "s", {"a": 1}, maker)
    harmless = (key, value) in (("stage", "ab"), ("stage", "Infinity"), ("inputs", {"x": 1}))
    assert again.reused == (harmless and text.count("Infinity") == 0)
    assert ("damaged" in caplog.text) != again.reused
    assert (again.folder / "out.txt").read_text() == "made"


@pytest.mark.parametrize("note", ["abc", "", "nan", "inf", "-1", "1" * 5000])
def test_a_bad_note_of_the_time_costs_no_more_than_the_time(tmp_path, note, caplog):
    def interrupted(folder):
        (folder / "checkpoint").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StageStore(tmp_path).run("cls", "s", {"a": 1}, interrupted)
    (partial,) = tmp_path.glob("cls/*.partial")
    (partial / ".seconds").write_text(note)
    maker = Maker()
    stage = StageStore(tmp_path).run("cls", "s", {"a": 1}, maker)
    assert maker.found == [["checkpoint"]]
    assert 0 < stage.seconds < 60
    assert "time spent can't be read" in caplog.text


def test_what_lies_in_a_stages_place_and_unfinished_writes_are_cleared(tmp_path):
    maker = Maker()
    stage = StageStore(tmp_path).run("cls", "s", {"a": 1}, maker)
    shutil.rmtree(stage.folder)
    partial = stage.folder.with_name(stage.folder.name + ".x.partial")
    partial.write_text("a file, not a folder")
    assert not StageStore(tmp_path).run("cls", "s", {"a": 1}, maker).reused
    shutil.rmtree(stage.folder)
    partial.mkdir()
    (partial / ".checkpoint.pt.abc.tmp").write_text("of a write that was killed")
    again = StageStore(tmp_path).run("cls", "s", {"a": 1}, maker)
    assert set(json.loads((again.folder / MARKER).read_text())["files"]) == {"out.txt"}


@pytest.mark.parametrize("subject", ["../outside", "a/../../outside", "/outside"])
def test_no_subject_leads_out_of_the_store(tmp_path, subject):
    with pytest.raises(SpurbenchError, match="not a folder below"):
        StageStore(tmp_path / "work").run(subject, "s", {}, Maker())
    assert not list(tmp_path.iterdir())


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


def test_a_forced_run_makes_again_what_it_did_not_make(tmp_path):
    maker = Maker()
    StageStore(tmp_path).run("shared", "s", {}, maker)
    StageStore(tmp_path, run="first").run("shared", "s", {}, maker)
    # a second class that shares the stage, or another worker of the same run
    assert StageStore(tmp_path, run="first").run("shared", "s", {}, maker).reused
    assert maker.calls == 2
    assert not StageStore(tmp_path, run="second").run("shared", "s", {}, maker).reused
    assert StageStore(tmp_path).run("shared", "s", {}, maker).reused


@pytest.mark.parametrize(("again", "found"), [("first", [["half"]]), ("second", [[]])])
def test_a_forced_run_goes_on_only_from_what_it_left_itself(tmp_path, again, found):
    def interrupted(folder):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StageStore(tmp_path, run="first").run("cls", "s", {}, interrupted)
    maker = Maker()
    StageStore(tmp_path, run=again).run("cls", "s", {}, maker)
    assert maker.found == found
    assert not list(tmp_path.rglob("*.partial"))


def test_a_complete_store_makes_nothing(tmp_path):
    maker = Maker()
    with pytest.raises(NotStoredError, match="is not in the store"):
        StageStore(tmp_path, complete=True).run("cls", "s", {}, maker)
    assert not maker.calls and not list(tmp_path.iterdir())
    stage = StageStore(tmp_path, device="H200").run("cls", "s", {}, maker)
    assert StageStore(tmp_path, complete=True).run("cls", "s", {}, maker).device == "H200"
    (stage.folder / "out.txt").write_text("changed")
    with pytest.raises(NotStoredError):
        StageStore(tmp_path, complete=True).run("cls", "s", {}, maker)


def test_who_was_taken_over_while_he_stood_still_does_not_put_his_half_in_place(tmp_path):
    def stood_still(folder):
        # another process thinks that this one is dead, and takes what it finds
        (folder / "early.txt").write_text("early")
        folder.rename(folder.with_name("the-other-one"))
        folder.mkdir()
        (folder / "late.txt").write_text("late")

    with pytest.raises(SpurbenchError, match="another process took over"):
        StageStore(tmp_path).run("cls", "s", {}, stood_still)
    maker = Maker()
    stage = StageStore(tmp_path).run("cls", "s", {}, maker)
    assert not stage.reused and maker.calls == 1


def test_two_processes_never_make_one_stage_at_once(tmp_path):
    script = """
        import sys, time
        from pathlib import Path
        from spurbench.build.store import StageStore
        def make(folder):
            with (Path(sys.argv[1]) / "log").open("a") as log:
                print("begin", file=log, flush=True); time.sleep(0.5); print("end", file=log)
            (folder / "out.txt").write_text("made")
        StageStore(Path(sys.argv[1])).run("cls", "s", {"a": int(sys.argv[2])}, make)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), tmp_path]
    same = [subprocess.Popen([*command, "1"]) for _ in range(3)]
    assert [process.wait() for process in same] == [0, 0, 0]
    assert (tmp_path / "log").read_text().split() == ["begin", "end"]


def test_the_lease_of_a_killed_process_is_taken_at_once(tmp_path):
    script = """
        import os, signal, sys
        from pathlib import Path
        from spurbench.build.store import StageStore
        def make(folder):
            (folder / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        StageStore(Path(sys.argv[1])).run("cls", "s", {}, make)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script), tmp_path], check=False)
    assert killed.returncode == -9
    maker, begun = Maker(), time.monotonic()
    StageStore(tmp_path).run("cls", "s", {}, maker)
    assert time.monotonic() - begun < 5 < LEASE
    assert maker.found == [["half"]]


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
