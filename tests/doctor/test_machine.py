from __future__ import annotations

import http.server
import json
import shutil
import socket
import sys
import threading
import time
import urllib.request
from importlib.metadata import PackageNotFoundError, version

import pytest
from click.testing import CliRunner
from huggingface_hub import constants

from spurbench.cli.main import main
from spurbench.core.checks import Check
from spurbench.core.hub import torch_home
from spurbench.core.identity import file_sha256
from spurbench.core.resources import builders
from spurbench.doctor import machine as doctor
from spurbench.doctor import probes
from spurbench.doctor.machine import diagnose


class _Site(http.server.BaseHTTPRequestHandler):
    """Answers HEAD by path: /slow hangs, /missing is not there, the rest is."""

    asked: list[str]

    def do_HEAD(self):
        self.asked.append(self.path)
        if self.path.endswith("/slow"):
            time.sleep(3)
        self.send_response(404 if self.path.endswith("/missing") else 200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def site(monkeypatch):
    """The address of a web site on this machine, and the paths that it was asked for."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # else it keeps the proxies it first saw
    asked: list[str] = []
    handler = type("Site", (_Site,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def by_name(checks) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_source_is_ok_only_if_it_gives_the_file(site):
    address, asked = site
    assert doctor._reach("x", f"{address}/file").status == "ok"
    refused = doctor._reach("x", f"{address}/missing")
    assert (refused.status, asked) == ("warn", ["/file", "/missing"])
    assert "refuses: 404" in refused.detail and "--checkpoint" in refused.hint


def test_a_source_that_is_not_there_is_a_warning_without_its_password(site):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    check = doctor._reach("x", f"http://user:secret@127.0.0.1:{port}/file")
    assert check.status == "warn"
    assert check.detail.startswith(f"127.0.0.1:{port} is not reachable")
    assert "secret" not in str(check)
    assert doctor._reach("x", "no address").status == "warn"


def test_a_source_is_asked_through_the_proxy(site, monkeypatch):
    address, asked = site
    monkeypatch.setenv("http_proxy", address)
    assert doctor._reach("x", "http://weights.invalid/file").status == "ok"
    assert asked == ["http://weights.invalid/file"]


def test_the_hub_is_asked_at_its_endpoint_and_left_alone_offline(site, monkeypatch):
    address, asked = site
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    (check,) = doctor._sources()["hugging face hub"]()
    assert check.status == "ok" and len(asked) == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (check,) = doctor._sources()["hugging face hub"]()
    assert check.status == "warn" and "HF_HUB_OFFLINE" in check.detail and len(asked) == 1


@pytest.fixture
def quick(monkeypatch):
    """No network and no caches: only what lies here."""
    monkeypatch.setattr(doctor, "_sources", dict)
    monkeypatch.setattr(doctor, "_caches", dict)


def test_here_nothing_fails_and_versions_are_the_installed_ones(quick):
    checks = by_name(diagnose())
    assert not [check for check in checks.values() if check.status == "fail"]
    assert checks["timm"].detail == version("timm")
    assert checks["recipe sd15"].detail.startswith("100 classes")
    assert {"python", "spurbench", "torchvision import", "cpu", "recipe mini"} <= set(checks)


def test_a_missing_package_fails_a_missing_extra_warns(monkeypatch):
    def without(name):
        if name in {"diffusers", "pyiqa"}:
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "version", without)
    checks = by_name(doctor._packages())
    assert (checks["diffusers"].status, checks["pyiqa"].status) == ("fail", "warn")
    assert checks["pyiqa"].hint == "pip install pyiqa, for image quality"
    assert checks["torch"].status == "ok"


def test_robustbench_without_pkg_resources_is_explained(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "pkg_resources" else name)
    check = by_name(doctor._packages())["setuptools"]
    assert (check.status, check.hint) == ("warn", "pip install 'setuptools<81'")


def test_a_torchvision_for_another_torch_fails(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    check = by_name(doctor._devices())["torchvision import"]
    assert check.status == "fail" and "together" in check.hint


def test_what_breaks_or_hangs_is_a_finding_not_an_error(quick, monkeypatch):
    def broken():
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(probes, "PATIENCE", 0.2)
    monkeypatch.setattr(doctor, "_recipes", broken)
    monkeypatch.setattr(
        doctor, "_sources", lambda: {"slow": lambda: time.sleep(60) or [], "bad": broken}
    )
    began = time.monotonic()
    checks = by_name(diagnose())
    assert time.monotonic() - began < 30
    assert checks["recipes"] == Check("recipes", "fail", "RuntimeError: first line")
    assert checks["bad"] == Check("bad", "warn", "RuntimeError: first line")
    assert checks["slow"] == Check("slow", "warn", "no answer within 0.2 s")
    assert checks["disk"]


@pytest.fixture
def recipe(tmp_path):
    """The embedded recipe's two files and one asset, listed with its hash."""
    for name in ("recipe.toml", "classes.toml"):
        shutil.copy(builders()["mini"] / name, tmp_path)
    (tmp_path / "assets" / "base").mkdir(parents=True)
    weights = tmp_path / "assets" / "base" / "unet.safetensors"
    weights.write_bytes(b"weights")
    listing = {"files": {"base/unet.safetensors": file_sha256(weights)}}
    (tmp_path / "assets" / "assets.json").write_text(json.dumps(listing))
    return tmp_path


def test_assets_are_compared_with_their_hashes(recipe):
    (check,) = doctor._recipe("mini", recipe)
    assert check == Check("recipe mini", "ok", "6 classes, embedded models whole")
    weights = recipe / "assets" / "base" / "unet.safetensors"
    weights.write_bytes(b"other weights")
    (check,) = doctor._recipe("mini", recipe)
    assert check.status == "warn" and "base/unet.safetensors" in check.detail
    weights.unlink()
    assert doctor._recipe("mini", recipe)[0].status == "warn"
    (recipe / "assets" / "assets.json").unlink()
    assert doctor._recipe("mini", recipe)[0].hint == "make assets"


def test_a_damaged_recipe_is_named(recipe, monkeypatch):
    (recipe / "recipe.toml").write_text("name = ")
    monkeypatch.setattr(doctor, "builders", lambda: {"mine": recipe})
    (check,) = doctor._recipes()
    assert (check.name, check.status) == ("recipe mine", "fail")
    assert "not valid TOML" in check.detail
    monkeypatch.setattr(doctor, "builders", dict)
    assert doctor._recipes()[0].status == "fail"


def test_caches_are_listed_largest_first(tmp_path, monkeypatch):
    assert doctor._torch_cache(tmp_path / "none").detail.endswith("nothing yet")
    for number in range(7):
        (tmp_path / f"{number}.pth").write_bytes(b"x" * 1000 * number)
    detail = doctor._torch_cache(tmp_path).detail
    assert detail == f"{tmp_path}: 21 kB: 6.pth 6 kB, 5.pth 5 kB, 4.pth 4 kB, 3.pth 3 kB, " + (
        "2.pth 2 kB and 2 more"
    )
    blob = tmp_path / "hub" / "models--timm--resnet18" / "blobs" / "abc"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"x" * 2_000_000)
    snapshot = blob.parent.parent / "snapshots" / "0" / "model.safetensors"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(blob)
    (blob.parent.parent / "refs").mkdir()
    (blob.parent.parent / "refs" / "main").write_text("0")
    assert "timm/resnet18 2.0 MB" in doctor._hub_cache(tmp_path / "hub").detail


def test_the_torch_cache_is_where_torch_looks(tmp_path, monkeypatch):
    import torch

    for variables in ({}, {"XDG_CACHE_HOME": str(tmp_path)}, {"TORCH_HOME": str(tmp_path / "t")}):
        monkeypatch.delenv("TORCH_HOME", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert str(torch_home() / "hub") == torch.hub.get_dir()


def test_little_disk_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) in doctor._disk()[0].detail
    monkeypatch.setattr(doctor, "LOW_DISK", 10**18)
    assert doctor._disk()[0].status == "warn"


def test_the_command_shows_hints_and_fails_only_for_a_failure(monkeypatch):
    checks = [Check("a", "ok", "1.0"), Check("b", "warn", "no [x]", "install 'spurbench[x]'")]
    monkeypatch.setattr(doctor, "diagnose", lambda: checks)
    shown = CliRunner().invoke(main, ["doctor"])
    assert shown.exit_code == 0
    assert "no [x]; install 'spurbench[x]'" in shown.output
    checks.append(Check("c", "fail", "not installed"))
    shown = CliRunner().invoke(main, ["doctor"])
    assert shown.exit_code == 1
    assert "Error: spurbench can't work here until mended: c" in shown.output
