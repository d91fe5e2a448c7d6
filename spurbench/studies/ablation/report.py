"""An ablation as a table, a plot and a sheet of samples."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL import Image

from spurbench.core import markdown
from spurbench.images.decode import decode_rgb
from spurbench.images.sheets import contact_sheet
from spurbench.recipe.classes import SpuriousClass
from spurbench.studies.ablation.plan import Variation
from spurbench.studies.ablation.results import (
    MEASURES,
    PARTS,
    Ablation,
    Estimate,
    RealResult,
    VariationResult,
)

SHEET_IMAGES = 5


def classes_at_or_above_real(real: RealResult, row: VariationResult) -> int:
    """In how many classes a row's images fool the panel at least as often as the real ones."""
    return sum(
        measured.spurious_accuracy >= real.classes[name].spurious_accuracy
        for name, measured in row.classes.items()
    )


def render_markdown(ablation: Ablation) -> str:
    """The table of an ablation, with what each column is."""
    real = ablation.real
    # Real images cost no seconds.
    rows = [
        ["real images", *(_cell(name, getattr(real.mean, name, None)) for name in MEASURES), "", ""]
    ]
    for row in ablation.rows:
        rows.append(
            [
                markdown.escape(row.description),
                *(_interval(name, row.summary[name]) for name in MEASURES),
                ""
                if row.name == ablation.baseline
                else _interval("spurious_accuracy", row.against_baseline["spurious_accuracy"]),
                f"{classes_at_or_above_real(real, row)}/{len(row.classes)}",
            ]
        )
    table = markdown.table(
        ["row", *(heading for heading, _ in MEASURES.values()), "against baseline", "classes"],
        markdown.first_left(len(MEASURES) + 3),
        rows,
    )
    legend = "".join(f"- {heading}: {meaning}\n" for heading, meaning in MEASURES.values())
    by_class = [("real images", real.classes)]
    by_class += [(markdown.escape(row.description), {**row.classes}) for row in ablation.rows]
    per_class = markdown.table(
        ["spurious accuracy", *map(markdown.escape, real.classes)],
        markdown.first_left(len(real.classes) + 1),
        [
            [title, *(_cell("spurious_accuracy", of[c].spurious_accuracy) for c in real.classes)]
            for title, of in by_class
        ],
    )
    return (
        f"# Ablation of recipe {markdown.escape(ablation.recipe)}\n\n"
        f"Seeds {', '.join(map(str, ablation.seeds))}; means over classes and seeds with 95 % "
        f"t-intervals over seeds; per cent but for the last two measures. Distances: "
        f"{markdown.escape(ablation.feature_space)}. `against baseline`: difference in spurious "
        f"accuracy to row `{ablation.baseline}`, paired by seed. `classes`: in how many the "
        "spurious accuracy is at or above that of the real images.\n\n"
        f"{table}\n{legend}\n{per_class}\n{_classifier_table(ablation)}"
    )


def _classifier_table(ablation: Ablation) -> str:
    """Which classifiers are fooled; then, by their part in the images, against the baseline."""
    part_of = ablation.classifiers
    names = sorted(part_of, key=lambda name: list(PARTS).index(part_of[name]))
    parts = [part for part in PARTS if part in part_of.values()]
    rows = [
        [
            "real images",
            *(_cell("spurious_accuracy", ablation.real.classifiers[name]) for name in names),
            *("" for _ in parts),
        ]
    ]
    for row in ablation.rows:
        differences = [
            ""
            if row.name == ablation.baseline
            else _interval("spurious_accuracy", row.parts[part].against_baseline)
            for part in parts
        ]
        means = [row.classifiers[name].spurious_accuracy.mean for name in names]
        rows.append(
            [
                markdown.escape(row.description),
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


def _interval(name: str, estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    text = _cell(name, estimate.mean)
    if estimate.low is None:
        return text
    return f"{text} [{_cell(name, estimate.low)}, {_cell(name, estimate.high)}]"


def render_plot(ablation: Ablation) -> bytes:
    """Means with intervals, a row each; the real images as a line. PNG."""
    from matplotlib.figure import Figure

    shown = ("spurious_accuracy", "object_absent", "feature_present", "novelty")
    rows = ablation.rows
    figure = Figure(figsize=(4 + 2.6 * len(shown), 1.4 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True)
    for axis, name in zip(axes, shown, strict=True):
        for position, row in enumerate(rows):
            estimate = row.summary[name]
            if estimate is None:
                continue
            if estimate.low is not None and estimate.high is not None:
                ends = [100 * estimate.low, 100 * estimate.high]
                axis.plot(ends, [position, position], color="#7a9cc6", linewidth=3, zorder=1)
            axis.plot(100 * estimate.mean, position, "o", color="#1f4e8c", zorder=2)
        real = getattr(ablation.real.mean, name)
        if real is not None:
            axis.axvline(100 * real, color="#c0392b", linestyle="--", linewidth=1)
        axis.set(title=MEASURES[name][0], xlim=(-4, 104), xlabel="per cent")
        axis.grid(axis="x", color="#dddddd")
    axes[0].set_yticks(range(len(rows)), [row.name for row in rows])
    axes[0].invert_yaxis()
    seeds = len(ablation.seeds)
    figure.suptitle(
        f"Recipe {ablation.recipe}, {seeds} seed{'s' if seeds > 1 else ''}; dashed: real images",
        fontsize=10,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def render_sheet(
    variations: Sequence[Variation],
    classes: Sequence[SpuriousClass],
    references: Mapping[str, Sequence[bytes]],
    samples: Mapping[tuple[str, str], Sequence[bytes]],
) -> bytes:
    """First images, half of the classes above the other half. PNG.

    Args:
        variations: a row of images each, below the references'.
        classes: side by side.
        references: by class, encoded; :data:`SHEET_IMAGES` of each are shown.
        samples: likewise, by variation and class.
    """
    rows: list[tuple[str, list[Image.Image] | None]] = []
    half = (len(classes) + 1) // 2
    for group in (classes[:half], classes[half:]):
        rows.append((" | ".join(c.name for c in group), None))
        lines = [("references", [references[c.name] for c in group])]
        lines += [(v.name, [samples[v.name, c.name] for c in group]) for v in variations]
        for title, images in lines:
            shown = [decode_rgb(data) for of_class in images for data in of_class[:SHEET_IMAGES]]
            rows.append((title, shown))
    buffer = io.BytesIO()
    contact_sheet(rows, side=64).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
