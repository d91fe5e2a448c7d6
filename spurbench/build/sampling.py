"""The stages that draw images: prior, sample, contexts, controls, positives.

Each draws from weights, a prompt and a seed an image; so a control, which is of the generic prompt,
starts from the very noise that its image started from.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from spurbench.build.store import Stage, StageStore, remove
from spurbench.build.workshop import REVISIONS, Workshop
from spurbench.core import atomic
from spurbench.core.documents import read_bytes
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import derive_seed, fingerprint, noise_seed
from spurbench.core.progress import tracked
from spurbench.diffusion.base import TRAINED, TextToImage
from spurbench.diffusion.sample import PhiGuidance, sample
from spurbench.evaluation import panel
from spurbench.images.decode import decode_rgb
from spurbench.recipe.classes import SpuriousClass
from spurbench.recipe.sections import Prior, Sample

log = logging.getLogger(__name__)


def draw_prior(shop: Workshop, spurious_class: SpuriousClass) -> Stage:
    """Stage 2, shared by the classes whose features are of one kind."""
    recipe, request = shop.request.recipe, shop.request
    prompt = recipe.prior_prompt(spurious_class)
    seeds = [derive_seed(request.seed, "prior", prompt, i) for i in range(recipe.prior.images)]

    def make(folder: Path) -> None:
        _draw(shop, None, folder, prompt, seeds, recipe.prior)

    inputs = {
        "base": shop.base.fingerprint,
        "resolution": recipe.base.resolution,
        "prompt": prompt,
        "seeds": fingerprint(seeds),
        **recipe.prior.model_dump(mode="json"),
    }
    return shop.run(spurious_class.prior_subject, "prior", "prior", inputs, make)


def draw_sample(
    shop: Workshop, spurious_class: SpuriousClass, tuned: Stage | None, replicate: int
) -> Stage:
    """Stage 5, from the fine-tuned weights, or from the base's without any."""
    recipe = shop.request.recipe
    prompt = recipe.instance_prompt(spurious_class)
    seeds = sample_seeds(shop, spurious_class, replicate)
    label = numbered("sample", replicate)
    return _draw_subject(shop, spurious_class, tuned, "sample", label, prompt, seeds)


def draw_context(
    shop: Workshop, spurious_class: SpuriousClass, tuned: Stage, context: str, replicate: int
) -> Stage:
    """The subject in another place, from the noise of as many of its generator's first images."""
    prompt = shop.request.recipe.context_prompt(spurious_class, context)
    seeds = context_seeds(shop, spurious_class, replicate)
    label = numbered(f"contexts: {context}", replicate)
    return _draw_subject(shop, spurious_class, tuned, "contexts", label, prompt, seeds)


def _draw_subject(
    shop: Workshop,
    spurious_class: SpuriousClass,
    tuned: Stage | None,
    name: str,
    label: str,
    prompt: str,
    seeds: Sequence[int],
) -> Stage:
    """Images of what was learnt, steered by phi if the recipe says so."""
    recipe = shop.request.recipe
    strength, phi = recipe.sample.phi_guidance, shop.phi
    guidance = (
        PhiGuidance(
            strength, partial(phi.log_probability, wnid=spurious_class.wnid), phi.input_size
        )
        if strength
        else None
    )

    def make(folder: Path) -> None:
        _draw(shop, tuned, folder, prompt, seeds, recipe.sample, guidance)

    inputs = {
        "weights": tuned.fingerprint if tuned else shop.base.fingerprint,
        "prompt": prompt,
        "resolution": recipe.base.resolution,
        "seeds": fingerprint(seeds),
        **recipe.sample.model_dump(mode="json"),
        "images": len(seeds),
        **({"phi": panel.fingerprint([phi]), "class": spurious_class.index} if strength else {}),
    }
    return shop.run(spurious_class.slug, label, name, inputs, make)


def draw_controls(
    shop: Workshop, spurious_class: SpuriousClass, tuned: Stage | None, replicate: int
) -> Stage:
    """Stage 5's twins: the noise and the settings of its images, without what makes the feature.

    They are the untouched base's, or those of fine-tuned weights, which then say what the generic
    prompt has come to mean.
    """
    recipe = shop.request.recipe
    prompt = recipe.prior_prompt(spurious_class)
    seeds = sample_seeds(shop, spurious_class, replicate)

    def make(folder: Path) -> None:
        _draw(shop, tuned, folder, prompt, seeds, recipe.sample)

    inputs = {
        **({"weights": tuned.fingerprint} if tuned else {"base": shop.base.fingerprint}),
        "prompt": prompt,
        "resolution": recipe.base.resolution,
        "seeds": fingerprint(seeds),
        **recipe.sample.model_dump(mode="json", exclude={"phi_guidance"}),
    }
    label = numbered("fine-tuned controls" if tuned else "controls", replicate)
    return shop.run(spurious_class.slug, label, "controls", inputs, make)


