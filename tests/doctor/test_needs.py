"""``spurbench doctor --recipe``: what a build would stop at after an hour is said now."""

from __future__ import annotations

import http.server
import os
import shutil
import threading

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import constants
from PIL import Image

from spurbench.build.plan import plan
from spurbench.build.request import BuildRequest
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.core.hub import HubFile, TorchFile
from spurbench.doctor import needs as doctor
from spurbench.doctor.needs import needs

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch):
    """Empty caches, room on the disk, and no network: whoever asks for it is told so."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**12))

    def gone(self):
        raise SpurbenchError("no network")

    monkeypatch.setattr(TorchFile, "size", gone)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """75 of hummingbird and of koala."""
    root = tmp_path_factory.mktemp("photographs")
    for slug in ("094_hummingbird_component_2", "105_koala_component_3"):
        folder = root / f"spurious_class_{slug}"
        folder.mkdir()
        for number in range(75):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.png")
    return root


def request(tmp_path, photographs=None, *overrides, classes="hummingbird,koala", recipe="sd15"):
    return BuildRequest.of(
        recipe,
        classes=classes,
        data=photographs,
        overrides=overrides,
        output=tmp_path / "out" / "dataset",
        device="cpu",
    )


def found(asked: BuildRequest) -> dict[str, tuple[str, str]]:
    """Status and text by what was looked at, and for weights by their name."""
    checks = {}
    for check in needs(asked):
        weights = check.name in {"base", "panel", "panel and phi", "detector", "quality", "decoder"}
        key = check.detail.split(": ")[0] if weights else check.name
        assert key not in checks
        checks[key] = (check.status, f"{check.detail}; {check.hint}")
    return checks


def test_every_weight_has_its_line_and_is_needed_but_for_the_quality(tmp_path, photographs):
    asked = request(tmp_path, photographs, "sfsl.decoder=madebyollin/taesd")
    checks = found(asked)
    recipe = asked.recipe
    weights = {SD15, *recipe.panel.classifiers, "madebyollin/taesd", recipe.check.object_detector}
    rest = {"topiq_nr", "photographs", "precision", "memory", "disk"}
    assert checks.keys() == weights | rest
    for name in weights:
        status, said = checks[name]
        assert status == "fail" and "neither cached nor reachable" in said, name
    assert "about 4.3 GB" in checks[SD15][1] and "--base" in checks[SD15][1]
    # Two ResNet-50 and one ViT-B/16 in float32, as their publishers list them.
    assert "about 102.2 MB" in checks[recipe.panel.classifiers[0]][1]
    assert "about 346.3 MB" in checks[recipe.panel.classifiers[3]][1]
    assert checks["topiq_nr"][0] == "warn" and "spurbench quality" in checks["topiq_nr"][1]


def test_weights_are_cached_reachable_or_neither_each_with_its_size(tmp_path, monkeypatch):
    def kept(repository, file, size):
        path = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        (path / "refs").mkdir(parents=True, exist_ok=True)
        (path / "refs" / "main").write_text("0")
        path = path / "snapshots" / "0" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)

    for file, size in (
        ("unet/diffusion_pytorch_model.safetensors", 5_000_000),
        ("vae/diffusion_pytorch_model.bin", 2_000_000),  # the format that is not preferred
        ("text_encoder/model.safetensors", 1_000_000),
    ):
        kept(SD15, file, size)
    torchs = tmp_path / "torch" / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    torchs.parent.mkdir(parents=True)
    torchs.write_bytes(b"x" * 3000)
    monkeypatch.setattr(HubFile, "size", answers := Answers({"google/": 7000}))
    to_fetch: list[float] = []
    recipe = request(tmp_path).recipe
    lines = {w.name: doctor._look(w, to_fetch)[0] for w in doctor._weights(recipe, planned=None)}
    assert (lines[SD15].status, lines[SD15].detail) == ("ok", f"{SD15}: 8.0 MB here")
    resnet = lines["torchvision:resnet50.IMAGENET1K_V1"]
    assert (resnet.status, resnet.detail.rpartition(": ")[2]) == ("ok", "3 kB here")
    owl = lines[recipe.check.object_detector]
    assert (owl.status, owl.detail.rpartition(": ")[2]) == ("ok", "7 kB to be fetched")
    assert lines[recipe.panel.phi].status == "fail"
    assert sum(to_fetch) == 7000 and answers.asked


class Answers:
    """``HubFile.size`` of a hub that has files of these repositories."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes, self.asked = sizes, []

    def __get__(self, file, owner=None):
        def size():
            self.asked.append(file)
            for start, known in self.sizes.items():
                if file.repository.startswith(start):
                    return known
            raise SpurbenchError("404")

        return size


def test_a_base_folder_lacks_what_a_build_would_load(tmp_path):
    folder = tmp_path / "base"
    for file in ("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin"):
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_bytes(b"x")
    recipe = request(tmp_path, None, f"base.model={folder}").recipe
    check = doctor._look(next(iter(doctor._weights(recipe, None))), [])[0]
    assert check.status == "fail" and "text_encoder/model.safetensors is not there" in check.detail
    (folder / "text_encoder").mkdir()
    (folder / "text_encoder" / "pytorch_model.bin").write_bytes(b"x")
    assert doctor._look(next(iter(doctor._weights(recipe, None))), [])[0].status == "ok"


