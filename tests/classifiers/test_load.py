from __future__ import annotations

import logging

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import v2

from makers.toy import save_toy_classifier
from spurbench.classifiers.classifier import Preprocessing, transform
from spurbench.classifiers.load import load_classifier
from spurbench.classifiers.timm import full_name
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import HEADS, head_wnids
from spurbench.recipe.load import read_recipe

SMALL = "test_efficientnet"  # timm's own toy architecture, 160 px, 1,000 classes


@pytest.fixture
def weights(tmp_path):
    """A checkpoint of timm's toy architecture, and the model it is of."""
    torch.manual_seed(0)
    model = timm.create_model(SMALL)
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    return path, model.eval()


def test_features_times_head_are_the_logits_and_pixels_get_a_gradient(tmp_path):
    classifier = load_classifier(str(save_toy_classifier(tmp_path / "c", favourite=None, seed=0)))
    pixels = torch.rand(3, 3, 32, 32, requires_grad=True)
    features = classifier.features(pixels)
    assert features.shape == (3, 16) and classifier.head_weight.shape == (1000, 16)
    bias = classifier.network.fc.bias
    torch.testing.assert_close(features @ classifier.head_weight.T + bias, classifier(pixels))
    features.sum().backward()
    assert pixels.grad is not None and pixels.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in classifier.parameters())


def test_normalisation_is_inside(weights):
    path, model = weights
    classifier = load_classifier(SMALL, checkpoint=path)
    pixels = torch.rand(2, 3, 160, 160)
    mean = torch.tensor(model.pretrained_cfg["mean"]).view(3, 1, 1)
    std = torch.tensor(model.pretrained_cfg["std"]).view(3, 1, 1)
    torch.testing.assert_close(classifier(pixels), model((pixels - mean) / std))


def test_a_checkpoint_needs_no_network_and_does_not_claim_the_default_tag(weights, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    path, _ = weights
    info = load_classifier(SMALL, checkpoint=path).info
    assert (info.name, info.checkpoint) == (SMALL, "weights.safetensors")
    assert info.head == "imagenet-1k"


def test_the_weights_hash_sees_every_weight(weights, tmp_path):
    path, model = weights
    first = load_classifier(SMALL, checkpoint=path).info.weights_sha256
    assert load_classifier(SMALL, checkpoint=path).info.weights_sha256 == first
    with torch.no_grad():
        next(model.parameters())[0, 0, 0, 0] += 1e-3
    save_file(model.state_dict(), tmp_path / "other.safetensors")
    assert (
        load_classifier(SMALL, checkpoint=tmp_path / "other.safetensors").info.weights_sha256
        != first
    )


@pytest.mark.parametrize("wrap", ["plain", "nested", "module", "madry", "renamed", "old"])
def test_checkpoints_are_fitted_whatever_they_are_called(wrap, weights, tmp_path, caplog):
    _, model = weights
    state = model.state_dict()
    match wrap:
        case "nested":
            saved = {"epoch": 3, "state_dict": state}
        case "module":
            saved = {f"module.{k}": v for k, v in state.items()}
        case "madry":
            saved = {"model": {f"module.model.{k}": v for k, v in state.items()}}
            saved["model"]["module.normalizer.new_mean"] = torch.zeros(3, 1, 1)
        case "renamed":
            saved = {f"layer{i}": v for i, v in enumerate(state.values())}
        case "old":
            saved = {
                f"x{i}": v
                for i, (k, v) in enumerate(state.items())
                if not k.endswith("num_batches_tracked")
            }
        case _:
            saved = state
    torch.save(saved, tmp_path / "saved.pt")
    with caplog.at_level(logging.WARNING):
        classifier = load_classifier(SMALL, checkpoint=tmp_path / "saved.pt")
    for key, value in classifier.network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, state[key]), key
    said = {
        "module": "'module.'",
        "madry": "ignored 1 others",
        "renamed": "in order",
        "old": "in order",
    }
    assert said.get(wrap, "") in caplog.text
    assert bool(caplog.text) == (wrap in said)


def test_a_checkpoint_of_another_shape_names_the_first_mismatch(tmp_path):
    other = timm.create_model("resnet10t", channels=(8, 8, 16, 16))
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(
        SpurbenchError, match=r"does not fit: .*shape \(.*\) where the model has conv"
    ) as caught:
        load_classifier(SMALL, checkpoint=tmp_path / "other.safetensors")
    assert "\n" not in str(caught.value)


