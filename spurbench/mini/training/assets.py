"""Train the embedded recipe's models from nothing: ``python -m spurbench.mini.training.assets``.

Stages are stored and resumed; a stage is known by the hash of its settings, the seed and the stages
before it. On the same hardware and package versions, the same seed gives the same weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch

from spurbench.build.store import Stage, StageStore
from spurbench.classifiers.load import load_classifier
from spurbench.core import atomic
from spurbench.core.environment import choose_device, package_versions
from spurbench.core.identity import file_sha256
from spurbench.core.imagenet import imagenet_names
from spurbench.mini.data import Labels, biased, caption_words, captioned, render_all, unbiased
from spurbench.mini.measure import spurious_accuracy
from spurbench.mini.objects import OBJECTS
from spurbench.mini.preview import write_real
from spurbench.mini.training.base import BaseSettings, make_pipeline, make_tokenizer, train_base
from spurbench.mini.training.classifiers import (
    ORACLE,
    PANEL,
    ClassifierSettings,
    predict,
    save_classifier,
    train_classifier,
)
from spurbench.mini.training.decoder import DecoderSettings, likeness_db, train_decoder
from spurbench.mini.training.labelled import digest, labelled_scenes, load_labelled
from spurbench.mini.training.vae import (
    VAESettings,
    encode_all,
    load_vae,
    psnr,
    round_trip,
    soften_half,
    train_vae,
    weights_sha256,
)

log = logging.getLogger(__name__)

Part = Literal["base", "classifiers"]
PARTS: tuple[Part, ...] = ("base", "classifiers")
LISTING = "assets.json"

HEAD = 1000
"""Width of the panel's heads: ImageNet-1k's, of which the world uses ten classes."""


@dataclass(frozen=True)
class AssetSettings:
    """The size of everything; the defaults make the committed assets."""

    captioned: int = 24_000
    biased_per_class: int = 2_000
    unbiased: int = 32_000
    validation_per_class: int = 100
    real_per_class: int = 75
    vae: VAESettings = field(default_factory=VAESettings)
    base: BaseSettings = field(default_factory=BaseSettings)
    decoder: DecoderSettings = field(default_factory=DecoderSettings)
    panel: dict[str, ClassifierSettings] = field(default_factory=lambda: dict(PANEL))
    oracle: ClassifierSettings = ORACLE


def train_assets(
    output: Path,
    work: Path,
    settings: AssetSettings,
    seed: int,
    device: torch.device,
    *,
    parts: Sequence[Part] = PARTS,
    jobs: int = 1,
) -> dict[str, Any]:
    """Train the assets and publish them to ``output`` in one go.

    Args:
        output: folder of the assets, replaced as a whole at the end.
        work: folder of finished and unfinished stages.
        settings: sizes and numbers.
        seed: global seed.
        device: where the models are trained.
        parts: what to train; a part left out stays as ``output`` has it. The classifiers see half
            of their scenes through the autoencoder, the new one or the one that stays.
        jobs: 2 trains the base model in one process and the classifiers in another. Models this
            small gain little from a second core each. On a CPU the number of threads, the cores
            shared out among the jobs, decides the last bits of the weights.

    Returns:
        By part, how it was made and what was measured of its models.
    """
    threads = max(1, torch.get_num_threads() // jobs)
    arguments = (output, StageStore(work), settings, seed, device, parts)
    if jobs > 1:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, spawn, _start_job, (threads,)) as pool:
            for job in [pool.submit(_MAKERS[part], *arguments) for part in parts]:
                job.result()
    made = {part: _MAKERS[part](*arguments) for part in parts}
    listing = json.loads((output / LISTING).read_text()) if set(parts) != set(PARTS) else {}
    with atomic.folder(output) as folder:
        for part in PARTS:
            if part not in made:
                for name in _FOLDERS[part]:
                    shutil.copytree(output / name, folder / name)
                continue
            trained, measured = made[part]
            for name, source in trained.items():
                shutil.copytree(source, folder / name)
            listing[part] = {
                "command": "python -m spurbench.mini.training.assets",
                "seed": seed,
                "device": str(device),
                "threads": threads if device.type == "cpu" else None,
                "settings": _settings_of(part, settings),
                "versions": package_versions(),
                "measured": measured,
            }
        if "classifiers" in parts:
            write_real(folder / "real", settings.real_per_class, seed)
        listing["files"] = {
            str(path.relative_to(folder)): file_sha256(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        atomic.write_json(folder / LISTING, listing)
    return {part: listing[part] for part in parts}


def _start_job(threads: int) -> None:
    torch.set_num_threads(threads)
    _prepare()


def _prepare() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_flush_denormal(True)  # small gradients of a CPU training are slow as denormals


def _settings_of(part: Part, settings: AssetSettings) -> dict[str, Any]:
    of_base = {"captioned", "vae", "base", "decoder"}
    return {
        name: value
        for name, value in asdict(settings).items()
        if (name in of_base) == (part == "base")
    }


Trained = tuple[dict[str, Path], dict[str, Any]]
"""Folders by their name among the assets, and what was measured."""


def _make_base(
    output: Path,
    store: StageStore,
    settings: AssetSettings,
    seed: int,
    device: torch.device,
    parts: Sequence[Part],
) -> Trained:
    scenes = _captioned(store, settings, seed)
    vae = _vae(store, settings, seed, device, scenes)
    base = _base(store, settings, seed, device, scenes, vae)
    decoder = _decoder(store, settings, seed, device, scenes, vae)
    return {
        "base": base.folder / "pipeline",
        "tiny_decoder": decoder.folder / "tiny",
    }, vae.json("measured.json") | {"tiny_decoder": decoder.json("measured.json")}


def _make_classifiers(
    output: Path,
    store: StageStore,
    settings: AssetSettings,
    seed: int,
    device: torch.device,
    parts: Sequence[Part],
) -> Trained:
    vae = output / "base" / "vae"
    if "base" in parts:
        # The other job makes these; this one waits for them at the store's lock. In float16, so
        # that classifiers trained alone, beside a base model that stays, get the same bits.
        scenes = _captioned(store, settings, seed)
        vae = _vae(store, settings, seed, device, scenes).folder / "published"
    classified = _biased(store, settings, seed, device, vae)
    panel = {
        name: _panel(store, settings, seed, device, classified, name) for name in settings.panel
    }
    oracle = _oracle(store, settings, seed, device, vae)
    return {
        **{f"panel/{name}": stage.folder / "classifier" for name, stage in panel.items()},
        "oracle": oracle.folder / "classifier",
    }, {
        "panel": {
            name: {
                **stage.json("measured.json"),
                "spurious_accuracy": spurious_accuracy(
                    load_classifier(str(stage.folder / "classifier"), device=device),
                    settings.real_per_class,
                    seed,
                ),
            }
            for name, stage in panel.items()
        },
        "oracle": oracle.json("measured.json"),
    }


_MAKERS: dict[Part, Callable[..., Trained]] = {
    "base": _make_base,
    "classifiers": _make_classifiers,
}
_FOLDERS: dict[Part, tuple[str, ...]] = {
    "base": ("base", "tiny_decoder"),
    "classifiers": ("panel", "oracle", "real"),
}


def _captioned(store: StageStore, settings: AssetSettings, seed: int) -> Stage:
    pairs = [captioned(seed, i) for i in range(settings.captioned)]

    def make(folder: Path) -> None:
        np.save(
            folder / "scenes.npy", render_all([scene for scene, _ in pairs], "captioned scenes")
        )
        atomic.write_json(folder / "captions.json", [caption for _, caption in pairs])

    captions = hashlib.sha256("\n".join(caption for _, caption in pairs).encode()).hexdigest()
    inputs = {"captions": captions, "world": digest([scene for scene, _ in pairs])}
    return store.run("mini", "captioned", inputs, make)


def _vae(
    store: StageStore, settings: AssetSettings, seed: int, device: torch.device, scenes: Stage
) -> Stage:
    def make(folder: Path) -> None:
        pixels = np.load(scenes.folder / "scenes.npy", mmap_mode="r")
        vae = train_vae(pixels, settings.vae, seed, device, folder)
        vae.save_pretrained(folder / "vae")
        held_out = _validation_scenes(seed, 512)
        atomic.write_json(
            folder / "measured.json", {"psnr_db": psnr(held_out, round_trip(vae, held_out))}
        )
        vae.half().save_pretrained(folder / "published")  # as the base model holds it

    inputs = {"seed": seed, "scenes": scenes.fingerprint, "settings": asdict(settings.vae)}
    return store.run("mini", "vae", inputs, make)


def _base(
    store: StageStore,
    settings: AssetSettings,
    seed: int,
    device: torch.device,
    scenes: Stage,
    vae_stage: Stage,
) -> Stage:
    from diffusers import AutoencoderKL

    def make(folder: Path) -> None:
        vae = AutoencoderKL.from_pretrained(vae_stage.folder / "vae").to(device).eval()
        posteriors = encode_all(vae, np.load(scenes.folder / "scenes.npy", mmap_mode="r"))
        tokenizer = make_tokenizer(caption_words(), settings.base.max_tokens)
        torch.manual_seed(seed)
        pipeline = make_pipeline(vae, tokenizer, settings.base)
        train_base(
            pipeline, posteriors, scenes.json("captions.json"), settings.base, seed, device, folder
        )
        for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
            part.cpu().half()
        vae.register_to_config(_name_or_path="")  # else the path of the machine that trained it
        pipeline.save_pretrained(folder / "pipeline")

    inputs = {"seed": seed, "vae": vae_stage.fingerprint, "settings": asdict(settings.base)}
    return store.run("mini", "base", inputs, make)


def _decoder(
    store: StageStore,
    settings: AssetSettings,
    seed: int,
    device: torch.device,
    scenes: Stage,
    vae_stage: Stage,
) -> Stage:
    def make(folder: Path) -> None:
        vae = load_vae(vae_stage.folder / "vae", device).requires_grad_(False)
        pixels = np.load(scenes.folder / "scenes.npy", mmap_mode="r")
        tiny = train_decoder(vae, pixels, settings.decoder, seed, device, folder)
        tiny.save_pretrained(folder / "tiny")
        held_out = _validation_scenes(seed, 512)
        atomic.write_json(
            folder / "measured.json", {"likeness_db": likeness_db(tiny, vae, held_out)}
        )

    inputs = {"seed": seed, "vae": vae_stage.fingerprint, "settings": asdict(settings.decoder)}
    return store.run("mini", "tiny-decoder", inputs, make)


def _biased(
    store: StageStore, settings: AssetSettings, seed: int, device: torch.device, vae_folder: Path
) -> Stage:
    """The panel's training and validation scenes with their labels."""
    counts = {"train": settings.biased_per_class, "validation": settings.validation_per_class}
    scenes = {
        split: [biased(name, seed, split, i) for name in OBJECTS for i in range(count)]
        for split, count in counts.items()
    }
    return labelled_scenes(store, "mini", "biased", scenes, vae_folder, device, counts=counts)


