from __future__ import annotations

import contextlib
import json
import re

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from makers.hub_server import Repository, running_hub
from makers.toy import save_toy_classifier, save_toy_detector
from spurbench.classifiers.detectors import load_detector
from spurbench.classifiers.load import load_classifier
from spurbench.core.errors import SpurbenchError
from spurbench.core.resources import builders

pytestmark = pytest.mark.robustbench  # timm 1.0.9, which it pins, unpickles what it is pointed to


class Sprung:
    """What makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (self.marker.touch, ())


@pytest.fixture
def trap(tmp_path):
    """A checkpoint whose unpickling leaves a mark, and the mark."""
    torch.save({"state_dict": Sprung(tmp_path / "sprung")}, tmp_path / "trap.pth")
    return tmp_path / "trap.pth", tmp_path / "sprung"


@pytest.fixture
def created(monkeypatch):
    """What timm is asked to create."""
    calls = []
    real = timm.create_model

    def spy(*args, **kwargs):
        calls.append((args, kwargs))
        # As timm 1.0.9 does it, which unpickles what it is pointed to.
        with contextlib.suppress(Exception):
            torch.load(str(kwargs.get("checkpoint_path")), weights_only=False)
        return real(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", spy)
    return calls


def edit(folder, **changes):
    """Change keys of a folder's config.json; dicts are merged."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(config))


def toys(tmp_path):
    """A classifier's folder and a detector's, and what loads each."""
    classifier = save_toy_classifier(tmp_path / "classifier", favourite=None, seed=0)
    detector = save_toy_detector(tmp_path / "detector", ["koala"])
    return [
        (classifier, lambda: load_classifier(str(classifier))),
        (detector, lambda: load_detector(str(detector), device=torch.device("cpu"))),
    ]


DANGEROUS = {
    "checkpoint_path": "trap.pth",
    "pretrained": True,
    "pretrained_cfg": {"file": "trap.pth"},
    "pretrained_cfg_overlay": {"file": "trap.pth", "custom_load": True},
    "pretrained_custom_load": "trap.pth",
    "cache_dir": "folder",
    "features_only": True,
    "feature_cfg": {"feature_cls": "fx"},
    "exportable": True,
    "scriptable": True,
    "no_jit": True,
    "pruned": True,
    "model_cfg": {},
    "pretrained_filter_fn": "os.system",
    "__class__": "x",
    "self": 1,
}


@pytest.mark.parametrize("key", DANGEROUS)
def test_what_timm_interprets_itself_never_reaches_it(key, tmp_path, trap, created):
    value = json.loads(json.dumps(DANGEROUS[key]).replace("trap.pth", str(trap[0])))
    for folder, load in toys(tmp_path):
        edit(folder, model_args={key: value})
        created.clear()
        with pytest.raises(SpurbenchError, match=f"{re.escape(repr(key))} is not a setting") as e:
            load()
        assert "\n" not in str(e.value)
        assert not created and not trap[1].exists()


@pytest.mark.parametrize(
    "value",
    [
        "../trap.pth",
        "https://host/x",
        "a\nb",
        {"file": "x"},
        {"deep": {"checkpoint_path": "x"}},
        [[[[[[1]]]]]],
        1e300,
        float("nan"),
        10**400,
    ],
)
def test_settings_are_plain_values(value, tmp_path, created):
    for folder, load in toys(tmp_path):
        edit(folder, model_args={"block_args": value})
        created.clear()
        with pytest.raises(
            SpurbenchError, match=r"config\.json: .*block_args is not a plain"
        ) as caught:
            load()
        assert "\n" not in str(caught.value) and not created


@pytest.mark.parametrize(
    "architecture", ["local-dir:{}", "hf-hub:a/b", "hf_hub:a/b", "{}", "resnet10t\n", "no_such_net"]
)
def test_an_architecture_is_a_name_in_timms_registry(architecture, tmp_path, created):
    other = save_toy_classifier(tmp_path / "other", favourite=None, seed=1)
    for folder, load in toys(tmp_path):
        edit(folder, architecture=architecture.format(other))
        created.clear()
        with pytest.raises(SpurbenchError, match=r"config\.json") as caught:
            load()
        assert "\n" not in str(caught.value) and not created


def test_of_the_pretrained_cfg_only_what_images_need_is_read(tmp_path, trap, created):
    for folder, load in toys(tmp_path):
        harmful = {"file": str(trap[0]), "url": "http://x", "hf_hub_id": "a/b", "custom_load": True}
        edit(folder, pretrained_cfg={**harmful, "mean": [0.25, 0.5, 0.75]})
        loaded = load()
        assert all("pretrained" not in key for _, kwargs in created for key in kwargs)
        if folder.name == "classifier":
            assert loaded.preprocessing().mean == (0.25, 0.5, 0.75)
            assert not set(harmful.values()) & {
                value for value in loaded.network.pretrained_cfg.values() if value.__hash__
            }
    assert not trap[1].exists()