def test_a_head_of_another_size_names_both_shapes(weights, tmp_path):
    _, model = weights
    model.reset_classifier(10)
    save_file(model.state_dict(), tmp_path / "ten.safetensors")
    with pytest.raises(
        SpurbenchError, match=r"classifier.weight has shape \(10, \d+\).*\(1000, \d+\)"
    ):
        load_classifier(SMALL, checkpoint=tmp_path / "ten.safetensors")


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(SpurbenchError, match="weights only") as caught:
        load_classifier(SMALL, checkpoint=tmp_path / "trap.pt")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no checkpoint at"), (b"junk", "can't be read|not a safetensors")]
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_missing_or_broken_checkpoint_is_one_line(content, said, suffix, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpurbenchError, match=said) as caught:
        load_classifier(SMALL, checkpoint=path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("vit_base_patch16_224.augreg", "vit_base_patch16_224.augreg_in21k_ft_in1k"),
        ("vit_base_patch16_224.augreg_in21k", "vit_base_patch16_224.augreg_in21k"),
        ("vit_base_patch16_224", "vit_base_patch16_224.augreg2_in21k_ft_in1k"),
        ("vit_base_patch16_224.orig", "vit_base_patch16_224.orig_in21k_ft_in1k"),
        ("resnet50.tv2", "resnet50.tv2_in1k"),
    ],
)
def test_partial_tags_are_read_as_whole_words_in_timms_order(name, full):
    architecture, _, tag = name.partition(".")
    assert full_name(architecture, tag) == full


def test_an_unknown_name_or_tag_lists_what_there_is():
    with pytest.raises(SpurbenchError, match=r"nearest: .*resnet50"):
        load_classifier("resnet500")
    with pytest.raises(
        SpurbenchError, match=r"no pretrained tag 'nonsense'; it has .*resnet50.a1_in1k"
    ):
        load_classifier("resnet50.nonsense")
    with pytest.raises(SpurbenchError, match=r"no classifier 'resnet55'; nearest: resnet50"):
        load_classifier("torchvision:resnet55")
    with pytest.raises(SpurbenchError, match="it has IMAGENET1K_V1, IMAGENET1K_V2"):
        load_classifier("torchvision:resnet50.V3")
    with pytest.raises(SpurbenchError, match="the embedded panel has no 'x'"):
        load_classifier("mini:x")


@pytest.mark.robustbench
@pytest.mark.usefixtures("robustbench")
def test_robustbench_models_are_known_by_name():
    with pytest.raises(SpurbenchError, match="nearest: Salman2020Do_R50"):
        load_classifier("robustbench:Salman2020Do_R55")


def test_torchvision_takes_local_weights_and_its_own_preprocessing(tmp_path):
    from torchvision import models

    model = models.get_model("shufflenet_v2_x0_5", weights=None)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    classifier = load_classifier("torchvision:shufflenet_v2_x0_5", checkpoint=tmp_path / "w.pt")
    assert classifier.info.name == "shufflenet_v2_x0_5"
    own = classifier.preprocessing("model")
    assert (own.resize, own.crop, own.interpolation) == ((256,), (224, 224), "bilinear")
    whole = classifier.preprocessing("whole")
    assert (whole.resize, whole.crop, whole.interpolation) == ((224,), (224, 224), "bicubic")


def test_weights_that_cant_be_fetched_are_one_line(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SpurbenchError, match=r"couldn't connect.*--checkpoint FILE") as caught:
        load_classifier("resnet18")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("width", [1000, 11821, 21841, 21843])
def test_every_spurious_class_has_a_column_in_the_imagenet_families(width):
    head = HEADS[width]
    wnids = head_wnids(head)
    assert len(wnids) == width
    missing = [c.name for c in read_recipe("sd15").classes if c.wnid not in wnids]
    assert len(missing) <= (0 if width != 11821 else 5), missing


def test_a_21k_head_is_read_by_wordnet_id(tmp_path):
    model = timm.create_model("test_vit", num_classes=21843)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    monkey = timm.create_model
    try:
        timm.create_model = lambda name, **kw: monkey(name, num_classes=21843, **kw)
        classifier = load_classifier("test_vit", checkpoint=tmp_path / "w.safetensors")
    finally:
        timm.create_model = monkey
    assert classifier.info.head == "imagenet-21k"
    (column,) = classifier.columns(["n01833805"]).tolist()
    assert head_wnids("imagenet-21k")[column] == "n01833805"
    with pytest.raises(SpurbenchError, match="n99999999"):
        classifier.columns(["n99999999"])


