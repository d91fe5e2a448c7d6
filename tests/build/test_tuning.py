"""A class fine-tuned by several processes together, here on a processor."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from makers.toy import toy_recipe
from spurbench.build import tuning
from spurbench.build.request import BuildRequest
from spurbench.build.workshop import load_tuned
from spurbench.core.errors import SpurbenchError
from spurbench.diffusion import finetune
from spurbench.diffusion.finetune import CHECKPOINT

CPU = torch.device("cpu")
SAVE = finetune._save_checkpoint


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Steps whose size follows the gradient's: Adam would blow rounding up to whole steps."""
    folder = tmp_path_factory.mktemp("tuning")
    recipe = toy_recipe(folder / "recipe")
    request = BuildRequest.of(
        str(recipe),
        classes="hummingbird",
        output=folder / "out",
        device="cpu",
        gpus_per_class=2,
        overrides=[
            *("finetune.batch_size=2", "finetune.steps=4", "finetune.checkpoint_every=2"),
            *("finetune.epsilon=1e-2", "finetune.learning_rate=1e-2"),
            "finetune.weights_dtype=float32",
        ],
    )
    images = sorted(
        (folder / "recipe" / "real" / "spurious_class_094_hummingbird_component_2").iterdir()
    )
    return tuning._Task(
        request=request,
        spurious_class=request.classes[0],
        references=[Image.open(path).convert("RGB") for path in images[:3]],
        reference_names=[path.name for path in images[:3]],
        priors=images[3:],
        seed=0,
        folder=folder,
    )


def of(task, folder, **settings):
    """The task in a folder of its own, with other settings of the fine-tuning."""
    folder.mkdir()
    recipe = task.request.recipe
    changed = recipe.model_copy(
        update={"finetune": recipe.finetune.model_copy(update=settings)}
    ).at(recipe.folders, recipe.classes)
    return replace(task, folder=folder, request=replace(task.request, recipe=changed))


class Phi:
    """Two classes among three; features are the first two pixels."""

    info, input_size, features = None, (4, 4), None
    head_weight = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])

    def columns(self, wnids):
        return torch.tensor([{"n01833805": 2, "n01882714": 1}[wnid] for wnid in wnids])

    def log_probability(self, pixels, wnid):
        return pixels, wnid


@pytest.mark.parametrize(
    ("weights", "expected"), [("class", [5, 6]), ("ones", [1, 1]), ("other", [3, 4])]
)
def test_psi_is_weighted_by_the_class_by_nothing_or_by_the_next_class(
    task, monkeypatch, weights, expected
):
    subjects = []
    monkeypatch.setattr(
        tuning, "finetune", lambda base, subject, *_, **__: subjects.append(subject)
    )
    recipe = task.request.recipe
    changed = recipe.model_copy(
        update={"sfsl": recipe.sfsl.model_copy(update={"weights": weights})}
    ).at(recipe.folders, recipe.classes)
    asked = replace(task, request=replace(task.request, recipe=changed))
    tuning._tuned(asked, None, Phi(), None, together=False)
    assert subjects[0].class_weight.tolist() == expected
    assert subjects[0].log_probability("pixels") == ("pixels", "n01833805")


@pytest.mark.slow
def test_two_processes_go_on_from_a_checkpoint_to_the_weights_of_one(task, tmp_path, monkeypatch):
    models = load_tuned(task.request.recipe, CPU)
    alone = of(task, tmp_path / "alone")
    before = {k: v.clone() for k, v in models[0].pipeline.unet.state_dict().items()}
    tuning._keep(alone, tuning._tuned(alone, *models, together=False))
    # The checkpoint that an interrupted run of one process leaves after its second step.
    models[0].restore()
    stopped = of(task, tmp_path / "together")
    monkeypatch.setattr("spurbench.diffusion.finetune._save_checkpoint", _saving_then_stopping)
    with pytest.raises(KeyboardInterrupt):
        tuning._tuned(stopped, *models, together=False)
    monkeypatch.undo()
    assert (stopped.folder / CHECKPOINT).exists()

    tuning._together(stopped, 2, CPU)
    for name in ("unet", "text_encoder"):
        expected, found = (load_file(t.folder / f"{name}.safetensors") for t in (alone, stopped))
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-5)
        if name == "unet":
            assert max((v - before[k]).abs().max() for k, v in found.items()) > 1e-3
    losses = [json.loads((t.folder / "losses.json").read_text()) for t in (alone, stopped)]
    for name, values in losses[0].items():
        assert losses[1][name] == pytest.approx(values, rel=1e-4, abs=1e-6)
    assert not (stopped.folder / CHECKPOINT).exists()


def _saving_then_stopping(*arguments):
    SAVE(*arguments)
    raise KeyboardInterrupt


@pytest.mark.slow
def test_what_one_of_the_processes_raises_is_said_in_its_words_and_ends_them_all(task, tmp_path):
    ruinous = of(task, tmp_path / "ruined", learning_rate=1e6, steps=40, gradient_clip=None)
    with pytest.raises(SpurbenchError, match=r"class 94 .* not finite .* seed 0, references"):
        tuning._together(ruinous, 2, CPU)
    assert not list(ruinous.folder.glob("*.safetensors"))


@pytest.mark.parametrize("processes", [0, 2, 3])
def test_a_batch_that_cannot_be_shared_out_is_refused_before_anything(tmp_path, processes):
    with pytest.raises(SpurbenchError, match=rf"batch_size 1 can't .* {processes}; it must be"):
        BuildRequest.of("mini", gpus_per_class=processes, overrides=["finetune.batch_size=1"])
