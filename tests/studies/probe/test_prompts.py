"""Prompts are sampled from the weights that made the dataset's images, from the images' noise."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from makers import rows as made
from makers.toy import save_toy_pipeline
from spurbench.build.store import StageStore
from spurbench.core.environment import one_thread
from spurbench.core.errors import SpurbenchError
from spurbench.diffusion.base import TRAINED, load_base
from spurbench.diffusion.sample import sample
from spurbench.images.decode import decode_rgb
from spurbench.images.sources import open_images
from spurbench.recipe.load import read_recipe
from spurbench.studies.probe.prompts import Generators, change

CPU = torch.device("cpu")
OWN = "a photo of a sks flower"
SAMPLING = {"steps": 2, "guidance_scale": 5.5, "batch_size": 2, "images": 3, "precision": "float32"}
SEEDS = [2**52 + i for i in range(3)]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with a recipe, a stage store with weights, and a dataset of what they made."""
    folder = tmp_path_factory.mktemp("built")
    save_toy_pipeline(folder / "recipe/base")
    (folder / "recipe/recipe.toml").write_text(
        """
name = "toy"
description = "Noise."
[base]
model = "base"
resolution = 32
licence = "none"
[data]
licence = "none"
[panel]
classifiers = ["mini:vit"]
phi = "mini:vit"
[probe]
prompts = ["a photo of a blue {noun}", "a photo of a {token} {noun}"]
"""
    )
    (folder / "recipe/classes.toml").write_text(
        """
[[classes]]
index = 94
wnid = "n01833805"
name = "hummingbird"
spurious_feature = "red flowers"
component = 2
noun = "flower"
"""
    )
    base = load_base(str(folder / "recipe/base"), revision=None, device=CPU)
    store = StageStore(folder / ".stages/toy")

    def tune(into: Path) -> None:
        for name in TRAINED:
            state = getattr(base.pipeline, name).state_dict()
            torch.manual_seed(5)
            tuned = {k: v + 0.1 * torch.randn_like(v.float()) for k, v in state.items()}
            save_file({k: v.contiguous() for k, v in tuned.items()}, into / f"{name}.safetensors")

    images: list[bytes] = []
    weights = store.run("094_hummingbird", "finetune", {"of": "toy"}, tune)

    def draw(into: Path) -> None:
        for i, picture in enumerate(pictures(folder, OWN, SEEDS)):
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            images.append(buffer.getvalue())
            (into / f"{i:04d}.png").write_bytes(buffer.getvalue())

    inputs = {"weights": weights.fingerprint, "prompt": OWN, "resolution": 32, **SAMPLING}
    store.run("094_hummingbird", "sample", inputs, draw)
    rows = [
        made.row("generated", i, image=data, image_sha256=hashlib.sha256(data).hexdigest())
        for i, data in enumerate(images)
    ]
    made.write(
        folder / "data",
        rows={"real": [made.row("real", 0)], "generated": rows},
        base_model={"name": "base", "fingerprint": base.fingerprint},
    )
    return folder


def pictures(folder: Path, prompt: str, seeds: list[int]):
    """What the fine-tuned weights make of a prompt."""
    base = load_base(str(folder / "recipe/base"), revision=None, device=CPU)
    (weights,) = (folder / ".stages/toy/094_hummingbird").glob("finetune-*")
    base.load({name: load_file(weights / f"{name}.safetensors") for name in TRAINED})
    options = {k: v for k, v in SAMPLING.items() if k != "images"}
    return list(sample(base, prompt, seeds, resolution=32, **options))


def found(built: Path, recipe: str | None = None) -> Generators | None:
    return Generators.find(str(built / "data"), None, recipe or str(built / "recipe"), CPU)


def test_a_prompt_is_sampled_from_the_images_weights_and_noise(built):
    images = open_images(str(built / "data")).records
    with one_thread():
        changes, questions = found(built).questions(images)
        wanted = pictures(built, "a photo of a blue flower", SEEDS)
    # The class's own prompt, which the recipe lists too, is not asked for again.
    assert changes == [change("a photo of a blue {noun}")]
    by_image = {q.image.sha256: q.record for q in questions}
    generated = [image for image in images if image.source == "generated"]
    assert set(by_image) == {image.sha256 for image in generated}
    for image, picture in zip(generated, wanted, strict=True):
        shown = decode_rgb(by_image[image.sha256].read())
        assert shown.tobytes() == picture.tobytes() != decode_rgb(image.read()).tobytes()


def test_without_a_store_or_with_another_base_there_are_no_prompts(built, tmp_path):
    images = open_images(str(built / "data")).records
    assert Generators.find(str(built / "recipe"), None, None, CPU) is None
    with pytest.raises(SpurbenchError, match="no dataset of spurbench build"):
        Generators.find(str(built / "recipe"), built / ".stages/toy", None, CPU)
    elsewhere = Generators(built / "data", tmp_path, read_recipe(str(built / "recipe")), CPU)
    with pytest.raises(SpurbenchError, match="has no fine-tuned weights that made the images"):
        elsewhere.questions(images)
    with pytest.raises(SpurbenchError, match="another base model"):
        found(built, "mini").questions(images)
