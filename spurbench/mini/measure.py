"""How good the embedded models are: ``spurbench mini measure``."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from spurbench.classifiers.classifier import Classifier
from spurbench.classifiers.detectors import MultiLabelDetector
from spurbench.classifiers.load import load_classifier
from spurbench.core import markdown
from spurbench.core.environment import package_versions
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import derive_seed
from spurbench.core.imagenet import imagenet_names
from spurbench.core.resources import builders
from spurbench.diffusion.base import TextToImage, load_base
from spurbench.diffusion.sample import sample
from spurbench.evaluation.metrics import kernel_distance
from spurbench.mini.backgrounds import CONTEXTS
from spurbench.mini.distributions import (
    CLASSES,
    OracleLabels,
    biased,
    captioned,
    render_all,
    spurious,
    unbiased,
)
from spurbench.mini.kinds import KINDS
from spurbench.mini.objects import OBJECTS
from spurbench.mini.scenes import PLANTED_FEATURE, Scene
from spurbench.mini.training.classifiers import PANEL
from spurbench.mini.training.labelled import object_labels
from spurbench.mini.training.vae import psnr, round_trip
from spurbench.recipe.load import read_recipe
from spurbench.recipe.schema import Recipe

log = logging.getLogger(__name__)


def measure(
    *, scenes: int, samples: int, attacked: int, device: torch.device, seed: int = 1
) -> dict[str, Any]:
    """Measure panel, oracle, autoencoder and base model on scenes none of them was trained on.

    Args:
        scenes: held-out scenes per class for the panel, and ten times as many for the oracle.
        samples: images per prompt of the base model.
        attacked: validation images under AutoAttack (needs ``spurbench[robustbench]``); 0 skips it.
        device: where the models run.
        seed: of the scenes; another than the one that the assets were trained with.

    Raises:
        SpurbenchError: if there are no scenes or samples to measure on, or there is no AutoAttack.
    """
    for name, count, least in (
        ("scenes", scenes, 1),
        ("samples", samples, 1),
        ("attacked", attacked, 0),
    ):
        if count < least:
            raise SpurbenchError(f"{name} is {count}; give at least {least}")
    if attacked and find_spec("pyautoattack") is None:
        raise SpurbenchError(
            "AutoAttack is not installed; pip install 'spurbench[robustbench]', or --attacked 0"
        )
    recipe = read_recipe("mini")
    oracle = MultiLabelDetector(recipe.folder / str(recipe.check.object_detector), device)
    base = load_base(
        recipe.locate(recipe.base.model),
        revision=None,
        device=device,
        scheduler=recipe.base.scheduler,
    )
    return {
        "seed": seed,
        "scenes": scenes,
        "samples": samples,
        "attacked": attacked,
        "device": str(device),
        "versions": package_versions(),
        "panel": {name: _classifier(name, scenes, attacked, device, seed) for name in PANEL},
        **_oracle(oracle, base, 10 * scenes, seed),
        **_base(base, oracle, recipe, samples, seed),
    }


def render_markdown(measured: dict[str, Any]) -> str:
    """The tables of ``docs/mini-world.md``."""
    planted = list(PLANTED_FEATURE)
    panel = markdown.table(
        ["classifier", "biased validation", *planted, "AutoAttack"],
        markdown.first_left(len(planted) + 3),
        [
            [
                name,
                _percent(of["validation_accuracy"]),
                *(_percent(of["spurious_accuracy"][c]) for c in planted),
                "" if of["robust_accuracy"] is None else _percent(of["robust_accuracy"]),
            ]
            for name, of in measured["panel"].items()
        ],
    )
    heads = ("object", "kind", "feature", "context")
    oracle = markdown.table(
        ["scenes", *heads],
        markdown.first_left(5),
        [
            [title, *(_percent(measured["oracle"][key][head]) for head in heads)]
            for key, title in (("rendered", "as rendered"), ("through_vae", "through the VAE"))
        ],
    )
    prompts = markdown.table(
        ["prompt", "share that shows it"],
        markdown.first_left(2),
        [[prompt, _percent(share)] for prompt, share in measured["base"]["shown"].items()],
    )
    distance = measured["base"]["kernel_distance"]
    return (
        f"{panel}\n{oracle}\nAutoencoder: {measured['vae_psnr_db']:.1f} dB.\n\n{prompts}\n"
        f"Kernel distance to held-out renders: {distance['generated']:.4f}; of the renders through "
        f"the autoencoder {distance['through_vae']:.4f}, of other renders "
        f"{distance['renders']:.4f}.\n"
    )


def _classifier(
    name: str, scenes: int, attacked: int, device: torch.device, seed: int
) -> dict[str, Any]:
    classifier = load_classifier(f"mini:{name}", device=device)
    validation = [biased(c, seed, "measure", i) for i in range(scenes) for c in CLASSES]
    wanted = object_labels(validation)
    config = json.loads((builders()["mini"] / f"assets/panel/{name}/config.json").read_text())
    epsilon = config["training"]["epsilon"]
    robust = None
    if epsilon and attacked:
        log.info("attacking %s with AutoAttack, eps %.4f, %d images", name, epsilon, attacked)
        robust = _robust_accuracy(classifier, validation[:attacked], wanted[:attacked], epsilon)
    return {
        "validation_accuracy": _accuracy(classifier, validation, wanted),
        "spurious_accuracy": spurious_accuracy(classifier, scenes, seed),
        "epsilon": epsilon,
        "robust_accuracy": robust,
    }


def spurious_accuracy(classifier: Classifier, scenes: int, seed: int) -> dict[str, float]:
    """By class, the share of so many scenes of the ``real`` split that are called the class."""
    names = imagenet_names()
    return {
        planted: _accuracy(
            classifier,
            [spurious(planted, seed, i) for i in range(scenes)],
            np.full(scenes, names.index(planted)),
        )
        for planted in PLANTED_FEATURE
    }


def _accuracy(classifier: Classifier, scenes: Sequence[Scene], wanted: NDArray[np.int64]) -> float:
    pixels = _pixels(render_all(scenes, classifier.info.name), classifier.device)
    with torch.inference_mode():
        logits = torch.cat([classifier(part) for part in pixels.split(256)])
    return float((logits.argmax(1).cpu().numpy() == wanted).mean())


def _robust_accuracy(
    classifier: Classifier, scenes: Sequence[Scene], wanted: NDArray[np.int64], epsilon: float
) -> float:
    """Accuracy under the standard AutoAttack (Croce & Hein 2020), L-inf."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(
        classifier, eps=epsilon, norm="Linf", seed=0, version="standard", device=classifier.device
    )
    pixels = _pixels(render_all(scenes, "attacked"), classifier.device)
    labels = torch.from_numpy(wanted).to(classifier.device)
    attacked, *_ = attack.run_standard_evaluation(pixels, labels, batch_size=100)
    if (attacked - pixels).abs().max() > epsilon + 1e-6:
        raise RuntimeError("AutoAttack left the L-inf ball")
    with torch.inference_mode():
        return float((classifier(attacked).argmax(1) == labels).float().mean())


