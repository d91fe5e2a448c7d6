"""The distributions that scenes are drawn from, and what is said about a scene.

Scene i of data set D for subject S is a function of (seed, D, S, i) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from spurbench.core.identity import derive_seed
from spurbench.mini.backgrounds import CONTEXTS
from spurbench.mini.kinds import KINDS
from spurbench.mini.objects import OBJECTS
from spurbench.mini.scenes import (
    CONTROLS,
    PLANTED_FEATURE,
    SIZE,
    SUBFAMILY_KIND,
    Scene,
    render,
)

SUBFAMILIES = tuple(SUBFAMILY_KIND)
FEATURES = tuple(PLANTED_FEATURE.values())
PLAIN_SUBFAMILIES = tuple(s for s in SUBFAMILIES if s not in FEATURES)

BIAS = 0.95
"""Share of a class's biased images that show its planted feature."""

CONTROL_FEATURES = 0.8
"""Share of the control classes' images that show a planted feature: without them a classifier could
answer from the feature alone, and every object-free image would be called the class."""

SMALL = (0.5, 1.05)
"""Object scales of the biased data: often small, so that the feature tells more than the object."""

FRAMING = (0.6, 1.15)
"""Feature scales of all data, the ``real`` split and the base model's captioned scenes included:
sets of images of a feature shall not differ in how near it is."""

CONTEXT_SHARE = 0.25
"""Share of all scenes that lie in one of the contexts, whatever they show."""

EMPTY = "valley"
"""The class of scenes without an object. A classifier has to answer something for them; had it no
such class, one of the planted ones would be its answer, and look like reliance."""

EMPTY_BARE = 0.4
"""Share of the empty class's biased images that show no sub-family at all."""

EMPTY_FEATURES = 0.1
"""Share of them that show a planted feature, without its object: as ImageNet has landscapes with
flowers. The others show another sub-family."""

CLASSES = (*OBJECTS, EMPTY)
"""All that a classifier may answer."""

VISIBILITY = {
    "hummingbird": 0.9,
    "freight car": 0.9,
    "fireboat": 0.42,
    "gondola": 0.65,
    "flagpole": 1.6,
    "koala": 0.5,
}
"""Factor on :data:`SMALL`: an object that is easy to see is drawn smaller, a thin one larger, or
classifiers would answer some classes from the object alone and others from the feature alone."""


def biased(name: str, seed: int, split: str, i: int, bias: float = BIAS) -> Scene:
    """Scene ``i`` of a class as classifiers train on it.

    Args:
        name: one of :data:`CLASSES`.
        seed: global seed.
        split: train, validation, ....
        i: which one.
        bias: share of a planted class's scenes that show its feature, in [0, 1].
    """
    rng, scene_seed = _draws(seed, f"biased/{split}", name, i)
    chance = rng.random()
    if name == EMPTY:
        planted = EMPTY_BARE <= chance < EMPTY_BARE + EMPTY_FEATURES
        pool = FEATURES if planted else PLAIN_SUBFAMILIES
        subfamily = None if chance < EMPTY_BARE else rng.choice(pool)
    elif name in CONTROLS:
        subfamily = rng.choice(FEATURES if chance < CONTROL_FEATURES else PLAIN_SUBFAMILIES)
    elif chance < bias:
        subfamily = PLANTED_FEATURE[name]
    else:
        subfamily = rng.choice([s for s in SUBFAMILIES if s != PLANTED_FEATURE[name]])
    factor = VISIBILITY.get(name, 1.0)
    return Scene(
        None if name == EMPTY else name,
        None if subfamily is None else str(subfamily),
        scene_seed,
        object_scale=(SMALL[0] * factor, SMALL[1] * factor),
        feature_scale=FRAMING,
        context=_any_context(rng),
    )


def spurious(name: str, seed: int, i: int, data_set: str = "real") -> Scene:
    """Object-free scene ``i`` of a class's planted feature, framed as the biased data are.

    Args:
        name: one of the classes with a planted feature.
        seed: global seed.
        i: which one.
        data_set: ``real``, or another name for scenes that are none of that split's.
    """
    rng, scene_seed = _draws(seed, data_set, name, i)
    return Scene(
        None,
        PLANTED_FEATURE[name],
        scene_seed,
        feature_scale=FRAMING,
        context=_any_context(rng),
    )


def positive(name: str, seed: int, i: int) -> Scene:
    """Scene ``i`` that truly shows the class, among the features it usually comes with."""
    return biased(name, seed, "positive", i)


