"""Answers to images without images: the parquet's columns, from a few words."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def frame(*groups: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(groups, ignore_index=True)


def images(
    source: str,
    index: int,
    called: Sequence[int],
    *,
    probability: Sequence[float] | None = None,
    answer: int = 999,
    counted: bool = True,
    prefix: str | None = None,
    **columns,
) -> pd.DataFrame:
    """Images of a class, of which those of ``called`` are called it and the others ``answer``.

    A control's i-th image is the twin of the i-th generated one.
    """
    n = len(called)
    return pd.DataFrame(
        {
            "image_sha256": [f"{prefix or source}-{index}-{i}" for i in range(n)],
            "path": [f"{i}.png" for i in range(n)],
            "source": source,
            "class_index": index,
            "class_name": f"class {index}",
            "spurious_feature": None,
            "replicate": 0,
            "object_absent": True,
            "is_reference": False,
            "twin_of": [
                f"generated-{index}-{i}" if source == "control" else None for i in range(n)
            ],
            "counted": counted,
            "prediction": [index if yes else answer for yes in called],
            "predicted_wnid": "",
            "probability": probability or [0.9 if yes else 0.1 for yes in called],
            "rank": [1 if yes else 2 for yes in called],
        }
        | columns
    )
