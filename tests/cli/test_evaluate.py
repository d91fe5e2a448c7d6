"""`spurbench eval`: what it measures on, and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import spurbench
from makers.measured import CLASSES, save_dataset
from makers.toy import save_noise_images, save_toy_classifier
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.images.sources import open_images


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder to be in, and nothing fetched."""
    monkeypatch.delenv("SPURBENCH_DATA", raising=False)
    monkeypatch.setenv("SPURBENCH_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("c")
    return str(save_toy_classifier(folder / "toy", favourite=None, seed=0))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory) -> str:
    """A classifier that knows hummingbirds and koalas alone."""
    folder = tmp_path_factory.mktemp("c") / "narrow"
    save_toy_classifier(folder, favourite=None, seed=1)
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    for name in ("fc.weight", "fc.bias"):
        state[name] = state[name][[94, 105]].clone()
    save_file(state, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_classes": 2, "label_names": ["n01833805", "n01882714"]}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def run(*arguments: str):
    return CliRunner().invoke(main, list(arguments))


def measured(done) -> list[tuple[str, int]]:
    """Of a run with --json: each result's data, and how many images."""
    assert done.exit_code == 0, done.output
    return [(r["dataset"]["name"], r["summary"]["n"]) for r in json.loads(done.stdout)]


def test_the_bare_command_in_an_empty_folder_names_what_gets_images(toy):
    done = run("eval", "--model", toy)
    assert done.exit_code == 1
    (line,) = done.output.splitlines()
    assert line.startswith("Error: no images at hand")
    assert "spurbench fetch spurious-imagenet" in line and "spurbench build --classes all" in line
    with pytest.raises(SpurbenchError, match="no images at hand"):
        spurbench.evaluate(toy)


def test_the_bare_command_measures_on_the_newest_of_each_dataset_and_says_so(toy):
    save_dataset(Path("out/z"), name="spurbench-a", version="1.9.0", images=1)
    save_dataset(Path("out/a"), name="spurbench-a", version="1.10.0", images=2)
    one = spurbench.evaluate(toy)
    assert (one.dataset.name, one.dataset.version) == ("spurbench-a", "1.10.0")
    save_dataset(Path("out/b"), name="spurbench-b", images=1)
    done = run("eval", "--model", toy)
    assert done.exit_code == 0, done.output
    assert "measuring on out/a: the newest spurbench-a in out, version 1.10.0" in done.stderr
    assert "measuring on out/b" in done.stderr and "out/z" not in done.output
    stored = [json.loads(path.read_text()) for path in Path("out/results").glob("*.json")]
    versions = {(r["dataset"]["name"], r["dataset"]["version"]) for r in stored}
    assert versions == {("spurbench-a", "1.10.0"), ("spurbench-b", "1.0.0")}


def test_the_environment_names_the_data(toy, monkeypatch, tmp_path):
    save_dataset(Path("out/a"), images=1)
    save_noise_images(tmp_path / "mine" / "spurious_class_094_x_component_2", 2, 0)
    monkeypatch.setenv("SPURBENCH_DATA", str(tmp_path / "mine"))
    done = run("eval", "--model", toy, "--json")
    assert measured(done) == [("mine", 2)]
    assert "SPURBENCH_DATA" in done.stderr


def test_a_classifier_is_measured_on_those_datasets_whose_classes_it_has(narrow, toy):
    save_dataset(Path("out/all"), name="spurbench-all", images=1)
    alone = run("eval", "--model", narrow)
    assert alone.exit_code == 1 and "has no class" in alone.output
    save_dataset(Path("out/two"), name="spurbench-two", images=1, classes=(94, 105))
    done = run("eval", "--model", narrow, "--json")
    assert [name for name, _ in measured(done)] == ["spurbench-two"]
    assert "left out: narrow" in done.stderr
    both = run("eval", "--model", narrow, "--model", toy, "--json")
    assert [name for name, _ in measured(both)] == [
        "spurbench-all",
        "spurbench-two",
        "spurbench-two",
    ]
    named = run("eval", "--model", narrow, "--data", "out/all")
    assert named.exit_code == 1 and "has no class" in named.output


def test_json_is_all_that_is_printed_and_holds_what_is_stored(toy):
    save_dataset(Path("d"), images=1)
    done = run("eval", "--model", toy, "--data", "d", "--json")
    (path,) = Path("out/results").glob("*.json")
    assert json.loads(done.stdout) == [json.loads(path.read_text())]
    failing = run("eval", "--model", toy, "--model", "resnet5000", "--data", "d", "--json")
    assert failing.exit_code == 1
    assert len(json.loads(failing.stdout)) == 1 and "resnet5000" in failing.stderr


def test_a_quick_look_takes_the_first_by_hash_and_is_never_taken_for_the_whole(toy):
    save_dataset(Path("d"), images=5)
    whole = open_images("d")
    some = whole.first(2)
    for source in ("real", "generated"):
        for index in CLASSES:
            of = [r.sha256 for r in whole.records if (r.source, r.class_index) == (source, index)]
            kept = {r.sha256 for r in some.records if (r.source, r.class_index) == (source, index)}
            assert kept == set(sorted(of)[:2])
    assert [r for r in whole.records if r in some.records] == list(some.records)
    assert whole.first(5).records == whole.records
    assert some.info.fingerprint != whole.info.fingerprint
    run("eval", "--model", toy, "--data", "d")
    done = run("eval", "--model", toy, "--data", "d", "--limit", "2", "--json")
    assert measured(done) == [("spurbench-toy (first 2 of each class)", 12)]
    results = [spurbench.Result.read(path) for path in Path("out/results").glob("*.json")]
    assert len(results) == 2 and len(spurbench.leaderboard(results)) == 2


def test_plain_folders_by_wordnet_id_are_measured_under_their_folder_s_name(toy):
    save_noise_images(Path("mine/n01833805"), 2, 0)
    save_noise_images(Path("mine/105"), 1, 1)
    save_noise_images(Path("mine/something"), 1, 2)
    done = run("eval", "--model", toy, "--data", "mine", "--json")
    assert measured(done) == [("mine", 3)]
    (result,) = json.loads(done.stdout)
    assert [
        (c["index"], c["name"], c["spurious_feature"]) for c in result["splits"]["real"]["classes"]
    ] == [
        (94, "hummingbird", None),
        (105, "koala", None),
    ]


def test_quiet_is_results_and_errors_whatever_libraries_do_to_warnings(toy, tmp_path):
    save_dataset(Path("out/a"), images=1)
    code = (
        "import logging, os, warnings\n"
        "from spurbench.cli.main import main\n"
        "from spurbench.evaluation import evaluate\n"
        "measure = evaluate.measure\n"
        "def noisy(*arguments, **settings):\n"
        "    warnings.simplefilter('always')\n"
        "    warnings.warn('of a library', FutureWarning)\n"
        "    logging.getLogger('library').warning('of a library')\n"
        "    return measure(*arguments, **settings)\n"
        "evaluate.measure = noisy\n"
        "for name, options in (('loud', ()), ('quiet', ('-q',))):\n"  # imports once for both
        "    if os.fork() == 0:\n"
        "        for number, stream in ((1, 'out'), (2, 'err')):\n"
        "            os.dup2(os.open(f'{name}.{stream}', os.O_WRONLY | os.O_CREAT), number)\n"
        f"        main([*options, 'eval', '--model', {toy!r}, '--force'])\n"
        "    assert os.wait()[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    noise = Path("loud.err").read_text()
    assert noise.count("of a library") == 2 and "measuring on" in noise
    assert Path("quiet.err").read_text() == ""
    assert Path("quiet.out").read_text() == Path("loud.out").read_text() != ""


def test_all_classes_of_the_default_recipe_are_said_to_be_its_own():
    said = "all classes of the embedded recipe mini, 6; --recipe sd15 has the 100"
    assert said in run("build", "--dry-run", "--classes", "all").stdout
    assert said not in run("build", "--dry-run", "--classes", "koala").stdout
