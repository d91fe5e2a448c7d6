from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from spurbench.build.forecast import Rate, forecast
from spurbench.build.plan import plan
from spurbench.build.request import BuildRequest
from spurbench.build.units import BuildWork
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.recipe.load import read_recipe

RATE = Rate(1e12, 0.5)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def store(tmp_path):
    """Stages as a build leaves them, of whose seconds only the markers speak."""

    def add(subject, stage, seconds, number=0, revision=2, files=(), **inputs):
        folder = tmp_path / subject / f"{stage}-{number:016d}"
        folder.mkdir(parents=True)
        marker = {
            "stage": stage,
            "fingerprint": "0",
            "inputs": {"revision": revision, "resolution": 64, **inputs},
            "files": dict.fromkeys(files, "0"),
            "seconds": seconds,
            "device": "an H200",
        }
        (folder / "stage.json").write_text(json.dumps(marker))

    return tmp_path, add


def foreseen(store, *overrides, workers=2, **options):
    request = BuildRequest.of(
        "mini", overrides=overrides, work=store, output=store / "out", device="cpu", **options
    )
    return forecast(
        plan(request.recipe, request.classes, replicates=request.replicates),
        request,
        BuildWork.of(request).units,
        workers=workers,
        rate=RATE,
    )


def seconds(found):
    return {timing.stage: (timing.seconds, timing.stored) for timing in found.timings}


def test_without_a_store_seconds_are_operations_at_the_rate(tmp_path):
    recipe = read_recipe("mini")
    planned = plan(recipe, recipe.classes, replicates=2)
    found = foreseen(tmp_path / "none", workers=1, replicates=2)
    for stage, timing in zip(planned.stages, found.timings, strict=True):
        assert (timing.stage, timing.runs, timing.stored) == (stage.name, stage.runs, 0)
        assert timing.seconds == pytest.approx(stage.operations / 0.5e12)
    loading = 10 + 4e-9 * sum(
        (
            planned.costs.unet.parameters,
            planned.costs.text_encoder.parameters,
            planned.costs.vae_parameters,
        )
    )
    operations = sum(stage.operations for stage in planned.stages)
    assert found.schedule.makespan == pytest.approx(operations / 0.5e12 + loading)
    assert "Counted, not measured: prior, fine-tune" in found.assumptions[0]
    assert "50 % of 1 TFLOP/s" in found.assumptions[0]
    assert "not counted: check" in found.assumptions[1]


def test_a_subject_takes_its_own_stored_seconds_and_others_the_median(store):
    folder, add = store
    prior = read_recipe("mini").prior.model_dump(mode="json")
    for noun, took in (("flower", 10.0), ("tree", 20.0), ("house", 90.0)):
        add(f"prior/{noun}", "prior", took, **prior)
    found = foreseen(folder, workers=6)
    assert seconds(found)["prior"] == (10 + 20 + 90 + 3 * 20, 3)
    runs = {run.unit: run for run in found.schedule.runs}
    spent = {name: run.end - run.start for name, run in runs.items() if name.startswith("prior")}
    loading = min(spent.values()) - 10
    assert sorted(round(took - loading) for took in spent.values()) == [10, 20, 20, 20, 20, 90]
    assert spent["prior/house"] == max(spent.values())
    assert runs["094_hummingbird"].start == runs["prior/flower"].end
    assert f"Stored in {folder}: prior, as long as they took on an H200;" in found.assumptions[1]
    assert found.assumptions[0].startswith("Counted, not measured: fine-tune, sample")


def test_stages_of_other_settings_or_older_code_are_not_taken(store):
    folder, add = store
    recipe = read_recipe("mini")
    sample = recipe.sample.model_dump(mode="json")
    add("105_koala", "sample", 1.0, 0, **{**sample, "steps": 7})
    add("105_koala", "sample", 2.0, 1, **sample)
    add("105_koala", "sample", 4.0, 2, **sample)
    add("105_koala", "sample", 99.0, 3, revision=1, **sample)
    add("105_koala", "controls", 99.0, 0, **{**sample, "resolution": 128})
    tuning = recipe.finetune.model_dump(mode="json", exclude={"checkpoint_every"})
    sfsl = recipe.sfsl.model_dump(mode="json", exclude={"kappa", "default_kappa"})
    add("105_koala", "finetune", 50.0, 0, **{"class": 105, "finetune": tuning, "sfsl": sfsl})
    add("105_koala", "finetune", 9.0, 1, **{"class": 105, "finetune": tuning, "sfsl": None})
    drawn = {key: value for key, value in sample.items() if key != "images"}
    add("105_koala", "positives", 6.0, 0, files=[str(i) for i in range(30)], **drawn)
    add("105_koala", "positives", 1.0, 1, files=["0"], **drawn)
    found = seconds(foreseen(folder, classes="koala"))
    assert found["sample"] == (3, 2)
    assert found["fine-tune"] == (50, 1)
    assert found["positives"] == (6, 1)
    assert found["controls"][1] == 0
    assert seconds(foreseen(folder, classes="koala", replicates=3))["sample"] == (9, 2)
    without = seconds(foreseen(folder, "sfsl.kappa=0", classes="koala"))
    assert without["fine-tune"] == (9, 1)
    other = seconds(foreseen(folder, "finetune.steps=7", "positives.images=1", classes="koala"))
    assert other["fine-tune"][1] == 0 and other["positives"] == (1, 1)


