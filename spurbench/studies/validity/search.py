"""The rule by which the search for a loss chooses, as the plan of the study has it."""

from __future__ import annotations

from collections.abc import Sequence

from spurbench.studies.validity.plan import Search
from spurbench.studies.validity.results import Found, MakingResult


def choose(rule: Search, rows: Sequence[MakingResult]) -> Found:
    """The row of the search that wins.

    A row qualifies if its images are object-free and novel enough; where nothing tells, it does
    not. Of those the highest tau over pairs of ``effect`` with the base's twins wins; of those
    within a tie of it, the highest spurious accuracy.
    """
    searched = {row.name for row in rule.rows}
    qualified = [row for row in rows if row.name in searched and _qualifies(rule, row)]
    taus = {row.name: tau for row in qualified if (tau := score(row)) is not None}
    best = max(taus.values(), default=None)
    as_good = [
        row
        for row in qualified
        if best is not None and row.name in taus and taus[row.name] >= best - rule.tie
    ]
    winner = max(
        as_good, key=lambda row: row.measures["spurious_accuracy"].value or 0, default=None
    )
    return Found(
        rule=rule,
        qualified=tuple(row.name for row in qualified),
        winner=winner.name if winner else None,
    )


def score(row: MakingResult) -> float | None:
    """What rows are ranked by; None if it can't be told."""
    agreement = row.of("twin-base", "effect")
    return agreement.figures["tau_pairs"].value if agreement else None


def _qualifies(rule: Search, row: MakingResult) -> bool:
    free, novel = (row.measures[name].value for name in ("object_free", "novelty"))
    return (
        free is not None
        and novel is not None
        and free >= rule.object_free
        and novel >= rule.novelty
    )
