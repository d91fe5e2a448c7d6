from __future__ import annotations

import hashlib
import os

import pytest
from click.testing import CliRunner

from makers.files_server import serving
from makers.photographs import official_archive
from spurbench.cli.main import main
from spurbench.core import download as downloading
from spurbench.images import official


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(official, "IMAGES", 2)
    monkeypatch.setattr(downloading, "PAUSE", 0.0)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # once for every image
    monkeypatch.setenv("SPURBENCH_HOME", str(tmp_path / "home"))
    return official_archive(2)


def run(*arguments: str):
    return CliRunner().invoke(main, [*arguments])


def test_fetching_says_where_what_and_that_it_is_there_the_second_time(small, tmp_path):
    digest = hashlib.sha256(small).hexdigest()
    with serving(small) as server:
        done = run("fetch", "spurious-imagenet", "--from", server.url, "--sha256", digest)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "home" / "spurious-imagenet"
    assert f"Wrote {folder}" in done.stdout and digest in done.stdout
    assert "spurbench eval measures on it" in done.stdout
    again = run("fetch", "spurious-imagenet", "--from", server.url)
    assert again.exit_code == 0
    assert f"{folder} is there; every file is as it was fetched" in again.stdout
    assert digest in again.stdout


def test_another_folder_is_named_for_what_comes_next(small, tmp_path):
    with serving(small) as server:
        done = run("fetch", "spurious-imagenet", "--from", server.url, "--to", str(tmp_path / "p"))
    assert done.exit_code == 0, done.output
    assert f"--data {tmp_path / 'p'}" in done.stdout
    assert not (tmp_path / "home").exists()


def test_the_authors_address_is_the_default(monkeypatch):
    asked = []
    monkeypatch.setattr(downloading, "TRIES", 1)
    monkeypatch.setattr(
        official,
        "download",
        lambda url, *_, **__: asked.append(url) or (_ for _ in ()).throw(OSError),
    )
    run("fetch", "spurious-imagenet")
    assert asked == [official.URL]
    assert official.URL.startswith("https://nc.mlcloud.uni-tuebingen.de/index.php/s/")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("spurious-imagenets",), "spurious-imagenet"),
        (("spurious-imagenet", "--from", "nowhere"), "no address"),
        (("spurious-imagenet", "--from", "http://127.0.0.1:9/x.zip"), "can't be had"),
        (("spurious-imagenet", "--sha256", "abc"), "64 hexadecimal digits"),
        (("spurious-imagenet", "--to", "FILE/x"), "can't be written"),
        (("spurious-imagenet", "--to", "/"), "name a new one"),
        (("spurious-imagenet", "--to", "."), "nothing says that it was fetched"),
        (("spurious-imagenet", "--to", "FILE"), "is a file"),
    ],
)
def test_mistakes_are_one_line(arguments, said, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(tmp_path)
    done = run("fetch", *(a.replace("FILE", str(tmp_path / "file")) for a in arguments))
    assert done.exit_code in (1, 2)
    assert said in done.output
    assert sum(line.startswith("Error:") for line in done.output.splitlines()) == 1
    assert "unexpected" not in done.output and "Traceback" not in done.output