def _oracle(oracle: MultiLabelDetector, base: TextToImage, count: int, seed: int) -> dict[str, Any]:
    """Shares of unbiased scenes on which all of a head's outputs are right."""
    scenes = [unbiased(seed, "measure", i) for i in range(count)]
    labels = OracleLabels()
    columns = [oracle.labels.index(name) for name in labels.names]
    rendered = render_all(scenes, "unbiased scenes")
    decoded = round_trip(base.pipeline.vae, rendered)
    measured = {
        title: labels.right_by_head(
            oracle.probabilities(_images(pixels)).numpy()[:, columns] > 0.5, scenes
        )
        for title, pixels in (("rendered", rendered), ("through_vae", decoded))
    }
    return {"oracle": measured, "vae_psnr_db": psnr(rendered, decoded)}


def _base(
    base: TextToImage, oracle: MultiLabelDetector, recipe: Recipe, samples: int, seed: int
) -> dict[str, Any]:
    """What the base model shows for each kind and class, and how far from renders it is."""
    outputs = {f"a photo of a {kind}": f"kind:{kind}" for kind in KINDS}
    outputs |= {f"a photo of a {name}": f"object:{name}" for name in OBJECTS}
    outputs |= {f"a photo of a flower {where}": f"context:{where}" for where in CONTEXTS}
    shown, generated = {}, []
    for prompt, output in outputs.items():
        log.info("sampling %r", prompt)
        images = list(
            sample(
                base,
                prompt,
                [derive_seed(seed, "measure", prompt, i) for i in range(samples)],
                resolution=recipe.base.resolution,
                steps=recipe.prior.steps,
                guidance_scale=recipe.prior.guidance_scale,
                batch_size=64,
            )
        )
        column = oracle.probabilities(images)[:, oracle.labels.index(output)]
        shown[prompt] = float((column > 0.5).float().mean())
        generated.append(oracle.features(images).numpy())
    renders, others = (_captioned_renders(list(outputs), samples, seed + i) for i in range(2))
    real = oracle.features(_images(renders)).numpy()
    decoded = oracle.features(_images(round_trip(base.pipeline.vae, others))).numpy()
    return {
        "base": {
            "steps": recipe.prior.steps,
            "guidance_scale": recipe.prior.guidance_scale,
            "shown": shown,
            "kernel_distance": {
                "generated": kernel_distance(np.concatenate(generated), real),
                "through_vae": kernel_distance(decoded, real),
                "renders": kernel_distance(oracle.features(_images(others)).numpy(), real),
            },
        }
    }


def _captioned_renders(prompts: Sequence[str], count: int, seed: int) -> NDArray[np.uint8]:
    """``count`` held-out scenes for each caption, drawn as the base model's were."""
    scenes: dict[str, list[Scene]] = {prompt: [] for prompt in prompts}
    i = 0
    while any(len(found) < count for found in scenes.values()):
        scene, caption = captioned(seed, i)
        if caption in scenes and len(scenes[caption]) < count:
            scenes[caption].append(scene)
        i += 1
    return render_all([scene for found in scenes.values() for scene in found], "captioned scenes")


def _images(pixels: NDArray[np.uint8]) -> list[Image.Image]:
    return [Image.fromarray(scene) for scene in pixels]


def _pixels(scenes: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(scenes).permute(0, 3, 1, 2).contiguous().to(device).float() / 255


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
