"""The maths: components, what they sum to, heat maps, and features made visible."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from spurbench.classifiers.module import from_module
from spurbench.core.errors import SpurbenchError
from spurbench.discovery.attack import maximise, radius_for
from spurbench.discovery.heat import attributions, heat_map
from spurbench.discovery.lens import Lens, require_linear_end
from spurbench.discovery.neural_pca import Components, Moments, load_alphas

CLASS = 94


def tiny(*, last: nn.Module | None = None, kinked: bool = True):
    """A classifier of 8 x 8 pixels with twelve features."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 3, 3, stride=2), nn.ReLU() if kinked else nn.Identity(), nn.Flatten()]
    layers += [nn.Linear(27, 12), nn.ReLU() if kinked else nn.Identity(), nn.Linear(12, 1000)]
    network = nn.Sequential(*layers, *([last] if last else []))
    return from_module(network, name="tiny", input_size=8)


def pixels(count: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def fitted(classifier, count: int = 12) -> Components:
    weight = classifier.head_weight[CLASS].detach().double().numpy()
    features = classifier.features(pixels(40)).detach().numpy()
    moments = Moments(len(weight))
    for part in np.split(features * weight, [1, 17]):
        moments.add(part)
    return Components.of(moments, weight, count)


def test_all_components_sum_to_the_logit_but_for_a_constant():
    classifier = tiny()
    components, fresh = fitted(classifier), pixels(30, seed=2)
    alphas = components.alphas(classifier.features(fresh).detach().numpy())
    logits = classifier(fresh)[:, CLASS].detach().double().numpy()
    rest = logits - alphas.sum(axis=1)
    assert alphas.shape == (30, 12) and np.std(logits) > 0.01
    assert np.ptp(rest) < 1e-6
    bias = float(classifier.network[-1].bias[CLASS])
    assert rest[0] == pytest.approx(components.mean.sum() + bias, abs=1e-6)


def test_batches_change_nothing_and_the_directions_are_those_of_pca():
    vectors = np.random.default_rng(0).normal(5, [1, 2, 3, 4], (50, 4)).astype(np.float32)
    whole, parts = Moments(4), Moments(4)
    whole.add(vectors)
    for part in np.split(vectors, [1, 2, 30]):
        parts.add(part)
    assert np.allclose(whole.covariance, np.cov(vectors.astype(np.float64).T), rtol=1e-12)
    assert np.allclose(parts.covariance, whole.covariance, rtol=1e-12)
    assert np.allclose(parts.mean, vectors.astype(np.float64).mean(axis=0), rtol=1e-12)
    found, known = Components.of(parts, np.ones(4), 3), PCA(3, svd_solver="full").fit(vectors)
    assert np.allclose(found.variances, known.explained_variance_, rtol=1e-5)
    assert np.allclose(np.abs(found.directions), np.abs(known.components_), atol=1e-5)
    shares = found.variances / found.total_variance
    assert np.allclose(shares, known.explained_variance_ratio_, rtol=1e-5)
    assert (found.sums >= 0).all()


def test_alpha_is_the_papers_formula_and_the_lens_gives_the_same():
    classifier = tiny()
    components, fresh = fitted(classifier, 3), pixels(5, seed=3)
    features = classifier.features(fresh).detach().double().numpy()
    psi = features * classifier.head_weight[CLASS].detach().double().numpy()
    expected = [
        [v.sum() * np.dot(one - components.mean, v) for v in components.directions] for one in psi
    ]
    assert np.allclose(components.alphas(features), expected, atol=1e-9)
    assert np.allclose(Lens(classifier, components)(fresh).detach(), expected, atol=1e-5)


def test_components_come_back_from_their_file(tmp_path):
    components = fitted(tiny(), 3)
    components.save(tmp_path / "c.safetensors", np.arange(6.0).reshape(2, 3))
    again = Components.load(tmp_path / "c.safetensors")
    assert np.array_equal(again.directions, components.directions)
    assert again.total_variance == components.total_variance
    assert load_alphas(tmp_path / "c.safetensors").tolist() == [[0, 1, 2], [3, 4, 5]]
    (tmp_path / "c.safetensors").write_bytes(b"junk")
    with pytest.raises(SpurbenchError, match="damaged"):
        Components.load(tmp_path / "c.safetensors")


def test_one_image_is_too_few():
    moments = Moments(3)
    moments.add(np.ones((1, 3)))
    with pytest.raises(SpurbenchError, match="two images"):
        Components.of(moments, np.ones(3), 2)


def test_attributions_sum_to_what_the_image_adds_to_alpha():
    classifier = tiny()
    lens, images = Lens(classifier, fitted(classifier)), pixels(3, seed=4)
    found = attributions(lens, images, 1, steps=100)
    with torch.no_grad():
        added = (lens(images) - lens(torch.full_like(images, 0.5)))[:, 1]
    assert found.shape == (3, 8, 8)
    assert torch.allclose(found.sum(dim=(1, 2)), added, atol=0.03 * float(added.abs().max()))


def test_heat_is_where_alpha_rises_and_nowhere_else():
    attribution = np.zeros((48, 48))
    attribution[10, 30], attribution[40, 5] = 2.0, -9.0
    heat = heat_map(attribution)
    assert np.unravel_index(heat.argmax(), heat.shape) == (10, 30)
    assert heat.max() == 1 and heat.min() == 0 and heat[40, 5] == 0
    assert not heat_map(-np.ones((8, 8))).any()


def test_a_linear_alpha_is_maximised_at_the_balls_edge_along_its_gradient():
    classifier = tiny(kinked=False)
    lens, start = Lens(classifier, fitted(classifier)), torch.full((2, 3, 8, 8), 0.5)
    which = torch.tensor([0, 2])
    found = maximise(lens, start, which, radius=0.3)
    _, gradient = lens.gradients(start, which)
    direction = gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    assert torch.allclose(found, start + 0.3 * direction, atol=1e-4)


def test_a_maximised_image_stays_in_its_ball_and_is_an_image():
    classifier = tiny()
    lens, start = Lens(classifier, fitted(classifier)), pixels(4, seed=5)
    which = torch.tensor([0, 1, 2, 3])
    found = maximise(lens, start, which, radius=2.0)
    assert (found - start).flatten(1).norm(dim=1).max() <= 2.0 + 1e-4
    assert found.min() >= 0 and found.max() <= 1
    with torch.no_grad():
        before, after = (lens(x).gather(1, which[:, None]) for x in (start, found))
    assert (after > before).all()


class Peak:
    """In place of a lens: alpha falls with the distance from grey."""

    def gradients(self, pixels, component):
        return -(pixels - 0.5).square().flatten(1).sum(1), -2 * (pixels - 0.5)


def test_the_best_image_on_the_way_is_kept_where_steps_lead_past_it():
    start = torch.full((1, 3, 4, 4), 0.51)
    found = maximise(Peak(), start, torch.tensor([0]), radius=1.0, steps=1)
    assert torch.equal(found, start)


def test_the_ball_is_neuhaus_and_others_at_224_pixels():
    assert radius_for((224, 224)) == 30
    assert radius_for((64, 64)) == pytest.approx(30 * 64 / 224)


def test_a_classifier_whose_logits_are_no_linear_layers_is_refused():
    require_linear_end(tiny())
    with pytest.raises(SpurbenchError, match="does not end in a linear layer"):
        require_linear_end(tiny(last=nn.Softplus()))
