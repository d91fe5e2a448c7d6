from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from click.testing import CliRunner
from rich.console import Console
from safetensors.torch import save_file

import spurbench
from makers.measured import save_dataset
from makers.site import EVIL
from makers.toy import save_toy_classifier
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError

ARCHITECTURE = "test_efficientnet"


def fresh(code: str) -> str:
    """What a new Python says that runs ``code``."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "set"
    save_dataset(folder, images=4)
    return folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return save_toy_classifier(tmp_path_factory.mktemp("c") / "toy", favourite=None, seed=0)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model(ARCHITECTURE, num_classes=1000).eval()


def test_the_import_is_light_and_knows_its_names():
    said = fresh(
        "import sys; before = set(sys.modules); import spurbench; "
        "heavy = {'torch', 'numpy', 'pandas', 'pydantic', 'timm', 'PIL', 'rich', 'click'}; "
        "print(sorted(heavy & set(sys.modules)), set(spurbench.__all__) <= set(dir(spurbench)))"
    )
    assert said == "[] True"
    for name in spurbench.__all__:
        assert callable(getattr(spurbench, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = spurbench.nonsense


@pytest.mark.parametrize("name", ["build", "leaderboard"])
@pytest.mark.parametrize("module_first", [True, False])
def test_a_function_and_the_package_of_its_name_live_together(name, module_first):
    module = {"build": "store", "leaderboard": "reported"}[name]
    steps = [f"import spurbench.{name}.{module}", f"assert callable(spurbench.{name})"]
    code = "import spurbench; " + "; ".join(steps if module_first else reversed(steps))
    said = fresh(
        f"{code}; import spurbench.{name}.{module} as m; from spurbench import {name}; "
        f"print(callable({name}), {name}.{module} is m, {name}.__call__.__module__)"
    )
    assert said == "True True spurbench.api"


def test_the_command_and_the_function_give_the_same_numbers(toy, data, tmp_path):
    said = CliRunner().invoke(
        main, ["eval", "--model", str(toy), "--data", str(data), "--output", str(tmp_path)]
    )
    assert said.exit_code == 0, said.output
    (path,) = tmp_path.glob("*.json")
    written = spurbench.Result.read(path)
    held = spurbench.evaluate(str(toy), data, device="cpu")
    same = {"created"}
    assert held.model_dump(exclude=same) == written.model_dump(exclude=same)
    pd.testing.assert_frame_equal(held.answers, written.answers)
    stored = spurbench.evaluate(str(toy), data, output=tmp_path)
    assert stored == written  # found, not measured again
    assert (
        sorted(p.suffix for p in tmp_path.glob("*.*")) == [".json", ".parquet"]
        or (tmp_path / ".classifiers").is_dir()
    )


def test_nothing_is_written_without_an_output(toy, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spurbench.evaluate(str(toy), data)
    assert not list(tmp_path.iterdir())


def test_a_network_equals_its_spec_with_a_checkpoint(network, data, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), file)
    by_spec = spurbench.evaluate(f"{ARCHITECTURE}={file}", data, device="cpu")
    by_network = spurbench.evaluate(network, data, name="mine", device="cpu")
    assert by_network.splits == by_spec.splits
    assert by_network.preprocessing == by_spec.preprocessing
    info, other = by_network.classifier, by_spec.classifier
    assert (info.source, info.name) == ("module", "mine")
    assert (info.weights_sha256, info.parameters) == (other.weights_sha256, other.parameters)
    frames = [r.answers for r in (by_network, by_spec)]
    pd.testing.assert_frame_equal(*frames)


def test_a_network_does_not_get_somebody_else_s_name(network, data):
    for name in ("resnet50.a1_in1k", "resnet50.IMAGENET1K_V2"):
        with pytest.raises(SpurbenchError, match="name of published weights"):
            spurbench.evaluate(network, data, name=name)
    assert spurbench.evaluate(network, data).classifier.name == type(network).__name__


def test_what_goes_with_networks_only_is_refused_for_a_spec(toy, data, tmp_path):
    for output in (None, tmp_path):
        with pytest.raises(SpurbenchError, match="name can be given for a network only"):
            spurbench.evaluate(str(toy), data, name="mine", output=output)
    loaded = spurbench.load_classifier(str(toy))
    with pytest.raises(SpurbenchError, match="labels can be given for a network only"):
        spurbench.evaluate(loaded, data, labels=["n01833805"])


def test_a_loaded_classifier_and_open_images_are_taken_as_they_are(toy, data):
    classifier = spurbench.load_classifier(str(toy), device="cpu")
    images = spurbench.open_images(data, "real")
    result = spurbench.evaluate(classifier, images)
    assert list(result.splits) == ["real"]
    whole = spurbench.evaluate(str(toy), str(data), device="cpu").to_frame()
    # Other batches move probabilities in the last digits.
    pd.testing.assert_frame_equal(result.to_frame(), whole[whole["split"] == "real"], rtol=1e-5)


def test_a_transform_of_one_s_own_makes_the_pixels_and_is_never_found_in_the_store(
    network, data, tmp_path
):
    def dark(image):
        return torch.zeros(3, 32, 32)

    def bright(image):
        return torch.full((3, 32, 32), 3.0)

    results = [
        spurbench.evaluate(network, data, transform=t, name="mine", output=tmp_path)
        for t in (dark, bright)
    ]
    said = [set(result.answers["prediction"]) for result in results]
    assert all(len(answers) == 1 for answers in said)  # every image looks the same
    before = results[1].created
    again = spurbench.evaluate(network, data, transform=bright, name="mine", output=tmp_path)
    assert again.created >= before and again.splits == results[1].splits


def test_a_frame_has_a_row_for_each_split_and_class(toy, data):
    result = spurbench.evaluate(str(toy), data)
    frame = result.to_frame()
    assert frame[["split", "index"]].values.tolist() == [
        [split, index] for split in ("real", "generated") for index in (94, 105, 565)
    ]
    row = frame.iloc[0]
    c = result.splits["real"].classes[0]
    assert (row["name"], row["spurious_accuracy"], row["low"], row["high"]) == (
        c.name,
        c.spurious_accuracy,
        c.spurious_accuracy_interval.low,
        c.spurious_accuracy_interval.high,
    )
    answers = result.answers
    fooled = answers.assign(fooled=answers["rank"] == 1).groupby(["source", "class_index"])[
        "fooled"
    ]
    expected = fooled.mean().loc[list(zip(frame["split"], frame["index"], strict=True))]
    np.testing.assert_allclose(frame["spurious_accuracy"], expected)


def test_a_result_prints_its_classes_and_mean(toy, data):
    result = spurbench.evaluate(str(toy), data)
    for text in (str(result), _rich(result)):
        assert "toy on spurbench-toy 1.0.0 real" in text
        assert "hummingbird" in text and "macro mean" in text
        assert f"{100 * result.splits['real'].summary.spurious_accuracy:.1f} %" in text
    assert repr(result).startswith("<Result: toy on spurbench-toy: spurious accuracy real ")
    html = result._repr_html_()
    assert html.count("<table>") == 2 and html.count("<tr>") == 2 * (1 + 3 + 1)


def test_names_from_outside_are_only_text_wherever_a_result_is_shown(toy, tmp_path):
    hostile = f"[bold]{EVIL}[/nonsense]"
    result = spurbench.evaluate(str(toy), save_dataset(tmp_path / "d", name=hostile, images=1))
    html = result._repr_html_()
    assert "<script" not in html and "<img" not in html and "&lt;script" in html
    assert "[bold]" in _rich(result) and "[bold]" in str(result)


def _rich(result) -> str:
    console = Console(width=400)
    with console.capture() as captured:
        console.print(result)
    return captured.get()


def test_results_are_compared_and_ranked_in_memory_as_by_files(data, toy, tmp_path):
    other = save_toy_classifier(tmp_path / "other", favourite=94, seed=1)
    held = [spurbench.evaluate(str(spec), data) for spec in (toy, other)]
    for spec in (toy, other):
        spurbench.evaluate(str(spec), data, output=tmp_path / "r")
    files = sorted((tmp_path / "r").glob("*.json"), key=lambda p: "other" in p.name)
    assert spurbench.compare(*held) == spurbench.compare(*files)
    (in_memory,), (by_files,) = (
        spurbench.leaderboard(results) for results in (held, [tmp_path / "r"])
    )
    assert in_memory.p_values == by_files.p_values
    assert [row.label for row in in_memory.rows] == [row.label for row in by_files.rows]
    # Short, for a notebook shows what an expression gives, and these hold every answer.
    (board, *_) = spurbench.leaderboard(held)
    assert repr(board).startswith(f"<Board: {board.title}, ") and len(repr(board)) < 200
    compared = repr(spurbench.compare(*held))
    assert compared.startswith("<Comparison: ") and " points" in compared and len(compared) < 300
    spurbench.leaderboard(held, output=tmp_path / "board", data=[data])
    assert (tmp_path / "board" / "index.html").is_file()
    assert "other" in (tmp_path / "board" / "README.md").read_text()


def test_the_wrong_kind_of_path_is_one_line(toy):
    with pytest.raises(SpurbenchError, match="no folder at nowhere"):
        spurbench.evaluate(str(toy), "nowhere")
    with pytest.raises(SpurbenchError, match="no result at nowhere"):
        spurbench.compare("nowhere", "nowhere")


def test_config_and_protocol_are_the_command_s(toy, tmp_path):
    images = save_dataset(
        tmp_path / "d",
        images=2,
        positives=2,
        known=lambda part, _, i: {"object_absent": i == 0},
        curated=True,
    )
    data = tmp_path / "d"
    for options in ({"config": "curated"}, {"protocol": "neuhaus"}):
        (name, value), *_ = options.items()
        output = tmp_path / name
        said = CliRunner().invoke(
            main,
            f"eval --model {toy} --data {data} --output {output} --{name} {value}".split(),
        )
        assert said.exit_code == 0, said.output
        assert "\\n" not in said.output and "recognition" in said.output
        (path,) = output.glob("*.json")
        written = spurbench.Result.read(path)
        held = spurbench.evaluate(str(toy), data, device="cpu", **options)
        assert getattr(held, name) == getattr(written, name) == value
        assert held.summary == written.summary
    curated = spurbench.open_images(data, config="curated")
    assert len(curated.records) < len(images.records)
    assert spurbench.evaluate(str(toy), curated).config == "curated"
    with pytest.raises(SpurbenchError, match="config curated goes with data that is yet to be op"):
        spurbench.evaluate(str(toy), images, config="curated")
