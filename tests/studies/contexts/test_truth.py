from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from makers.probed import RuleMember
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.paired import holm, mcnemar
from spurbench.mini.backgrounds import CONTEXTS
from spurbench.mini.distributions import spurious
from spurbench.mini.scenes import render
from spurbench.studies.contexts import truth

CPU = torch.device("cpu")
BEACH, MARKET = "on the beach", "in a market"
SCENES = 8


def scene(place: str | None, i: int):
    return render(replace(spurious("hummingbird", 0, i, truth.DATA_SET), context=place))


class Knowing:
    """Sees a place where it was rendered, but takes the beach for a market too."""

    name = "knowing"

    def __init__(self) -> None:
        known = {c: {scene(c, i).tobytes() for i in range(SCENES)} for c in CONTEXTS}
        self.known = known | {MARKET: known[MARKET] | known[BEACH]}

    def context_scores(self, images, context):
        return [float(image.tobytes() in self.known[context]) for image in images]


def sunny(pixels: torch.Tensor) -> torch.Tensor:
    """Calls what is bright at the top the class: the place, and not the feature."""
    return pixels[:, :, :12].mean(dim=(1, 2, 3)) - 0.55


def test_the_effect_of_a_place_and_whether_it_is_seen(monkeypatch):
    monkeypatch.setattr(truth, "PLANTED_FEATURE", {"hummingbird": "red flower"})
    found = truth.measure_truth([RuleMember(sunny)], Knowing(), scenes=SCENES, seed=0, device=CPU)
    visible = {v.context: (v.there, v.elsewhere) for v in found.visible}
    assert visible[BEACH] == (1, 0) and visible[MARKET] == (1, 0.25)

    def called(place):
        pixels = torch.stack([torch.from_numpy(scene(place, i)) for i in range(SCENES)])
        return (sunny(pixels.permute(0, 3, 1, 2) / 255) > 0).numpy()

    effects = {effect.context: effect for effect in found.effects}
    for place in (None, *CONTEXTS):
        of = effects[place or "no context"]
        assert of.spurious_accuracy == of.by_class["hummingbird"] == called(place).mean()
    assert len({effect.spurious_accuracy for effect in found.effects}) > 2
    p_values = holm([mcnemar(called(None), called(place)) for place in CONTEXTS])
    assert [effects[place].p_value for place in CONTEXTS] == p_values
    assert effects["no context"].p_value is None
    text = truth.render_markdown(found)
    assert "| on the beach | 100.0 | 0.0 |" in text and "| sunny | " in text
    with pytest.raises(SpurbenchError, match="two classifiers are called sunny"):
        truth.measure_truth([RuleMember(sunny)] * 2, Knowing(), scenes=2, seed=0, device=CPU)
