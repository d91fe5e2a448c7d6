"""The benchmarks run and say what they should; how fast anything is, no test says."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from benchmarks import demo, finetune, gpu, growth, scale, scale_plan, sfsl_error
from benchmarks import discover as discover_benchmark
from benchmarks import eval as eval_benchmark
from benchmarks import page as page_benchmark
from benchmarks.finetune import measure, run_peer, table, variants
from benchmarks.models import set_up
from spurbench.classifiers.load import load_classifier
from spurbench.dataset.verify import verify
from spurbench.evaluation.predict import predict
from spurbench.images.sources import open_images
from spurbench.recipe.sections import SFSL, Finetune

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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "benchmark",
    [demo, discover_benchmark, eval_benchmark, finetune, gpu, growth, scale, sfsl_error],
)
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
@pytest.mark.slow
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


def test_the_page_on_scale_holds_the_tables_that_the_plan_prints(monkeypatch):
    page = (RESULTS.parents[1] / "docs" / "scale.md").read_text()
    printed = CliRunner().invoke(scale_plan.main).output
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(lines) > 30
    assert not [line for line in lines if line not in page.splitlines()]
    monkeypatch.setattr(scale_plan, "measure", partial(scale_plan.measure, units=1000))
    said = "".join(CliRunner().invoke(scale_plan.main, ["--measure"]).output.splitlines())
    assert all(word in said for word in ("decode", "sha256", "parquet", "ledger"))


@pytest.mark.parametrize("power", [1, 1.5, 2])
def test_the_marginal_exponent_is_that_of_growth_whatever_a_start_costs(power):
    sizes = [1, 2, 4, 8, 16]
    grown = [0.5 * size**power for size in sizes]
    assert growth.exponents(sizes, grown)["exponent"] == pytest.approx(power)
    started = growth.exponents(sizes, [10 + seconds for seconds in grown])
    assert started["marginal_exponent"] == pytest.approx(power)
    assert started["exponent"] < power
    assert started["seconds_of_a_further_one"] == pytest.approx((grown[-1] - grown[-2]) / 8)


def test_what_imagenet_would_take_adds_up_from_images_gradients_and_components():
    def case(images, gradients):
        seconds = 7 + 0.1 * images + 0.3 * gradients  # of which 7 are the start
        return {"images": images, "gradients": gradients, "processor_seconds": seconds}

    found = discover_benchmark.extrapolated(case(10, 32), case(50, 32), case(10, 500), pca=2)
    # Of ten components: eight images at 16 points each, two images made in 60 steps.
    assert found["seconds_of_a_class"] == pytest.approx(1300 * 0.1 + 2 + 10 * (128 + 122) * 0.3)
    assert found["seconds_of_a_class_without_pictures"] == pytest.approx(1300 * 0.1 + 2)
    assert found["hours_without_pictures"] == pytest.approx(1000 * 132 / 3600)


def test_growth_that_noise_hides_has_no_exponent():
    assert growth.exponents([1, 2, 4], [3.0, 2.9, 3.1])["marginal_exponent"] is None


def test_the_made_up_panel_calls_every_photograph_its_class_at_the_largest_size(tmp_path):
    indices = growth.spaced(max(growth.STUDIES["build: classes"][1]))
    prototypes = growth.save_photographs(tmp_path / "real", indices, 3)
    images = open_images(str(tmp_path / "real")).records
    assert len({image.sha256 for image in images}) == len(images) == 3 * len(indices)
    for seed in (0, 1):
        growth.save_classifier(tmp_path / str(seed), prototypes, seed)
        classifier = load_classifier(str(tmp_path / str(seed)), device=torch.device("cpu"))
        assert (predict(classifier, images).rank == 1).all()


STARTS_ANOTHER = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(60)
"""


def test_parts_share_a_budget_and_one_whose_time_is_out_is_killed_with_all_it_started(tmp_path):
    programs = {
        "quick": "",
        "broken": "import sys; sys.exit(3)",
        "endless": STARTS_ANOTHER,
        "last": "",
        "small": "",
    }
    shares = {"quick": 1, "broken": 1, "endless": 1, "last": 1, "small": 0.01}

    def command(part):
        return [sys.executable, "-c", programs[part], str(tmp_path / part)]

    started = time.monotonic()
    ended = gpu.run_parts(shares, 6, command, least=0.1)
    assert time.monotonic() - started < 6
    said = {part: how["ended"] for part, how in ended.items()}
    # What is left when the last is over goes to the small one, whatever its share was.
    assert said == {
        "quick": "done",
        "broken": "failed",
        "endless": "killed",
        "last": "done",
        "small": "done",
    }
    child = int((tmp_path / "endless").read_text())
    assert not _runs(child)
    assert {how["ended"] for how in gpu.run_parts(shares, 0.3, command, least=1).values()} == {
        "skipped"
    }


def _runs(pid: int) -> bool:
    """Whether a process does: one that ended and nobody waited for does not."""
    for _ in range(20):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


def test_without_a_gpu_its_benchmark_says_so_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ran = CliRunner().invoke(gpu.main, ["--output", str(tmp_path)])
    assert ran.exit_code == 1 and not list(tmp_path.iterdir())
    assert ran.output.startswith("Error: no GPU") and ran.output.count("\n") == 1


