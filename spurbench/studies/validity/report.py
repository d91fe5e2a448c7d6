"""A validity study as tables."""

from __future__ import annotations

from collections.abc import Iterator

from spurbench.core import markdown
from spurbench.studies.validity.estimators import ESTIMATORS, Estimator
from spurbench.studies.validity.goals import reached
from spurbench.studies.validity.results import (
    CONTROLS,
    FIGURES,
    MEASURES,
    Agreement,
    Control,
    Figure,
    MakingResult,
    Validity,
)
from spurbench.studies.validity.search import score

HEADLINE = ("tau_classifiers", "tau_pairs", "r_pairs", "calibration_error")

BESIDE = ("spurious_accuracy", "object_free", "novelty", "diversity", "seconds")


def headline(row: MakingResult) -> Agreement | None:
    """What the plots show of a row: the effect by the base's twins, else by prior images."""
    return row.of("twin-base", "effect") or row.of("prior", "effect")


def render_markdown(found: Validity) -> str:
    """All tables, each with what its columns are."""
    return "\n".join(_sections(found))


def _sections(found: Validity) -> Iterator[str]:
    worlds = "; ".join(
        f"{markdown.escape(w.name)} ({', '.join(map(markdown.escape, w.classes))}; "
        f"{len(w.zoo)} classifiers)"
        for w in found.worlds
    )
    yield (
        "# Validity\n\n"
        f"Worlds: {worlds}. Seeds {', '.join(map(str, found.seeds))}. Means over worlds and seeds, "
        f"with 95 % percentile intervals of {found.draws} draws of worlds, seeds and classes; they "
        "need not be centred: a draw has fewer different classes, whose means agree less. Shares "
        "in per cent.\n"
    )
    for world in found.worlds:
        if world.left_out:
            names = ", ".join(map(markdown.escape, world.left_out))
            yield f"Left out in {markdown.escape(world.name)}, for a part in the images: {names}.\n"
    if found.search is not None:
        yield from _search(found)
    yield "## Agreement with true reliance\n"
    yield _headline(found)
    yield "".join(
        f"- {heading}: {meaning}\n"
        for name, (heading, meaning) in (FIGURES | MEASURES).items()
        if name in (*HEADLINE, *BESIDE)
    )
    for name in found.baselines:
        yield f"## Difference to `{name}`\n"
        yield _against(found, name)
        yield (
            f"The effect, by twins or prior images, minus that of `{name}` by prior images; last, "
            f"minus the plain accuracy of `{name}`. Paired: both are drawn together.\n"
        )
    yield "## What counts as reached\n"
    yield _goals(found)
    yield "By the effect with the base's twins; `?`: a number is missing.\n"
    yield "## Images\n"
    yield _images(found)
    yield "".join(f"- {heading}: {meaning}\n" for heading, meaning in MEASURES.values())
    yield "## Every estimator\n"
    for estimator in ESTIMATORS:
        yield f"### {estimator}\n"
        yield _of_estimator(found, estimator)
    yield (
        "`between two`: tau over pairs between two makings from different seeds (of real images "
        "and references: between halves), and the mean absolute difference of their estimates. "
        "`in probability`, `against kin`: tau over pairs where the truth is the change in "
        "probability, or the change against another sub-family. `told of`: share of classes in "
        "which the estimate is defined.\n"
    )
    yield "## Growth\n"
    yield _growth(found)
    yield "Tau over pairs by images of a class, and by generators (g) where there are several.\n"


def _headline(found: Validity) -> str:
    rows = [
        [
            markdown.escape(row.description),
            CONTROLS[control],
            str(row.images),
            *(_cell(name, agreement.figures[name]) for name in HEADLINE),
            *(_cell(name, row.measures[name]) for name in BESIDE),
        ]
        for row in found.rows
        for control in CONTROLS
        if (agreement := row.of(control, _shown(control))) is not None
    ]
    headings = [(FIGURES | MEASURES)[name][0] for name in (*HEADLINE, *BESIDE)]
    return markdown.table(
        ["making", "control", "images", *headings],
        _two_left(len(headings) + 3),
        rows,
    )


def _shown(control: Control) -> Estimator:
    return "accuracy" if control == "none" else "effect"


def _against(found: Validity, name: str) -> str:
    rows = []
    plain = f"{name}, accuracy"
    for row in found.rows:
        agreement = headline(row)
        if row.name == name or agreement is None or name not in agreement.against:
            continue
        differences = agreement.against[name]
        rows.append(
            [
                markdown.escape(row.description),
                *(_cell(figure, differences[figure]) for figure in HEADLINE),
                _cell("spurious_accuracy", row.measures_against[name]["spurious_accuracy"]),
                *(_cell(f, agreement.against[plain][f]) for f in ("tau_classifiers", "tau_pairs")),
            ]
        )
    headings = [FIGURES[figure][0] for figure in HEADLINE]
    last = [f"{FIGURES[f][0]}, to accuracy" for f in ("tau_classifiers", "tau_pairs")]
    header = ["making", *headings, MEASURES["spurious_accuracy"][0], *last]
    return markdown.table(header, markdown.first_left(len(header)), rows)