def draw_positives(shop: Workshop, spurious_class: SpuriousClass) -> Stage:
    """Images that the untouched base makes of the class itself."""
    recipe = shop.request.recipe
    prompt = recipe.positive_prompt(spurious_class)
    seeds = positive_seeds(shop, spurious_class)

    def make(folder: Path) -> None:
        _draw(shop, None, folder, prompt, seeds, recipe.sample)

    inputs = {
        "base": shop.base.fingerprint,
        "prompt": prompt,
        "resolution": recipe.base.resolution,
        "seeds": fingerprint(seeds),
        **recipe.sample.model_dump(mode="json", exclude={"images", "phi_guidance"}),
    }
    return shop.run(spurious_class.slug, "positives", "positives", inputs, make)


def draw_prompt(
    store: StageStore,
    base: TextToImage,
    spurious_class: SpuriousClass,
    tuned: Stage,
    prompt: str,
    seeds: Sequence[int],
    *,
    resolution: int,
    settings: Sample,
) -> Stage:
    """What stage 5 would have made of another prompt, which no build asks for."""

    def make(folder: Path) -> None:
        _load(base, tuned)
        _sample_into(
            folder,
            base,
            prompt,
            seeds,
            resolution=resolution,
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            batch_size=settings.batch_size,
            precision=settings.precision,
        )

    inputs = {
        "revision": REVISIONS["sample"],
        "weights": tuned.fingerprint,
        "prompt": prompt,
        "resolution": resolution,
        "seeds": fingerprint(list(seeds)),
        **settings.model_dump(mode="json"),
    }
    return store.run(spurious_class.slug, "prompt", inputs, make)


def sample_seeds(shop: Workshop, spurious_class: SpuriousClass, replicate: int) -> list[int]:
    """Of each generated image's noise, and of its control's."""
    return _subject_seeds(shop, spurious_class, replicate, shop.request.recipe.sample.images)


def context_seeds(shop: Workshop, spurious_class: SpuriousClass, replicate: int) -> list[int]:
    """Of the noise of the images in each context: that of the generated ones, as far as it goes."""
    return _subject_seeds(shop, spurious_class, replicate, shop.request.recipe.contexts.images)


def _subject_seeds(
    shop: Workshop, spurious_class: SpuriousClass, replicate: int, images: int
) -> list[int]:
    seed = shop.request.replicate_seed(replicate)
    return [noise_seed(seed, "sample", spurious_class.index, i) for i in range(images)]


def positive_seeds(shop: Workshop, spurious_class: SpuriousClass) -> list[int]:
    """Of the noise of each positive that is asked for."""
    images = range(shop.request.recipe.positives.images)
    return [noise_seed(shop.request.seed, "positive", spurious_class.index, i) for i in images]


def numbered(label: str, replicate: int) -> str:
    """What a stage of a generator is called; the first one's as if there were no other."""
    return f"{label}, replicate {replicate}" if replicate else label


def image_files(stage: Stage) -> list[Path]:
    """A stage's images, in the order of their seeds."""
    return sorted(stage.folder.glob("[0-9]*.png"))


def _draw(
    shop: Workshop,
    tuned: Stage | None,
    folder: Path,
    prompt: str,
    seeds: Sequence[int],
    settings: Prior | Sample,
    phi_guidance: PhiGuidance | None = None,
) -> None:
    """Fill a stage's folder from fine-tuned weights, or from the untouched base without any."""
    if tuned is None:
        shop.base.restore()
    else:
        _load(shop.base, tuned)
    _sample_into(
        folder,
        shop.base,
        prompt,
        seeds,
        resolution=shop.request.recipe.base.resolution,
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        batch_size=settings.batch_size,
        precision=settings.precision,
        phi_guidance=phi_guidance,
    )


def _load(base: TextToImage, tuned: Stage) -> None:
    folders = {name: tuned.folder / f"{name}.safetensors" for name in TRAINED}
    base.load({name: load_file(path) for name, path in folders.items()})


def _sample_into(
    folder: Path,
    base: TextToImage,
    prompt: str,
    seeds: Sequence[int],
    *,
    batch_size: int,
    **options: Any,
) -> None:
    """Write images as 0000.png, 0001.png, ..., going on after those an earlier run left."""
    # Whole batches only, so that an image is always sampled in the same company: floating point
    # results may differ in the last bit between batch sizes.
    there = _keep_whole_images(folder, len(seeds))
    start = there - there % batch_size if there < len(seeds) else there
    images = sample(base, prompt, seeds[start:], batch_size=batch_size, **options)
    shown = tracked(images, f"images of {prompt!r}", len(seeds), done=start, unit="img")
    for position, image in enumerate(shown, start):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        atomic.write_bytes(folder / f"{position:04d}.png", buffer.getvalue())


def _keep_whole_images(folder: Path, count: int) -> int:
    """How many of ``count`` images, from the first on, are there and whole; others are removed."""
    whole: list[Path] = []
    for path in (folder / f"{position:04d}.png" for position in range(count)):
        try:
            decode_rgb(read_bytes(path))
        except FileNotFoundError:
            break
        except SpurbenchError as error:
            log.warning("%s is damaged (%s); sampling it again", path, reason(error))
            break
        whole.append(path)
    for path in set(folder.glob("[0-9]*.png")).difference(whole):
        remove(path)
    return len(whole)
