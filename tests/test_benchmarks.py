"""The benchmarks run and say what they should; how fast anything is, no test says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from benchmarks import eval as eval_benchmark
from benchmarks import finetune, scale_plan, sfsl_error
from benchmarks import page as page_benchmark
from benchmarks.finetune import measure, run_peer, table, variants
from benchmarks.models import set_up
from spurbench.recipe.schema import SFSL, Finetune

RESULTS = Path(eval_benchmark.__file__).parent / "results"

STAND_IN = """
import json, pathlib, sys, time
options = dict(zip(sys.argv[1::1], [*sys.argv[2:], None]))
time.sleep(1.5 * int(options["--max_train_steps"]))  # else start-up hides the steps
folder = pathlib.Path(options["--output_dir"])
folder.mkdir(exist_ok=True)
index = json.loads((pathlib.Path(options["--pretrained_model_name_or_path"]) /
                    "model_index.json").read_text())
count = len(list(pathlib.Path(options["--class_data_dir"]).iterdir()))
with (folder / "calls.jsonl").open("a") as file:
    file.write(json.dumps([sys.argv[1:], index["_class_name"], count]) + "\\n")
"""


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    toy = set_up("toy", folder / "pipeline", torch.device("cpu"))
    changed = {
        name: getattr(toy.recipe, name).model_copy(update={"precision": "float32"})
        for name in ("finetune", "sample")
    }

    return replace(toy, recipe=toy.recipe.model_copy(update=changed)), folder


def test_every_variant_is_made_of_recipe_settings(setup):
    resolution = setup[0].recipe.base.resolution
    for name, options in variants(resolution).items():
        SFSL(**options.get("sfsl", {}))
        Finetune(**options.get("finetune", {}))
        assert set(options) <= {"kappa", "tiny", "sfsl", "finetune"}, name


def test_a_round_measures_the_library_and_a_peer_on_the_same_settings(setup, tmp_path):
    toy, folder = setup
    script = tmp_path / "train_dreambooth.py"
    script.write_text(STAND_IN)
    document = measure(toy, folder, 1, 1, 1, ("no SFSL", "SFSL"), "2", 1, script)
    assert list(document["variants"]) == ["no SFSL", "SFSL"]
    plain, full = (document["variants"][name] for name in ("no SFSL", "SFSL"))
    assert plain["seconds"]["median"] > 0
    assert full["tflop"] > plain["tflop"] > 0
    assert document["images_per_second"]["2"]["median"] > 0
    assert document["peer"]["script"] == "train_dreambooth.py"
    assert "ratio" in document["peer"]
    lines = (folder / "peer" / "calls.jsonl").read_text().splitlines()
    calls = [json.loads(line) for line in lines]
    lengths = []
    for arguments, kind, count in calls:
        assert kind == "StableDiffusionPipeline"
        assert {"--with_prior_preservation", "--train_text_encoder"} <= set(arguments)
        options = dict(zip(arguments, [*arguments[1:], None], strict=True))
        assert int(options["--num_class_images"]) == count  # so that none is made
        assert float(options["--learning_rate"]) == toy.recipe.finetune.learning_rate
        assert options["--resolution"] == "64"
        assert (options["--train_batch_size"], options["--mixed_precision"]) == ("1", "no")
        lengths.append(int(options["--max_train_steps"]))
    assert lengths == [1, 2]
    assert len(table(document)) == 3


def test_a_peer_that_fails_is_said_with_its_last_words(setup, tmp_path):
    toy, folder = setup
    script = tmp_path / "broken.py"
    script.write_text("import sys; sys.exit('no such argument')")
    with pytest.raises(click.ClickException, match="ended with 1:\nno such argument"):
        run_peer(script, toy, folder, 1)


@pytest.mark.parametrize("benchmark", [eval_benchmark, finetune, sfsl_error])
def test_every_benchmark_says_how_it_is_used(benchmark):
    result = CliRunner().invoke(benchmark.main, ["--help"])
    assert result.exit_code == 0 and "--output" in result.output


def test_evaluation_is_timed_beside_the_bare_model_and_a_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(eval_benchmark, "LARGE", "lcnet_050")
    monkeypatch.setattr(eval_benchmark, "SMALL", ("lcnet_035", "mobilenetv3_small_050"))
    output = tmp_path / "eval.json"
    options = {"images": 3, "large-images": 2, "batch-size": 2, "workers": 0, "repeats": 1}
    result = CliRunner().invoke(
        eval_benchmark.main,
        ["--device=cpu", f"--output={output}", *(f"--{k}={v}" for k, v in options.items())],
    )
    assert result.exit_code == 0, result.output
    document = json.loads(output.read_text())
    published = json.loads((RESULTS / "eval-cpu.json").read_text())
    assert list(document) == list(published)
    assert list(document["surroundings"]) == list(published["surroundings"])
    assert list(document["settings"]) == list(published["settings"])
    for case in document["cases"]:
        count = {"lcnet_050": 2, "lcnet_035": 3, "four small": 6}[case["models"]]
        speed, seconds = case["images_per_second"], case["seconds"]
        assert speed["median"] == pytest.approx(count / seconds["median"])
    seconds = {(c["models"], c["way"]): c["seconds"]["median"] for c in document["cases"]}
    for ratio in document["ratios"]:
        models, way = ratio["models"], ratio["spurbench_against"]
        assert ratio["speed"]["median"] == pytest.approx(
            seconds[models, way] / seconds[models, "spurbench"]
        )
        assert f"{ratio['speed']['median']:.2f}" in result.output


@pytest.mark.browser
def test_the_page_is_built_and_timed(tmp_path):
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("no chromium and chromedriver; Debian: apt install chromium chromium-driver")
    output = tmp_path / "page.json"
    small = ["--classifiers", "6", "--classes", "2", "--images", "8", "--side", "16"]
    ran = CliRunner().invoke(
        page_benchmark.main, [*small, "--repeats", "1", "--output", str(output)]
    )
    assert ran.exit_code == 0, ran.output
    document = json.loads(output.read_text())
    published = json.loads((RESULTS / "page-cpu.json").read_text())
    assert list(document) == list(published)
    assert (document["classifiers"], document["classes"]) == (6, 2)
    assert 0 < document["first_table"]["seconds"]["median"] < 60
    assert published["bytes"] <= 3_000_000


def test_the_page_on_scale_holds_the_tables_that_the_plan_prints():
    page = (RESULTS.parents[1] / "docs" / "scale.md").read_text()
    printed = CliRunner().invoke(scale_plan.main).output
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(lines) > 30
    assert not [line for line in lines if line not in page.splitlines()]
    said = "".join(CliRunner().invoke(scale_plan.main, ["--measure"]).output.splitlines())
    assert all(word in said for word in ("decode", "sha256", "parquet", "ledger"))