def _goals(found: Validity) -> str:
    rows = [
        (row, reached(row, agreement, found.baselines))
        for row in found.rows
        if (agreement := row.of("twin-base", "effect")) is not None
    ]
    names = list(rows[0][1]) if rows else []
    return markdown.table(
        ["goal", *(markdown.escape(row.name) for row, _ in rows)],
        markdown.first_left(len(rows) + 1),
        [[name, *(_SAID[goals[name]] for _, goals in rows)] for name in names],
    )


_SAID = {True: "yes", False: "no", None: "?"}


def _images(found: Validity) -> str:
    return markdown.table(
        ["making", *(heading for heading, _ in MEASURES.values())],
        markdown.first_left(len(MEASURES) + 1),
        [
            [
                markdown.escape(row.description),
                *(_cell(name, row.measures[name]) for name in MEASURES),
            ]
            for row in found.rows
        ],
    )


def _of_estimator(found: Validity, estimator: Estimator) -> str:
    rows = []
    for row in found.rows:
        for control in CONTROLS:
            each = row.of(control, estimator)
            if each is None:
                continue
            half = each.split_half
            rows.append(
                [
                    markdown.escape(row.description),
                    CONTROLS[control],
                    *(_cell(name, each.figures[name]) for name in FIGURES),
                    _number(half.tau if half else None),
                    _number(half.difference if half else None),
                    *(
                        _number(each.other_truths[kind]["tau_pairs"])
                        for kind in ("probability_effect", "against_kin")
                    ),
                    f"{100 * each.measured:.0f}",
                ]
            )
    header = [
        "making",
        "control",
        *(heading for heading, _ in FIGURES.values()),
        *("tau between two", "difference between two", "in probability", "against kin", "told of"),
    ]
    return markdown.table(header, _two_left(len(header)), rows)


def _growth(found: Validity) -> str:
    sizes = sorted({n for row in found.rows for each in row.agreement for n in each.images})
    counts = sorted({g for row in found.rows for each in row.agreement for g in each.generators})
    rows = []
    for row in found.rows:
        for control in CONTROLS:
            each = row.of(control, _shown(control))
            if each is not None:
                rows.append(
                    [
                        markdown.escape(row.description),
                        CONTROLS[control],
                        *(_number(each.images.get(n)) for n in sizes),
                        *(_number(each.generators.get(g)) for g in counts),
                    ]
                )
    header = ["making", "control", *map(str, sizes), *(f"{g} g" for g in counts)]
    return markdown.table(header, _two_left(len(header)), rows)


def _search(found: Validity) -> Iterator[str]:
    assert found.search is not None
    rule = found.search.rule
    won = found.search.winner
    yield "## The search for a loss\n"
    yield markdown.table(
        ["row", "qualifies", "tau, pairs", "spurious accuracy", "object-free", "novelty"],
        ["left", "left", "right", "right", "right", "right"],
        [
            [
                markdown.escape(row.description) + (" **(wins)**" if row.name == won else ""),
                "yes" if row.name in found.search.qualified else "no",
                _number(score(row)),
                *(
                    _cell(n, row.measures[n])
                    for n in ("spurious_accuracy", "object_free", "novelty")
                ),
            ]
            for row in found.rows
        ],
    )
    yield (
        f"A row qualifies at object-free {100 * rule.object_free:.0f} % and novelty "
        f"{100 * rule.novelty:.0f} % or more. Of those the highest tau over pairs wins, of the "
        f"effect by the base's twins; ties within {rule.tie:g} are broken by spurious accuracy. "
        + (f"The winner is `{won}`.\n" if won else "No row qualifies.\n")
    )


def _two_left(columns: int) -> list[markdown.Alignment]:
    """The alignments of a table whose first two columns name the row."""
    return ["left", *markdown.first_left(columns - 1)]


def _cell(name: str, figure: Figure) -> str:
    if figure.value is None:
        return ""
    text = _value(name, figure.value)
    if figure.low is None or figure.high is None:
        return text
    return f"{text} [{_value(name, figure.low)}, {_value(name, figure.high)}]"


def _value(name: str, value: float) -> str:
    if name == "seconds":
        return f"{value:.0f}"
    if name.startswith("calibration"):
        return f"{value:.1f}"
    if name in FIGURES or name == "diversity":
        return f"{value:.2f}"
    return f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
