"""What counts as reached, by the plan of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spurbench.studies.validity.results import Agreement, Figure, MakingResult

LEAST = {"tau_classifiers": 0.95, "tau_pairs": 0.7}
SPURIOUS = 0.05
NOVELTY, OBJECT_FREE = 0.9, 0.98
SEED_RANGE = 0.08


def reached(
    row: MakingResult, agreement: Agreement, baselines: Sequence[str]
) -> dict[str, bool | None]:
    """By goal whether a way of making reaches it; None where a number is missing.

    Args:
        row: of the way.
        agreement: its measure that is held to the goals.
        baselines: names of the rows that it is to be better than; real images are the first.
    """
    taus = agreement.figures
    differences = [agreement.against[name] for name in baselines if name in agreement.against]
    goals = {
        f"{name.replace('_', ', ')} {least:g}": _compare(taus[name].value, least)
        for name, least in LEAST.items()
    }
    for name in LEAST:
        lows = [of[name].low for of in differences]
        goals[f"{name.replace('_', ', ')} above baselines"] = _all([_above(v, 0) for v in lows])
    errors = [of["calibration_error"].value for of in differences]
    goals["calibration error below"] = _all([None if v is None else v < 0 for v in errors])
    spurious = _of(row.measures_against, baselines, "spurious_accuracy")
    goals["spurious accuracy 5 points above real"] = _all(
        [_compare(spurious.value, SPURIOUS), _above(spurious.low, 0)]
    )
    goals["novelty 90 %"] = _compare(row.measures["novelty"].value, NOVELTY)
    goals["object-free 98 %"] = _compare(row.measures["object_free"].value, OBJECT_FREE)
    between = row.measures["seed_range"].value
    goals["seeds within 8 points"] = None if between is None else between <= SEED_RANGE
    return goals


def _of(
    against: Mapping[str, Mapping[str, Figure]], baselines: Sequence[str], measure: str
) -> Figure:
    """The difference to the first baseline."""
    known = baselines and baselines[0] in against
    return against[baselines[0]][measure] if known else Figure(value=None)


def _compare(value: float | None, least: float) -> bool | None:
    return None if value is None else value >= least


def _above(value: float | None, limit: float) -> bool | None:
    return None if value is None else value > limit


def _all(found: Sequence[bool | None]) -> bool | None:
    """False if one is; else None if one is not known, or there are none."""
    if False in found:
        return False
    return None if None in found or not found else True
