from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from makers.hub_server import TOKEN, running_hub
from makers.rows import row, write
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import file_sha256
from spurbench.dataset import push as push_module
from spurbench.dataset.push import push

NAME = "owner/toy"


@pytest.fixture
def hub(monkeypatch):
    """A running stand-in that the client in this process talks to, without xet."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with running_hub() as state:
        monkeypatch.setattr(constants, "ENDPOINT", state.endpoint)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            state.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield state


@pytest.fixture(scope="module")
def datasets_of_versions(tmp_path_factory):
    """1.0.0, and 1.1.0 with other images and no curated real ones."""
    folder = tmp_path_factory.mktemp("datasets")
    write(folder / "1.0.0")
    rows = {
        "real": [row("real", 0, object_absent=False)],
        "generated": [row("generated", i) for i in range(6)],
    }
    write(folder / "1.1.0", rows=rows, version="1.1.0")
    return folder


@pytest.fixture
def sound(monkeypatch):
    """Verification is tested elsewhere and takes seconds; here it passes."""
    monkeypatch.setattr(push_module, "require_sound", lambda folder: None)


def files_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def remote_files(hub, revision: str) -> dict[str, bytes]:
    repository = hub.repositories[NAME]
    files = repository.commits[repository.at(revision)]
    return {path: data for path, (_, data) in files.items() if path != ".gitattributes"}


def test_a_version_is_uploaded_whole_and_tagged(hub, sound, datasets_of_versions):
    folder = datasets_of_versions / "1.0.0"
    made = push(folder, NAME, private=True)
    assert made.create and made.tag == "v1.0.0"
    repository = hub.repositories[NAME]
    assert repository.private
    assert remote_files(hub, "v1.0.0") == remote_files(hub, "main") == files_of(folder)
    assert repository.messages == ["initial commit", "Publish v1.0.0"]
    shards = {file_sha256(path) for path in folder.glob("data/*.parquet")}
    assert set(hub.uploads) == shards  # parquet travels by LFS, the rest in the commit


def test_an_interrupted_upload_goes_on_without_sending_anything_twice(
    hub, sound, datasets_of_versions
):
    folder = datasets_of_versions / "1.0.0"
    hub.refuse_uploads_after = 2
    with pytest.raises(SpurbenchError, match=r"the hub: .*403.*; the same command goes on"):
        push(folder, NAME)
    assert len(hub.uploads) == 2
    assert remote_files(hub, "main") == {} and not hub.repositories[NAME].tags
    hub.refuse_uploads_after = None
    push(folder, NAME)
    assert len(hub.uploads) == len(set(hub.uploads)) == 4
    assert remote_files(hub, "v1.0.0") == files_of(folder)


def test_a_push_that_stopped_before_the_tag_only_tags(hub, sound, datasets_of_versions):
    folder = datasets_of_versions / "1.0.0"
    push(folder, NAME)
    repository = hub.repositories[NAME]
    repository.tags.clear()
    made = push(folder, NAME)
    assert not made.upload and made.keep == len(files_of(folder))
    assert repository.tags == {"v1.0.0": repository.refs["main"]}
    assert len(repository.messages) == 2


def test_the_same_content_is_there_already(hub, sound, datasets_of_versions, tmp_path):
    push(datasets_of_versions / "1.0.0", NAME)
    write(tmp_path / "again")  # built anew: only the time in the manifest differs
    manifest = tmp_path / "again" / "spurbench.json"
    manifest.write_text(manifest.read_text().replace('"created": "20', '"created": "21'))
    requests = len(hub.requests)
    done = CliRunner().invoke(main, ["push", str(tmp_path / "again"), "--repo-id", NAME])
    assert done.exit_code == 0, done.output
    assert "v1.0.0 is published, with this content" in done.output
    assert not [r for r in hub.requests[requests:] if r.startswith(("POST", "PUT"))]


@pytest.mark.parametrize("changed", ["rows", "card"])
def test_a_published_version_is_never_changed(hub, sound, datasets_of_versions, tmp_path, changed):
    push(datasets_of_versions / "1.0.0", NAME)
    before = remote_files(hub, "main")
    if changed == "rows":
        write(tmp_path / "d", real=5)
    else:
        shutil.copytree(datasets_of_versions / "1.0.0", tmp_path / "d")
        (tmp_path / "d" / "README.md").write_text("---\n{}\n---\n")
    with pytest.raises(SpurbenchError, match=r"v1\.0\.0 is published with other content \("):
        push(tmp_path / "d", NAME)
    assert remote_files(hub, "main") == before


def test_the_next_version_replaces_the_files_and_leaves_the_old_tag(
    hub, sound, datasets_of_versions
):
    old, new = (datasets_of_versions / v for v in ("1.0.0", "1.1.0"))
    push(old, NAME)
    made = push(new, NAME)
    assert made.delete == ("data/curated-real-00000-of-00001.parquet",)
    assert remote_files(hub, "main") == remote_files(hub, "v1.1.0") == files_of(new)
    assert remote_files(hub, "v1.0.0") == files_of(old)


def test_what_is_no_earlier_version_is_not_replaced(
    hub, sound, datasets_of_versions, tmp_path, monkeypatch
):
    push(datasets_of_versions / "1.1.0", NAME)
    with pytest.raises(SpurbenchError, match=r"holds toy 1\.1\.0, later than 1\.0\.0"):
        push(datasets_of_versions / "1.0.0", NAME)
    repository = hub.repositories[NAME]
    repository.commit("mine", {"thesis.tex": ("regular", b"mine")})
    repository.tags.clear()
    with pytest.raises(SpurbenchError, match="holds something that is no dataset of spurbench"):
        push(datasets_of_versions / "1.1.0", NAME)
    with pytest.raises(SpurbenchError, match="is there and is public"):
        push(datasets_of_versions / "1.1.0", NAME, private=True)


def test_someone_elses_commit_meanwhile_is_not_overwritten(
    hub, sound, datasets_of_versions, monkeypatch
):
    push(datasets_of_versions / "1.0.0", NAME)
    original = push_module.prepare

    def overtaken(*arguments, **options):
        made = original(*arguments, **options)
        hub.repositories[NAME].commit("quicker", {"README.md": ("regular", b"theirs")})
        return made

    monkeypatch.setattr(push_module, "prepare", overtaken)
    with pytest.raises(SpurbenchError, match=r"the hub: .*412"):
        push(datasets_of_versions / "1.1.0", NAME)
    assert remote_files(hub, "main") == {"README.md": b"theirs"}


def test_a_dry_run_prints_the_operations_and_does_none(hub, sound, datasets_of_versions):
    folder = datasets_of_versions / "1.0.0"
    arguments = ["push", str(folder), "--repo-id", NAME, "--private", "--dry-run"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == f"create private dataset repository {NAME}"
    size = (folder / "data" / "real-00000-of-00001.parquet").stat().st_size
    assert f"upload data/real-00000-of-00001.parquet ({size:,} bytes)" in lines
    assert lines[-2:] == [f"commit {len(files_of(folder))} files to main", "tag v1.0.0"]
    assert not hub.repositories
    assert not [r for r in hub.requests if not r.startswith(("GET", "HEAD"))]


def test_what_cant_be_pushed_is_said_before_anything_is_sent(
    hub, datasets_of_versions, tmp_path, monkeypatch
):
    folder = tmp_path / "d"
    shutil.copytree(datasets_of_versions / "1.0.0", folder)
    (folder / "data" / "extra.txt").write_text("x")
    with pytest.raises(SpurbenchError, match=r"fails 1 checks, first files: .*extra\.txt"):
        push(folder, NAME)
    with pytest.raises(SpurbenchError, match="is not owner/name"):
        push(folder, "toy")
    monkeypatch.setattr(push_module, "require_sound", lambda folder: None)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(SpurbenchError, match="no token for the hub; set HF_TOKEN"):
        push(folder, NAME)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SpurbenchError, match=r"does not answer .*nothing was changed"):
        push(folder, NAME)
    assert not hub.repositories


@pytest.mark.slow
def test_what_the_command_pushes_loads_from_the_hub(hub, datasets_of_versions, tmp_path):
    """The whole way in processes of their own: HF_ENDPOINT, HF_TOKEN, verify, push, load."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }

    def run(code: str, *arguments: str) -> str:
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    command = "from spurbench.cli.main import main; main()"
    for version in ("1.0.0", "1.1.0"):
        said = run(command, "push", str(datasets_of_versions / version), "--repo-id", NAME)
        assert f'load_dataset("{NAME}", revision="v{version}")' in said
    loading = (
        "import json, sys, datasets\n"
        "d = datasets.load_dataset('owner/toy', revision=sys.argv[1])\n"
        "print(json.dumps({s: rows['image_sha256'][:] for s, rows in d.items()}))"
    )
    for version, real, generated in (("v1.0.0", 3, 4), ("v1.1.0", 1, 6)):
        loaded = json.loads(run(loading, version))
        assert {s: len(hashes) for s, hashes in loaded.items()} == {
            "real": real,
            "generated": generated,
        }
        assert loaded["generated"][0] == hashlib.sha256(row("generated", 0).read()).hexdigest()
