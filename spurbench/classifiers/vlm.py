"""Image-text models of transformers, asked for a class: ``vlm:OWNER/NAME`` or ``vlm:FOLDER``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spurbench.classifiers.sources import OwnWeights, Source
from spurbench.core import hub
from spurbench.core.documents import read_json
from spurbench.core.errors import SpurbenchError, reason

if TYPE_CHECKING:
    from spurbench.classifiers.questions import YesNoClassifier

_NEEDED = {
    "config.json": ("config.json",),
    "weights as safetensors": ("*.safetensors",),
    "tokenizer": ("tokenizer.json", "tokenizer_config.json"),
    "image processor": ("processor_config.json", "preprocessor_config.json"),
}
"""What a folder must hold, and by which of the files it is known."""


def _check(name: str) -> None:
    if not _is_folder(name):
        if not re.fullmatch(r"\w[\w.-]*/[\w.-]+(@[\w./-]+)?", name):
            raise SpurbenchError(
                f"vlm:{name} is neither a folder nor vlm:OWNER/NAME, with @REVISION at will"
            )
        return
    for what, files in _NEEDED.items():
        if not any(path.is_file() for file in files for path in Path(name).glob(file)):
            raise SpurbenchError(
                f"no {what} ({' or '.join(files)}) in {name}; vlm: takes a folder that an "
                "image-text model and its processor were saved to with save_pretrained"
            )
    read_json(Path(name) / "config.json")


def _load(name: str, weights: OwnWeights | None) -> YesNoClassifier:
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    from spurbench.classifiers.questions import YesNoClassifier

    place, where = name, dict[str, Any]()
    if _is_folder(name):
        where["local_files_only"] = True
    else:
        place, _, revision = name.partition("@")
        where["revision"] = revision or "main"
        hub.use_cache_if_unreachable()
    # Attention written out does the same on every device, and a config.json can't name another
    # implementation, which may be code to fetch.
    safely = {"use_safetensors": True, "attn_implementation": "eager"}
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what it warns of as tables ends in one line below
    try:
        processor = AutoProcessor.from_pretrained(place, trust_remote_code=False, **where)
        model, found = AutoModelForImageTextToText.from_pretrained(
            place, trust_remote_code=False, output_loading_info=True, **safely, **where
        )
        model = model.float()
    except Exception as error:  # of configurations, files, HTTP: they have no common ancestor
        raise SpurbenchError(
            f"vlm:{name} can't be loaded as an image-text model of transformers: "
            f"{type(error).__name__}: {reason(error)[:200]}"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    if lacking := sorted(found["missing_keys"]):
        raise SpurbenchError(
            f"vlm:{name} lacks the weights of {len(lacking)} tensors, e.g. {lacking[0]}; they "
            "would be random"
        )
    own = Path(name).resolve().name if _is_folder(name) else name
    return YesNoClassifier(model, processor, spec=f"vlm:{name}", name=own)


def _is_folder(name: str) -> bool:
    try:
        return bool(name) and Path(name).is_dir()
    except (OSError, ValueError):  # too long for a path, or with NUL in it
        return False


SOURCE = Source("vlm", _load, _check, takes_labels=False)
