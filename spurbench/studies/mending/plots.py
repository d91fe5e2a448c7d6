"""A study of mending as plots: PNG to look at, SVG to print."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from spurbench.studies.mending.goals import HEADLINE
from spurbench.studies.mending.results import Group, Mending, RowResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK, LIGHT, PALE = "#1f4e8c", "#7a9cc6", "#dddddd"
COLOURS = ("#1f4e8c", "#c0392b")


def render_plots(found: Mending) -> dict[str, bytes]:
    """Files by name: ``curve`` and ``arrows``, each PNG and SVG."""
    files = {}
    for name, figure in (("curve", _curve(found)), ("arrows", _arrows(found))):
        for kind in ("png", "svg"):
            buffer = io.BytesIO()
            # Without a date, equal results are equal files.
            stamp = {"Date": None} if kind == "svg" else None
            figure.savefig(buffer, format=kind, dpi=130, metadata=stamp)
            files[f"{name}.{kind}"] = buffer.getvalue()
    return files


def _curve(found: Mending) -> Figure:
    """Spurious accuracy by generated images of a class, of each method; the rivals as lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 + 4.5 * len(found.means), 4), layout="constrained")
    axes = figure.subplots(1, len(found.means), sharey=True, squeeze=False)[0]
    for axis, group in zip(axes, found.means, strict=True):
        methods = dict.fromkeys(row.method for row in group.rows if row.source == "generated")
        for colour, method in zip(COLOURS, methods, strict=False):
            own = [row for row in group.rows if row.method == method]
            _points(axis, [row for row in own if row.source == "generated"], colour, method)
            for row in own:
                if row.source == "real" and (of := row.after["fresh"]) is not None:
                    label = f"{method}, {row.per_class} real images"
                    axis.axhline(100 * of.value, color=colour, linestyle="--", label=label)
                if row.source is None and (of := row.after["fresh"]) is not None:
                    label = f"{method}, none"
                    axis.axhline(100 * of.value, color=colour, linestyle=":", label=label)
        before = group.before["fresh"]
        if before is not None:
            axis.axhline(100 * before.value, color="#4d4d4d", linewidth=1, label="before")
        axis.set(title=f"{group.name}, mean", xlabel="generated images of a class", ylim=(0, 100))
        axis.set_axisbelow(True)
        axis.grid(color=PALE)
    axes[0].set_ylabel("spurious accuracy on fresh scenes, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def _points(axis: Axes, rows: list[RowResult], colour: str, label: str) -> None:
    points = [
        (row.per_class, of)
        for row in sorted(rows, key=lambda row: row.per_class or 0)
        if row.per_class is not None and (of := row.after["fresh"]) is not None
    ]
    counts = [count for count, _ in points]
    shown = [100 * of.value for _, of in points]
    errors = [
        [100 * (of.value - of.low) for _, of in points],
        [100 * (of.high - of.value) for _, of in points],
    ]
    axis.errorbar(counts, shown, errors, marker="o", capsize=3, color=colour, label=label)
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, [str(count) for count in counts])


def _arrows(found: Mending) -> Figure:
    """From before to after, accuracy without the feature across and spurious accuracy up."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    axis = figure.subplots()
    for group in found.classifiers:
        start, end = _place(group, None), _place(group, HEADLINE)
        colour = DARK if group.part == "panel" else LIGHT
        if start is None:
            continue
        axis.plot(*start, "o", color=colour, markerfacecolor="white")
        if end is not None:
            axis.plot(*end, "o", color=colour)
            style = {"arrowstyle": "->", "color": colour, "shrinkA": 4, "shrinkB": 4}
            axis.annotate("", end, start, arrowprops=style)
        axis.annotate(group.name, start, (4, 4), textcoords="offset points", fontsize=8)
    axis.set(
        xlabel="accuracy on scenes with the object and without its feature, %",
        ylabel="spurious accuracy on fresh scenes, %",
        xlim=(0, 100),
        ylim=(0, 100),
        title=f"Hollow: before. Filled: {HEADLINE}.",
    )
    axis.set_axisbelow(True)
    axis.grid(color=PALE)
    return figure


def _place(group: Group, row: str | None) -> tuple[float, float] | None:
    of = group.before if row is None else (found.after if (found := group.row(row)) else None)
    if of is None or of["object"] is None or of["fresh"] is None:
        return None
    return 100 * of["object"].value, 100 * of["fresh"].value