def test_contexts_take_what_stored_ones_of_as_many_images_took(store):
    folder, add = store
    sample = read_recipe("mini").sample.model_dump(mode="json")
    add("105_koala", "contexts", 3.0, 0, **{**sample, "images": 7})
    add("105_koala", "contexts", 99.0, 1, **sample)
    add("105_koala", "examine", 2.0)
    asked = ('contexts.phrases=["on the beach", "in a market"]', "contexts.images=7")
    found = foreseen(folder, *asked, classes="koala", replicates=2)
    assert seconds(found)["contexts"] == (2 * 2 * 3, 1)
    assert seconds(found)["check"][0] == 2 * (1 + 2 + 2 + 1 + 2 * 2)
    plain = foreseen(folder, classes="koala", replicates=2)
    assert found.dataset - plain.dataset == 2 * 2 * 7 * 1.5 * 64**2


def test_the_check_is_as_many_stored_stages_as_a_class_has_kinds_of_images(store):
    folder, add = store
    for number in range(4):
        add("105_koala", "examine", 2.0, number)
    add("105_koala", "quality", 5.0)
    found = seconds(foreseen(folder, classes="koala,flagpole"))
    assert found["check"] == (2 * (4 * 2 + 2 * 5), 5)
    found = seconds(foreseen(folder, "controls.enabled=false", classes="koala", replicates=3))
    assert found["check"] == (5 * 2 + 4 * 5, 5)


def test_a_damaged_marker_is_said_and_left_out(store, caplog):
    folder, add = store
    add("105_koala", "sample", 1.0)  # without the inputs that a sampling has
    add("105_koala", "examine", 2.0)
    (folder / "105_koala" / "broken").mkdir()
    (folder / "105_koala" / "broken" / "stage.json").write_text("{")
    found = seconds(foreseen(folder, classes="koala"))
    assert found["sample"][1] == 0 and found["check"][1] == 1
    said = [record.message for record in caplog.records]
    assert len(said) == 2 and all("does not say what its stage took" in text for text in said)


def test_other_numbers_of_workers_and_the_disk_are_told(tmp_path):
    found = foreseen(tmp_path, workers=4)
    assert [other.cluster.workers for other in found.others] == [2, 3, 6, 8]
    five = foreseen(tmp_path, workers=4, classes="koala,flagpole,gondola,fireboat,hummingbird")
    assert [other.cluster.workers for other in five.others] == [2, 3, 5, 8]
    assert found.others[-1].used == 6
    recipe = read_recipe("mini")
    planned = plan(recipe, recipe.classes)
    disk = {stage.name: stage.disk for stage in planned.stages}
    assert found.store == sum(disk.values()) + 4 * planned.checkpoint
    assert found.dataset == disk["sample"] + disk["controls"] + disk["positives"]
    assert foreseen(tmp_path, workers=99).store == sum(disk.values()) + 6 * planned.checkpoint


def test_gpus_of_one_class_share_out_its_fine_tunings_samples(tmp_path):
    alone = seconds(foreseen(tmp_path))
    for gpus, left in ((2, 0.5),):
        found = foreseen(tmp_path, gpus_per_class=gpus)
        together = seconds(found)
        assert together["fine-tune"][0] == pytest.approx(left * alone["fine-tune"][0])
        assert together["sample"] == alone["sample"]
        assert any(f"{gpus} GPUs a class" in line for line in found.assumptions)


def test_without_fine_tuning_there_is_no_prior(tmp_path):
    overrides = ("finetune.method=base", "finetune.prompt=a photo of {feature}")
    found = foreseen(tmp_path, *overrides)
    assert {run.unit for run in found.schedule.runs} == {
        c.slug for c in read_recipe("mini").classes
    }


@pytest.mark.parametrize(
    ("peak", "share", "said"),
    [
        (0, 0.5, "tflops 0"),
        (float("nan"), 0.5, "nan"),
        (1e12, 1.5, "share 1.5"),
        (1e12, 0, "share"),
    ],
)
def test_a_rate_that_can_not_be_is_refused(peak, share, said):
    with pytest.raises(SpurbenchError, match=said):
        Rate(peak, share)


def test_the_command_prints_the_schedule_and_what_it_rests_on(tmp_path):
    arguments = ["build", "--recipe", "sd15", "--dry-run", "--output", str(tmp_path / "o")]
    result = CliRunner().invoke(main, [*arguments, "--gpus", "128"])
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "128 GPUs: 2 min 11 s." in text and "28 find nothing to do" in text
    assert "prior/person, then 000_tench takes 1 min 43 s" in text
    assert "Counted, not measured: prior, fine-tune, sample" in text
    assert "25 % of 989 TFLOP/s" in text and "fine-tune │ 100 │ 32.7 │ counted │ 0.91" in text
    slower = CliRunner().invoke(
        main, [*arguments, "--workers", "9", "--device-tflops", "100", "--device-share", "0.5"]
    )
    assert "161.7" in slower.output  # 8083.8 TFLOP at 50 a second
    assert "9 workers: " in slower.output


@pytest.mark.parametrize(
    "wrong", [(), ("--dry-run", "--workers", "2"), ("--dry-run", "--gpus-per-class", "3")]
)
def test_gpus_are_for_dry_runs_alone(tmp_path, wrong):
    arguments = ["build", "--gpus", "2", "--output", str(tmp_path / "o"), *wrong]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "--gpus plans for" in result.output
    assert not (tmp_path / "o").exists()