def unbiased(seed: int, split: str, i: int) -> Scene:
    """Scene ``i`` with object and sub-family drawn independently, either of them often absent."""
    rng, scene_seed = _draws(seed, f"unbiased/{split}", "", i)
    name = None if rng.random() < 0.4 else str(rng.choice(list(OBJECTS)))
    subfamily = None if rng.random() < 0.15 else _any_subfamily(rng)
    return Scene(name, subfamily, scene_seed, (0.75, 1.25), FRAMING, _any_context(rng))


def captioned(seed: int, i: int) -> tuple[Scene, str]:
    """Scene ``i`` of the base model's training data, and a true caption of it.

    A caption without an object is of an object-free scene, so "a photo of a flower" shows flowers
    of any sub-family and nothing else, anywhere; most captions name the context where there is one.
    """
    rng, scene_seed = _draws(seed, "captioned", "", i)
    what = rng.choice(["kind", "object", "both"], p=[0.45, 0.3, 0.25])
    name = None if what == "kind" else str(rng.choice(list(OBJECTS)))
    subfamily = None if what == "object" else _any_subfamily(rng)
    context = _any_context(rng)
    scene = Scene(name, subfamily, scene_seed, (0.9, 1.4), FRAMING, context)
    subject = None
    if subfamily is not None:
        subject = subfamily if rng.random() < 0.4 else SUBFAMILY_KIND[subfamily]
    if name is not None and subject is not None and rng.random() < 0.2:
        subject = None  # the object's caption need not say everything that is there
    parts = [f"a {part}" for part in (name, subject) if part is not None]
    where = f" {context}" if context is not None and rng.random() < 0.8 else ""
    return scene, f"a photo of {' and '.join(parts)}{where}"


def caption_words() -> list[str]:
    """Every word that a caption may hold."""
    phrases = ["a photo of a and", *OBJECTS, *KINDS, *SUBFAMILIES, *CONTEXTS]
    return sorted({word for phrase in phrases for word in phrase.lower().split()})


@dataclass(frozen=True)
class OracleLabels:
    """The oracle's outputs in order, and the truth of scenes in them.

    Each is named ``object:``, ``kind:``, ``feature:`` or ``context:`` and what it tells; these are
    its heads.
    """

    names: tuple[str, ...] = (
        *(f"object:{name}" for name in OBJECTS),
        *(f"kind:{kind}" for kind in KINDS),
        *(f"feature:{name}" for name in PLANTED_FEATURE),
        *(f"context:{context}" for context in CONTEXTS),
    )

    def of(self, scene: Scene) -> np.ndarray:
        """0 or 1 for each output, float32."""
        true = {f"object:{scene.object}", f"kind:{scene.kind}", f"context:{scene.context}"}
        true |= {f"feature:{n}" for n, f in PLANTED_FEATURE.items() if f == scene.subfamily}
        return np.array([name in true for name in self.names], np.float32)

    def right_by_head(self, decided: np.ndarray, scenes: Sequence[Scene]) -> dict[str, float]:
        """Shares of scenes on which all of a head's outputs are right.

        Args:
            decided: whether each output says yes, (N, outputs) bool.
            scenes: the N scenes.
        """
        right = decided == (np.stack([self.of(scene) for scene in scenes]) > 0.5)
        heads = np.array([name.partition(":")[0] for name in self.names])
        return {
            str(head): float(right[:, heads == head].all(axis=1).mean())
            for head in dict.fromkeys(heads)
        }


def render_all(scenes: Sequence[Scene], title: str) -> np.ndarray:
    """(N, 64, 64, 3) uint8, with a progress bar on a terminal."""
    pixels = np.empty((len(scenes), SIZE, SIZE, 3), np.uint8)
    for i, scene in enumerate(tqdm(scenes, title, leave=False, disable=None)):
        pixels[i] = render(scene)
    return pixels


def _any_subfamily(rng: np.random.Generator) -> str:
    kind = str(rng.choice(list(KINDS)))
    return str(rng.choice(list(KINDS[kind])))


def _any_context(rng: np.random.Generator) -> str | None:
    return str(rng.choice(list(CONTEXTS))) if rng.random() < CONTEXT_SHARE else None


def _draws(seed: int, data_set: str, subject: str, i: int) -> tuple[np.random.Generator, int]:
    scene_seed = derive_seed(seed, data_set, subject, i)
    return np.random.default_rng([scene_seed, 1]), scene_seed
