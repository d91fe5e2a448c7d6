"""From a result to what is proposed: an entry, or evaluation results for a page on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spurbench.core import atomic
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.results import Result, Summary
from spurbench.leaderboard.entries import Entry


def submit(path: Path, output: Path) -> tuple[Path, Entry]:
    """Write the entry of a result.

    Args:
        path: the result's JSON, with its parquet beside it.
        output: folder of entries.

    Returns:
        The file, and what it holds.

    Raises:
        SpurbenchError: if there is no such result, or the answers to each image are lost.
    """
    result = Result.read(path)
    entry = Entry.of(result, result.answers)
    file = output / entry.folder / entry.file_name
    entry.write(file)
    return file, entry


def write_model_card(path: Path, output: Path, dataset: str) -> list[dict[str, Any]]:
    """Write a result as evaluation results for its classifier's page on the Hub.

    Args:
        path: the result's JSON.
        output: the YAML, which goes to ``.eval_results/`` of the model's repository.
        dataset: the images' repository on the Hub, OWNER/NAME.

    Returns:
        What was written: an evaluation result for each split and measure, shares in percent.

    Raises:
        SpurbenchError: if there is no such result, or ``dataset`` can't be on the Hub.
    """
    import yaml
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    result = Result.read(path)
    try:
        validate_repo_id(dataset)
    except HFValidationError:
        dataset = ""
    if dataset.count("/") != 1:
        raise SpurbenchError("the Hub's evaluation results name a dataset on it: OWNER/NAME")
    # As huggingface_hub's eval_result_entries_to_yaml does, which its older versions lack.
    written = [
        {
            "dataset": {"id": dataset, "task_id": f"{split}_{measure}"},
            "value": value,
            "date": result.created,
            "notes": ", ".join([note, *_how(result)]),
        }
        for split, part in result.splits.items()
        for measure, value, note in _measures(part.summary)
    ]
    atomic.write_text(output, yaml.safe_dump(written, sort_keys=False, allow_unicode=True))
    return written


def _measures(summary: Summary) -> list[tuple[str, float, str]]:
    own = summary.spurious_accuracy_interval
    found = [("spurious_accuracy", summary.spurious_accuracy, own.low, own.high)]
    if shown := summary.recognition:
        area = shown.auroc_interval
        found += [
            ("recognition", shown.accuracy, shown.interval.low, shown.interval.high),
            ("auroc", shown.auroc, area.low, area.high),
        ]
    if effect := summary.effect:
        found.append(("feature_effect", effect.effect, effect.interval.low, effect.interval.high))
    return [
        (name, round(100 * value, 2), f"95 % interval {100 * low:.1f} to {100 * high:.1f}")
        for name, value, low, high in found
    ]


def _how(result: Result) -> list[str]:
    version = result.dataset.version
    return [
        *([f"dataset version {version}"] if version else []),
        f"config {result.config}",
        f"protocol {result.protocol}",
        f"weights {result.classifier.weights_sha256[:12]}",
        "percent",
    ]
