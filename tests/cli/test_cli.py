from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

import spurbench
from makers.toy import save_noise_images, save_toy_classifier, toy_recipe
from spurbench.cli.main import main


def run(*arguments: str):
    return CliRunner().invoke(main, list(arguments))


def commands(group=main, path=()):
    for name, command in group.commands.items():
        yield (*path, name)
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_recipe(tmp_path_factory.mktemp("cli") / "recipe")


@pytest.mark.parametrize("path", [(), *commands()], ids=" ".join)
def test_every_command_explains_itself(path):
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert len(result.output.splitlines()) > 4


def test_leaderboard_ranks_unless_its_first_word_is_a_command(tmp_path, monkeypatch):
    (tmp_path / "build").mkdir()
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    for arguments in (["out"], ["./build"], ["--output", "board", "out"], ["show", "out"]):
        said = run("leaderboard", *arguments)
        assert said.exit_code == 1 and "no results in" in said.output, arguments
    assert "no results in leaderboards" in run("leaderboard", "build").output
    assert "build" in run("leaderboard", "--help").output
    assert "Missing argument 'RESULTS...'" in run("leaderboard", "show").output
    assert "No such option" in run("leaderboard", "--wrong", "out").output


def test_evaluating_robustly_does_not_import_robustbench(toy, tmp_path, monkeypatch):
    heavy = {"robustbench", "pyiqa"}
    for name in heavy:
        monkeypatch.delitem(sys.modules, name, raising=False)
    arguments = ("--data", str(toy / "real"), "--output", str(tmp_path))
    done = run("eval", "--model", str(toy / "one"), *arguments)
    assert done.exit_code == 0, done.output
    assert not heavy & sys.modules.keys()
    # What this process had imported before ran no import now; there is none at a module's top.
    for path in Path(spurbench.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not re.search(r"(import|from) (robustbench|pyiqa)", ast.unparse(node)), path


def test_build_eval_leaderboard_in_a_row(toy, tmp_path):
    dataset, results = tmp_path / "dataset", tmp_path / "results"
    save_noise_images(tmp_path / "photographs" / "n01833805", 3, 7)
    built = run(
        *("build", "--recipe", str(toy), "--classes", "94", "--output", str(dataset)),
        *("--positives", str(tmp_path / "photographs")),
        # The toy detector sees the object in all that it is shown.
        *("--set", "check.object_threshold=0.999"),
    )
    assert built.exit_code == 0, built.output
    assert built.output.startswith("Recipe toy: Noise. Classes: 1, images each: 4, device: cpu")
    assert f'load_dataset("{dataset}")' in built.output
    other = save_toy_classifier(tmp_path / "other", favourite=94, seed=4)
    for model in (toy / "one", other):
        done = run("eval", "--model", str(model), "--data", str(dataset), "--output", str(results))
        assert done.exit_code == 0, done.output
    summary = json.loads(next(results.glob("*one*.json")).read_text())["summary"]
    # Of five photographs three are references; four images were generated.
    assert (summary["n"], summary["spurious_accuracy"]) == (2 + 4, 1.0)
    again = run(
        "eval", "--model", str(toy / "one"), "--data", str(dataset), "--output", str(results)
    )
    assert "stored result" in again.output
    board = run("leaderboard", str(results), "--output", str(tmp_path / "board"))
    assert board.exit_code == 0, board.output
    table = (tmp_path / "board" / "README.md").read_text()
    assert "toy 1.0.0" in table and "| 1 | 1 | other |" in table and "100.0" in table
    assert "| panel: chose the images |" in table


def test_a_failed_class_makes_the_exit_status_and_is_named(toy, tmp_path):
    options = ("--workers", "1", "--output", str(tmp_path / "dataset"))
    result = run("build", "--recipe", str(toy), *options)
    assert result.exit_code == 1
    assert "1 of 2 classes failed: koala" in result.output
    assert (tmp_path / "dataset" / "spurbench.json").exists()


def test_the_default_recipe_is_said_first(tmp_path):
    result = run("build", "--classes", "nonsense")
    assert result.exit_code == 1
    assert "unknown class 'nonsense'" in result.output


def test_select_lists_the_consistently_spurious(toy, tmp_path):
    result = run(
        "select",
        "--data",
        str(toy / "real"),
        "--panel",
        str(toy / "one"),
        "--panel",
        str(toy / "two"),
        "--output",
        str(tmp_path / "chosen.json"),
    )
    assert result.exit_code == 0, result.output
    assert "5 of 10 images are consistently spurious" in result.output
    chosen = json.loads((tmp_path / "chosen.json").read_text())
    assert {choice["class_index"] for choice in chosen} == {94}


def test_select_takes_a_checkpoint_after_the_equals_sign(toy, tmp_path):
    other = save_toy_classifier(tmp_path / "c", favourite=105, seed=9)
    result = run("select", "--data", str(toy / "real"), "--panel", f"{other}=nothing.safetensors")
    assert result.exit_code == 1
    assert "--checkpoint" in result.output or "nothing.safetensors" in result.output


def test_classes_lists_the_hundred_pairs():
    result = run("classes")
    assert result.exit_code == 0
    assert "hummingbird" in result.output and "red feeder/flower" in result.output
    assert sum("n0" in line for line in result.output.splitlines()) == 100


ONE_LINERS = {
    "unknown recipe": (["build", "--recipe", "minny"], "did you mean 'mini'"),
    "unknown recipe key": (["build", "--set", "finetune.stepz=1"], "finetune.steps"),
    "unknown device": (["build", "--device", "abacus"], "unknown device 'abacus'"),
    "device not there": (["build", "--device", "cuda:99"], "not available here"),
    "bad version": (["build", "--version", "1.0", "--output", "OUT"], "not X.Y.Z"),
    "no data": (["build", "--recipe", "sd15"], "--data"),
    "unknown model": (["eval", "--model", "resnet5000", "--data", "REAL"], "nearest:"),
    "unknown panel member": (["eval", "--model", "mini:resnet", "--data", "REAL"], "it has"),
    "unknown folder": (["eval", "--model", "TOY/one", "--data", "nowhere"], "no folder at nowhere"),
    "empty folder": (["eval", "--model", "TOY/one", "--data", "EMPTY"], "it is empty"),
    "mislaid folder": (["eval", "--model", "TOY/one", "--data", "TOY"], "layout"),
    "missing split": (
        ["eval", "--model", "TOY/one", "--data", "REAL", "--split", "generated"],
        "has split real, not generated",
    ),
    "positives not there": (
        ["eval", "--model", "TOY/one", "--data", "REAL", "--positives", "nowhere"],
        "no folder at nowhere",
    ),
    "positives mislaid": (
        ["eval", "--model", "TOY/one", "--data", "REAL", "--positives", "REAL"],
        "holds no class folders",
    ),
    "panel file not there": (["eval", "--panel", "no.toml", "--data", "REAL"], "no.toml"),
    "output under a file": (
        ["eval", "--model", "TOY/one", "--data", "REAL", "--output", "TOY/recipe.toml/out"],
        "can't be written to",
    ),
    "checkpoint of another shape": (
        ["eval", "--model", "resnet18=TOY/one/model.safetensors", "--data", "REAL"],
        "does not fit",
    ),
    "head of another width": (
        ["eval", "--model", "TOY/detector", "--data", "REAL"],
        "is a class of ImageNet-1k",
    ),
    "checkpoint for many": (
        ["eval", "--model", "a", "--model", "b", "--checkpoint", "c.pt", "--data", "REAL"],
        "--model SPEC=CHECKPOINT",
    ),
    "selection under a file": (
        ["select", "--data", "REAL", "--panel", "TOY/one", "--output", "TOY/recipe.toml/x.json"],
        "recipe.toml",
    ),
    "unknown class to select": (
        ["select", "--data", "REAL", "--panel", "TOY/one", "--classes", "hummingbrid"],
        "nearest: hummingbird",
    ),
    "unknown class to list": (["classes", "--classes", "hummingbrid"], "nearest: hummingbird"),
    "no results": (["leaderboard", "EMPTY"], "spurbench eval"),
    "no dataset": (["quality", "EMPTY"], "spurbench.json"),
}


@pytest.mark.parametrize("case", ONE_LINERS)
def test_a_mistake_gets_one_clear_line(case, toy, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments, said = ONE_LINERS[case]
    places = {
        "REAL": str(toy / "real"),
        "TOY": str(toy),
        "EMPTY": str(tmp_path / "empty"),
        "OUT": str(tmp_path / "out"),
    }
    place = re.compile("|".join(places))
    result = run(*(place.sub(lambda found: places[found[0]], a) for a in arguments))
    assert result.exit_code != 0
    assert said in result.output
    errors = [line for line in result.output.splitlines() if line.startswith("Error:")]
    assert len(errors) == 1
    assert "Traceback" not in result.output


def test_debug_shows_the_traceback():
    result = run("--debug", "build", "--recipe", "minny")
    assert result.exit_code != 0
    assert isinstance(result.exception, Exception)
    assert "did you mean" in str(result.exception)


def test_damaged_images_are_counted_and_named(toy, tmp_path):
    folder = save_noise_images(
        tmp_path / "real" / "spurious_class_094_hummingbird_component_2", 3, 0
    )
    (folder / "note.png").write_text("not an image")
    whole = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "readme.txt").write_text("ignored")
    Image.new("L", (40, 30), 7).save(folder / "grey.png")
    result = run(
        "eval",
        "--model",
        str(toy / "one"),
        "--data",
        str(tmp_path / "real"),
        "--output",
        str(tmp_path / "r"),
    )
    assert result.exit_code == 0, result.output
    stored = json.loads(next(Path(tmp_path / "r").glob("*.json")).read_text())
    assert stored["summary"]["n"] == 4
    assert sorted(Path(d["path"]).name for d in stored["damaged"]) == ["cut.png", "note.png"]
    assert result.output.count("left out, damaged") == 2


def test_several_classifiers_make_one_table_and_a_failed_one_the_exit_status(toy, tmp_path):
    one, two = str(toy / "one"), str(toy / "two")
    arguments = ("--data", str(toy / "real"), "--output", str(tmp_path / "r"))
    result = run("eval", "--model", one, "--model", "resnet5000", "--model", two, *arguments)
    assert result.exit_code == 1
    assert "failed: resnet5000: timm has no model 'resnet5000'" in result.output
    assert "Error: 1 of 3 classifiers failed" in result.output
    assert len(list((tmp_path / "r").glob("*.json"))) == 2
    assert "hummingbird 100 % of 5" in result.output and "\\n" not in result.output
    panel = tmp_path / "panel.toml"
    panel.write_text(f"classifiers = [{one!r}, {two!r}]")
    again = run("eval", "--panel", str(panel), *arguments)
    assert again.exit_code == 0, again.output
    assert again.output.count("stored result") == 2


def test_a_damaged_dataset_is_named(toy, tmp_path):
    made_by = {"panel": [], "phi": {"weights_sha256": "x"}}
    manifest = {"schema": "spurbench.dataset/2", "name": "x", "version": "1.0.0", "files": {}}
    manifest = json.dumps(manifest | {"provenance": made_by})
    for name, content in (("manifest", "{"), ("rows", manifest)):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "spurbench.json").write_text(content)
        for split in ("real", "generated"):
            (tmp_path / name / "data" / f"{split}-00000.parquet").write_bytes(b"x")
    for name, said in (
        ("manifest", "spurbench.json is not valid JSON"),
        ("rows", "real-00000.parquet is damaged"),
    ):
        for command in (["eval", "--model"], ["select", "--panel"]):
            result = run(*command, str(toy / "one"), "--data", str(tmp_path / name))
            assert result.exit_code == 1
            assert said in result.output and "unexpected" not in result.output
