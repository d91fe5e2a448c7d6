"""The paper's three tables, of one dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from spurbench.dataset.rows import Row
from spurbench.evaluation.display import ROLES
from spurbench.evaluation.results import ClassResult, Result, Summary
from spurbench.images.records import Split
from spurbench.studies.ablation.results import Ablation, Estimate
from spurbench.studies.report.paper import paper
from spurbench.studies.report.table import Column, Shown, Table, Value

SPLITS: tuple[Split, ...] = ("real", "generated")


def spurious_accuracy(results: Sequence[Result]) -> Table:
    """Table 1: each class and classifier, real beside generated.

    Args:
        results: of one dataset, at least one; a class that a split lacks stays empty.
    """
    classes = _classes(results)
    found = [{s: _by_index(result, s) for s in SPLITS} for result in results]
    columns: dict[str, list[Value]] = {}

    def put(**values: Value) -> None:
        for name, value in values.items():
            columns.setdefault(name, []).append(value)

    for index, name in classes.items():
        for result, splits in zip(results, found, strict=True):
            printed = paper().spurious_accuracy(result.classifier.name, index)
            for i, split in enumerate(SPLITS):
                of = splits[split].get(index)
                everything = of.with_references if of else None
                put(
                    class_index=index,
                    class_name=name,
                    classifier=result.label,
                    split=split,
                    n=of.n if of else None,
                    spurious_accuracy=of.spurious_accuracy if of else None,
                    low=of.spurious_accuracy_interval.low if of else None,
                    high=of.spurious_accuracy_interval.high if of else None,
                    n_with_references=everything.n if everything else None,
                    with_references=everything.share if everything else None,
                    with_references_low=everything.interval.low if everything else None,
                    with_references_high=everything.interval.high if everything else None,
                    paper=printed[i] if printed else None,
                )
    shown = [Shown("class", [*classes.values(), "mean"])]
    for result, splits in zip(results, found, strict=True):
        group = result.label
        for i, split in enumerate(SPLITS):
            cells = [_interval(splits[split].get(index)) for index in classes]
            summary = result.splits[split].summary if split in result.splits else None
            cells.append(_interval(summary))
            shown.append(Shown(split, cells, group))
            if split == "real":
                whole = [
                    _percent(of.with_references.share) if of and of.with_references else ""
                    for of in (splits[split].get(index) for index in classes)
                ]
                if any(whole):
                    shown.append(Shown("all real", [*whole, ""], group))
            pairs = [paper().spurious_accuracy(result.classifier.name, index) for index in classes]
            if any(pairs):
                theirs = [_percent(pair[i]) if pair else "" for pair in pairs]
                shown.append(Shown(f"paper, {split}", [*theirs, ""], group))
    notes = [
        "Per cent of images called the class, with 95 % intervals; means over classes. Only images "
        "count in which the detector sees no object: "
        f"{' and '.join(counts for split in SPLITS if (counts := _counts(results, split)))}. "
        "Real: without the references, which a fine-tuning saw; all real: with them."
    ]
    if not any("paper" in column.heading for column in shown):
        notes.append(f"None of these classifiers on these classes is in {paper().source}.")
    return Table(
        "spurious-accuracy",
        "Spurious accuracy on real and generated images, by class and classifier (the paper's "
        "Table 1)",
        [Column(name, values) for name, values in columns.items()],
        shown,
        notes,
    )


def classifiers(results: Sequence[Result]) -> Table:
    """Who was asked, and who had a part in making the images."""
    infos = [result.classifier for result in results]
    parts = [ROLES[result.role] if result.role else "" for result in results]
    columns: dict[str, Sequence[Value]] = {
        "classifier": [result.label for result in results],
        "architecture": [info.architecture for info in infos],
        "source": [info.source for info in infos],
        "parameters": [info.parameters for info in infos],
        "weights_sha256": [info.weights_sha256 for info in infos],
        "part": parts,
        "measured": [result.created for result in results],
    }
    return Table(
        "classifiers",
        "The classifiers",
        [Column(name, values) for name, values in columns.items()],
        [
            Shown("", [result.label for result in results]),
            Shown("architecture", [info.architecture for info in infos]),
            Shown("parameters", [f"{info.parameters:,}" for info in infos]),
            Shown("weights", [info.weights_sha256[:12] for info in infos]),
            Shown("measured", [result.created[:10] for result in results]),
            Shown("part in the images", parts),
        ],
        [
            "Weights: the first digits of their sha256. Who had a part in the images is judged by "
            "images of their own choosing."
        ]
        if any(parts)
        else ["Weights: the first digits of their sha256."],
    )


def ablation(found: Ablation) -> Table:
    """Table 2: what each part of the method brings."""
    rows = found.rows
    printed = paper().table2 if found.recipe == "sd15" else {}
    measured = [row.summary["spurious_accuracy"] for row in rows]
    difference = [row.against_baseline["spurious_accuracy"] for row in rows]

    def numbers(estimates: Sequence[Estimate | None], end: str) -> list[Value]:
        return [getattr(estimate, end) if estimate else None for estimate in estimates]

    columns = [
        Column("row", [row.name for row in rows]),
        Column("description", [row.description for row in rows]),
        Column("spurious_accuracy", numbers(measured, "mean")),
        Column("low", numbers(measured, "low")),
        Column("high", numbers(measured, "high")),
        Column("against_baseline", numbers(difference, "mean")),
        Column("against_baseline_low", numbers(difference, "low")),
        Column("against_baseline_high", numbers(difference, "high")),
        Column("paper", [_share(printed.get(row.name)) for row in rows]),
    ]
    shown = [
        Shown("", [row.description for row in rows]),
        Shown("spurious accuracy", [_estimate(estimate) for estimate in measured]),
        Shown("against the baseline", [_estimate(estimate) for estimate in difference]),
    ]
    if printed:
        cells = [f"{printed[row.name]:.1f}" if row.name in printed else "" for row in rows]
        shown.append(Shown("paper", cells))
    seeds = len(found.seeds)
    return Table(
        "ablation",
        f"Spurious accuracy of generated images by what they are made with, recipe {found.recipe} "
        "(the paper's Table 2)",
        columns,
        shown,
        [
            f"Means over classes, the panel and {seeds} seed{'s' if seeds > 1 else ''}, per cent; "
            f"95 % t-intervals over seeds; baseline: {found.baseline}."
        ],
    )


def quality(
    rows: Mapping[Split, Sequence[Row]],
    scores: Mapping[str, Callable[[Row], float | None]],
    notes: Sequence[str] = (),
) -> Table:
    """Table 3: image quality of the references against that of the generated images.

    Args:
        rows: of a dataset, by split.
        scores: by metric, how good a row's image is; None where that is not known.
        notes: what readers of the scores should know.
    """
    parts = {
        "references": [row for row in rows["real"] if row.is_reference],
        "generated": list(rows["generated"]),
    }
    classes = {row.class_index: row.class_name for row in rows["generated"]}
    columns: dict[str, list[Value]] = {}
    shown = [Shown("class", list(classes.values()))]
    known = {
        (metric, part, index): [
            value for row in those if row.class_index == index and (value := score(row)) is not None
        ]
        for metric, score in scores.items()
        for part, those in parts.items()
        for index in classes
    }
    for (metric, part, index), values in known.items():
        line: dict[str, Value] = {
            "metric": metric,
            "images": part,
            "class_index": index,
            "class_name": classes[index],
            "n": len(values),
            "mean": float(np.mean(values)) if values else None,
            "standard_deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        }
        for name, of_line in line.items():
            columns.setdefault(name, []).append(of_line)
    for metric in scores:
        for i, part in enumerate(parts):
            of_part = [known[metric, part, index] for index in classes]
            cells = [f"{np.mean(v):.2f} (n = {len(v)})" if v else "" for v in of_part]
            shown.append(Shown(part, cells, metric))
            printed = [paper().table3.get(index) for index in classes]
            if metric == "topiq_nr" and any(printed):
                shown.append(
                    Shown(f"paper, {part}", [f"{p[i]:.2f}" if p else "" for p in printed], metric)
                )
    return Table(
        "quality",
        "Image quality of the references that were learnt from, and of the generated images (the "
        "paper's Table 3)",
        [Column(name, values) for name, values in columns.items()],
        shown,
        notes,
    )


def _classes(results: Sequence[Result]) -> dict[int, str]:
    return {
        of.index: of.name
        for result in results
        for part in result.splits.values()
        for of in part.classes
    }


def _by_index(result: Result, split: Split) -> dict[int, ClassResult]:
    part = result.splits.get(split)
    return {of.index: of for of in part.classes} if part else {}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _counts(results: Sequence[Result], split: Split) -> str:
    """How many images of a split count: ``71 to 75 real ones a class``."""
    counts = {
        of.n for result in results if split in result.splits for of in result.splits[split].classes
    }
    if not counts:
        return ""
    least, most = min(counts), max(counts)
    return f"{least if least == most else f'{least} to {most}'} {split} ones a class"


def _interval(of: ClassResult | Summary | None) -> str:
    if of is None:
        return ""
    interval = of.spurious_accuracy_interval
    ends = f"{100 * interval.low:.0f}, {100 * interval.high:.0f}"
    return f"{_percent(of.spurious_accuracy)} [{ends}]"


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return _percent(estimate.mean)
    return f"{_percent(estimate.mean)} [{_percent(estimate.low)}, {_percent(estimate.high)}]"
