"""What is asked of a build reaches it, from the command line and from Python."""

from __future__ import annotations

from importlib import import_module

import pytest
from click.testing import CliRunner

import spurbench
from makers.rows import write
from makers.toy import toy_recipe
from spurbench.build.request import BuildRequest, Built
from spurbench.cli.main import main
from spurbench.engines.local import LocalEngine


@pytest.mark.parametrize("face", ["command", "function"])
def test_every_word_of_a_request_reaches_the_build(face, tmp_path, monkeypatch):
    asked = []

    def build(request, engine):
        asked.append((request, engine))
        return Built(request.output)

    monkeypatch.setattr(import_module("spurbench.build.build"), "build", build)
    recipe = toy_recipe(tmp_path / "recipe")
    write(tmp_path / "before")
    paths = {name: tmp_path / name for name in ("data", "output", "work")}
    paths["positives"] = tmp_path / "positives"
    for name in ("data", "positives"):
        paths[name].mkdir()
    words = {"version": "2.3.4", "note": "new", "seed": 7, "replicates": 3, "device": "cpu"}
    words["workers"] = 2
    words |= paths
    words |= {"previous": tmp_path / "before", "classes": "koala,hummingbird"}
    if face == "command":
        options = [f"--{name}={value}" for name, value in words.items()]
        options += ["--force", "--set=finetune.steps=3"]
        said = CliRunner().invoke(main, ["build", f"--recipe={recipe}", *options])
        assert said.exit_code == 0, said.output
    else:
        spurbench.build(str(recipe), **words, force=True, overrides=["finetune.steps=3"])
    ((request, engine),) = asked
    assert engine == LocalEngine.on_cores(2)
    assert {name: getattr(request, name) for name in paths} == paths
    assert (request.version, request.note, request.seed) == ("2.3.4", "new", 7)
    assert request.replicates == 3
    assert (str(request.device), request.force, request.previous) == (
        "cpu",
        True,
        tmp_path / "before",
    )
    assert [c.name for c in request.classes] == ["hummingbird", "koala"]
    assert (request.recipe.folder, request.recipe.finetune.steps) == (recipe, 3)


def test_a_dataset_has_the_version_of_its_recipe_unless_one_is_asked_for(tmp_path):
    recipe = toy_recipe(tmp_path / "recipe")
    path = recipe / "recipe.toml"
    assert BuildRequest.of(str(recipe), device="cpu").version == "1.0.0"
    path.write_text('version = "4.1.0"\n' + path.read_text())
    read = BuildRequest.of(str(recipe), device="cpu")
    assert read.version == "4.1.0" and read.output.name.endswith("-4.1.0")
    assert BuildRequest.of(str(recipe), version="5.0.0", device="cpu").version == "5.0.0"
