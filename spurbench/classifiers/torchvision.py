"""Classifiers of torchvision, ``torchvision:ARCH.WEIGHTS``."""

from __future__ import annotations

import difflib
import logging
from typing import TYPE_CHECKING

from spurbench.classifiers.sources import OwnWeights, Source
from spurbench.core import hub
from spurbench.core.errors import SpurbenchError
from spurbench.core.hub import TorchFile

if TYPE_CHECKING:
    from spurbench.classifiers.classifier import Loaded

log = logging.getLogger(__name__)


def _load(name: str, own: OwnWeights | None) -> Loaded:
    from torchvision import models

    from spurbench.classifiers.checkpoints import fit_state_dict, read_state_dict
    from spurbench.classifiers.classifier import Loaded

    architecture, _, tag = name.partition(".")
    try:
        choices = models.get_model_weights(architecture)
    except ValueError:
        near = difflib.get_close_matches(architecture, models.list_models(models), n=5)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise SpurbenchError(f"torchvision has no classifier {architecture!r}{hint}") from None
    tags = [weights.name for weights in choices]
    wanted = tag or choices.DEFAULT.name
    if wanted not in tags:
        raise SpurbenchError(
            f"torchvision's {architecture} has no weights {wanted!r}; it has {', '.join(tags)}"
        )
    if own is not None:
        head = {} if own.outputs is None else {"num_classes": own.outputs}
        network = models.get_model(architecture, weights=None, **head)
        fit_state_dict(network, read_state_dict(own.file), str(own.file))
        # Whatever they are, they are not the published ones, so they don't go by their name.
        full = architecture
    else:
        full = f"{architecture}.{wanted}"
        if full != name:
            log.warning("torchvision:%s is read as torchvision:%s", name, full)
        network = hub.fetched(full, lambda: models.get_model(architecture, weights=choices[wanted]))
    preset = choices[wanted].transforms()
    side, resize = preset.crop_size[0], preset.resize_size[0]
    return Loaded(
        network=network,
        name=full,
        architecture=architecture,
        input_size=(side, side),
        resize=(resize,),
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _published(name: str) -> list[TorchFile]:
    from torchvision import models

    architecture, _, tag = name.partition(".")
    choices = models.get_model_weights(architecture)
    return [TorchFile((choices[tag] if tag else choices.DEFAULT).url)]


SOURCE = Source("torchvision", _load, published=_published, takes_checkpoint=True)
