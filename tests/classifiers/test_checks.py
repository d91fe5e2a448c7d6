"""What can be said of a SPEC before anything heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torchvision import models

from spurbench.classifiers.checkpoints import read_state_dict
from spurbench.classifiers.load import check_spec, load_classifier, read_member
from spurbench.classifiers.sources import Source, registry
from spurbench.core.errors import SpurbenchError
from spurbench.core.hub import HubFile


def test_two_sources_never_have_one_name():
    one, two = (Source("timm", lambda name, checkpoint: name) for _ in range(2))
    with pytest.raises(ValueError, match="two sources have one name"):
        registry(one, two)


WRONG = [
    ("resnet18=none.pth", "no checkpoint at none.pth"),
    ("resnet18=.", "no checkpoint at"),
    ("resnet18=", "names no checkpoint after '='"),
    ("resnet18=" + "x" * 5000, "no checkpoint at"),
    ("resnet18=a\0b", "no checkpoint at"),
    ("torchvision:resnet18=none.pth", "no checkpoint at none.pth"),
    ("mini:vit=none.pth", "goes with an architecture of timm, torchvision or open_clip"),
    ("mini:vti", "the embedded panel has no 'vti'"),
    ("touchvision:resnet18", "did you mean torchvision:resnet18"),
    ("zzz:resnet18", "no source 'zzz'; there are timm, torchvision"),
    ("hf-hub:name", "is not hf-hub:OWNER/NAME"),
    ("hf-hub:../../name", "is not hf-hub:OWNER/NAME"),
    ("./nowhere", "no config.json in ./nowhere"),
    ("folder:nowhere", "no config.json in nowhere"),
    ("resnet18=hf://owner/name", "is not hf://OWNER/NAME/FILE"),
    ("resnet18=hf://owner/name/../../file", "is not hf://OWNER/NAME/FILE"),
]


@pytest.mark.parametrize(("spec", "said"), WRONG)
def test_what_is_wrong_with_a_spec_is_one_line(spec, said):
    with pytest.raises(SpurbenchError) as caught:
        read_member(spec, Path())
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_it_is_said_before_anything_heavy_is_imported():
    code = f"""
import sys
from pathlib import Path
from spurbench.classifiers.load import load_classifier, read_member
from spurbench.core.errors import SpurbenchError
for spec, _ in {WRONG!r}:
    try:
        read_member(spec, Path())
    except SpurbenchError:
        continue
    raise SystemExit(f"{{spec}} passed")
try:
    load_classifier("resnet18", checkpoint=Path("none.pth"))
except SpurbenchError:
    print([m for m in ("torch", "timm", "torchvision", "robustbench") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_what_may_be_right_passes(tmp_path):
    (tmp_path / "w.pth").touch()
    assert read_member("resnet18=w.pth", tmp_path) == ("resnet18", tmp_path / "w.pth")
    assert read_member("a.b", tmp_path) == ("a.b", None)
    source, name = check_spec("torchvision:resnet18.X")
    assert (source.name, name) == ("torchvision", "resnet18.X")
    folder = tmp_path / "with=sign"
    folder.mkdir()
    described = {"architecture": "resnet18", "num_classes": 1000, "pretrained_cfg": {}}
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "model.safetensors").touch()
    assert read_member(str(folder), Path()) == (str(folder), None)


def test_a_checkpoint_on_the_hub_is_recorded_by_its_file(monkeypatch, tmp_path):
    torch.manual_seed(0)
    network = models.get_model("shufflenet_v2_x0_5", weights=None)
    torch.save(network.state_dict(), tmp_path / "fetched")
    asked = []
    monkeypatch.setattr("spurbench.core.hub.use_cache_if_unreachable", lambda: None)
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download",
        lambda repository, file, revision: asked.append((repository, file)) or tmp_path / "fetched",
    )
    spec, checkpoint = read_member(
        "torchvision:shufflenet_v2_x0_5=hf://owner/name/sub/robust.ckpt", tmp_path
    )
    assert checkpoint == HubFile("owner/name", "sub/robust.ckpt") and not asked
    info = load_classifier(spec, checkpoint=checkpoint).info
    assert asked == [("owner/name", "sub/robust.ckpt")]
    assert (info.name, info.checkpoint) == ("shufflenet_v2_x0_5", "robust.ckpt")
    here = load_classifier("torchvision:shufflenet_v2_x0_5", checkpoint=tmp_path / "fetched").info
    assert info.weights_sha256 == here.weights_sha256


@pytest.mark.parametrize(
    "spec", ["torchvision:shufflenet_v2_x0_5", "torchvision:shufflenet_v2_x0_5.IMAGENET1K_V1"]
)
def test_local_weights_never_go_by_a_published_tag_of_torchvisions(spec, tmp_path):
    network = models.get_model("shufflenet_v2_x0_5", weights=None)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    info = load_classifier(spec, checkpoint=tmp_path / "mine.pth").info
    assert (info.name, info.checkpoint) == ("shufflenet_v2_x0_5", "mine.pth")


@pytest.mark.parametrize("spec", ["test_vit", "test_vit.r160_in1k", "test_vit.r160"])
def test_local_weights_never_go_by_a_published_tag_of_timms(spec, tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "mine.pth")
    info = load_classifier(spec, checkpoint=tmp_path / "mine.pth").info
    assert (info.name, info.checkpoint) == ("test_vit", "mine.pth")


def test_what_training_leaves_beside_the_weights_is_read_without_running_it(tmp_path):
    """As the robustness library saves: accuracies as NumPy numbers, an optimizer's state."""
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {f"module.model.{key}": value for key, value in layer.state_dict().items()}
    saved = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "epoch": np.int64(90),
        "nat_prec1": np.float64(63.86),
        "adv_prec1": np.float32(39.1),
        "best": np.bool_(True),
    }
    torch.save(saved, tmp_path / "robust.ckpt")
    read = read_state_dict(tmp_path / "robust.ckpt")
    assert read.keys() == state.keys()

    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save({**saved, "beside": Trap()}, tmp_path / "trap.ckpt")
    with pytest.raises(SpurbenchError, match="weights only"):
        read_state_dict(tmp_path / "trap.ckpt")
    assert not (tmp_path / "sprung").exists()


def test_the_command_says_it_before_torch_is_imported():
    code = (
        "import sys\n"
        "from spurbench.cli.main import main\n"
        "try:\n"
        "    main(['eval', '--model', 'resnet18', '--checkpoint', 'none.pth', '--data', 'x'])\n"
        "finally:\n"
        "    print([m for m in ('torch', 'timm', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
    assert "Error: no checkpoint at none.pth" in done.stderr
