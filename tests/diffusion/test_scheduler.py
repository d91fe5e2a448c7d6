"""A recipe's own scheduler samples, over the base's noise schedule."""

from __future__ import annotations

import pytest
import torch

from makers.toy import toy_recipe
from spurbench.build.plan import plan
from spurbench.build.workshop import load_tuned
from spurbench.diffusion.base import load_base
from spurbench.diffusion.sample import sample
from spurbench.recipe.load import read_recipe

CPU = torch.device("cpu")
KINDS = ("PNDMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return str(toy_recipe(tmp_path_factory.mktemp("toy") / "recipe"))


def test_each_scheduler_makes_other_images_over_the_same_schedule(toy_folder):
    bases = [load_base(str(toy_folder), revision=None, device=CPU)]
    bases += [load_base(str(toy_folder), revision=None, device=CPU, scheduler=k) for k in KINDS]
    assert [type(base.pipeline.scheduler).__name__ for base in bases] == [KINDS[0], *KINDS]
    assert len({base.fingerprint for base in bases}) == 4, "or stored images are taken for others"
    own = bases[0].pipeline.scheduler.alphas_cumprod
    assert all(torch.equal(base.pipeline.scheduler.alphas_cumprod, own) for base in bases)
    options = {"resolution": 32, "steps": 4, "guidance_scale": 2.0, "batch_size": 1}
    pixels = [next(sample(base, "a", [0], **options)).tobytes() for base in bases]
    assert pixels[0] == pixels[1] and len({*pixels}) == 3


def test_a_build_samples_as_its_recipe_says(recipe):
    chosen = read_recipe(recipe, ["base.scheduler=DDIMScheduler"])
    assert type(load_tuned(chosen, CPU)[0].pipeline.scheduler).__name__ == "DDIMScheduler"
    own = load_tuned(read_recipe(recipe), CPU)[0]
    assert type(own.pipeline.scheduler).__name__ == "PNDMScheduler"


def test_only_pndm_is_planned_with_a_call_more_than_steps(recipe):
    found = {}
    for kind in ("none", *KINDS):
        read = read_recipe(recipe, [f"base.scheduler={kind}"])
        planned = plan(read, read.classes)
        (stage,) = [stage for stage in planned.stages if stage.name == "sample"]
        images = stage.runs * read.sample.images
        each = (stage.operations / images - planned.costs.decode.forward) / 2
        found[kind] = round(each / planned.costs.unet.forward)
    steps = read.sample.steps
    assert found == {
        "none": steps + 1,
        KINDS[0]: steps + 1,
        KINDS[1]: steps,
        KINDS[2]: steps,
    }
