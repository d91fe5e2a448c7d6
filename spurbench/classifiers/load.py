"""One loader for classifiers from everywhere: libraries, the hub, local folders and files.

What can be known without them is checked before torch and its kin are imported.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spurbench.classifiers import (
    folder,
    hub,
    onnx,
    open_clip,
    robustbench,
    timm,
    torchvision,
    transformers,
    vlm,
)
from spurbench.classifiers.sources import OwnWeights, Source, registry
from spurbench.core.errors import SpurbenchError
from spurbench.core.hub import HubFile

if TYPE_CHECKING:
    import torch

    from spurbench.classifiers.classifier import Classifier

Checkpoint = Path | HubFile
"""Weights to load: a local file, or one on the hub."""

SOURCES = registry(
    timm.SOURCE,
    torchvision.SOURCE,
    transformers.SOURCE,
    open_clip.SOURCE,
    onnx.SOURCE,
    robustbench.SOURCE,
    hub.SOURCE,
    folder.SOURCE,
    folder.EMBEDDED,
    vlm.SOURCE,
)


def load_classifier(
    spec: str,
    *,
    checkpoint: Checkpoint | None = None,
    labels: Sequence[str | int] | None = None,
    device: str | torch.device = "cpu",
) -> Classifier:
    """Load a classifier.

    Args:
        spec: a timm name, ``torchvision:ARCH.WEIGHTS``, ``robustbench:NAME``,
            ``hf-hub:OWNER/NAME`` (timm's format), ``transformers:OWNER/NAME``,
            ``open_clip:ARCH.TAG``, ``onnx:FILE``, ``mini:NAME`` (the embedded panel), a folder in
            timm's or transformers' format (``config.json`` and ``model.safetensors``), or
            ``vlm:OWNER/NAME`` or ``vlm:FOLDER`` (an image-text model of transformers).
        checkpoint: weights for an architecture of timm, torchvision or open_clip; with a local file
            nothing is fetched.
        labels: of its outputs, in place of what the classifier itself says of them; see
            :func:`spurbench.classifiers.labels.wnids_of`.
        device: where it runs.

    Raises:
        SpurbenchError: for an unknown name (with the nearest ones), weights that can't be had or
            don't fit, or a head that is not ImageNet's.
    """
    source, name = check_spec(spec, checkpoint)
    if labels and not source.takes_labels:
        raise SpurbenchError(f"{source.name}: has no outputs to be labelled; leave out the labels")
    from spurbench.classifiers.classifier import Classifier, assemble

    file = checkpoint.fetch() if isinstance(checkpoint, HubFile) else checkpoint
    loaded = source.load(name, OwnWeights(file, len(labels) if labels else None) if file else None)
    if isinstance(loaded, Classifier):
        return loaded.to(device)
    return assemble(
        replace(loaded, labels=labels) if labels else loaded,
        spec=spec,
        source=source.name,
        checkpoint=checkpoint.name if checkpoint else None,
    ).to(device)


def check_spec(spec: str, checkpoint: Checkpoint | None = None) -> tuple[Source, str]:
    """The source of a classifier, and its name there; quick, for nothing heavy is imported.

    Args:
        spec: see :func:`load_classifier`.
        checkpoint: see :func:`load_classifier`.

    Raises:
        SpurbenchError: if there is no such source, folder or local checkpoint, the source takes no
            checkpoint, or the name can't be one of its own.
    """
    source, name = find_source(spec)
    source.check(name)
    if checkpoint is not None and not source.takes_checkpoint:
        raise SpurbenchError(
            "--checkpoint goes with an architecture of timm, torchvision or open_clip"
        )
    if isinstance(checkpoint, Path) and not folder.is_file(checkpoint):
        raise SpurbenchError(f"no checkpoint at {checkpoint}")
    return source, name


def find_source(spec: str) -> tuple[Source, str]:
    """The source of a classifier, and its name there, unchecked.

    Raises:
        SpurbenchError: if there is no such source.
    """
    prefix, separator, name = spec.partition(":")
    if separator and prefix in SOURCES:
        return SOURCES[prefix], name
    if transformers.describes(Path(spec)):
        return transformers.SOURCE, spec
    if folder.is_file(Path(spec) / folder.CONFIG):
        return folder.SOURCE, spec
    if "/" in spec or "\\" in spec or spec in (".", ".."):
        return folder.SOURCE, spec  # whose check says what it lacks
    if separator:
        near = difflib.get_close_matches(prefix, SOURCES, n=1)
        hint = f"did you mean {near[0]}:{name}?" if near else f"there are {', '.join(SOURCES)}"
        raise SpurbenchError(f"classifier {spec!r}: no source {prefix!r}; {hint}")
    return timm.SOURCE, spec


def read_member(text: str, relative_to: Path) -> tuple[str, Checkpoint | None]:
    """The SPEC and the checkpoint of ``SPEC`` or ``SPEC=CHECKPOINT``, checked.

    Args:
        text: the checkpoint is a file, or ``hf://OWNER/NAME/FILE`` on the hub.
        relative_to: where a relative file starts from; and a classifier's folder, if it is there.

    Raises:
        SpurbenchError: see :func:`check_spec`.
    """
    spec, separator, file = text.partition("=")
    checkpoint: Checkpoint | None = None
    if folder.is_file(relative_to / text / folder.CONFIG) and relative_to != Path():
        spec = str(relative_to / text)
    elif folder.is_file(Path(text) / folder.CONFIG):  # a folder with "=" in its name
        spec = text
    elif separator:
        if not file:
            raise SpurbenchError(f"panel member {text!r} names no checkpoint after '='")
        checkpoint = HubFile.parse(file) or relative_to / file
    check_spec(spec, checkpoint)
    return spec, checkpoint
