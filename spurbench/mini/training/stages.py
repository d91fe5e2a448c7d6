"""What the embedded models are trained on, and they themselves: each a stage of a store."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from spurbench.build.store import Stage, StageStore
from spurbench.core import atomic
from spurbench.mini.distributions import (
    OracleLabels,
    biased,
    caption_words,
    captioned,
    render_all,
    unbiased,
)
from spurbench.mini.training.base import make_pipeline, make_tokenizer, train_base
from spurbench.mini.training.classifiers import predict, save_classifier, train_classifier
from spurbench.mini.training.decoder import likeness_db, train_decoder
from spurbench.mini.training.labelled import (
    labelled_scenes,
    scenes_digest,
    scenes_of_all_classes,
    trained_classifier,
)
from spurbench.mini.training.settings import AssetSettings
from spurbench.mini.training.vae import (
    encode_all,
    load_vae,
    psnr,
    round_trip,
    soften_half,
    train_vae,
    tune_decoder,
    weights_sha256,
)

SUBJECT = "mini"
"""Of the stages in the store."""

VAE_SCENES, ORACLE_SCENES = 512, 1000
"""Held-out scenes that the autoencoder, and that the oracle, is measured on."""


@dataclass(frozen=True)
class AssetStages:
    """The stages of a training; asking for one makes it, and those before it, unless it is stored.

    Attributes:
        store: of the stages.
        settings: sizes and numbers.
        seed: global seed.
        device: where the models are trained.
        kept_vae: folder of an autoencoder that the base model is trained around and classifiers see
            scenes through; None: the one that is trained here.
    """

    store: StageStore
    settings: AssetSettings
    seed: int
    device: torch.device
    kept_vae: Path | None

    @cached_property
    def captioned(self) -> Stage:
        """Captioned scenes, of which the base model, its autoencoder and decoder learn."""
        pairs = [captioned(self.seed, i) for i in range(self.settings.captioned)]
        scenes, captions = [scene for scene, _ in pairs], [caption for _, caption in pairs]

        def make(folder: Path) -> None:
            np.save(folder / "scenes.npy", render_all(scenes, "captioned scenes"))
            atomic.write_json(folder / "captions.json", captions)

        inputs = {
            "captions": hashlib.sha256("\n".join(captions).encode()).hexdigest(),
            "world": scenes_digest(scenes),
        }
        return self.store.run(SUBJECT, "captioned", inputs, make)

    @cached_property
    def vae(self) -> Stage:
        """The autoencoder, ``vae``, whose latents the base model learns."""
        scenes, settings = self.captioned, self.settings.vae

        def make(folder: Path) -> None:
            vae = train_vae(_pixels(scenes), settings, self.seed, self.device, folder)
            vae.save_pretrained(folder / "vae")
            held_out = _held_out(self.seed)
            atomic.write_json(
                folder / "measured.json", {"psnr_db": psnr(held_out, round_trip(vae, held_out))}
            )

        inputs = {"seed": self.seed, "scenes": scenes.fingerprint, "settings": asdict(settings)}
        return self.store.run(SUBJECT, "vae", inputs, make)

    @cached_property
    def tuned_vae(self) -> Stage:
        """The autoencoder with a better decoder: ``vae`` in float32, ``published`` in float16."""
        scenes, vae_stage, settings = self.captioned, self.vae, self.settings.tuning

        def make(folder: Path) -> None:
            vae = load_vae(vae_stage.folder / "vae", self.device)
            tune_decoder(vae, _pixels(scenes), settings, self.seed, self.device, folder)
            vae.register_to_config(_name_or_path="")  # else the path of the machine that trained it
            vae.save_pretrained(folder / "vae")
            held_out = _held_out(self.seed)
            atomic.write_json(
                folder / "measured.json", {"psnr_db": psnr(held_out, round_trip(vae, held_out))}
            )
            vae.half().save_pretrained(folder / "published")

        inputs = {"seed": self.seed, "vae": vae_stage.fingerprint, "settings": asdict(settings)}
        return self.store.run(SUBJECT, "tuned-vae", inputs, make)

    @cached_property
    def base(self) -> Stage:
        """The text-to-image model: ``pipeline``, in float16."""
        scenes, settings = self.captioned, self.settings.base
        if self.kept_vae is None:
            vae_folder, known = self.vae.folder / "vae", {"vae": self.vae.fingerprint}
        else:
            vae_folder = self.kept_vae
            known = {"vae": weights_sha256(vae_folder), "scenes": scenes.fingerprint}

        def make(folder: Path) -> None:
            vae = load_vae(vae_folder, self.device)
            posteriors = encode_all(vae, _pixels(scenes))
            tokenizer = make_tokenizer(caption_words(), settings.max_tokens)
            torch.manual_seed(self.seed)
            pipeline = make_pipeline(vae, tokenizer, settings)
            captions = scenes.json("captions.json")
            train_base(pipeline, posteriors, captions, settings, self.seed, self.device, folder)
            for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
                part.cpu().half()
            vae.register_to_config(_name_or_path="")  # else the path of the machine that trained it
            pipeline.save_pretrained(folder / "pipeline")

        inputs = {"seed": self.seed, **known, "settings": asdict(settings)}
        return self.store.run(SUBJECT, "base", inputs, make)

    @cached_property
    def tiny_decoder(self) -> Stage:
        """A small stand-in for the autoencoder: ``tiny``."""
        scenes, vae_stage, settings = self.captioned, self.tuned_vae, self.settings.decoder

        def make(folder: Path) -> None:
            vae = load_vae(vae_stage.folder / "vae", self.device).requires_grad_(False)
            tiny = train_decoder(vae, _pixels(scenes), settings, self.seed, self.device, folder)
            tiny.save_pretrained(folder / "tiny")
            likeness = likeness_db(tiny, vae, _held_out(self.seed))
            atomic.write_json(folder / "measured.json", {"likeness_db": likeness})

        inputs = {"seed": self.seed, "vae": vae_stage.fingerprint, "settings": asdict(settings)}
        return self.store.run(SUBJECT, "tiny-decoder", inputs, make)

    @cached_property
    def published_vae(self) -> Path:
        """The autoencoder that classifiers see scenes through, in float16: those trained alone,
        beside a base model that stays, get the same bits as those trained with it."""
        return self.kept_vae or self.tuned_vae.folder / "published"

    @cached_property
    def biased(self) -> Stage:
        """The panel's training and validation scenes with their labels."""
        counts = {
            "train": self.settings.biased_per_class,
            "validation": self.settings.validation_per_class,
        }
        scenes = scenes_of_all_classes(biased, self.seed, counts)
        return labelled_scenes(
            self.store, SUBJECT, "biased", scenes, self.published_vae, self.device, counts=counts
        )

    @cached_property
    def panel(self) -> dict[str, Stage]:
        """The panel's classifiers by name."""
        return {
            name: trained_classifier(
                self.store,
                SUBJECT,
                f"panel-{name}",
                self.biased,
                settings,
                name=name,
                training_data="mini, biased",
                seed=self.seed,
                device=self.device,
            )
            for name, settings in self.settings.panel.items()
        }

    @cached_property
    def oracle(self) -> Stage:
        """What sees whether object, kind and feature are there: ``classifier``."""
        labels, settings = OracleLabels(), self.settings.oracle
        scenes = [unbiased(self.seed, "train", i) for i in range(self.settings.unbiased)]

        def make(folder: Path) -> None:
            vae = load_vae(self.published_vae, self.device)
            model = train_classifier(
                "oracle",
                soften_half(vae, render_all(scenes, "unbiased scenes")),
                np.stack([labels.of(scene) for scene in scenes]),
                settings,
                outputs=len(labels.names),
                seed=self.seed,
                device=self.device,
                work=folder,
            )
            save_classifier(folder / "classifier", model, settings, len(labels.names), labels.names)
            held_out = [unbiased(self.seed, "validation", i) for i in range(ORACLE_SCENES)]
            rendered = render_all(held_out, "unbiased validation")
            views = {"rendered": rendered, "through_vae": round_trip(vae, rendered)}
            measured = {
                title: labels.right_by_head(
                    predict(model, pixels, self.device).numpy() > 0, held_out
                )
                for title, pixels in views.items()
            }
            atomic.write_json(folder / "measured.json", measured)

        inputs = {
            "seed": self.seed,
            "vae": weights_sha256(self.published_vae),
            "count": len(scenes),
            "world": scenes_digest(scenes),
            "settings": asdict(settings),
        }
        return self.store.run(SUBJECT, "oracle", inputs, make)


def _pixels(scenes: Stage) -> np.ndarray:
    pixels: np.ndarray = np.load(scenes.folder / "scenes.npy", mmap_mode="r")
    return pixels


def _held_out(seed: int) -> np.ndarray:
    """Scenes that autoencoder and decoder are measured on, (VAE_SCENES, 64, 64, 3) uint8."""
    return render_all([unbiased(seed, "vae", i) for i in range(VAE_SCENES)], "held-out scenes")