def test_the_embedded_networks_keep_all_their_settings(created):
    assets = builders()["mini"] / "assets"
    load_detector(str(assets / "oracle"), device=torch.device("cpu"))
    for folder in sorted((assets / "panel").iterdir()):
        load_classifier(f"mini:{folder.name}")
    for (_, passed), file in zip(
        created, [assets / "oracle", *sorted((assets / "panel").iterdir())], strict=True
    ):
        config = json.loads((file / "config.json").read_text())
        assert passed == {"num_classes": config["num_classes"], **config["model_args"]}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_named(value, tmp_path):
    for folder, load in toys(tmp_path):
        weights = load_file(folder / "model.safetensors")
        weights["fc.weight"][0, 0] = value
        save_file(weights, folder / "model.safetensors")
        with pytest.raises(SpurbenchError, match=r"model\.safetensors .* fc\.weight.* broken"):
            load()


def test_a_detector_names_each_of_its_outputs(tmp_path):
    folder = save_toy_detector(tmp_path / "d", ["koala", "gondola"])
    edit(folder, label_names=["object:koala"])
    with pytest.raises(SpurbenchError, match="has 1 label_names for 2 outputs"):
        load_detector(str(folder), device=torch.device("cpu"))


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


def offer(hub, name, files):
    hub.repositories[name] = Repository(private=False)
    hub.repositories[name].commit(
        "weights", {path: ("regular", data) for path, data in files.items()}
    )


def test_a_classifier_on_the_hub_is_read_like_a_folder(hub, tmp_path):
    folder = save_toy_classifier(tmp_path / "toy", favourite=None, seed=0)
    offer(hub, "owner/toy", {file.name: file.read_bytes() for file in folder.iterdir()})
    there, here = load_classifier("hf-hub:owner/toy"), load_classifier(str(folder))
    assert there.info.weights_sha256 == here.info.weights_sha256
    assert there.preprocessing("model") == here.preprocessing("model")
    assert (there.info.name, there.info.source) == ("owner/toy", "hf-hub")
    assert there.info.architecture == "resnet10t"


def test_a_classifier_mended_by_spufix_is_mended_on_the_hub_too(hub, tmp_path):
    """Without its second file it would be measured as what it was before, under its new name."""
    folder = save_toy_classifier(tmp_path / "toy", favourite=None, seed=0)
    plain = load_classifier(str(folder))
    fix = {
        "columns": torch.tensor([94]),
        "rows": torch.ones(1, plain.head.in_features),
        "offsets": torch.tensor([-5.0]),
    }
    save_file(fix, folder / "spufix.safetensors")
    edit(folder, mended={"method": "spufix"})
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    offer(hub, "owner/mended", files)
    pixels = torch.rand(2, 3, 32, 32)
    there = load_classifier("hf-hub:owner/mended")(pixels)
    torch.testing.assert_close(there, load_classifier(str(folder))(pixels))
    assert (there[:, 94] < plain(pixels)[:, 94] - 4).all()

    del files["spufix.safetensors"]
    offer(hub, "owner/half", files)
    with pytest.raises(SpurbenchError, match=r"owner/half .* has no spufix\.safetensors"):
        load_classifier("hf-hub:owner/half")
    (folder / "spufix.safetensors").unlink()
    with pytest.raises(SpurbenchError, match=r"no spufix\.safetensors in .* is not mended") as said:
        load_classifier(str(folder))
    assert "\n" not in str(said.value)
    edit(folder, mended="by hand")  # another's note
    load_classifier(str(folder))


def test_a_hub_repository_executes_nothing(hub, tmp_path, trap, created):
    folder = save_toy_classifier(tmp_path / "toy", favourite=None, seed=0)
    config = (folder / "config.json").read_bytes()
    offer(hub, "a/pickled", {"config.json": config, "pytorch_model.bin": trap[0].read_bytes()})
    with pytest.raises(SpurbenchError, match=r"a/pickled .* has no model\.safetensors") as caught:
        load_classifier("hf-hub:a/pickled")
    assert "\n" not in str(caught.value)
    edit(folder, model_args={"checkpoint_path": str(trap[0])})
    created.clear()
    offer(hub, "a/trap", {file.name: file.read_bytes() for file in folder.iterdir()})
    with pytest.raises(SpurbenchError, match="'checkpoint_path' is not a setting"):
        load_classifier("hf-hub:a/trap")
    assert not created and not trap[1].exists()
    assert not any("pytorch_model" in request for request in hub.requests)
