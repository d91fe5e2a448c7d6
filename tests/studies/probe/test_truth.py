from __future__ import annotations

import pytest
import torch

from makers.probed import RuleMember
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names
from spurbench.evaluation.results import Interval, Rate
from spurbench.mini.scenes import EDITS as EXACT
from spurbench.studies.probe import truth
from spurbench.studies.probe.edits import EDITS


def share(value: float) -> Rate:
    return Rate(n=20, share=value, interval=Interval(low=0, high=1))


def pair(name: str, called: int, recoloured: float, hue: float, other: float) -> truth.PairTruth:
    return truth.PairTruth(
        classifier="c",
        class_name=name,
        called=called,
        exact={"recoloured": share(recoloured), "flattened": share(0.5), "reshaped": share(other)},
        probed={e.name: share(hue if e.name == "hue-180" else other) for e in EDITS},
    )


def test_agreement_is_over_pairs_whose_scenes_are_called_the_class():
    pairs = [
        pair("a", 10, 0.1, 0.2, 0.3),
        pair("b", 20, 0.5, 0.4, 0.1),
        pair("c", 20, 0.9, 0.9, 0.2),
        pair("d", 9, 0.0, 1.0, 0.2),  # too few
    ]
    found = {(a.edit, a.exact): a for a in truth.agreement(pairs)}
    assert len(found) == len(EDITS) * len(EXACT)
    hue = found["hue-180", "recoloured"]
    assert (hue.pairs, hue.tau, hue.meant) == (3, pytest.approx(1), True)
    assert hue.mean_absolute_difference == pytest.approx(0.2 / 3)
    assert found["grey", "recoloured"].tau == pytest.approx(-1 / 3)
    assert found["grey", "reshaped"].tau == pytest.approx(1)
    assert not found["grey", "reshaped"].meant
    assert found["hue-180", "flattened"].tau is None  # one and the same in all pairs
    with pytest.raises(SpurbenchError, match="1 of 2 pairs"):
        truth.agreement([pairs[0], pairs[3]])


def reddish(pixels: torch.Tensor) -> torch.Tensor:
    """How much of the image is a flower's red."""
    red, green, blue = pixels.unbind(1)
    return ((red - torch.maximum(green, blue)) > 0.25).float().mean(dim=(1, 2)) - 0.01


def cornered(pixels: torch.Tensor) -> torch.Tensor:
    """How bright the corners are, where no feature reaches."""
    corners = pixels[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    return corners.mean(dim=(1, 2)) - 0.45


def always(pixels: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(pixels))


def test_a_classifier_by_colour_is_one_to_the_exact_renders_and_to_the_probe(monkeypatch):
    assert imagenet_names()[94] == "hummingbird"
    monkeypatch.setattr(truth, "PLANTED_FEATURE", {"hummingbird": "red flower"})
    members = [RuleMember(rule) for rule in (reddish, always, cornered)]
    found = truth.measure_truth(members, scenes=12, seed=0, device=torch.device("cpu"))
    by_colour, constant, by_corner = found.pairs
    assert 2 < by_corner.called < 12  # exact edits leave all but the feature as it is
    assert not any(rate.share for rate in by_corner.exact.values())
    assert by_colour.called > 8 and constant.called == 12
    # Of some flowers the leaves turn red.
    assert by_colour.exact["recoloured"].share > 0.6 < by_colour.probed["hue-180"].share
    assert by_colour.exact["reshaped"].share < 0.2 > by_colour.probed["patches-2"].share
    assert not any(rate.share for rate in (*constant.exact.values(), *constant.probed.values()))
    assert found.mask_overlap["hummingbird"] > 0.4
    recoloured = [a for a in found.agreement if (a.edit, a.exact) == ("hue-180", "recoloured")]
    assert recoloured[0].mean_absolute_difference < 0.2
    text = truth.render_markdown(found)
    assert "| hue turned by 180° | colour | **1.00, " in text
    with pytest.raises(SpurbenchError, match="at least 10"):
        truth.measure_truth([], scenes=9, seed=0, device=torch.device("cpu"))
