"""A mended classifier as a folder that `spurbench eval` and timm load, and its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spurbench.classifiers.classifier import Classifier
from spurbench.classifiers.folder import CONFIG, SPUFIX, WEIGHTS, described
from spurbench.classifiers.load import check_spec, load_classifier
from spurbench.classifiers.spufix import SpuFixed
from spurbench.core import atomic, markdown
from spurbench.core.errors import SpurbenchError

CARD = "README.md"


def load(spec: str, device: torch.device) -> Classifier:
    """A classifier that can be written to a folder.

    Raises:
        SpurbenchError: if it can't be loaded, or is no network of timm's.
    """
    source, _ = check_spec(spec)
    if source.name not in ("timm", "folder", "mini"):
        raise SpurbenchError(
            f"{spec} is no network of timm's, whose format a mended classifier is written in; mend "
            "a timm name, a folder in timm's format or mini:NAME"
        )
    return load_classifier(spec, device=device)


def config_of(classifier: Classifier) -> dict[str, Any]:
    """The ``config.json`` of a classifier that :func:`load` gave.

    Raises:
        SpurbenchError: if it is mended by spufix already.
    """
    info = classifier.info
    if isinstance(classifier.network, SpuFixed):
        raise SpurbenchError(f"{info.name} is mended by spufix already; mend what it was before")
    if (config := described(info.spec)) is not None:
        return config
    preprocessing = classifier.preprocessing("model")
    height, width = classifier.input_size
    return {
        "architecture": info.architecture,
        "num_classes": len(classifier.wnids),
        "pretrained_cfg": {
            "num_classes": len(classifier.wnids),
            "input_size": [3, height, width],
            "interpolation": preprocessing.interpolation,
            "crop_pct": height / preprocessing.resize[0],
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
        },
    }


def write(
    folder: Path,
    classifier: Classifier,
    config: Mapping[str, Any],
    done: Mapping[str, Any],
    fix: Mapping[str, Tensor] | None = None,
) -> None:
    """Write ``config.json``, ``model.safetensors``, a card and perhaps ``spufix.safetensors``.

    Args:
        folder: made, or replaced as a whole.
        classifier: whose network's weights are written, in float32.
        config: from :func:`config_of`.
        done: what was done to it, JSON values; it stands in the card and under ``mended``.
        fix: contributions that SpuFix takes off.
    """
    from safetensors.torch import save_file

    before = config.get("training_data") or "unknown"
    described = {**config, "training_data": f"{before}; mended by {done['method']}"[:200]}
    with atomic.folder(folder) as new:
        tensors = {name: t.detach().cpu() for name, t in classifier.network.state_dict().items()}
        save_file({name: t.contiguous().clone() for name, t in tensors.items()}, new / WEIGHTS)
        if fix is not None:
            save_file({name: t.contiguous() for name, t in fix.items()}, new / SPUFIX)
        atomic.write_json(new / CONFIG, {**described, "mended": dict(done)})
        atomic.write_text(new / CARD, card(classifier, done, fixed=fix is not None))


def card(classifier: Classifier, done: Mapping[str, Any], *, fixed: bool) -> str:
    """What was done to the classifier, for people."""
    name = markdown.escape(classifier.info.name)
    lines = [
        "---\nlibrary_name: timm\ntags: [image-classification, spurbench]\n---\n",
        f"# {name}, mended by {markdown.escape(done['method'])}\n",
        f"Made by `spurbench mend` of {name} (weights {classifier.info.weights_sha256[:12]}), to "
        "rely less on spurious features.\n",
    ]
    if fixed:
        lines.append(
            f"**`{WEIGHTS}` holds the network as it was.** SpuFix is not linear in its features, "
            f"so no network of timm's can hold it: `{SPUFIX}` does, and `spurbench eval --model "
            "FOLDER` applies it. timm alone loads the network unmended. The fix in full, with phi "
            "the input of the last linear layer:\n\n"
            "```python\n"
            "logits.index_add_(1, columns, -(phi @ rows.T - offsets).clamp(min=0))\n"
            "```\n"
        )
    lines.append(f"```json\n{markdown.embedded_json(dict(done))}\n```\n")
    return "\n".join(lines)