def test_photographs_are_whole_or_it_is_said_which_are_not(tmp_path, photographs):
    def looked(folder, classes="hummingbird,koala"):
        asked = request(tmp_path, folder, classes=classes)
        (check,) = doctor.guarded("photographs", lambda: doctor._photographs(asked), "fail")
        return check.status, f"{check.detail}; {check.hint}"

    status, said = looked(photographs)
    assert status == "ok" and "150 images of 2 classes" in said and "75 each" in said
    status, said = looked(None)
    assert status == "fail" and "--data" in said
    status, said = looked(photographs, "hummingbird,tench")
    assert status == "fail" and "tench 0" in said and "spurious_class_000_tench" in said
    copy = shutil.copytree(photographs, tmp_path / "copy")
    koala = copy / "spurious_class_105_koala_component_3"
    whole = (koala / "0.png").read_bytes()
    (koala / "0.png").write_bytes(whole[: len(whole) // 2])
    status, said = looked(copy)
    assert status == "warn" and "damaged" in said and "koala_component_3/0.png" in said
    (koala / "0.png").unlink()
    status, said = looked(copy)
    assert status == "warn" and "koala 74" in said and "hummingbird" not in said
    for number in range(1, 70):
        (koala / f"{number}.png").unlink()
    status, said = looked(copy)
    assert status == "fail" and "koala 5" in said and "6 references" in said


def test_memory_and_disk_are_held_against_the_plan(tmp_path, photographs, monkeypatch):
    asked = request(tmp_path, photographs)
    planned = plan(asked.recipe, asked.classes, fetch=False)
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": int(planned.memory) - 1}
    monkeypatch.setattr(os, "sysconf", pages.get)
    (check,) = doctor._memory(asked, planned)
    assert check.status == "fail" and "gradient_checkpointing" in check.hint
    pages["SC_PHYS_PAGES"] += 2
    (check,) = doctor._memory(asked, planned)
    assert check.status == "warn" and "needs a GPU" in check.hint
    stored = sum(stage.disk for stage in planned.stages) + planned.checkpoint
    images = sum(s.disk for s in planned.stages if s.name in ("sample", "controls", "positives"))
    needed = stored + images + 1e9
    usage = shutil.disk_usage(tmp_path)
    for free, status in ((needed - 1, "fail"), (needed + 1, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, f=free: usage._replace(free=f))
        (check,) = doctor._disk(asked, planned, 1e9)
        assert check.status == status, "one disk for all of it, here"
    # What an interrupted build has left is not needed again.
    asked.work.mkdir(parents=True)
    (asked.work / "kept").write_bytes(b"x" * 2000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1999))
    assert doctor._disk(asked, planned, 1e9)[0].status == "ok"


def test_a_gpu_must_have_the_memory_and_the_precision(tmp_path, monkeypatch):
    asked = request(tmp_path)
    object.__setattr__(asked, "device", torch.device("cuda"))
    planned = plan(asked.recipe, asked.classes, fetch=False)
    there = {"free": 80e9, "total": 80e9, "capability": (9, 0)}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (there["free"], there["total"]))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: there["capability"])
    for probe in (doctor._memory(asked, planned), doctor._precision(asked)):
        assert [check.status for check in probe] == ["ok"]
    there |= {"free": 20e9, "capability": (7, 5)}
    assert doctor._memory(asked, planned)[0].status == "warn"
    (check,) = doctor._precision(asked)
    assert check.status == "fail" and "7.5" in check.detail and "float16" in check.hint
    there["total"] = 22e9
    assert doctor._memory(asked, planned)[0].status == "fail"
    half = request(tmp_path, None, "finetune.precision=float16")
    assert doctor._precision(half)[0].status == "fail", "no processor fine-tunes in it"


def test_mini_lacks_nothing_and_the_exit_status_says_what_a_recipe_lacks(tmp_path):
    output = str(tmp_path / "out" / "x")
    shown = CliRunner().invoke(
        main, ["doctor", "--recipe", "mini", "--classes", "koala", "--output", output]
    )
    assert shown.exit_code == 0, shown.output
    shown = CliRunner().invoke(
        main, ["doctor", "--recipe", "sd15", "--classes", "koala", "--output", output]
    )
    assert shown.exit_code == 1
    last = shown.output.splitlines()[-1]
    assert last.startswith("Error: recipe sd15 can't be built here until mended: base, panel, ")
    assert last.endswith("detector, photographs")
    assert not (tmp_path / "out").exists()
    shown = CliRunner().invoke(main, ["doctor", "--classes", "koala"])
    assert shown.exit_code == 1 and "--recipe" in shown.output


class _Site(http.server.BaseHTTPRequestHandler):
    asked: list[tuple[str, str]]

    def _answer(self):
        self.asked.append((self.command, self.path))
        self.send_response({"/moved": 302, "/gone": 404}.get(self.path, 200))
        self.send_header("Content-Length", "1234")
        if self.path == "/moved":
            self.send_header("Location", "/elsewhere")
            self.send_header("X-Linked-Size", "99")
        self.end_headers()

    do_HEAD = do_GET = _answer  # noqa: N815

    def log_message(self, *_):
        pass


def test_a_file_is_asked_for_its_size_and_never_for_itself(monkeypatch):
    monkeypatch.undo()
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    asked: list[tuple[str, str]] = []
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Site", (_Site,), {"asked": asked})
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        assert TorchFile(f"{address}/file").size() == 1234
        assert TorchFile(f"{address}/moved").size() == 99
        with pytest.raises(SpurbenchError, match="404"):
            TorchFile(f"{address}/gone").size()
        assert asked == [("HEAD", "/file"), ("HEAD", "/moved"), ("HEAD", "/gone")]
    finally:
        server.shutdown()
        server.server_close()
