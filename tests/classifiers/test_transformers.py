from __future__ import annotations

import json
import logging
import shutil

import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BertConfig, ViTForImageClassification, ViTModel

from makers.hub_server import Repository, running_hub
from makers.networks import save_toy_vit
from makers.toy import noise_images, save_toy_classifier
from spurbench.classifiers.classifier import transform
from spurbench.classifiers.load import load_classifier
from spurbench.classifiers.processors import evaluation_of
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_lemmas, imagenet_wnids


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_toy_vit(tmp_path_factory.mktemp("saved") / "mine")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(saved, tmp_path / "mine")


def edit(file, **changes):
    said = json.loads(file.read_text())
    file.write_text(json.dumps({**said, **changes}))


def refused(spec, said):
    with pytest.raises(SpurbenchError, match=said) as caught:
        load_classifier(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["transformers:", ""])
def test_it_answers_as_transformers_own_model_and_processor_do(prefix, saved):
    classifier = load_classifier(f"{prefix}{saved}")
    images = noise_images(3, 0, side=50, width=70)
    processor = transformers.AutoImageProcessor.from_pretrained(saved)
    model = ViTForImageClassification.from_pretrained(saved).eval()
    expected = model(**processor(images, return_tensors="pt")).logits
    own = transform(classifier.preprocessing("model"))
    pixels = torch.stack([own(image) for image in images]).float() / 255
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(classifier(pixels), expected, atol=2e-2, rtol=0)
    assert classifier.features(pixels).shape == (3, 16)
    info = classifier.info
    assert (info.source, info.name, info.architecture, info.checkpoint) == (
        "transformers",
        "mine",
        "ViTForImageClassification",
        None,
    )
    assert info.parameters == sum(p.numel() for p in model.parameters())


def test_weights_of_half_the_precision_are_computed_with_in_full(saved, folder):
    weights = load_file(folder / "model.safetensors")
    save_file({k: v.half() for k, v in weights.items()}, folder / "model.safetensors")
    edit(folder / "config.json", dtype="float16", torch_dtype="float16")
    half, full = load_classifier(f"transformers:{folder}"), load_classifier(f"transformers:{saved}")
    pixels = torch.rand(2, 3, 32, 32)
    assert half(pixels).dtype == torch.float32
    torch.testing.assert_close(half(pixels), full(pixels), atol=2e-2, rtol=0)
    assert half.info.weights_sha256 != full.info.weights_sha256


def test_labels_are_read_as_the_hub_has_them(tmp_path, caplog):
    names = [", ".join(lemmas) for lemmas in imagenet_lemmas()]
    whole = load_classifier(f"transformers:{save_toy_vit(tmp_path / 'whole', names)}")
    assert whole.info.head == "imagenet-1k" and not caplog.text
    labels = ["koala, koala bear, kangaroo bear, native bear", "n01833805", "tench, Tinca tinca"]
    few = load_classifier(str(save_toy_vit(tmp_path / "few", labels)))
    assert few.wnids == tuple(imagenet_wnids()[i] for i in (105, 94, 0))


def test_where_nobody_gave_labels_imagenets_order_is_taken_and_said(saved, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert load_classifier(str(saved)).info.head == "imagenet-1k"
    assert "mine says no labels; its 1000 outputs are taken for imagenet-1k in order" in caplog.text
    refused(str(save_toy_vit(tmp_path / "ten", outputs=10)), "head of 10 outputs and no labels")


PROCESSORS = {
    "ViTImageProcessor": {"size": {"height": 48, "width": 64}, "resample": 3},
    "ConvNextImageProcessor": {"size": {"shortest_edge": 224}, "crop_pct": 0.875},
    "LevitImageProcessor": {},
    "DeiTImageProcessor": {},
    "CLIPImageProcessor": {},
    "PoolFormerImageProcessor": {},
    "MobileNetV2ImageProcessor": {},
    "EfficientNetImageProcessor": {"rescale_factor": 1 / 127.5, "rescale_offset": True},
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_what_an_image_processor_makes_is_made_here(kind, tmp_path):
    processor = getattr(transformers, kind)(**PROCESSORS[kind])
    processor.save_pretrained(tmp_path)
    own = evaluation_of(tmp_path / "preprocessor_config.json", "mine")
    (image,) = noise_images(1, 1, side=20, width=25)
    image = image.resize((440, 220), Image.Resampling.BICUBIC)
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (own.mean, own.std))
    made = (transform(own)(image) / 255 - mean) / std
    assert made.shape == expected.shape
    assert ((made - expected) * std * 255).abs().mean() < 0.1


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("MobileViTImageProcessor", {}),  # blue before red
        ("ViltImageProcessor", {}),  # of no one size
        ("ViTImageProcessor", {"do_resize": False, "do_normalize": False}),
    ],
)
def test_what_cant_be_said_in_a_record_is_refused(kind, settings, tmp_path):
    getattr(transformers, kind)(**settings).save_pretrained(tmp_path)
    with pytest.raises(SpurbenchError, match=f"mine: its image processor, {kind}, does more"):
        evaluation_of(tmp_path / "preprocessor_config.json", "mine")


