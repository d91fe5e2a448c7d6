"""Mended classifiers: the formulas, the folders, and what they are refused for."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from makers.toy import save_noise_images, save_toy_classifier
from spurbench.classifiers.load import load_classifier
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.discovery.neural_pca import Components
from spurbench.images.sources import open_images, open_positives
from spurbench.mitigation.mend import Trainings, components_of, spufixed, trained
from spurbench.mitigation.seen import features, see
from spurbench.mitigation.spufix import matched
from spurbench.mitigation.training import (
    FineTuning,
    LastLayer,
    class_weights,
    image_weights,
    moved,
    spurious_loss,
    train_last_layer,
)

BIRD, KOALA = "n01833805", "n01882714"
PAIRS = """
[[classes]]
index = 94
wnid = "n01833805"
name = "hummingbird"
spurious_feature = "red flower"
component = 2
noun = "flower"
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two classifiers, training images of two classes, and a discovery by the first."""
    folder = tmp_path_factory.mktemp("world")
    save_toy_classifier(folder / "toy", favourite=None, seed=1)
    save_toy_classifier(folder / "other", favourite=None, seed=2)
    save_noise_images(folder / "images" / BIRD, 9, 1)
    save_noise_images(folder / "images" / KOALA, 5, 2)
    (folder / "pairs.toml").write_text(PAIRS)
    arguments = ["discover", "--model", str(folder / "toy"), "--images", str(folder / "images")]
    arguments += ["--components", "3", "--top", "2", "--workers", "1"]
    found = CliRunner().invoke(main, [*arguments, "--output", str(folder / "found")])
    assert found.exit_code == 0, found.output
    return folder


def pixels(count=4):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def mend(world, output, *more):
    given = ["mend", "--model", str(world / "toy"), "--output", str(output), "--device", "cpu"]
    return CliRunner().invoke(main, [*given, *more])


@pytest.mark.parametrize("name", ["toy", "other"])
def test_spufix_takes_off_the_positive_part_of_alpha_as_the_paper_writes_it(world, tmp_path, name):
    """Against section 5 of Neuhaus et al. 2023, computed here from its formulas."""
    plain = load_classifier(str(world / name))
    spufixed(plain, world / "found", {94: [2]}, tmp_path / "mended")
    fixed = load_classifier(str(tmp_path / "mended"))

    found = Components.load(world / "found/094_hummingbird/components.safetensors")
    w = plain.head_weight[94].double().numpy()
    shown = see(plain, open_positives(world / "images", only={94}).records)
    training = features(plain, shown) * w
    if name == "toy":
        v, m = found.directions[1], found.mean
    else:  # the direction whose projection has the greatest covariance with alpha_2
        toy = load_classifier(str(world / "toy"))
        alphas = found.alphas(features(toy, shown))[:, 1]
        covariance = np.array([np.cov(column, alphas)[0, 1] for column in training.T])
        v, m = covariance / np.linalg.norm(covariance), training.mean(axis=0)
    inputs = torch.cat([pixels(), shown.pixels.float() / 255])
    psi = plain.features(inputs).double().numpy() * w
    alpha = v.sum() * ((psi - m) @ v)
    expected = plain(inputs).double().numpy()
    expected[:, 94] -= np.maximum(alpha, 0)
    assert (alpha > 0).any() and (alpha < 0).any()  # both parts are there to be told apart
    np.testing.assert_allclose(fixed(inputs).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_matched_directions_vary_most_with_the_component():
    rng = np.random.default_rng(0)
    psi = rng.normal(size=(200, 5))
    alphas = psi @ [3.0, 0, 0, -4.0, 0] + rng.normal(size=200) * 0.01
    v = matched(psi, alphas)
    assert np.linalg.norm(v) == pytest.approx(1)
    others = rng.normal(size=(300, 5))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    best = max(np.cov(psi @ other, alphas)[0, 1] for other in others)
    assert np.cov(psi @ v, alphas)[0, 1] >= best
    with pytest.raises(SpurbenchError, match="don't vary together"):
        matched(psi, np.ones(200))


def test_plain_timm_loads_what_a_trained_method_writes_and_eval_the_rest(world, tmp_path):
    given = Trainings(world / "images", str(world / "images"), split="real")
    plain = load_classifier(str(world / "toy"))
    plain_sha256 = plain.info.weights_sha256
    trained(plain, given, LastLayer(iterations=3), tmp_path / "last")
    config = json.loads((tmp_path / "last/config.json").read_text())
    assert config["mended"]["method"] == "last-layer" and "mended by" in config["training_data"]
    told = load_classifier(str(tmp_path / "last")).info.mended
    assert (told.base, told.dataset) == (plain_sha256, "images")
    network = timm.create_model(
        config["architecture"], num_classes=config["num_classes"], **config["model_args"]
    )
    network.load_state_dict(load_file(tmp_path / "last/model.safetensors"))
    mended = load_classifier(str(tmp_path / "last"))
    normalised = (pixels() - mended.mean) / mended.std
    torch.testing.assert_close(network.eval()(normalised), mended(pixels()))
    assert "mended by last-layer" in (tmp_path / "last/README.md").read_text()
    assert {f.name for f in (tmp_path / "last").iterdir()} == {
        "config.json", "model.safetensors", "README.md",
    }  # fmt: skip


def test_the_loss_of_a_spurious_image_is_that_of_not_being_its_class():
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, -3.0, 40.0]], dtype=torch.float64)
    columns = torch.tensor([1, 1])
    p = logits.softmax(1)[torch.arange(2), columns]
    torch.testing.assert_close(spurious_loss(logits, columns), -torch.log1p(-p))


def test_classes_count_the_same_however_many_images_they_have():
    weights = class_weights(torch.tensor([7, 7, 7, 3]))
    torch.testing.assert_close(weights, torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2]))


def test_images_without_their_feature_count_as_much_as_those_with_it():
    """Ten in a hundred lack it; spurious images alone say what the feature looks like."""
    rng = np.random.default_rng(0)
    columns = torch.tensor([4] * 100 + [9] * 50)
    shown = rng.normal(size=(150, 3)) * 0.1
    shown[:90, 0] += 1  # class 4's feature; the last ten of it have none
    shown[100:, 1] += 1
    alone = rng.normal(size=(40, 3)) * 0.1
    alone[:20, 0] += 1
    alone[20:, 1] += 1
    of = torch.tensor([4] * 20 + [9] * 20)
    weights = image_weights(shown, columns, alone, of, without=0.1)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights[:100].sum()) == pytest.approx(0.5)  # classes alike
    assert float(weights[90:100].sum()) == pytest.approx(0.25)
    assert weights[90:100].min() > 5 * weights[:90].max()
    torch.testing.assert_close(
        image_weights(shown, columns, alone, of, without=0.0), class_weights(columns).double()
    )
    order = torch.from_numpy(rng.permutation(150))
    shuffled = image_weights(shown[order.numpy()], columns[order], alone, of, without=0.1)
    torch.testing.assert_close(shuffled, weights[order])


def test_the_last_layer_learns_the_object_and_unlearns_the_feature():
    """Two classes; a feature's dimension is loud in training and alone in spurious images."""
    rng = np.random.default_rng(0)
    columns = torch.arange(200) % 2
    sign = 2.0 * columns.numpy() - 1
    shown = np.stack([3 * sign, sign, np.zeros(200)], axis=1) + rng.normal(size=(200, 3)) * 0.3
    alone = np.stack([3 * sign[:60], np.zeros(60), np.zeros(60)], axis=1)
    start = np.array([[-2.0, -0.2, 0], [2.0, 0.2, 0]])
    layers = {
        spurious: train_last_layer(
            start, np.zeros(2), shown, columns, class_weights(columns).double(),
            alone if spurious else None, columns[:60] if spurious else None, LastLayer(),
        )
        for spurious in (True, False)
    }  # fmt: skip

    def called(layer, images, of):
        return float(((images @ layer[0].T + layer[1]).argmax(axis=1) == of).mean())

    object_alone = np.stack([np.zeros(60), sign[:60], np.zeros(60)], axis=1)
    of = columns[:60].numpy()
    assert called(layers[True], shown, columns.numpy()) > 0.95
    assert called(layers[True], object_alone, of) > 0.95
    assert abs(layers[True][0][1, 0]) < 0.5 * abs(layers[False][0][1, 0])