def _panel(
    store: StageStore,
    settings: AssetSettings,
    seed: int,
    device: torch.device,
    scenes: Stage,
    name: str,
) -> Stage:
    def make(folder: Path) -> None:
        pixels, labels = load_labelled(scenes)
        model = train_classifier(
            name,
            pixels["train"],
            labels["train"],
            settings.panel[name],
            outputs=HEAD,
            seed=seed,
            device=device,
            work=folder,
        )
        save_classifier(
            folder / "classifier",
            model,
            settings.panel[name],
            HEAD,
            training_data="mini, biased",
        )
        right = predict(model, pixels["validation"], device).argmax(1).numpy()
        accuracy = float((right == labels["validation"]).mean())
        log.info("%s: right on %.1f %% of validation scenes", name, 100 * accuracy)
        atomic.write_json(folder / "measured.json", {"validation_accuracy": accuracy})

    inputs = {
        "seed": seed,
        "scenes": scenes.fingerprint,
        "settings": asdict(settings.panel[name]),
    }
    return store.run("mini", f"panel-{name}", inputs, make)


def _oracle(
    store: StageStore, settings: AssetSettings, seed: int, device: torch.device, vae_folder: Path
) -> Stage:
    labels = Labels()
    scenes = [unbiased(seed, "train", i) for i in range(settings.unbiased)]

    def make(folder: Path) -> None:
        vae = load_vae(vae_folder, device)
        truth = np.stack([labels.of(scene) for scene in scenes])
        model = train_classifier(
            "oracle",
            soften_half(vae, render_all(scenes, "unbiased scenes")),
            truth,
            settings.oracle,
            outputs=len(labels.names),
            seed=seed,
            device=device,
            work=folder,
        )
        save_classifier(
            folder / "classifier", model, settings.oracle, len(labels.names), labels.names
        )
        held_out = [unbiased(seed, "validation", i) for i in range(1000)]
        wanted = np.stack([labels.of(scene) for scene in held_out])
        rendered = render_all(held_out, "unbiased validation")
        measured = {}
        for title, images in (("rendered", rendered), ("through_vae", round_trip(vae, rendered))):
            decided = predict(model, images, device).numpy() > 0
            measured[title] = {
                head: float((decided == wanted)[:, columns].all(axis=1).mean())
                for head, columns in _heads(labels.names).items()
            }
        atomic.write_json(folder / "measured.json", measured)

    inputs = {
        "seed": seed,
        "vae": weights_sha256(vae_folder),
        "count": len(scenes),
        "world": digest(scenes),
        "settings": asdict(settings.oracle),
    }
    return store.run("mini", "oracle", inputs, make)


