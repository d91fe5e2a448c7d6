"""What counts as reached, by the plan of the study (docs/mend.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spurbench.studies.mending.cells import Mended
from spurbench.studies.mending.figures import Figure, Measure, change, values
from spurbench.studies.mending.results import Goal, Group

HEADLINE, FEWEST, REAL = "fine-tune-generated-1200", "fine-tune-generated-75", "fine-tune-real-75"
"""The row that is held to the goals, and those that it is compared with."""

FALL, LOSS, GAIN = -0.30, -0.01, 0.10
OF_PANEL = 3
"""Panel members of which the first goal asks."""


def goals(groups: Sequence[Group], mended: Sequence[Mended]) -> tuple[Goal, ...]:
    """All goals.

    Args:
        groups: one for each classifier.
        mended: the answers of the same.
    """
    fell = _each(
        groups, "spurious accuracy on `real` falls by 30 points", "real", lambda x: x <= FALL
    )
    if fell.reached is not None:
        unseen = [group.name for group in groups if group.part == "unseen"]
        panel = sum(group.part == "panel" and group.name in fell.met for group in groups)
        reached = panel >= OF_PANEL and bool(unseen) and set(unseen) <= set(fell.met)
        fell = fell.model_copy(update={"reached": reached})
    return (
        fell,
        _each(groups, "biased accuracy falls by 1 point at most", "biased", lambda x: x >= LOSS),
        _each(groups, "accuracy without the feature rises by 10", "object", lambda x: x >= GAIN),
        _between(
            mended,
            "spurious accuracy with 1,200 images is below that with 75",
            FEWEST,
            lambda figure: figure.high < 0,
        ),
        _between(
            mended,
            "spurious accuracy is not above that with 75 real images",
            REAL,
            lambda figure: figure.value <= 0,
        ),
    )


def _each(
    groups: Sequence[Group], goal: str, measure: Measure, meets: Callable[[float], bool]
) -> Goal:
    figures = {}
    for group in groups:
        row = group.row(HEADLINE)
        if row is not None and (figure := row.change[measure]) is not None:
            figures[group.name] = figure
    met = tuple(name for name, figure in figures.items() if meets(figure.value))
    reached = len(met) == len(groups) if len(figures) == len(groups) else None
    return Goal(goal=goal, reached=reached, figures=figures, met=met)


def _between(
    mended: Sequence[Mended], goal: str, other: str, meets: Callable[[Figure], bool]
) -> Goal:
    """Of the means over all classifiers, the headline row against another."""
    found = None
    if all({HEADLINE, other} <= set(one.after) for one in mended):
        of_other, own = (
            values([one.after[name] for one in mended], "fresh") for name in (other, HEADLINE)
        )
        found = change(of_other, own)
    if found is None:
        return Goal(goal=goal, reached=None, figures={}, met=())
    name = f"against {other}"
    reached = meets(found)
    return Goal(goal=goal, reached=reached, figures={name: found}, met=(name,) if reached else ())