def test_another_head_is_refused(tmp_path):
    folder = save_toy_classifier(tmp_path / "c", favourite=None, seed=0)
    model = timm.create_model("resnet10t", num_classes=12, channels=[8, 8, 16, 16], stem_width=8)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = (
        (folder / "config.json").read_text().replace('"num_classes": 1000', '"num_classes": 12')
    )
    (folder / "config.json").write_text(config)
    with pytest.raises(SpurbenchError, match="head of 12 outputs"):
        load_classifier(str(folder))


@pytest.mark.parametrize("size", [(100, 60), (61, 97), (64, 64), (30, 200)])
def test_the_whole_transform_is_torchvisions_resize_and_crop(size):
    image = Image.effect_noise(size, 60).convert("RGB")
    preprocessing = Preprocessing(
        mode="whole",
        resize=(48,),
        crop=(48, 48),
        interpolation="bicubic",
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    expected = v2.Compose(
        [v2.Resize(48, v2.InterpolationMode.BICUBIC), v2.CenterCrop(48), v2.PILToTensor()]
    )(image)
    assert torch.equal(transform(preprocessing)(image), expected)


def test_timms_own_transform_is_used_in_model_mode(weights):
    from timm.data import create_transform, resolve_data_config

    path, model = weights
    classifier = load_classifier(SMALL, checkpoint=path)
    image = Image.effect_noise((300, 200), 60).convert("RGB")
    config = resolve_data_config({}, model=model)
    expected = create_transform(**config)(image)
    pixels = transform(classifier.preprocessing("model"))(image).float() / 255
    torch.testing.assert_close((pixels - classifier.mean) / classifier.std, expected)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"resnet10t"', '"resnet10t', "is not valid JSON"),
        ('"resnet10t"', '"resnet5000"', "describes no timm model: unknown model 'resnet5000'"),
        ("num_classes", "classes", "key 'num_classes' is missing"),
        ("stem_width", "width_of_stem", "'width_of_stem' is not a setting of resnet10t"),
        ('"stem_width": 8', '"stem_width": "wide"', "describes no timm model: "),
        ("[0.5, 0.5, 0.5]}", "[0.5, 0, 0.5]}", r"pretrained_cfg.std.1: .*greater than 0"),
        ("[0.5, 0.5, 0.5]}", "[0.5, NaN, 0.5]}", r"pretrained_cfg.std.1: .*finite|greater than 0"),
        ("[3, 32, 32]", "[3, 32, 0]", r"pretrained_cfg.input_size.2"),
        ('"crop_pct": 1.0', '"crop_pct": 1e-9', r"pretrained_cfg.crop_pct"),
        ('"bicubic"', '"nonsense"', r"pretrained_cfg.interpolation"),
    ],
)
def test_a_folder_whose_config_is_wrong_is_named(tmp_path, old, new, message):
    config = save_toy_classifier(tmp_path / "toy", favourite=None, seed=0) / "config.json"
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(SpurbenchError, match=message) as caught:
        load_classifier(str(tmp_path / "toy"))
    assert "config.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_madry_style_checkpoint_serves_as_phi(weights, tmp_path):
    """As a recipe says it: panel.phi=ARCHITECTURE=FILE, with what robustness training saves."""
    from spurbench.evaluation import panel
    from spurbench.recipe.load import read_recipe

    _, model = weights
    state = model.state_dict()
    saved = {f"module.model.{key}": value for key, value in state.items()}
    saved |= {f"module.attacker.model.{key}": value for key, value in state.items()}
    saved |= {"module.normalizer.new_mean": torch.zeros(3, 1, 1)}
    torch.save({"model": saved, "epoch": 3, "schedule": None}, tmp_path / "robust.pt")
    recipe = read_recipe("mini", [f"panel.phi={SMALL}={tmp_path / 'robust.pt'}"])
    phi = panel.load_member(recipe.panel.phi, relative_to=recipe.folder, device=torch.device("cpu"))
    assert torch.equal(phi.head_weight, model.get_classifier().weight)
    pixels = torch.rand(2, 3, *phi.input_size)
    features = phi.features(pixels)
    logits = features @ phi.head_weight.T + model.get_classifier().bias
    torch.testing.assert_close(logits, phi(pixels))