def class_indices() -> dict[str, int]:
    """ImageNet-1k index of every object's class."""
    names = imagenet_names()
    return {name: names.index(name) for name in OBJECTS}


def _heads(names: tuple[str, ...]) -> dict[str, list[int]]:
    """Columns of the oracle by what they tell: object, kind, feature."""
    heads: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        heads.setdefault(name.partition(":")[0], []).append(column)
    return heads


def _validation_scenes(seed: int, count: int) -> np.ndarray:
    return render_all([unbiased(seed, "vae", i) for i in range(count)], "validation scenes")


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path(__file__).parent / "assets")
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("out/mini-assets"), show_default=True
)
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--jobs", type=click.IntRange(1, 2), default=2, show_default=True, help="Processes.")
@click.option(
    "--part",
    "parts",
    type=click.Choice(PARTS),
    multiple=True,
    help="Train this part only and leave the other as it is. [default: both]",
)
def main(
    output: Path, work: Path, seed: int, device: str, jobs: int, parts: tuple[Part, ...]
) -> None:
    """Train the mini world's base model, panel and oracle; resumes where it stopped."""
    _prepare()
    made = train_assets(
        output,
        work,
        AssetSettings(),
        seed,
        choose_device(device),
        parts=parts or PARTS,
        jobs=jobs,
    )
    for part, entry in made.items():
        click.echo(f"{part}: {json.dumps(entry['measured'])}")


if __name__ == "__main__":
    main()
