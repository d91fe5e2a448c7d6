from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from makers.rows import every_part, provenance, row, write
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.dataset import changelog
from spurbench.dataset.diff import compare, summarise
from spurbench.dataset.manifest import Provenance, Snapshot, read_snapshot


def answer(rank: int, prediction: int = 1) -> list[dict]:
    return [{"classifier": "vit", "prediction": prediction, "probability": 0.5, "rank": rank}]


def snapshot(version: str, rows: dict, **changes) -> Snapshot:
    return Snapshot("toy", version, provenance(**changes), rows)


@pytest.fixture
def versions():
    old = [row("generated", i, panel=answer(1, 94)) for i in range(4)]
    new = [row("generated", i, panel=answer(1 + i % 2)) for i in (2, 3, 4)]
    koala = {"class_index": 105, "class_name": "koala", "panel": answer(1, 105)}
    extra = [row("generated", 9, **koala)]
    real = [row("real", 0)]
    return (
        snapshot("1.0.0", {"real": real, "generated": old}),
        snapshot("1.1.0", {"real": real, "generated": [*new, *extra]}),
    )


def test_images_are_counted_by_their_bytes_per_class(versions):
    changes = {(c.name, c.part): c for c in compare(*versions).classes}
    assert list(changes) == [
        ("hummingbird", "real"),
        ("hummingbird", "generated"),
        ("koala", "generated"),
    ]
    c = changes["hummingbird", "generated"]
    # 0 and 1 went, 4 came, 2 and 3 stayed; 2 has rank 1, 3 and its new answer rank 2, 4 rank 1
    assert (c.old, c.new, c.added, c.removed, c.kept, c.reexamined) == (4, 3, 1, 2, 2, 2)
    assert (c.old_panel_accuracy, c.new_panel_accuracy) == (1.0, pytest.approx(2 / 3))
    same = changes["hummingbird", "real"]
    assert (same.added, same.removed, same.kept, same.reexamined) == (0, 0, 1, 0)
    koala = changes["koala", "generated"]
    assert (koala.old, koala.new, koala.added, koala.old_panel_accuracy) == (0, 1, 1, None)


def test_positives_and_controls_are_compared_as_well():
    rows = every_part()
    fewer = rows | {"controls-generated": rows["controls-generated"][:3]}
    difference = compare(snapshot("1.0.0", fewer), snapshot("1.1.0", rows))
    assert [c.part for c in difference.classes] == list(rows)
    assert summarise(difference) == [
        "hummingbird, controls-generated: 1 added, 0 removed, 3 kept; panel accuracy 66.7 % -> "
        "50.0 %"
    ]


def test_an_image_that_is_there_twice_counts_twice():
    twice = {"real": [], "generated": [row("generated", 0)] * 2}
    once = {"real": [], "generated": [row("generated", 0)]}
    change = compare(snapshot("1.0.0", twice), snapshot("1.1.0", once)).classes[0]
    assert (change.old, change.new, change.removed, change.kept) == (2, 1, 1, 1)


def test_settings_are_named_as_set_takes_them_and_the_panel_by_name():
    rows = {"real": [], "generated": [row("generated", 0)]}
    before, after = provenance().as_json(), provenance(seed=7).as_json()
    before["recipe"]["finetune"]["steps"], after["recipe"]["finetune"]["steps"] = 400, 800
    after["base_model"]["fingerprint"] = "e" * 64
    before["panel"] = [{"name": n, "weights_sha256": n} for n in ("gone", "kept", "trained")]
    after["panel"] = [
        {"name": n, "weights_sha256": w}
        for n, w in (("kept", "kept"), ("trained", "anew"), ("new", "new"))
    ]
    old, new = (
        Snapshot("toy", version, Provenance.model_validate(made), rows)
        for version, made in (("1.0.0", before), ("1.1.0", after))
    )
    difference = compare(old, new)
    assert {(s.key, s.old, s.new) for s in difference.settings} == {
        ("finetune.steps", 400, 800),
        ("seed", 0, 7),
        ("base_model.fingerprint", "f" * 64, "e" * 64),
    }
    assert (difference.panel_added, difference.panel_removed) == (["new"], ["gone"])
    assert difference.panel_changed == ["trained"]


def test_the_summary_says_what_changed_and_only_that(versions):
    assert summarise(compare(*versions)) == [
        "hummingbird, generated: 1 added, 2 removed, 2 kept, of them 2 with other answers or "
        "scores; panel accuracy 100.0 % -> 66.7 %",
        "koala, generated: 1 added, 0 removed, 0 kept; panel accuracy none -> 100.0 %",
    ]
    assert summarise(compare(versions[0], versions[0])) == ["nothing but the version"]


def test_the_changelog_goes_on(versions):
    first = changelog.first("1.0.0", None)
    old, new = versions
    entries = changelog.extended(replace(old, changelog=first), new, "more koalas")
    assert [e.version for e in entries] == ["1.1.0", "1.0.0"]
    assert entries[0].note == "more koalas"
    assert entries[0].changes == (*summarise(compare(old, new)),)
    assert entries[1:] == first


def test_an_earlier_version_must_be_one():
    changelog.require_successor(("toy", "1.9.0"), ("toy", "1.10.0"))
    with pytest.raises(SpurbenchError, match="is of other, not of toy"):
        changelog.require_successor(("other", "1.0.0"), ("toy", "1.1.0"))
    for new in ("1.10.0", "1.9.0"):
        with pytest.raises(SpurbenchError, match=r"does not precede .*raise --version"):
            changelog.require_successor(("toy", "1.10.0"), ("toy", new))


def test_the_command_shows_tables_and_writes_json(tmp_path):
    write(tmp_path / "a")
    evil = "[red]<script>"
    rows = {split: [row(split, 0, class_name=evil)] for split in ("real", "generated")}
    write(tmp_path / "b", rows=rows, version="1.1.0", seed=3)
    output = tmp_path / "diff.json"
    arguments = ["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--json", str(output)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "toy 1.0.0 -> toy 1.1.0" in " ".join(done.output.split())  # a title may wrap
    assert evil in done.output
    document = json.loads(output.read_text())
    assert document["schema"] == "spurbench.dataset.diff/2"
    assert document["settings"] == [{"key": "seed", "old": 0, "new": 3}]
    assert [(c["added"], c["removed"], c["kept"]) for c in document["classes"]] == [
        (0, 2, 1),
        (0, 3, 1),
    ]


def test_a_snapshot_reads_everything_but_the_images(tmp_path):
    write(tmp_path / "d")
    read = read_snapshot(tmp_path / "d")
    assert [*read.rows["generated"]] == [row("generated", i) for i in range(4)]
    assert read.provenance == provenance()
    shard = tmp_path / "d" / "data" / "real-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(SpurbenchError, match=r"real-00000.*can't be read .*spurbench verify"):
        read_snapshot(tmp_path / "d")
