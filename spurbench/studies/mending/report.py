"""A study of mending as tables."""

from __future__ import annotations

from spurbench.core import markdown
from spurbench.studies.mending.figures import MEANINGS, MEASURES, Figure, Measure
from spurbench.studies.mending.goals import HEADLINE
from spurbench.studies.mending.results import Figures, Goal, Group, Mending

PARTS = {"panel": "the panel, which chose the references", "unseen": "unseen, of other kinds"}


def render_markdown(found: Mending) -> str:
    """Means by row, the goals, and the classifiers one by one."""
    legend = "".join(f"- {heading}: {what}\n" for heading, what in MEANINGS.values())
    means = "".join(
        f"**Mean over {len(group.classifiers)} classifiers: {PARTS[group.part]}**\n\n"
        f"{_rows(group)}\n"
        for group in found.means
    )
    names = {group.name: markdown.escape(group.name) for group in found.classifiers}
    goals = markdown.table(
        ["goal", "reached", "by"],
        ["left", "left", "left"],
        [[goal.goal, _said(goal.reached), _told(goal, names)] for goal in found.goals],
    )
    return (
        f"{found.scenes} scenes a class and kind, seed {found.seed}. Per cent, but for AUROC; "
        "after a comma: change against before, with its 95 % interval over scenes.\n\n"
        f"{means}{legend}\n{goals}\n{_classifiers(found)}"
    )


def _rows(group: Group) -> str:
    lines = [["before", *(_figure(m, group.before) for m in MEASURES)]]
    lines += [
        [f"`{row.name}`", *(_changed(m, row.after, row.change) for m in MEASURES)]
        for row in group.rows
    ]
    return markdown.table(["row", *_headings()], markdown.first_left(len(MEASURES) + 1), lines)


def _classifiers(found: Mending) -> str:
    """Each before, and after the row that is held to the goals, if it is there."""
    lines = []
    for group in found.classifiers:
        name = markdown.escape(group.name)
        lines.append([f"{name}, before", *(_figure(m, group.before) for m in MEASURES)])
        if row := group.row(HEADLINE):
            after = (_changed(m, row.after, row.change) for m in MEASURES)
            lines.append([f"{name}, after", *after])
    header = [f"`{HEADLINE}`", *_headings()]
    return markdown.table(header, markdown.first_left(len(header)), lines)


def _headings() -> list[str]:
    return [MEANINGS[measure][0] for measure in MEASURES]


def _told(goal: Goal, names: dict[str, str]) -> str:
    """Who meets the goal, then who does not."""
    told = {
        name: f"{names.get(name, name)} {100 * figure.value:+.1f}{_interval('fresh', figure)}"
        for name, figure in goal.figures.items()
    }
    met = ", ".join(text for name, text in told.items() if name in goal.met)
    missed = ", ".join(text for name, text in told.items() if name not in goal.met)
    return "; ".join([part for part in (met, f"missed: {missed}" if missed else "") if part])


def _said(reached: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "not known"}[reached]


def _figure(measure: Measure, figures: Figures) -> str:
    figure = figures[measure]
    return "" if figure is None else _number(measure, figure.value)


def _changed(measure: Measure, after: Figures, change: Figures) -> str:
    by = change[measure]
    if by is None:
        return ""
    shown = f"{by.value:+.3f}" if measure == "auroc" else f"{100 * by.value:+.1f}"
    return f"{_figure(measure, after)}, {shown}{_interval(measure, by)}"


def _interval(measure: Measure, figure: Figure) -> str:
    return f" [{_number(measure, figure.low)}, {_number(measure, figure.high)}]"


def _number(measure: Measure, value: float) -> str:
    return f"{value:.3f}" if measure == "auroc" else f"{100 * value:.1f}"
