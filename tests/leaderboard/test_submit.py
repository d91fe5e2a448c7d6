from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import parse_eval_result_entries

import spurbench
from makers.answers import answered, answers_frame
from makers.measured import save_dataset
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.results import Result
from spurbench.leaderboard import check, entries
from spurbench.leaderboard.entries import Entry

KNOWN = '[[datasets]]\nname = "spurbench-toy"\nversion = "1.0.0"\n'


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A folder with a dataset ``set`` and the result of an embedded classifier, ``results``."""
    root = tmp_path_factory.mktemp("submitted")
    save_dataset(
        root / "set", images=8, classes=(94, 105), positives=5, controls=True, replicates=2
    )
    spurbench.evaluate("mini:resnet_v1", root / "set", output=root / "results", device="cpu")
    return root


@pytest.fixture
def root(measured, tmp_path) -> Path:
    shutil.copytree(measured, tmp_path, dirs_exist_ok=True)
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "datasets.toml").write_text(KNOWN)
    return tmp_path


@pytest.fixture
def entry(root) -> Path:
    """The entry that ``submit`` writes."""
    (result,) = (root / "results").glob("*.json")
    done = run("submit", str(result), "--to", str(root / "board"))
    assert done.exit_code == 0, done.output
    (file,) = (root / "board").glob("*/*.json")
    assert done.output.splitlines()[0] == str(file)
    assert "leaderboard check" in done.output and "pull request" in done.output
    return file


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, arguments)


def changed(file: Path, change: Any) -> None:
    """An entry that says something else, laid out as entries are."""
    document = json.loads(file.read_text())
    change(document)
    file.write_text(Entry.model_validate(document).text)


def test_a_submitted_entry_is_sound_and_every_answer_is_found_again(root, entry):
    done = run(
        "leaderboard", "check", str(entry), "--recompute", "0", "--data", str(root / "set"),
        "--device", "cpu",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    answers = 2 * (8 + 8 + 5 + 8)
    assert f"{answers} of {answers} answers measured anew are the same" in done.output


def test_a_sample_is_as_large_as_asked_and_where_the_data_is_may_be_known(root, entry):
    (root / "board" / "datasets.toml").write_text(KNOWN + f'data = "{root / "set"}"\n')
    done = run("leaderboard", "check", str(entry), "--recompute", "7", "--device", "cpu")
    assert "; 7 of 58 answers measured anew" in done.output, done.output


@pytest.mark.parametrize("source", ["real", "generated", "positive", "control"])
def test_an_answer_that_the_classifier_does_not_give_is_found(root, entry, source):
    def forge(document):
        own = document["answers"][source][0]
        number, _, rest = own["predictions"].partition(" ")
        # Another wrong answer, from which the same numbers follow.
        assert number != "="
        own["predictions"] = f"{(int(number) + 1) % 90} {rest}"

    changed(entry, forge)
    read = check.check(entry)
    with pytest.raises(SpurbenchError, match=f"1 of .* answers to {source} images are others"):
        check.recompute(read, str(root / "set"), device="cpu")
    done = run(
        "leaderboard", "check", str(entry), "--recompute", "0", "--data", str(root / "set"),
        "--device", "cpu",
    )  # fmt: skip
    assert done.exit_code == 1
    assert len(done.output.strip().splitlines()) == 1 and str(entry) in done.output


def test_other_weights_images_or_preprocessing_are_found(root, entry, tmp_path):
    sound = entries.read(entry)
    other = sound.classifier.model_copy(update={"name": "resnet_v2"})
    with pytest.raises(SpurbenchError, match="mini:resnet_v2 has other weights"):
        check.recompute(sound.model_copy(update={"classifier": other}), str(root / "set"))
    save_dataset(root / "fewer", images=7, classes=(94, 105), positives=5, controls=True)
    with pytest.raises(SpurbenchError, match=r"images of class 94 in .*fewer are not those"):
        check.recompute(sound, str(root / "fewer"))
    model = sound.preprocessing.model_copy(update={"std": (0.1, 0.1, 0.1)})
    with pytest.raises(SpurbenchError, match="takes its images otherwise"):
        check.recompute(sound.model_copy(update={"preprocessing": model}), str(root / "set"))
    with pytest.raises(SpurbenchError, match=r"part in making .* is None, not panel"):
        check.recompute(sound.model_copy(update={"role": "panel"}), str(root / "set"))
    own = sound.classifier.model_copy(update={"source": "folder"})
    with pytest.raises(SpurbenchError, match="no public name"):
        check.recompute(sound.model_copy(update={"classifier": own}), str(root / "set"))


def test_an_entry_lies_where_it_belongs_and_is_laid_out_as_it_is_written(entry):
    moved = entry.with_name("mini-other_00000000.json")
    entry.rename(moved)
    with pytest.raises(SpurbenchError, match=f"belongs at .*{entry.name}"):
        check.check(moved)
    moved.rename(entry)
    entry.write_text(entry.read_text() + "\n")
    with pytest.raises(SpurbenchError, match="not laid out as an entry"):
        check.check(entry)


def test_entries_at_fault_end_in_one_line_and_each_is_named(entry):
    sound = run("leaderboard", "check", str(entry))
    assert (sound.exit_code, sound.stderr) == (0, "")
    missing = run("leaderboard", "check", "nowhere.json")
    assert missing.exit_code == 1
    assert missing.stderr.splitlines() == ["Error: no entry at nowhere.json"]
    several = run("leaderboard", "check", str(entry), "a.json", "b.json")
    assert several.exit_code == 1 and f"{entry}: sound" in several.stdout
    *named, last = several.stderr.splitlines()
    assert named == ["failed: no entry at a.json", "failed: no entry at b.json"]
    assert last == "Error: 2 of 3 entries are not as they should be"


def test_only_known_datasets_have_entries(root, entry):
    listed = root / "board" / "datasets.toml"
    listed.write_text(KNOWN.replace("1.0.0", "1.0.1"))
    with pytest.raises(SpurbenchError, match=r"does not list spurbench-toy 1\.0\.0"):
        check.check(entry)
    listed.write_text(KNOWN + 'fingerprints = ["0"]\n')
    with pytest.raises(SpurbenchError, match="does not list"):
        check.check(entry)
    listed.unlink()
    with pytest.raises(SpurbenchError, match=r"no datasets\.toml"):
        check.check(entry)


def test_an_entry_can_t_pass_over_the_part_that_its_classifier_had(root, entry):
    weights = json.loads(entry.read_text())["classifier"]["weights_sha256"]
    listed = root / "board" / "datasets.toml"
    for names in (f'phi = "{weights}"', f'panel = ["{weights}"]'):
        listed.write_text(f"{KNOWN}{names}\n")
        role = names.partition(" ")[0]
        with pytest.raises(SpurbenchError, match=f"is None in the entry and {role} in "):
            check.check(entry)
    changed(entry, lambda document: document.update(role="panel"))
    assert check.check(entry).role == "panel"
    listed.write_text(KNOWN)
    with pytest.raises(SpurbenchError, match="is panel in the entry and None in "):
        check.check(entry)


def test_the_same_classifier_twice_and_other_images_under_one_name_are_found(entry):
    other = entry.with_name("mini-resnet_v0_00000000.json")
    document = json.loads(entry.read_text())
    other.write_text(json.dumps(document))
    with pytest.raises(SpurbenchError, match=f"is of the classifier of {other.name}; keep one"):
        check.check(entry)
    document["classifier"]["weights_sha256"] = "0"
    other.write_text(json.dumps(document))
    check.check(entry)
    document["answers"]["real"][0]["images"] = "0"
    other.write_text(json.dumps(document))
    with pytest.raises(SpurbenchError, match=f"its real images are not those of {other.name}"):
        check.check(entry)


@pytest.fixture(scope="module")
def drawn() -> Entry:
    frame = answers_frame((94, 105, 565), images=42, generators=3)
    return Entry.of(answered("resnet50", frame, dataset="spurbench-toy"), frame)


@pytest.mark.parametrize(
    "where",
    [
        ("summary", "spurious_accuracy_interval"),
        ("summary", "recognition", "interval"),
        ("summary", "recognition", "auroc_interval"),
        ("summary", "effect", "interval"),
        ("classes", 1, "spurious_accuracy_interval"),
        ("classes", 2, "recognition", "interval"),
    ],
)
def test_an_interval_that_the_answers_do_not_give_is_found(drawn, tmp_path, where):
    (tmp_path / "datasets.toml").write_text(KNOWN)
    file = tmp_path / drawn.folder / drawn.file_name
    drawn.write(file)
    check.check(file)

    def narrow(document):
        interval = document["splits"]["generated"]
        for key in where:
            interval = interval[key]
        middle = (interval["low"] + interval["high"]) / 2
        interval["low"] += (middle - interval["low"]) * 0.9

    changed(file, narrow)
    with pytest.raises(SpurbenchError, match="interval does not follow from the answers"):
        check.check(file)


def test_an_effect_s_p_value_follows_from_the_pairs(drawn, tmp_path):
    (tmp_path / "datasets.toml").write_text(KNOWN)
    file = tmp_path / drawn.folder / drawn.file_name

    drawn.write(file)
    changed(file, lambda d: d["splits"]["generated"]["summary"]["effect"].update(p_value=0.5))
    with pytest.raises(SpurbenchError, match="p_value does not follow"):
        check.check(file)


def test_without_its_answers_a_result_is_not_submitted(root):
    (result,) = (root / "results").glob("*.json")
    result.with_suffix(".parquet").unlink()
    done = run("submit", str(result), "--to", str(root / "board"))
    assert done.exit_code == 1 and "is missing" in done.output
    assert [file.name for file in (root / "board").iterdir()] == ["datasets.toml"]


def test_the_hub_reads_what_a_model_page_is_given(root):
    (path,) = (root / "results").glob("*.json")
    card = root / ".eval_results" / "spurbench.yaml"
    done = run("submit", str(path), "--model-card", str(card), "--dataset", "owner/toy")
    assert done.exit_code == 0, done.output
    found = parse_eval_result_entries(yaml.safe_load(card.read_text()))
    result = Result.read(path)
    generated = {entry.task_id: entry for entry in found}["generated_spurious_accuracy"]
    accuracy = result.splits["generated"].summary.spurious_accuracy
    assert generated.value == pytest.approx(100 * accuracy, abs=0.005)
    assert (generated.dataset_id, generated.date) == ("owner/toy", result.created)
    assert {entry.task_id for entry in found} == {
        *(f"{s}_{m}" for s in ("real", "generated") for m in ("spurious_accuracy", "recognition")),
        *(f"{s}_auroc" for s in ("real", "generated")),
        "generated_feature_effect",
    }
    for dataset in ("toy", "../toy", "a/b/c", "owner/to y"):
        wrong = run("submit", str(path), "--model-card", str(card), "--dataset", dataset)
        assert wrong.exit_code == 1 and "OWNER/NAME" in wrong.output