def test_outputs_of_classes_without_images_stay_and_count(world):
    """Two of five classes have images: against the whole softmax, written out here."""
    rng = np.random.default_rng(0)
    start, bias = rng.normal(size=(5, 3)), rng.normal(size=5)
    shown, alone = rng.normal(size=(40, 3)), rng.normal(size=(10, 3))
    columns, of = torch.tensor([1, 3] * 20), torch.tensor([3] * 10)
    even = class_weights(columns).double()
    settings = LastLayer(weight=0.7, keep=0.1)
    weight, offset = train_last_layer(start, bias, shown, columns, even, alone, of, settings)
    for trained_, before in ((weight, start), (offset, bias)):
        np.testing.assert_array_equal(trained_[[0, 2, 4]], before[[0, 2, 4]])
        assert not np.allclose(trained_[[1, 3]], before[[1, 3]])
    first = np.c_[start, bias][[1, 3]]

    def loss(rows):
        layer = np.c_[start, bias].copy()
        layer[[1, 3]] = rows
        logits = torch.from_numpy(np.c_[shown, np.ones(40)] @ layer.T)
        p = torch.from_numpy(np.c_[alone, np.ones(10)] @ layer.T).softmax(1)[:, 3]
        errors = (
            -logits.log_softmax(1)[torch.arange(40), columns].mean() - 0.7 * (1 - p).log().mean()
        )
        return float(errors) + 0.1 * ((rows - first) ** 2).sum() / (first**2).sum()

    found = np.c_[weight, offset][[1, 3]]
    nearby = [loss(found + 0.01 * rng.normal(size=found.shape)) for _ in range(50)]
    assert loss(found) <= min(nearby)


