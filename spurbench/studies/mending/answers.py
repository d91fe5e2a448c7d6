"""What a classifier says of the scenes, in a parquet file: every figure is computed from these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spurbench.classifiers.classifier import Classifier
from spurbench.core import atomic
from spurbench.core.errors import SpurbenchError, reason
from spurbench.evaluation.predict import predict
from spurbench.images.pixels import PixelStore
from spurbench.studies.mending.scenes import KINDS, Kind, Scenes

_NOTES = b"spurbench"
_COLUMNS = ("kind", "class_index", "called", "probability")


@dataclass(frozen=True)
class Said:
    """Of N scenes of a class: whether each is called the class, and its probability; (N,) both."""

    called: NDArray[np.bool_]
    probability: NDArray[np.float64]


Answers = Mapping[Kind, Mapping[int, Said]]
"""By kind of scene and class index."""


def ask(classifier: Classifier, scenes: Scenes, store: PixelStore) -> Answers:
    """Show a classifier all scenes.

    Args:
        classifier: which one.
        scenes: that are readable.
        store: where their pixels are kept for the next classifier.

    Raises:
        SpurbenchError: if its head lacks a class, or an image is damaged.
    """
    answers: dict[Kind, dict[int, Said]] = {}
    for kind in KINDS:
        records = scenes.records[kind]
        if not records:
            answers[kind] = {}
            continue
        predicted = predict(classifier, records, store=store)
        if predicted.damaged:
            place, why = next(iter(predicted.damaged.items()))
            raise SpurbenchError(f"{records[place].path} is damaged ({why}); build the data again")
        indices = np.array([record.class_index for record in records])
        answers[kind] = {
            index: Said(
                (predicted.rank == 1)[indices == index], predicted.probability[indices == index]
            )
            for index in dict.fromkeys(indices.tolist())
        }
    return answers


def write(path: Path, answers: Answers, fingerprint: str) -> None:
    """Write answers, a row a scene, with what they depend on."""
    import pyarrow as pa
    from pyarrow import parquet

    parts = [(kind, index, said) for kind in KINDS for index, said in answers[kind].items()]
    sizes = [len(said.called) for _, _, said in parts]
    table = pa.table(
        {
            "kind": pa.array(np.repeat([p[0] for p in parts], sizes)).dictionary_encode(),
            "class_index": np.repeat([p[1] for p in parts], sizes),
            "called": np.concatenate([p[2].called for p in parts]),
            "probability": np.concatenate([p[2].probability for p in parts]),
        }
    )
    table = table.replace_schema_metadata({_NOTES: json.dumps({"fingerprint": fingerprint})})
    with atomic.writing(path) as file:
        parquet.write_table(table, file, compression="zstd")


def read(path: Path, fingerprint: str) -> Answers | None:
    """Read answers; None if there is no such file, or it was made of something else.

    Raises:
        SpurbenchError: if it is damaged.
    """
    from pyarrow import parquet

    if not path.is_file():
        return None
    try:
        table = parquet.read_table(path)
        if json.loads((table.schema.metadata or {})[_NOTES])["fingerprint"] != fingerprint:
            return None
        kinds, indices, called, probability = (
            np.array(table.column(name).to_pylist()) for name in _COLUMNS
        )
    except (OSError, ValueError, KeyError) as error:
        raise SpurbenchError(f"{path} is damaged ({reason(error)}); delete it") from None
    answers: dict[Kind, dict[int, Said]] = {}
    for kind in KINDS:
        own = kinds == kind
        answers[kind] = {
            index: Said(called[own & (indices == index)], probability[own & (indices == index)])
            for index in dict.fromkeys(indices[own].tolist())
        }
    return answers
