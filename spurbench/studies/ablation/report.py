"""An ablation as a table, a plot and a sheet of samples."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from spurbench.core import markdown
from spurbench.images.decode import decode_rgb
from spurbench.images.sheets import contact_sheet
from spurbench.studies.ablation.plan import MEASURES, PARTS, AblationRequest

SHEET_IMAGES = 5


def classes_at_or_above_real(document: Mapping[str, Any], row: Mapping[str, Any]) -> int:
    """In how many classes a row's images fool the panel at least as often as the real ones."""
    real = document["real"]["classes"]
    return sum(
        measured["spurious_accuracy"] >= real[name]["spurious_accuracy"]
        for name, measured in row["classes"].items()
    )


def render_markdown(document: Mapping[str, Any]) -> str:
    """The table of an ablation, with what each column is."""
    rows = [
        [
            "real images",
            *(_cell(name, document["real"]["mean"].get(name)) for name in MEASURES),
            "",
            "",
        ]
    ]
    for row in document["rows"]:
        rows.append(
            [
                markdown.escape(row["description"]),
                *(_interval(name, row["summary"][name]) for name in MEASURES),
                ""
                if row["name"] == document["baseline"]
                else _interval("spurious_accuracy", row["against_baseline"]["spurious_accuracy"]),
                f"{classes_at_or_above_real(document, row)}/{len(row['classes'])}",
            ]
        )
    table = markdown.table(
        ["row", *(heading for heading, _ in MEASURES.values()), "against baseline", "classes"],
        markdown.first_left(len(MEASURES) + 3),
        rows,
    )
    legend = "".join(f"- {heading}: {meaning}\n" for heading, meaning in MEASURES.values())
    classes = list(document["real"]["classes"])
    per_class = markdown.table(
        ["spurious accuracy", *map(markdown.escape, classes)],
        markdown.first_left(len(classes) + 1),
        [
            [title, *(_cell("spurious_accuracy", of[c]["spurious_accuracy"]) for c in classes)]
            for title, of in [
                ("real images", document["real"]["classes"]),
                *((markdown.escape(r["description"]), r["classes"]) for r in document["rows"]),
            ]
        ],
    )
    return (
        f"# Ablation of recipe {markdown.escape(document['recipe'])}\n\n"
        f"Seeds {', '.join(map(str, document['seeds']))}; means over classes and seeds with 95 % "
        f"t-intervals over seeds; per cent but for the last two measures. Distances: "
        f"{markdown.escape(document['feature_space'])}. `against baseline`: difference in spurious "
        f"accuracy to row `{document['baseline']}`, paired by seed. `classes`: in how many the "
        "spurious accuracy is at or above that of the real images.\n\n"
        f"{table}\n{legend}\n{per_class}\n{_classifier_table(document)}"
    )


def _classifier_table(document: Mapping[str, Any]) -> str:
    """Which classifiers are fooled; then, by their part in the images, against the baseline."""
    part_of = document["classifiers"]
    names = sorted(part_of, key=lambda name: list(PARTS).index(part_of[name]))
    parts = [part for part in PARTS if part in part_of.values()]
    real = document["real"]
    rows = [
        [
            "real images",
            *(_cell("spurious_accuracy", real["classifiers"][name]) for name in names),
            *("" for _ in parts),
        ]
    ]
    for row in document["rows"]:
        differences = [
            ""
            if row["name"] == document["baseline"]
            else _interval("spurious_accuracy", row["parts"][part]["against_baseline"])
            for part in parts
        ]
        means = [row["classifiers"][name]["spurious_accuracy"]["mean"] for name in names]
        rows.append(
            [
                markdown.escape(row["description"]),
                *(_cell("spurious_accuracy", mean) for mean in means),
                *differences,
            ]
        )
    header = [
        "spurious accuracy",
        *(f"{markdown.escape(name)} ({part_of[name]})" for name in names),
        *(f"{part}, against baseline" for part in parts),
    ]
    table = markdown.table(header, markdown.first_left(len(header)), rows)
    return f"{table}\n" + "".join(f"- {part}: {PARTS[part]}\n" for part in parts)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name == "diversity":
        return f"{value:.3f}"
    return f"{value:.0f}" if name == "seconds" else f"{100 * value:.1f}"


def _interval(name: str, summary: Mapping[str, float | None] | None) -> str:
    if summary is None:
        return ""
    text = _cell(name, summary["mean"])
    if summary["low"] is None:
        return text
    return f"{text} [{_cell(name, summary['low'])}, {_cell(name, summary['high'])}]"


def render_plot(document: Mapping[str, Any]) -> bytes:
    """Means with intervals, a row each; the real images as a line. PNG."""
    from matplotlib.figure import Figure

    shown = ("spurious_accuracy", "object_absent", "feature_present", "copying")
    rows = document["rows"]
    figure = Figure(figsize=(4 + 2.6 * len(shown), 1.4 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True)
    for axis, name in zip(axes, shown, strict=True):
        for position, row in enumerate(rows):
            summary = row["summary"][name]
            if summary is None:
                continue
            if summary["low"] is not None:
                ends = [100 * summary["low"], 100 * summary["high"]]
                axis.plot(ends, [position, position], color="#7a9cc6", linewidth=3, zorder=1)
            axis.plot(100 * summary["mean"], position, "o", color="#1f4e8c", zorder=2)
        real = document["real"]["mean"][name]
        if real is not None:
            axis.axvline(100 * real, color="#c0392b", linestyle="--", linewidth=1)
        axis.set(title=MEASURES[name][0], xlim=(-4, 104), xlabel="per cent")
        axis.grid(axis="x", color="#dddddd")
    axes[0].set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes[0].invert_yaxis()
    seeds = len(document["seeds"])
    figure.suptitle(
        f"Recipe {document['recipe']}, {seeds} seed{'s' if seeds > 1 else ''}; dashed: real images",
        fontsize=10,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _sheet(request: AblationRequest, pictures: Mapping[tuple[str, str], list[bytes]]) -> bytes:
    """Per class, its first references and each row's first images of the first seed."""
    rows: list[tuple[str, list[Any] | None]] = []
    names = ["", *(row.name for row in request.plan.rows)]
    half = (len(request.classes) + 1) // 2
    for group in (request.classes[:half], request.classes[half:]):
        rows.append((" | ".join(c.name for c in group), None))
        for name in names:
            images = [decode_rgb(d) for c in group for d in pictures[name, c.name]]
            rows.append((name or "references", images))
    buffer = io.BytesIO()
    contact_sheet(rows, side=64).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
