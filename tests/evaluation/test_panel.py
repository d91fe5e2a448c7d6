from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from makers.toy import save_noise_images, save_toy_classifier
from spurbench.classifiers.load import load_classifier
from spurbench.cli.main import main
from spurbench.evaluation import panel
from spurbench.evaluation.panel import Answer
from spurbench.images.sources import open_images

HUMMINGBIRD = "spurious_class_094_hummingbird_component_2"
KOALA = "spurious_class_105_koala_component_3"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    save_noise_images(root / HUMMINGBIRD, 5, 0)
    save_noise_images(root / KOALA, 2, 1)
    return root


def test_the_consistently_spurious_are_listed_the_surest_first(data, monkeypatch):
    """Surest by the least convinced member, which here is another one from image to image."""
    images = open_images(str(data)).records
    koalas = [image for image in images if image.class_index == 105]
    birds = [image for image in images if image.class_index == 94]
    said = {  # each member's probability of the class; None: it answers another one
        birds[0]: (0.5, 0.9),
        birds[1]: (0.8, 0.7),
        birds[2]: (0.99, 0.2),
        birds[3]: (0.95, None),
        birds[4]: (0.6, 0.6),
        koalas[0]: (0.3, 0.3),
        koalas[1]: (0.4, 0.31),
    }

    def ask(_, asked):
        return [
            [
                Answer(name, image.class_index, p, 1) if p else Answer(name, 7, 0.1, 2)
                for name, p in zip("ab", said[image], strict=True)
            ]
            for image in asked
        ]

    monkeypatch.setattr(panel, "ask", ask)
    chosen = [choice.image_sha256 for choice in panel.select([], images)]
    expected = [birds[1], birds[4], birds[0], birds[2], koalas[1], koalas[0]]
    assert chosen == [image.sha256 for image in expected]


def test_select_with_real_classifiers_lists_by_the_lowest_probability(data, tmp_path):
    specs = [
        str(save_toy_classifier(tmp_path / str(seed), favourite=94, seed=seed)) for seed in (0, 1)
    ]
    members = [load_classifier(spec) for spec in specs]
    choices = panel.select(members, open_images(str(data)).records)
    lowest = [min(answer.probability for answer in choice.answers) for choice in choices]
    assert {choice.class_index for choice in choices} == {94}
    assert len(set(lowest)) == 5 and lowest == sorted(lowest, reverse=True)


def run_select(data, tmp_path, *arguments):
    toy = tmp_path / "toy"
    if not toy.exists():
        save_toy_classifier(toy, favourite=94, seed=0)
    output = tmp_path / "chosen.json"
    said = CliRunner().invoke(
        main,
        ["select", "--data", str(data), "--panel", str(toy), "--output", str(output), *arguments],
    )
    return said, output


def test_select_knows_the_classes_that_the_data_has_by_the_data_s_own_names(data, tmp_path):
    (data / "classes.toml").write_text(
        "[[classes]]\nindex = 94\nwnid = 'n01833805'\nname = 'colibri'\ncomponent = 1\n"
        "spurious_feature = 'lampshade'\nnoun = 'lamp'\n"
    )
    try:
        for wanted in ("colibri", "Colibri,koala", "94", "all"):
            said, output = run_select(data, tmp_path, "--classes", wanted)
            assert said.exit_code == 0, said.output
            assert "colibri" in said.output and "hummingbird" not in said.output
            assert len(json.loads(output.read_text())) == 5
        said, _ = run_select(data, tmp_path, "--classes", "colibry")
        assert said.exit_code == 1 and "nearest: colibri" in said.output
        said, _ = run_select(data, tmp_path, "--classes", "freight car")
        assert said.exit_code == 1 and "the data has colibri, koala" in said.output
    finally:
        (data / "classes.toml").unlink()


def test_a_missing_checkpoint_is_named_before_the_images_are_read(tmp_path):
    arguments = ["--data", str(tmp_path / "nowhere"), "--output", str(tmp_path / "r")]
    for command in (["eval", "--model"], ["select", "--panel"]):
        said = CliRunner().invoke(main, [*command, "resnet18=no.safetensors", *arguments])
        assert said.exit_code == 1 and "no checkpoint at no.safetensors" in said.output
