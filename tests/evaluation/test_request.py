from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from makers.measured import FEATURES, save_dataset
from makers.toy import save_noise_images, save_toy_classifier
from spurbench.classifiers.load import load_classifier
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.evaluate import (
    EvaluationRequest,
    Failed,
    evaluate,
    evaluate_each,
    measure,
)
from spurbench.evaluation.members import Member
from spurbench.images.sources import open_images


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return save_dataset(tmp_path_factory.mktemp("data") / "set", images=3)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return save_toy_classifier(tmp_path_factory.mktemp("c") / "toy", favourite=None, seed=0)


@pytest.fixture(scope="module")
def classifier(toy):
    return load_classifier(str(toy))


def changed(images, position, **fields):
    records = list(images.records)
    records[position] = replace(records[position], **fields)
    return replace(images, records=tuple(records))


def test_names_and_features_are_the_data_s_own(classifier, images):
    renamed = replace(
        images,
        records=tuple(replace(r, class_name=f"my {r.class_name}") for r in images.records),
    )
    result = measure(classifier, EvaluationRequest(renamed))
    assert result.summary.worst_class.startswith("my ")
    for part in result.splits.values():
        found = {c.index: (c.name, c.spurious_feature) for c in part.classes}
        assert found[94] == ("my hummingbird", "red flower")
        assert {index: feature for index, (_, feature) in found.items()} == {
            94: FEATURES[94],
            105: None,
            565: FEATURES[565],
        }
    rows = result.answers.set_index("image_sha256")
    for record in renamed.records:
        row = rows.loc[record.sha256]
        assert row["class_name"] == record.class_name
        feature = row["spurious_feature"]
        assert (feature if isinstance(feature, str) else None) == record.spurious_feature


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "dreamt"}, r"real/.* is of split 'dreamt'; it must be one of real, generated"),
        ({"class_index": -1}, r"real/.* is of class -1; ImageNet-1k's are 0 to 999"),
        ({"class_index": 1000}, "is of class 1000"),
        ({"class_name": "toilet tissue"}, "goes by two names"),
        ({"spurious_feature": "green flower"}, "goes by two names"),
    ],
)
def test_an_image_that_would_be_lost_or_mistaken_is_refused(images, fields, message):
    with pytest.raises(SpurbenchError, match=message) as error:
        EvaluationRequest(changed(images, 1, **fields))
    assert "\n" not in str(error.value)