def test_objects_that_a_detector_saw_are_no_spurious_images_and_the_first_by_hash_are_taken(
    world, tmp_path, monkeypatch
):
    """Of five images of the bird's feature one shows the bird; three more are asked for."""
    save_noise_images(tmp_path / "spurious" / BIRD, 5, 9)
    images = open_images(str(tmp_path / "spurious"), decode=False)
    ordered = sorted(images.records, key=lambda record: record.sha256)
    records = [replace(r, object_absent=r != ordered[1]) for r in images.records]
    given = replace(images, records=tuple(records))
    monkeypatch.setattr("spurbench.mitigation.mend.open_images", lambda *_, **__: given)
    taken = []

    def note(classifier, chosen):
        taken.append([record.sha256 for record in chosen])
        return see(classifier, chosen)

    monkeypatch.setattr("spurbench.mitigation.mend.see", note)
    toy = load_classifier(str(world / "toy"))
    asked = Trainings(world / "images", "given", "real", per_class=3)
    done = trained(toy, asked, LastLayer(iterations=1), tmp_path / "m")
    assert taken[1] == [ordered[i].sha256 for i in (0, 2, 3)]
    assert done["spurious_images"] == 3


@pytest.mark.parametrize("kind", [LastLayer, FineTuning])
def test_what_is_trained_weighs_images_by_whether_they_lack_their_feature(world, tmp_path, kind):
    for name, seed in ((BIRD, 9), (KOALA, 10)):
        save_noise_images(tmp_path / "spurious" / name, 4, seed)
    given = Trainings(world / "images", str(tmp_path / "spurious"), "real")
    few = {"iterations": 5} if kind is LastLayer else {"steps": 3, "batch_size": 8}
    for without in (0.0, 0.4):
        toy = load_classifier(str(world / "toy"))
        trained(toy, given, kind(without=without, **few), tmp_path / str(without))
    written = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("0.0", "0.4")]
    assert written[0] != written[1]


def test_images_are_mirrored_and_shifted_by_a_sixteenth_at_most():
    columns = torch.arange(32.0).expand(3, 32, 32)
    rows = columns.transpose(1, 2)
    image = torch.stack([columns[0], rows[0], columns[0] * 0 + 7])
    seen = moved(image.expand(200, -1, -1, -1), torch.Generator().manual_seed(0))
    assert seen.shape == (200, 3, 32, 32) and (seen[:, 2] == 7).all()
    across, down = seen[:, 0, 16, 10:22], seen[:, 1, 10:22, 16]
    mirrored = across[:, 0] > across[:, -1]
    assert 70 < mirrored.sum() < 130
    across = torch.where(mirrored[:, None], across.flip(1), across)
    for along in (across, down):
        steps = along.diff(dim=1)
        assert (steps == 1).all()  # whole, neither stretched nor cut
        shifts = along[:, 0] - 10
        assert set(shifts.tolist()) == {-2, -1, 0, 1, 2}
    assert (seen[:, 1, 0] >= 0).all() and (seen[:, 1, :, :1] == seen[:, 1]).all()  # upright


