from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from makers.toy import save_toy_pipeline, toy_recipe
from spurbench.build.costs import KEPT, identity, known_or_counted, read_configs
from spurbench.build.plan import TERA, plan
from spurbench.cli.main import main
from spurbench.core.documents import read_json
from spurbench.core.errors import SpurbenchError
from spurbench.diffusion.base import load_base
from spurbench.diffusion.count import count
from spurbench.recipe.load import read_recipe


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def full_size():
    """The paper's recipe for one class, planned by the recipe's own copy of the architecture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        recipe = read_recipe("sd15")
        return recipe, plan(recipe, recipe.classes.select("hummingbird"))


def test_operations_are_those_of_stable_diffusion(full_size):
    """0.80, 2.41, 1.12, 2.51 and 5.06 TFLOP at 512 px, and the published parameter counts."""
    costs = full_size[1].costs
    assert costs.unet.forward / TERA == pytest.approx(0.80, abs=0.005)
    assert costs.unet.training / TERA == pytest.approx(2.41, abs=0.005)
    assert costs.encode / TERA == pytest.approx(1.12, abs=0.005)
    assert costs.decode.forward / TERA == pytest.approx(2.51, abs=0.005)
    assert costs.decode.training / TERA == pytest.approx(5.06, abs=0.005)
    guided = 51 * 2 * costs.unet.forward + costs.decode.forward
    assert guided / TERA == pytest.approx(84, abs=0.5)
    assert costs.unet.parameters == 859_520_964
    assert costs.text_encoder.parameters == 123_060_480
    assert costs.vae_parameters == 83_653_863


def test_steering_by_phi_and_second_twins_are_counted():
    """Every prediction is differentiated, through the U-Net and the decoder."""
    recipes = [
        read_recipe("mini", overrides)
        for overrides in ([], ["sample.phi_guidance=2", "controls.makers=['base', 'finetuned']"])
    ]
    plain, steered = (plan(recipe, recipe.classes.select("all")) for recipe in recipes)
    before, after = ({stage.name: stage for stage in p.stages} for p in (plain, steered))
    costs, settings = plain.costs, recipes[0].sample
    added = settings.steps * (2 * costs.unet.forward + costs.decode.training)
    assert after["sample"].operations - before["sample"].operations == pytest.approx(
        6 * settings.images * added
    )
    assert after["controls"].operations == 2 * before["controls"].operations
    assert after["positives"].operations == before["positives"].operations
    counted = 2 * settings.images + recipes[0].positives.images
    assert before["check"].work.startswith(f"{counted} images")
    assert after["check"].work.startswith(f"{counted + settings.images} images")


def test_images_in_contexts_are_counted():
    option = 'contexts.phrases=["on the beach", "in a market"]'
    recipe = read_recipe("mini", [option, "contexts.images=7"])
    planned = plan(recipe, recipe.classes.select("all"), replicates=3)
    stages = {stage.name: stage for stage in planned.stages}
    one, all_ = stages["sample"], stages["contexts"]
    assert (all_.runs, all_.work) == (2 * 3 * 6, f"7 images of 64 px, {recipe.sample.steps} steps")
    assert all_.operations / one.operations == pytest.approx(2 * 7 / recipe.sample.images)
    counted = 3 * (2 * recipe.sample.images + 2 * 7) + recipe.positives.images
    assert stages["check"].work.startswith(f"{counted} images")
    assert "contexts" not in {s.name for s in plan(read_recipe("mini"), recipe.classes).stages}


def test_an_average_is_held_beside_the_weights():
    recipe = read_recipe("mini", ["finetune.ema_decay=0.99"])
    averaged = plan(recipe, recipe.classes.select("all"))
    plain = plan(read_recipe("mini"), recipe.classes.select("all"))
    assert averaged.checkpoint / plain.checkpoint == 16 / 12
    assert averaged.memory - plain.memory == plain.checkpoint / 3


@pytest.mark.parametrize("name", ["mini", "sd15"])
def test_the_counts_kept_beside_a_recipe_are_those_of_counting(name):
    """Else: ``python -m spurbench.build.costs mini sd15``."""
    recipe = read_recipe(name)
    configs = read_configs(recipe.folder / (recipe.base.architecture or recipe.base.model))
    counted = count(configs, recipe)
    assert known_or_counted(configs, recipe) == counted
    assert read_json(recipe.folder / KEPT)["of"] == identity(configs, recipe)


def test_counts_of_other_settings_are_not_taken_for_the_kept_ones():
    default = read_recipe("mini")
    configs = read_configs(default.folder / default.base.model)
    for override in ("base.resolution=128", "finetune.precision=bfloat16"):
        recipe = read_recipe("mini", [override])
        assert known_or_counted(configs, recipe) == count(configs, recipe)
        assert known_or_counted(configs, recipe) != known_or_counted(configs, default)


def test_planning_an_embedded_recipe_imports_no_framework():
    code = (
        "import sys; from spurbench.build.plan import plan\n"
        "import spurbench.build.forecast, spurbench.build.units\n"
        "from spurbench.recipe.load import read_recipe\n"
        "recipe = read_recipe('mini'); plan(recipe, recipe.classes.select('all'))\n"
        "print({'torch', 'diffusers', 'transformers', 'datasets'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_stages_add_up_to_what_the_recipe_says(full_size):
    _, planned = full_size
    by_name = {stage.name: stage.operations / TERA for stage in planned.stages}
    assert by_name["prior"] == pytest.approx(100 * (51 * 2 * 0.8033 + 2.5145), rel=1e-3)
    assert by_name["sample"] == pytest.approx(75 * (26 * 2 * 0.8033 + 2.5145), rel=1e-3)
    step = 2 * 2.4068 + 2 * 0.0399 + 5.0634
    assert by_name["fine-tune"] == pytest.approx(800 * step + 106 * 1.1167, rel=1e-3)
    stored = 859_520_964 + 123_060_480
    disk = {stage.name: stage.disk for stage in planned.stages}
    assert disk["fine-tune"] == 2 * stored
    # Weights (float32, and bfloat16 for autocast), gradients and two moments, before activations.
    assert 18 * stored < planned.memory < 18 * stored + 20e9
    assert planned.checkpoint == 12 * stored


def test_controls_positives_and_replicates_are_in_the_plan(full_size):
    recipe, planned = full_size
    names = [stage.name for stage in planned.stages]
    assert names == ["prior", "fine-tune", "sample", "controls", "positives", "check"]
    one = {stage.name: stage for stage in planned.stages}
    assert one["controls"].operations == one["sample"].operations
    assert one["positives"].operations == pytest.approx(one["sample"].operations * 50 / 75)
    assert one["check"].work.startswith("200 images")
    classes = recipe.classes.select("hummingbird")
    three = {
        stage.name: stage
        for stage in plan(recipe, classes, replicates=3, make_positives=False).stages
    }
    for name, times in (("prior", 1), ("fine-tune", 3), ("sample", 3), ("controls", 3)):
        assert three[name].operations == pytest.approx(times * one[name].operations)
        assert three[name].disk == pytest.approx(times * one[name].disk)
        assert three[name].runs == times
    assert "positives" not in three and three["check"].work.startswith("450 images")
    recipe = read_recipe("sd15", ["controls.enabled=false", "positives.images=0"])
    assert [stage.name for stage in plan(recipe, classes).stages] == [
        *("prior", "fine-tune", "sample", "check")
    ]


@pytest.mark.slow
def test_settings_change_the_plan(full_size):
    _, default = full_size

    def with_(*overrides: str):
        recipe = read_recipe("sd15", overrides)
        return plan(recipe, recipe.classes.select("hummingbird"))

    without = with_("sfsl.kappa=0")
    assert without.memory < default.memory
    fewer = sum(s.operations for s in default.stages) - sum(s.operations for s in without.stages)
    assert fewer / TERA == pytest.approx(800 * 5.063, rel=1e-3)
    checkpointed = with_("finetune.gradient_checkpointing=true")
    assert checkpointed.memory < 0.85 * default.memory
    assert checkpointed.costs.unet.training == pytest.approx(
        4 / 3 * default.costs.unet.training, rel=0.1
    )
    assert checkpointed.memory < 24e9 - 4e9  # the setting that docs/performance.md names
    decoder = with_("sfsl.checkpoint_decoder=true")
    assert decoder.costs.decode.kept < 0.2 * default.costs.decode.kept
    assert decoder.costs.unet.kept == default.costs.unet.kept
    base = with_("finetune.method=base", "finetune.prompt=a photo of {feature}")
    assert [stage.name for stage in base.stages] == ["sample", "controls", "positives", "check"]


def test_kept_activations_are_what_a_real_backward_pass_keeps(tmp_path):
    """Counted on meta against counted on real tensors of the toy pipeline."""
    save_toy_pipeline(tmp_path / "base")
    recipe = read_recipe(str(toy_recipe(tmp_path / "recipe")))
    costs = plan(recipe, recipe.classes.select("hummingbird")).costs
    unet = load_base(recipe.locate("base"), revision=None, device=torch.device("cpu")).pipeline.unet
    unet.requires_grad_(True).train()
    weights = {p.data_ptr() for p in unet.parameters()}
    kept = {}

    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = unet(
            torch.zeros(1, 4, 8, 8), torch.zeros(1, dtype=torch.long), torch.zeros(1, 24, 16)
        )
    assert output.sample.requires_grad
    assert costs.unet.kept == pytest.approx(sum(kept.values()), rel=0.1)
    assert costs.unet.parameters == sum(p.numel() for p in unet.parameters())


def test_the_command_prints_the_plan_and_builds_nothing(tmp_path):
    output = tmp_path / "out"
    result = CliRunner().invoke(
        main,
        [
            "build",
            "--recipe",
            "sd15",
            "--classes",
            "hummingbird",
            "--dry-run",
            "--output",
            str(output),
        ],
    )
    assert result.exit_code == 0, result.output
    assert "the base itself can't be reached" in " ".join(result.output.split())
    assert "fine-tune" in result.output and "TFLOP" in result.output
    assert not output.exists()


def test_a_dry_run_names_what_is_wrong_with_the_panel(tmp_path):
    recipe = toy_recipe(tmp_path / "recipe")
    config = recipe / "one" / "config.json"
    described = json.loads(config.read_text())
    described["pretrained_cfg"]["interpolation"] = "nonsense"
    for text, said in (
        (json.dumps(described), "interpolation"),
        ("{", "not valid JSON"),
        (None, "no config.json"),
    ):
        config.unlink() if text is None else config.write_text(text)
        result = CliRunner().invoke(
            main, ["build", "--recipe", str(recipe), "--dry-run", "--output", str(tmp_path / "o")]
        )
        assert result.exit_code == 1 and said in result.output, result.output
        assert result.output.count("\n") == 1


def test_a_base_without_configurations_is_one_line(tmp_path):
    recipe = read_recipe("sd15", [f"base.model={tmp_path}"])
    with pytest.raises(SpurbenchError, match="not a base model in diffusers' layout"):
        plan(recipe, recipe.classes.select("hummingbird"))
    recipe = read_recipe("sd15", ["base.model=nobody/nothing", "base.architecture=none"])
    with pytest.raises(SpurbenchError, match="can't be reached for its configuration"):
        plan(recipe, recipe.classes.select("hummingbird"))
