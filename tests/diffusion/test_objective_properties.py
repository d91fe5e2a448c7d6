"""What a step draws, which pairs count, and how images are made to fit."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image

from makers.toy import noise_images, save_toy_pipeline, toy_subject
from spurbench.diffusion.base import load_base
from spurbench.diffusion.objective import Draw, Objective
from spurbench.recipe.sections import SFSL, Finetune

SETTINGS = Finetune(batch_size=2)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = save_toy_pipeline(tmp_path_factory.mktemp("objective") / "base", "epsilon")
    return load_base(str(folder), revision=None, device=CPU)


def same(a: Draw, b: Draw) -> list[str]:
    return [
        field.name
        for field in fields(Draw)
        if field.name != "step"
        and np.array_equal(np.asarray(getattr(a, field.name)), np.asarray(getattr(b, field.name)))
    ]


def test_all_that_a_step_draws_follows_from_seed_class_and_step_and_from_nothing_else(base):
    """Of enough images that no draw is like another by chance."""
    many = {
        "references": noise_images(99, 0, side=32),
        "priors": noise_images(99, 1, side=32),
        "kappa": 0.0,
    }
    settings = Finetune(batch_size=8)
    one, other = (
        Objective(base, toy_subject(index=index, **many), settings, SFSL()) for index in (7, 8)
    )
    drawn = one.draw(3, 5)
    torch.manual_seed(12345)
    before = torch.get_rng_state()
    everything = ["references", "priors", "timesteps", "posterior_noise", "noise"]
    assert same(drawn, one.draw(3, 5)) == everything
    assert torch.equal(torch.get_rng_state(), before)
    for another in (one.draw(4, 5), one.draw(3, 6), other.draw(3, 5)):
        assert same(drawn, another) == []


def test_a_draw_ranges_over_all_images_and_timesteps(base):
    objective = Objective(base, toy_subject(kappa=0.0), SETTINGS, SFSL())
    draws = [objective.draw(0, step) for step in range(500)]
    assert {int(i) for draw in draws for i in draw.references} == {0, 1, 2}
    assert {int(i) for draw in draws for i in draw.priors} == {0, 1, 2, 3}
    timesteps = torch.cat([draw.timesteps for draw in draws])
    assert timesteps.min() < 20 and 980 < timesteps.max() < 1000


@pytest.mark.parametrize(
    ("gradient", "instance_counts", "prior_counts"),
    [
        ("prior", False, True),
        ("instance", True, False),
        ("attract", True, False),
        ("both", True, True),
    ],
)
def test_a_pair_counts_if_what_is_decoded_of_it_is_below_the_timestep_limit(
    base, gradient, instance_counts, prior_counts
):
    """At the limit itself it does not count any more."""
    objective = Objective(base, toy_subject(), SETTINGS, SFSL(gradient=gradient, max_timestep=0.5))
    draw = objective.draw(0, 0)

    def similarity(*timesteps: int) -> float:
        return float(objective(replace(draw, timesteps=torch.tensor(timesteps))).sfsl)

    # Two instance samples, then the two prior samples.
    assert similarity(499, 499, 499, 499) != 0
    assert similarity(500, 500, 500, 500) == 0
    assert (similarity(500, 500, 499, 499) == 0) is instance_counts
    assert (similarity(499, 499, 500, 500) == 0) is prior_counts
    both = similarity(100, 100, 100, 100)
    first, second = similarity(100, 500, 100, 500), similarity(500, 100, 500, 100)
    assert first + second == pytest.approx(both, rel=1e-4)
    assert first != 0 != second


def test_a_large_image_is_shrunk_without_aliases_on_its_short_side_and_its_centre_taken(base):
    """As Pillow shrinks it, which never aliases."""
    large = noise_images(3, 5, side=128, width=192)
    fitted = [
        image.resize((48, 32), Image.Resampling.BICUBIC).crop((8, 0, 40, 32)) for image in large
    ]
    objectives = [
        Objective(base, toy_subject(references=images), SETTINGS, SFSL())
        for images in (large, fitted)
    ]
    draw = objectives[0].draw(0, 0)
    found, expected = (objective(draw) for objective in objectives)
    assert found.instance.item() == pytest.approx(expected.instance.item(), rel=1e-3)
    assert found.sfsl.item() == pytest.approx(expected.sfsl.item(), rel=1e-2)


def test_what_leaves_an_images_range_reaches_phi_only_where_the_recipe_does_not_clamp_it(base):
    """And then with a gradient."""
    pixels = torch.full((1, 3, 32, 32), 1.5)
    clamped, free = (
        Objective(base, toy_subject(), SETTINGS, SFSL(clamp=clamp)) for clamp in (True, False)
    )
    assert torch.equal(clamped.psi(pixels), clamped.psi(torch.ones_like(pixels)))
    assert not torch.equal(free.psi(pixels), free.psi(torch.ones_like(pixels)))
    inside = pixels / 2
    assert torch.equal(clamped.psi(inside), free.psi(inside))
    for objective, moved in ((clamped, False), (free, True)):
        outside = pixels.clone().requires_grad_()
        objective.psi(outside).sum().backward()
        assert bool(outside.grad.any()) is moved
