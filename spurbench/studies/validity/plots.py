"""A validity study as plots: PNG to look at, SVG to print."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from spurbench.studies.validity.report import headline
from spurbench.studies.validity.results import MakingResult, Validity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DARK, LIGHT, PALE = "#1f4e8c", "#7a9cc6", "#dddddd"
COLOURS = ("#1f4e8c", "#c0392b", "#3a7d44", "#8e5ea2", "#d08c1d", "#4d4d4d", "#2a9d8f", "#b5651d")


def render_plots(found: Validity) -> dict[str, bytes]:
    """Files by name: ``tau``, ``scatter`` and ``growth``, each PNG and SVG."""
    plots: dict[str, Callable[[Validity], Figure]] = {
        "tau": _tau,
        "scatter": _scatter,
        "growth": _growth,
    }
    files = {}
    for name, draw in plots.items():
        figure = draw(found)
        for kind in ("png", "svg"):
            buffer = io.BytesIO()
            # Without a date, equal results are equal files.
            stamp = {"Date": None} if kind == "svg" else None
            figure.savefig(buffer, format=kind, dpi=130, metadata=stamp)
            files[f"{name}.{kind}"] = buffer.getvalue()
    return files


def _tau(found: Validity) -> Figure:
    """Tau by making with intervals, of classifiers and of pairs; plain accuracy hollow."""
    from matplotlib.figure import Figure

    rows = found.rows
    figure = Figure(figsize=(10, 1.6 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, name, title in zip(
        axes,
        ("tau_classifiers", "tau_pairs"),
        ("over classifiers", "over pairs of classifier and class"),
        strict=True,
    ):
        for position, row in enumerate(rows):
            for agreement, offset, full in (
                (headline(row), 0.14, True),
                (row.of("none", "accuracy"), -0.14, False),
            ):
                if agreement is None or (shown := agreement.figures[name]).value is None:
                    continue
                place = position - offset
                if shown.low is not None and shown.high is not None:
                    axis.plot([shown.low, shown.high], [place] * 2, color=LIGHT, linewidth=2.5)
                face = DARK if full else "white"
                axis.plot(shown.value, place, "o", color=DARK, markerfacecolor=face, zorder=3)
        axis.set(title=title, xlabel="Kendall's tau-b with true reliance")
        axis.set_axisbelow(True)
        axis.grid(axis="x", color=PALE)
    axes[0].set_xlim(right=1.03)
    axes[0].set_yticks(range(len(rows)), [row.description for row in rows])
    axes[0].invert_yaxis()
    figure.suptitle("Filled: with controls (twins, else prior images). Hollow: plain accuracy.")
    return figure


def _scatter(found: Validity) -> Figure:
    """Truth against estimate, a point for each classifier and class of every world."""
    from matplotlib.figure import Figure

    rows = _three(found)
    figure = Figure(figsize=(4 * len(rows), 3.4), layout="constrained")
    axes = figure.subplots(1, len(rows), sharex=True, sharey=True, squeeze=False)[0]
    classes = sorted({name for world in found.worlds for name in world.classes})
    for axis, row in zip(axes, rows, strict=True):
        for colour, name in zip(COLOURS * len(classes), classes, strict=False):
            points = [
                (told, true)
                for world in found.worlds
                if name in world.classes and row.name in world.estimates
                for classifier in world.zoo
                if (told := world.estimates[row.name][classifier][name]) is not None
                and (true := world.truth[classifier][name]) is not None
            ]
            axis.scatter(
                *zip(*points, strict=True) if points else ((), ()),
                s=14,
                color=colour,
                alpha=0.7,
                linewidths=0,
                label=name,
            )
        axis.axline((0, 0), slope=1, color="#999999", linewidth=0.8)
        axis.set(title=row.description, xlabel="estimate (effect)", aspect="equal")
        axis.set_axisbelow(True)
        axis.grid(color=PALE)
    axes[0].set_ylabel("true reliance")
    axes[-1].legend(fontsize=8, loc="lower right")
    return figure


def _three(found: Validity) -> list[MakingResult]:
    """The baselines, and the best of the others by tau over pairs."""

    def tau(row: MakingResult) -> float:
        agreement = headline(row)
        value = agreement.figures["tau_pairs"].value if agreement else None
        return -1 if value is None else value

    baselines = [row for row in found.rows if row.name in found.baselines]
    others = [row for row in found.rows if row.name not in found.baselines and row.kind == "build"]
    own = [row for row in others if row.name == "method"] or sorted(others, key=tau)[-1:]
    return [*baselines, *own] or list(found.rows[:1])


def _growth(found: Validity) -> Figure:
    """Tau over pairs by the number of images, and by that of generators."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    styles = ("-", "--", ":")
    for position, row in enumerate(found.rows):
        agreement = headline(row)
        if agreement is None:
            continue
        for axis, growth in zip(axes, (agreement.images, agreement.generators), strict=True):
            points = {n: tau for n, tau in growth.items() if tau is not None}
            if points:
                axis.plot(
                    *zip(*points.items(), strict=True),
                    styles[position // len(COLOURS) % len(styles)],
                    marker="o",
                    markersize=3.5,
                    color=COLOURS[position % len(COLOURS)],
                    label=row.description,
                )
    axes[0].set(xlabel="images of a class", ylabel="tau over pairs, of the effect")
    axes[1].set(xlabel="generators of a class")
    for axis in axes:
        axis.grid(color=PALE)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure
