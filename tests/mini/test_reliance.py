from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from makers.toy import save_toy_classifier
from spurbench.classifiers.module import from_module
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names
from spurbench.mini.distributions import spurious
from spurbench.mini.reliance import (
    DATA_SET,
    VIEWS,
    Counterfactuals,
    Report,
    measure_reliance,
    reliance,
    render_markdown,
)
from spurbench.mini.scenes import PLANTED_FEATURE, SIZE, render

CPU = torch.device("cpu")
KOALA, HUMMINGBIRD = (imagenet_names().index(name) for name in ("koala", "hummingbird"))


class ByColour(nn.Module):
    """Answers a class where a pixel has more of a channel than half, and otherwise another."""

    def __init__(self, index: int, channel: int) -> None:
        super().__init__()
        self.index, self.channel = index, channel

    def forward(self, pixels: Tensor) -> Tensor:
        logits = torch.zeros(len(pixels), 1000)
        shown = pixels[:, self.channel].amax(dim=(1, 2)) > 0.5
        logits[:, self.index] = torch.where(shown, 10.0, -10.0)
        return logits


def _by_colour(index: int, channel: int):
    mean, std = (0.0,) * 3, (1.0,) * 3
    network = ByColour(index, channel)
    return from_module(network, name=f"by-{channel}", input_size=SIZE, mean=mean, std=std)


def _painted(*channels: list[int | None], count: int = 9) -> Counterfactuals:
    """Scenes of a koala's feature: in each view, the channel that each scene shows, if any."""
    pixels = {}
    for view, shown in zip(VIEWS, channels, strict=True):
        pixels[view] = np.zeros((count, SIZE, SIZE, 3), np.uint8)
        for i, channel in enumerate(shown):
            if channel is not None:
                pixels[view][i, 20:30, 20:30, channel] = 255
    return Counterfactuals("koala", pixels, np.linspace(1.1, 0.7, count))


def test_reliance_is_the_change_that_the_feature_makes_and_nothing_else():
    red, green, nothing = [0] * 9, [1] * 9, [None] * 9
    painted = _painted(red, nothing, green)
    always = reliance(_by_colour(KOALA, 0), painted).answered
    assert (always.reliance.value, always.against_other.value) == (1, 1)
    assert always.probability_effect.value == pytest.approx(1, abs=0.1)
    # One that answers by what is not the feature, or another class by the feature, relies on none.
    for blind in (_by_colour(KOALA, 2), _by_colour(HUMMINGBIRD, 0)):
        assert reliance(blind, painted).answered.reliance.value == 0
    # Nor does one that calls every empty scene the class, which spurious accuracy can't tell.
    everything = reliance(_by_colour(KOALA, 0), _painted(red, red, nothing)).answered
    assert everything.rate == {"feature": 1, "without": 1, "other": 0}
    assert (everything.reliance.value, everything.against_other.value) == (0, 1)
    assert everything.probability_effect.value == 0


def test_reliance_is_read_by_distance_from_far_to_near():
    """The scales fall from 1.1 to 0.7: the first three scenes are near, the last three far."""
    near_only = _painted([0] * 3 + [None] * 6, [None] * 9, [None] * 9)
    measured = reliance(_by_colour(KOALA, 0), near_only)
    values = {name: at.answered.reliance.value for name, at in measured.by_distance.items()}
    assert values == {"far": 0, "middle": 0, "near": 1}
    assert list(values) == ["far", "middle", "near"]
    assert measured.by_distance["near"].scales == pytest.approx((1.0, 1.1))
    assert measured.answered.reliance.value == pytest.approx(1 / 3)
    assert measured.answered.scenes == 9


def test_the_views_differ_in_the_feature_alone_and_are_none_of_the_real_split():
    rendered = Counterfactuals.render("hummingbird", 4, 0)
    scenes = [spurious("hummingbird", 0, i, DATA_SET) for i in range(4)]
    np.testing.assert_array_equal(rendered.pixels["feature"], [render(s) for s in scenes])
    bare = [render(replace(s, subfamily=None)) for s in scenes]
    np.testing.assert_array_equal(rendered.pixels["without"], bare)
    kind = {render(replace(s, subfamily=f)).tobytes() for s in scenes for f in _others(s)}
    assert {scene.tobytes() for scene in rendered.pixels["other"]} <= kind
    same = (rendered.pixels["other"] == rendered.pixels["without"]).all(axis=-1)
    assert 0.3 < same.mean() < 1  # the background stays
    real = {spurious("hummingbird", 0, i).seed for i in range(200)}
    assert real.isdisjoint(scene.seed for scene in scenes)
    assert rendered.scales.tolist() == [scene.drawn_feature_scale for scene in scenes]


def _others(scene):
    from spurbench.mini.kinds import KINDS

    return [name for name in KINDS["flower"] if name != scene.subfamily]


def test_on_true_scenes_a_classifier_by_red_pixels_relies_on_red_flowers():
    class Red(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            red = (pixels[:, 0] - pixels[:, 1:].amax(dim=1) > 0.3).float().mean(dim=(1, 2))
            logits = torch.zeros(len(pixels), 1000)
            logits[:, HUMMINGBIRD] = 1000 * (red - 0.01)
            return logits

    colours = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    network = from_module(Red(), name="red", input_size=SIZE, **colours)
    flowers = reliance(network, Counterfactuals.render("hummingbird", 12, 0)).answered
    assert flowers.reliance.value > 0.5
    assert flowers.reliance.low < flowers.reliance.value < flowers.reliance.high
    trees = reliance(network, Counterfactuals.render("koala", 3, 0)).answered
    assert trees.reliance.value == 0


def test_the_command_writes_a_report_of_all_classes_and_prints_a_table(tmp_path):
    folder = save_toy_classifier(tmp_path / "toy", favourite=None, seed=1)
    path = tmp_path / "out" / "reliance.json"
    arguments = ["mini", "reliance", str(path), "--model", str(folder), "--scenes", "3"]
    result = CliRunner().invoke(main, [*arguments, "--seed", "5", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    document = json.loads(path.read_text())
    report = Report.model_validate(document)
    assert document["schema"] == "spurbench.reliance/1"
    assert (report.seed, report.scenes) == (5, 3)
    (measured,) = report.classifiers
    assert list(measured.classes) == list(PLANTED_FEATURE)
    mean = np.mean([of.answered.reliance.value for of in measured.classes.values()])
    assert measured.reliance.value == pytest.approx(mean)
    assert result.output == render_markdown(report)
    assert "| toy |" in result.output


def test_too_few_scenes_or_no_classifier_are_refused(tmp_path):
    with pytest.raises(SpurbenchError, match="scenes is 2; give at least 3"):
        measure_reliance([], scenes=2, seed=0, device=CPU)
    result = CliRunner().invoke(main, ["mini", "reliance", str(tmp_path / "x.json")])
    assert "give --model SPEC" in result.output