def test_code_that_comes_with_weights_is_not_run(folder, tmp_path):
    mark = tmp_path / "sprung"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    before = load_classifier(str(folder)).info.weights_sha256
    code = {"AutoConfig": "evil.C", "AutoModelForImageClassification": "evil.M"}
    edit(folder / "config.json", auto_map=code, _attn_implementation="owner/kernel")
    edit(folder / "preprocessor_config.json", auto_map={"AutoImageProcessor": "evil.P"})
    assert load_classifier(str(folder)).info.weights_sha256 == before
    edit(folder / "config.json", model_type="evil")
    refused(str(folder), "has no model_type 'evil'; code that comes with weights is not run")
    assert not mark.exists()


def test_weights_without_a_head_are_no_classifiers(folder):
    ViTModel(ViTForImageClassification.from_pretrained(folder).config).save_pretrained(folder / "b")
    shutil.copy(folder / "b" / "model.safetensors", folder / "model.safetensors")
    refused(str(folder), r"does not fit .*missing, the first classifier\.bias")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "weights are quantised"),
        ({"hidden_size": 24}, r"model\.safetensors does not fit .*config\.json"),
        ({"num_hidden_layers": 10**9}, r"does not fit .*: 1000000000 layers have more than its"),
        ({"hidden_size": "wide"}, r"config\.json"),
        ({**BertConfig().to_dict()}, "bert network, which is no image classifier"),
    ],
)
def test_a_config_that_does_not_fit_is_one_line(changes, said, folder):
    edit(folder / "config.json", **changes)
    refused(str(folder), said)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_what_a_folder_lacks_is_named(file, folder):
    (folder / file).unlink()
    refused(f"transformers:{folder}", f"no {file} in")


def test_a_processor_that_is_none_is_one_line(folder):
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "Nonsense"}')
    refused(str(folder), r"preprocessor_config\.json describes no image processor")


def test_a_name_that_is_neither_folder_nor_on_the_hub_is_refused():
    refused("transformers:nowhere", "neither a folder nor transformers:OWNER/NAME")
    refused("transformers:../nowhere/x", "neither a folder nor")


def test_networks_of_timm_that_transformers_wraps_are_read_as_timms(tmp_path):
    folder = save_toy_classifier(tmp_path / "toy", favourite=None, seed=0)
    plain = load_classifier(f"transformers:{folder}")
    assert plain.info.weights_sha256 == load_classifier(str(folder)).info.weights_sha256
    weights = load_file(folder / "model.safetensors")
    save_file({f"timm_model.{k}": v for k, v in weights.items()}, folder / "model.safetensors")
    edit(folder / "config.json", model_type="timm_wrapper")
    for spec in (str(folder), f"transformers:{folder}"):
        assert load_classifier(spec).info.weights_sha256 == plain.info.weights_sha256


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with running_hub() as state:
        monkeypatch.setattr(constants, "ENDPOINT", state.endpoint)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            state.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield state


def test_of_the_hub_three_files_are_fetched(hub, saved):
    hub.repositories["owner/vit"] = Repository(private=False)
    files = {file.name: ("regular", file.read_bytes()) for file in saved.iterdir()}
    hub.repositories["owner/vit"].commit(
        "weights", files | {"adapter_config.json": ("regular", b"{}")}
    )
    there, here = load_classifier("transformers:owner/vit"), load_classifier(str(saved))
    assert there.info.weights_sha256 == here.info.weights_sha256
    assert there.preprocessing("model") == here.preprocessing("model")
    assert (there.info.name, there.info.source) == ("owner/vit", "transformers")
    assert not any("adapter" in request for request in hub.requests)


def test_a_folder_never_goes_by_the_name_of_published_weights(saved, tmp_path):
    name = next(n for n in timm.list_pretrained("test_vit.*"))
    vit = shutil.copytree(saved, tmp_path / name)
    assert load_classifier(str(vit)).info.name == f"{name} (local)"