def test_fine_tuning_teaches_what_is_not_the_class_and_repeats_bit_for_bit(world, tmp_path):
    save_noise_images(tmp_path / "spurious" / BIRD, 6, 9)
    settings = FineTuning(steps=40, batch_size=8, learning_rate=2e-2, weight=20.0)
    for name, spurious in (("a", True), ("b", True), ("without", False)):
        given = Trainings(
            world / "images", str(tmp_path / "spurious") if spurious else None, "real"
        )
        trained(load_classifier(str(world / "toy")), given, settings, tmp_path / name)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (
        tmp_path / "b/model.safetensors"
    ).read_bytes()
    records = open_positives(tmp_path / "spurious").records

    def probability(name):
        mended = load_classifier(str(tmp_path / name))
        seen = see(mended, records).pixels.float() / 255
        return float(mended(seen).softmax(1)[:, 94].mean())

    assert probability("a") < 0.7 * probability("without")


def test_the_command_mends_by_components_and_says_how_well_they_match(world, tmp_path):
    more = ["--method", "spufix", "--discovery", str(world / "found")]
    told = mend(world, tmp_path / "m", *more, "--pairs", str(world / "pairs.toml"))
    assert told.exit_code == 0, told.output
    assert "hummingbird, component 2: correlation with the discovery's 1.000" in told.output
    card = (tmp_path / "m/README.md").read_text()
    assert "timm alone loads the network unmended" in card


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--method", "spufix"], "spufix needs --discovery and --pairs"),
        (["--method", "last-layer"], "last-layer needs --images"),
        (
            ["--method", "fine-tune", "--images", "IMAGES", "--model", "torchvision:resnet18"],
            "timm",
        ),
    ],
)
def test_what_is_missing_is_one_line_and_writes_nothing(world, tmp_path, more, said, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    more = [str(world / "images") if one == "IMAGES" else one for one in more]
    told = mend(world, tmp_path / "m", *more)
    assert told.exit_code == 1 and said in told.output and told.output.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_components_and_classes_that_are_not_there_are_named(world, tmp_path):
    toy = load_classifier(str(world / "toy"))
    with pytest.raises(SpurbenchError, match=r"components 1 to 3 .*, not 9"):
        spufixed(toy, world / "found", {94: [9]}, tmp_path / "m")
    with pytest.raises(SpurbenchError, match="no components of gondola"):
        spufixed(toy, world / "found", {576: [1]}, tmp_path / "m")
    assert components_of(world / "pairs.toml") == {94: [2]}
    with pytest.raises(SpurbenchError, match="names no component"):
        components_of(world / "pairs.toml", [7])
    save_noise_images(tmp_path / "spurious" / "n03447447", 2, 1)
    given = Trainings(world / "images", str(tmp_path / "spurious"), split="real")
    with pytest.raises(SpurbenchError, match="shows no gondola"):
        trained(toy, given, LastLayer(), tmp_path / "m")


def test_a_fix_that_does_not_fit_its_network_is_refused(world, tmp_path):
    toy = load_classifier(str(world / "toy"))
    spufixed(toy, world / "found", {94: [2]}, tmp_path / "m")
    file = tmp_path / "m/spufix.safetensors"
    whole = load_file(file)
    narrow, beyond = {"rows": whole["rows"][:, :-1]}, {"columns": whole["columns"] + 5000}
    for broken in (whole | narrow, whole | beyond):
        save_file({k: v.contiguous() for k, v in broken.items()}, file)
        with pytest.raises(SpurbenchError, match="does not fit the network"):
            load_classifier(str(tmp_path / "m"))
    file.write_bytes(b"junk")
    with pytest.raises(SpurbenchError, match="is damaged"):
        load_classifier(str(tmp_path / "m"))
    save_file(whole, file)
    with pytest.raises(SpurbenchError, match="mended by spufix already"):
        spufixed(load_classifier(str(tmp_path / "m")), world / "found", {94: [2]}, tmp_path / "n")