def test_a_split_of_damaged_images_does_not_vanish(classifier, images, tmp_path):
    broken = replace(
        images,
        records=tuple(
            replace(r, read=lambda: b"text") if r.source == "real" else r for r in images.records
        ),
    )
    with pytest.raises(SpurbenchError, match="every real image of spurbench-toy is damaged"):
        evaluate(classifier, EvaluationRequest(broken), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_one_line_and_leave_no_file(toy, images, tmp_path, value):
    spoilt = load_classifier(str(toy))
    with torch.no_grad():
        next(spoilt.network.parameters()).fill_(value)
    with pytest.raises(SpurbenchError, match=r"^toy answers real/.* NaN or infinite.*$") as error:
        evaluate(spoilt, EvaluationRequest(images), tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_only_the_image_with_such_logits_is_named(classifier, images, monkeypatch):
    original = type(classifier).forward

    def forward(self, pixels):
        logits = original(self, pixels).clone()
        logits[1, 3] = torch.inf
        return logits

    monkeypatch.setattr(type(classifier), "forward", forward)
    with pytest.raises(SpurbenchError, match=f"answers {images.records[1].path} with"):
        measure(classifier, EvaluationRequest(images))


def loads(monkeypatch) -> list[str]:
    """The SPECs that are loaded from here on."""
    loaded: list[str] = []
    original = Member.load
    monkeypatch.setattr(
        Member,
        "load",
        lambda member, device: loaded.append(member.spec) or original(member, device),
    )
    return loaded


def outcome(member, images, output, **options):
    (found,) = evaluate_each([member], EvaluationRequest(images), output, **options)
    assert not isinstance(found, Failed), found
    return found


def test_a_stored_result_is_found_without_loading_the_classifier(
    toy, images, tmp_path, monkeypatch
):
    loaded = loads(monkeypatch)
    member = Member.parse(str(toy))
    first = outcome(member, images, tmp_path)
    again = outcome(member, images, tmp_path)
    assert (first.stored, again.stored, loaded) == (False, True, [str(toy)])
    assert again.result == first.result
    assert not outcome(member, images, tmp_path, force=True).stored
    assert len(loaded) == 2


def test_a_classifier_whose_files_changed_is_never_answered_for_by_the_old(
    images, tmp_path, monkeypatch
):
    folder = save_toy_classifier(tmp_path / "toy", favourite=94, seed=0)
    first = outcome(Member.parse(str(folder)), images, tmp_path / "r")
    weights = (folder / "model.safetensors").read_bytes()
    other = save_toy_classifier(tmp_path / "other", favourite=105, seed=0)
    shutil.copy(other / "model.safetensors", folder)
    second = outcome(Member.parse(str(folder)), images, tmp_path / "r")
    assert (first.result.summary.worst_class, second.result.summary.worst_class) == (
        "hummingbird",
        "koala",
    )
    (folder / "model.safetensors").write_bytes(weights)
    third = outcome(Member.parse(str(folder)), images, tmp_path / "r")
    assert third.stored and third.result == first.result
    config = folder / "config.json"
    config.write_text(config.read_text().replace("[3, 32, 32]", "[3, 48, 48]"))
    fourth = outcome(Member.parse(str(folder)), images, tmp_path / "r")
    assert not fourth.stored and fourth.result.preprocessing.crop == (48, 48)


def test_another_version_of_a_package_loads_the_classifier_again(
    toy, images, tmp_path, monkeypatch
):
    member = Member.parse(str(toy))
    outcome(member, images, tmp_path)
    loaded = loads(monkeypatch)
    monkeypatch.setattr("spurbench.evaluation.known.package_versions", lambda: {"timm": "another"})
    assert outcome(member, images, tmp_path).stored
    assert loaded == [str(toy)]


def test_a_damaged_note_of_what_is_known_is_only_slower(toy, images, tmp_path):
    member = Member.parse(str(toy))
    outcome(member, images, tmp_path)
    (note,) = (tmp_path / ".classifiers").iterdir()
    note.write_bytes(note.read_bytes()[:50])
    assert outcome(member, images, tmp_path).stored


def test_results_beside_what_is_known_can_be_ranked(toy, images, tmp_path):
    from spurbench.leaderboard.boards import read

    outcome(Member.parse(str(toy)), images, tmp_path)
    assert len(read([tmp_path])) == 1


def test_folders_of_photographs_without_names_take_imagenet_s(classifier, tmp_path):
    save_noise_images(tmp_path / "spurious_class_094_hummingbird_component_2", 2, 0)
    result = measure(classifier, EvaluationRequest(open_images(str(tmp_path))))
    (c,) = result.splits["real"].classes
    assert (c.name, c.spurious_feature) == ("hummingbird", None)


def test_the_command_finds_a_stored_result_without_importing_what_measures(toy, tmp_path):
    save_dataset(tmp_path / "set", images=1)
    arguments = ["eval", "--model", str(toy), "--data", str(tmp_path / "set")]
    arguments += ["--output", str(tmp_path / "r")]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    code = (
        "import sys; from spurbench.cli.main import main; main(sys.argv[1:], standalone_mode=False)"
        "; print([m for m in ('torch', 'timm', 'torchvision', 'scipy', 'sklearn', 'datasets') "
        "if m in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    ).stdout
    assert "stored result" in said and said.splitlines()[-1] == "[]"
