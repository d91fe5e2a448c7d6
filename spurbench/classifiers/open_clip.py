"""CLIP and its kin as zero-shot classifiers, ``open_clip:ARCH.TAG`` or ``open_clip:ARCH=FILE``.

A class is told by 80 sentences, OpenAI's templates for ImageNet with open_clip's names of its
classes: the mean of their unit embeddings, normalised, is the class's row of the head. Encoding
them takes minutes, so it is done once for the same weights and sentences.
"""

from __future__ import annotations

import difflib
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spurbench.classifiers.sources import OwnWeights, Source
from spurbench.core import atomic, cache, hub
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import fingerprint, weights_sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spurbench.classifiers.classifier import Loaded

log = logging.getLogger(__name__)

CACHE = "text-embeddings"
"""In the user's cache folder."""


def _check(name: str) -> None:
    if importlib.util.find_spec("open_clip") is None:
        raise SpurbenchError(
            f"open_clip:{name} needs open_clip_torch; pip install 'spurbench[open_clip]'"
        )


def _load(name: str, own: OwnWeights | None) -> Loaded:
    with _without_root_logger():
        return _loaded(name, own)


@contextmanager
def _without_root_logger() -> Iterator[None]:
    """open_clip logs through the root logger, and so sets it up where it has no handler.

    All that is logged here would be printed twice from then on.
    """
    nowhere = logging.NullHandler()
    logging.getLogger().addHandler(nowhere)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(nowhere)


def _loaded(name: str, own: OwnWeights | None) -> Loaded:
    import open_clip

    from spurbench.classifiers.classifier import Loaded
    from spurbench.classifiers.networks import ZeroShot

    architecture, tag = _architecture_and_tag(name)
    published = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    if own is not None:
        called = architecture
        model = _with_own_weights(architecture, published, own)
    elif tag:
        called = f"{architecture}.{tag}"
        model = hub.fetched(
            called,
            lambda: open_clip.create_model(
                architecture, pretrained=tag, force_quick_gelu=bool(published.get("quick_gelu"))
            ),
        )
    else:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise SpurbenchError(
            f"open_clip:{name} says no weights; say open_clip:{name}=FILE, or one of its tags, "
            f"open_clip:{name}.TAG: {tags}"
        )
    model.eval().requires_grad_(False)
    preprocessing = open_clip.get_model_preprocess_cfg(model)
    templates, names = open_clip.OPENAI_IMAGENET_TEMPLATES, open_clip.IMAGENET_CLASSNAMES
    identity = fingerprint(
        [weights_sha256(model.state_dict()), [template("{}") for template in templates], [*names]]
    )
    texts = _texts(model, architecture, called, identity)
    return Loaded(
        network=ZeroShot(model.visual, model.logit_scale.exp() * texts),
        name=called,
        architecture=architecture,
        weights_sha256=identity,
        parameters=sum(p.numel() for p in model.parameters()),
        **_evaluation(preprocessing, called),
    )


def _architecture_and_tag(name: str) -> tuple[str, str]:
    import open_clip

    known = open_clip.list_models()
    if name in known:
        return name, ""
    architecture, _, tag = name.partition(".")
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=5)
        hint = f"nearest: {', '.join(near)}" if near else "open_clip.list_models() lists the names"
        raise SpurbenchError(f"open_clip has no model {architecture!r}; {hint}")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        listed = f"it has {', '.join(tags)}" if tags else "it has none; say ARCH=FILE"
        raise SpurbenchError(f"open_clip's {architecture} has no weights {tag!r}; {listed}")
    return architecture, tag


def _with_own_weights(architecture: str, published: Mapping[str, Any], own: OwnWeights) -> Any:
    """The model with local weights; a tag says which preprocessing and activation go with them."""
    import open_clip

    images = ("mean", "std", "interpolation", "resize_mode")
    model = hub.fetched(
        architecture,  # of which some take a text tower's settings from the hub
        lambda: open_clip.create_model(
            architecture,
            pretrained_hf=False,
            force_quick_gelu=bool(published.get("quick_gelu")),
            force_preprocess_cfg={key: published[key] for key in images if key in published},
        ),
    )
    try:
        open_clip.load_checkpoint(model, str(own.file), weights_only=True)
    except Exception as error:  # what unpickling junk raises has no common ancestor
        said = " ".join(str(error).split())[:200]
        raise SpurbenchError(
            f"{own.file} does not fit open_clip's {architecture}, or can't be read as weights "
            f"only: {said}"
        ) from None
    return model


def _texts(model: nn.Module, architecture: str, name: str, identity: str) -> Tensor:
    """The classes' unit embeddings (C, D), found in the cache or encoded and left there."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save

    file = cache.folder() / CACHE / f"{identity[:32]}.safetensors"
    try:
        return load_file(file)["texts"]
    except (OSError, SafetensorError, KeyError):
        log.info("%s: encoding its classes' sentences, once; kept in %s", name, file.parent)
    texts = _encode(model, architecture)
    try:
        atomic.write_bytes(file, save({"texts": texts}))
    except SpurbenchError as error:
        log.warning("%s: its text embeddings are not kept: %s", name, error)
    return texts


def _encode(model: nn.Module, architecture: str) -> Tensor:
    import open_clip

    from spurbench.core.environment import choose_device

    device = choose_device("auto")
    tokenizer = hub.fetched(architecture, lambda: open_clip.get_tokenizer(architecture))
    columns: Tensor = open_clip.build_zero_shot_classifier(
        model.to(device),
        tokenizer=tokenizer,
        classnames=open_clip.IMAGENET_CLASSNAMES,
        templates=open_clip.OPENAI_IMAGENET_TEMPLATES,
        device=device,
        use_tqdm=True,
    )
    model.cpu()
    return columns.T.float().cpu().contiguous()


def _evaluation(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    """open_clip's own evaluation transform, as :class:`Loaded` has it."""
    size = said["size"]
    height, width = (size, size) if isinstance(size, int) else size
    squash = said["resize_mode"] == "squash"
    if not squash and (said["resize_mode"] != "shortest" or height != width):
        raise SpurbenchError(
            f"{name} pads its images ({said['resize_mode']}), which can't be measured here"
        )
    return {
        "input_size": (height, width),
        "resize": (height, width) if squash else (height,),
        "interpolation": said["interpolation"],
        "mean": tuple(said["mean"]),
        "std": tuple(said["std"]),
    }


SOURCE = Source("open_clip", _load, _check, takes_checkpoint=True)
