from __future__ import annotations

import logging

import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from makers.networks import save_toy_clip
from spurbench.classifiers.load import load_classifier, read_member
from spurbench.core.errors import SpurbenchError

ARCHITECTURE = "spurbench-toy"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_toy_clip(tmp_path_factory.mktemp("clip"), ARCHITECTURE)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def few_sentences(monkeypatch, shared_cache):
    """Two sentences a class, encoded once for all tests."""
    templates = open_clip.OPENAI_IMAGENET_TEMPLATES[:2]
    monkeypatch.setattr(open_clip, "OPENAI_IMAGENET_TEMPLATES", templates)
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache))


def cached(tmp_path):
    return sorted((tmp_path / "cache" / "spurbench" / "text-embeddings").iterdir())


def test_logits_are_scaled_cosines_with_the_mean_of_each_classs_sentences(clip, tmp_path):
    model, weights = clip
    classifier = load_classifier(f"open_clip:{ARCHITECTURE}", checkpoint=weights)
    pixels = torch.rand(4, 3, 32, 32)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (
        open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))  # fmt: skip
    tokenizer = open_clip.get_tokenizer(ARCHITECTURE)
    with torch.inference_mode():
        image = normalize(model.encode_image((pixels - mean) / std), dim=-1)
        for index in (0, 94, 999):
            name = open_clip.IMAGENET_CLASSNAMES[index]
            sentences = [template(name) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
            text = normalize(model.encode_text(tokenizer(sentences)), dim=-1).mean(dim=0)
            cosine = image @ normalize(text, dim=0)
            expected = model.logit_scale.exp() * cosine
            torch.testing.assert_close(classifier(pixels)[:, index], expected)
    assert classifier.features(pixels).norm(dim=1).allclose(torch.ones(4))
    info = classifier.info
    assert (info.name, info.source, info.head) == (ARCHITECTURE, "open_clip", "imagenet-1k")
    assert info.checkpoint == "clip.safetensors"
    assert info.parameters == sum(p.numel() for p in model.parameters())
    own = classifier.preprocessing("model")
    assert (own.resize, own.crop, own.interpolation) == ((32,), (32, 32), "bicubic")


def test_sentences_are_encoded_once_for_the_same_weights_and_sentences(clip, tmp_path, monkeypatch):
    _, weights = clip
    spec = f"open_clip:{ARCHITECTURE}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = load_classifier(spec, checkpoint=weights)
    (file,) = cached(tmp_path)
    real = open_clip.build_zero_shot_classifier
    calls = []
    monkeypatch.setattr(
        open_clip, "build_zero_shot_classifier", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    again = load_classifier(spec, checkpoint=weights)
    assert not calls and torch.equal(again.head_weight, first.head_weight)
    file.write_bytes(b"junk")
    assert torch.equal(load_classifier(spec, checkpoint=weights).head_weight, first.head_weight)
    assert len(calls) == 1
    templates = open_clip.OPENAI_IMAGENET_TEMPLATES[:1]
    monkeypatch.setattr(open_clip, "OPENAI_IMAGENET_TEMPLATES", templates)
    other = load_classifier(spec, checkpoint=weights)
    assert len(calls) == 2 and len(cached(tmp_path)) == 2
    assert other.info.weights_sha256 != first.info.weights_sha256


def test_where_the_cache_cant_be_written_it_is_said(clip, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    load_classifier(f"open_clip:{ARCHITECTURE}", checkpoint=clip[1])
    assert "text embeddings are not kept" in caplog.text


def test_checkpoints_of_its_own_training_are_read_without_running_them(clip, tmp_path):
    model, weights = clip
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    spec = f"open_clip:{ARCHITECTURE}"
    trained = load_classifier(spec, checkpoint=tmp_path / "epoch_3.pt").info
    assert trained.weights_sha256 == load_classifier(spec, checkpoint=weights).info.weights_sha256

    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save({"state_dict": state, "beside": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(SpurbenchError, match="can't be read as weights only") as caught:
        load_classifier(spec, checkpoint=tmp_path / "trap.pt")
    assert "\n" not in str(caught.value) and not (tmp_path / "sprung").exists()


def test_weights_of_another_architecture_are_one_line(clip):
    with pytest.raises(SpurbenchError, match="does not fit open_clip's ViT-S-32") as caught:
        load_classifier("open_clip:ViT-S-32", checkpoint=clip[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("open_clip:ViT-B-33", "no model 'ViT-B-33'; nearest: ViT-B-32"),
        ("open_clip:local-dir:x", "no model 'local-dir:x'"),
        ("open_clip:ViT-B-32.laion", "has no weights 'laion'; it has openai, laion400m_e31"),
        ("open_clip:ViT-B-32", "says no weights; say open_clip:ViT-B-32=FILE"),
    ],
)
def test_a_name_that_is_not_known_says_what_there_is(spec, said):
    with pytest.raises(SpurbenchError, match=said):
        load_classifier(spec)


def test_a_spec_with_a_file_is_an_architecture_and_its_weights(clip, tmp_path):
    spec, checkpoint = read_member(f"open_clip:{ARCHITECTURE}={clip[1]}", tmp_path)
    assert (spec, checkpoint) == (f"open_clip:{ARCHITECTURE}", clip[1])


def test_nothing_is_logged_twice_afterwards(clip, capfd):
    root, own = logging.getLogger(), logging.getLogger("spurbench")
    before, handlers = [*root.handlers], own.handlers
    root.handlers = []
    try:
        load_classifier(f"open_clip:{ARCHITECTURE}", checkpoint=clip[1])
        assert root.handlers == []
    finally:
        root.handlers, own.handlers = before, handlers
    assert "initialized randomly" not in capfd.readouterr().err