def test_goals_are_held_to_what_was_measured_and_to_nothing_else(tmp_path):
    settings = gpu.Settings("full", torch.device("cpu"), tmp_path, tmp_path / "base", None)
    assert {goal["measured"] for goal in gpu.goals(settings)} == {None}
    median = {"no SFSL": 2.0, "SFSL": 2.8, "SFSL, every 2": 2.4}
    peaks = {"no SFSL": 1, "SFSL": 30, "SFSL, every 2": 20}
    variants = {
        name: {"seconds": {"median": median[name]}, "peak_bytes": peaks[name]} for name in median
    }
    settings.write("finetune", {"variants": variants, "peer": {"ratio": 0.4}})
    settings.write("class", {"seconds": 50.0})
    said = {goal["goal"]: goal["measured"] for goal in gpu.goals(settings)}
    assert said["a step with the loss, of one without"] == pytest.approx(1.4)
    assert said["a step without the loss, of the peer's"] == 0.4
    assert said["least peak memory with the loss, bytes"] == 20
    assert (said["a class, s"], said["100 classes, s"]) == (50, 5000)
    assert said["sampling compiled, images/s"] is None


@pytest.mark.slow
def test_all_that_needs_a_gpu_is_tried_at_toy_size(tmp_path):
    script = tmp_path / "train_dreambooth.py"
    script.write_text(STAND_IN)
    asked = ["--size", "toy", "--device", "cpu", "--budget", "900", "--peer", str(script)]
    ran = CliRunner().invoke(gpu.main, [*asked, "--output", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    names = ("finetune", "class", "eval", "sample", "gpu")
    documents = {
        name: json.loads((tmp_path / f"{name}-toy-cpu.json").read_text()) for name in names
    }
    assert {part["ended"] for part in documents["gpu"]["parts"].values()} == {"done"}
    assert documents["finetune"]["peer"]["ratio"] > 0
    assert documents["sample"]["difference_by_compiling"]["mean"] <= 1
    parts = documents["class"]["parts"]
    assert documents["class"]["seconds"] == pytest.approx(sum(parts.values()))


@pytest.mark.slow
def test_growth_is_measured_of_every_command(tmp_path):
    ran = CliRunner().invoke(growth.main, ["--quick", "--output", str(tmp_path / "growth.json")])
    assert ran.exit_code == 0, ran.output
    studies = json.loads((tmp_path / "growth.json").read_text())["studies"]
    assert list(studies) == list(growth.STUDIES)
    for found in studies.values():
        assert min(found["seconds"]["best"]) > 0
        assert len(found["runs"]) == len(found["sizes"])


def test_memory_is_measured_on_a_dataset_that_is_sound(tmp_path):
    scale.write_images(tmp_path / "images", 12)
    scale.emit(tmp_path / "images", tmp_path / "d")
    found = {check.name: check for check in verify(tmp_path / "d")}
    assert {check.status for check in found.values()} == {"ok"}
    assert found["counts"].detail == "real 6, generated 6, curated-real 2, curated-generated 2"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux")
def test_the_peak_is_the_child_s_own_and_what_it_frees_counts(tmp_path):
    mine = bytearray(300_000_000)
    code = "import time; a = bytearray(100_000_000); time.sleep({}); del a; time.sleep({})"
    small = scale.run(["-c", "import time; time.sleep(0.2)"], {})
    large = scale.run(["-c", code.format(0.2, 0.2)], {})
    assert len(mine) and small["peak_mb"] < 60
    for kind in ("peak_mb", "anonymous_mb"):
        assert 95 < large[kind] - small[kind] < 110
    with pytest.raises(click.ClickException, match="no such luck"):
        scale.run(["-c", "import sys; sys.exit('no such luck')"], {})


def test_the_memory_that_was_published_is_within_the_goals_and_on_the_page():
    document = json.loads((RESULTS / "scale-cpu.json").read_text())
    assert document["settings"]["images"] == [1000, 4000, 16000]
    found: dict[int, dict[str, dict[str, float]]] = {}
    for case in document["cases"]:
        found.setdefault(case["images"], {})[case["command"]] = case
    assert document["growth"] == scale.growth(found)
    assert {entry["reached"] for entry in document["growth"]} == {True} and len(found[1000]) == 8
    page = (RESULTS.parents[1] / "docs" / "scale.md").read_text()
    for entry in document["growth"]:
        figures = [found[c][entry["command"]][entry["judged_by"]] for c in sorted(found)]
        shown = " | ".join(f"{figure:,.0f} MB" for figure in figures)
        assert f"| {shown} | {entry['ratio']:.2f} |" in page


def test_memory_that_grows_or_is_large_misses_the_goal():
    def at(peak: float, anonymous: float) -> dict[str, float]:
        return {"peak_mb": peak, "anonymous_mb": anonymous, "seconds": 1.0}

    grown = scale.growth(
        {
            100: {"verify": at(900, 500), "diff": at(90, 50), scale.MAPPED: at(100, 100)},
            400: {"verify": at(1501, 500), "diff": at(100, 50), scale.MAPPED: at(400, 100)},
            1600: {"verify": at(1501, 500), "diff": at(121, 50), scale.MAPPED: at(1600, 110)},
        }
    )
    reached = {entry["command"]: (entry["reached"], round(entry["ratio"], 2)) for entry in grown}
    assert reached == {"verify": (False, 1), "diff": (False, 1.21), scale.MAPPED: (True, 1.1)}
    assert grown[2]["peak_mb_an_image"] == pytest.approx(1)
