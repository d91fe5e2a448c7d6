"""What a survey found: as a document, as Markdown and as the paper's Fig. 3."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from spurbench.core import atomic, markdown
from spurbench.core.documents import Document, Share
from spurbench.images.records import SPLITS, DatasetInfo, Split
from spurbench.studies.survey import measure
from spurbench.studies.survey.answers import Grades, grades, read_answers
from spurbench.studies.survey.design import GRADES, Attention, Survey
from spurbench.studies.survey.pages import GRADE_NAMES

RESAMPLES = 2000
"""Bootstrap samples."""

ENOUGH = 10
"""Grades from which on a rater who gave one grade to all fails."""


class Interval(Document):
    """A 95 % percentile bootstrap interval."""

    low: float
    high: float


class Estimate(Document):
    """A number, and how far it might be off."""

    value: float
    raters: Interval | None = Field(description="raters resampled; null for fewer than two")
    images: Interval | None = Field(
        description="raters and, within class and source, images resampled: what may be said of "
        "other images of the dataset too"
    )


class SourceGrades(Document):
    """The grades of the images of one source."""

    n: int = Field(ge=1, description="grades")
    shares: dict[int, Estimate] = Field(description="of each grade, in [0, 1]")
    opinion: Estimate = Field(description="mean opinion score, in [1, 5]")


class ClassOpinion(Document):
    """Mean opinion of one class's images."""

    index: int
    name: str
    spurious_feature: str | None
    real: Estimate
    generated: Estimate
    difference: Estimate = Field(description="generated minus real")


class OddsRatio(Document):
    """Odds of a higher grade, of generated images to real ones."""

    ratio: float
    interval: Interval = Field(description="sandwich covariance, raters as clusters")
    p_value: Share


class Findings(Document):
    """What some of the raters found."""

    raters: int = Field(ge=1)
    sources: dict[Split, SourceGrades]
    difference: Estimate | None = Field(description="mean opinion, generated minus real")
    classes: tuple[ClassOpinion, ...] = Field(description="those with grades of both sources")
    odds: OddsRatio | None
    no_odds: str | None = Field(description="why there is no odds ratio")
    alpha: float | None = Field(description="Krippendorff's, ordinal; null if it is not defined")


class RaterChecks(Document):
    """How attentive a rater was."""

    rater: int = Field(ge=1, description="as in links.csv")
    answered: int
    asked: int
    pairs: int = Field(description="images graded twice")
    apart: int = Field(description="pairs whose grades are further apart than was declared")
    one_grade: bool = Field(description=f"the same to all, of at least {ENOUGH}")
    fails: bool


class Report(Document):
    """What a survey found."""

    schema_version: Literal["spurbench.survey.report/1"] = Field(alias="schema")
    survey: str = Field(description="id of the survey")
    dataset: DatasetInfo
    images: int
    invited: int = Field(description="raters who have a link")
    finished: int = Field(description="raters who answered all")
    attention: Attention
    everyone: Findings = Field(description="every rater who answered anything")
    attentive: Findings | None = Field(
        description="without the raters who fail; null if none fails, or all do"
    )
    raters: tuple[RaterChecks, ...]
    resamples: int
    seed: int


def report(folder: Path, sent: Iterable[Path], output: Path, *, seed: int = 0) -> Report:
    """Write ``report.json``, ``report.md``, ``grades.svg`` and ``grades.png``.

    Args:
        folder: of the survey.
        sent: files of answers that raters sent, or folders of them.
        output: where it goes.
        seed: of the bootstrap.

    Raises:
        SpurbenchError: if there are no answers, or some are damaged or of another survey.
    """
    survey = Survey.read(folder)
    made = summarise(survey, grades(survey, read_answers(folder, survey, sent)), seed=seed)
    atomic.write_json(output / "report.json", made.model_dump(mode="json", by_alias=True))
    atomic.write_text(output / "report.md", render_markdown(made))
    for name in ("svg", "png"):
        atomic.write_bytes(output / f"grades.{name}", render_figure(made, name))
    return made


def summarise(survey: Survey, given: Grades, *, seed: int = 0) -> Report:
    """What the grades say.

    Args:
        survey: the design.
        given: grades of at least one rater.
        seed: of the bootstrap.
    """
    checks = [_checks(given, row, survey.attention) for row in range(len(given.raters))]
    passes = np.array([not rater.fails for rater in checks])
    some = passes.any() and not passes.all()
    return Report(
        schema="spurbench.survey.report/1",
        survey=survey.id,
        dataset=survey.dataset,
        images=len(survey.items),
        invited=len(survey.orders),
        finished=sum(rater.answered == rater.asked for rater in checks),
        attention=survey.attention,
        everyone=_findings(survey, given.first, seed),
        attentive=_findings(survey, given.only(passes).first, seed) if some else None,
        raters=tuple(checks),
        resamples=RESAMPLES,
        seed=seed,
    )


def _checks(given: Grades, row: int, attention: Attention) -> RaterChecks:
    first, again = given.first[row], given.again[row]
    distance = np.abs(first - again)
    pairs = int(np.isfinite(distance).sum())
    apart = int((distance > attention.apart).sum())
    everything = np.concatenate([first, again])
    everything = everything[np.isfinite(everything)]
    one_grade = len(everything) >= ENOUGH and len(np.unique(everything)) == 1
    return RaterChecks(
        rater=int(given.raters[row]) + 1,
        answered=len(everything),
        asked=int(given.asked[row]),
        pairs=pairs,
        apart=apart,
        one_grade=one_grade,
        fails=one_grade or (pairs > 0 and apart / pairs > attention.failing),
    )


def _findings(survey: Survey, given: NDArray[np.float64], seed: int) -> Findings:
    sources = np.array([item.source for item in survey.items])
    indices = np.array([item.class_index for item in survey.items])
    of = {split: sources == split for split in SPLITS}
    # Sorted, so that the draws don't hang on the images' random names.
    strata = [
        np.flatnonzero((indices == index) & of[split])
        for index in sorted(set(indices))
        for split in SPLITS
    ]
    draws = measure.Draws.of(len(given), [s for s in strata if len(s)], RESAMPLES, seed)

    def estimate(values: NDArray[np.float64], *items: NDArray[np.bool_]) -> Estimate:
        """The mean over items; given two sets, the first's minus the second's."""
        found = [float(np.nanmean(values[:, each])) for each in items]
        drawn = [
            [draws.means(values, each, resample_items=both) for each in items]
            for both in (False, True)
        ]
        few = len(given) < measure.FEWEST
        intervals = [None if few else _interval(d[0] - sum(d[1:])) for d in drawn]
        return Estimate(value=found[0] - sum(found[1:]), raters=intervals[0], images=intervals[1])

    def graded(items: NDArray[np.bool_]) -> bool:
        return bool(np.isfinite(given[:, items]).any())

    graded_sources = [split for split in SPLITS if graded(of[split])]
    by_source: dict[Split, SourceGrades] = {}
    for split in graded_sources:
        is_grade = {g: np.where(np.isfinite(given), given == g, np.nan) for g in GRADES}
        by_source[split] = SourceGrades(
            n=int(np.isfinite(given[:, of[split]]).sum()),
            shares={grade: estimate(is_grade[grade], of[split]) for grade in GRADES},
            opinion=estimate(given, of[split]),
        )
    classes = []
    for index in sorted(set(indices)):
        real, generated = ((indices == index) & of[split] for split in SPLITS)
        if graded(real) and graded(generated):
            item = survey.items[int(np.flatnonzero(real)[0])]
            classes.append(
                ClassOpinion(
                    index=int(index),
                    name=item.class_name,
                    spurious_feature=item.spurious_feature,
                    real=estimate(given, real),
                    generated=estimate(given, generated),
                    difference=estimate(given, generated, real),
                )
            )
    odds = measure.ordinal_odds(given, of["generated"])
    return Findings(
        raters=len(given),
        sources=by_source,
        difference=estimate(given, of["generated"], of["real"]) if len(by_source) == 2 else None,
        classes=tuple(classes),
        odds=None
        if isinstance(odds, str)
        else OddsRatio(
            ratio=odds.ratio,
            interval=Interval(low=odds.low, high=odds.high),
            p_value=odds.p_value,
        ),
        no_odds=odds if isinstance(odds, str) else None,
        alpha=measure.krippendorff_alpha(given),
    )


def _interval(draws: Any) -> Interval | None:
    ends = measure.interval(draws)
    return ends and Interval(low=ends[0], high=ends[1])


def render_markdown(made: Report) -> str:
    """Tables, with what each number is."""
    parts = [
        f"# How natural the images of {markdown.escape(made.dataset.name)} look\n",
        f"{made.everyone.raters} of {made.invited} raters answered, {made.finished} of them all; "
        f"{made.images} images, each graded from 1 ({GRADE_NAMES[1]}) to 5 ({GRADE_NAMES[5]}). "
        "In brackets 95 % intervals of a bootstrap over whole raters; the second ones resample "
        "images within class and source too, and so hold of the dataset's other images.\n",
        _findings_markdown(made.everyone),
    ]
    parts.append(_attention_markdown(made))
    if made.attentive is not None:
        parts.append(
            f"## Without those who fail\n\nThe {made.attentive.raters} other raters.\n\n"
            + _findings_markdown(made.attentive, level=3)
        )
    return "\n".join(parts)


def _findings_markdown(found: Findings, level: int = 2) -> str:
    head = "#" * level
    by_source = found.sources.items()
    shares = markdown.table(
        ["grade", *(f"{split} (n = {source.n})" for split, source in by_source)],
        markdown.first_left(1 + len(found.sources)),
        [
            [
                f"{grade}: {GRADE_NAMES[grade]}",
                *(_shown(source.shares[grade], 100, 1) for _, source in by_source),
            ]
            for grade in reversed(GRADES)
        ],
    )
    opinions: list[tuple[str, Estimate]] = [(split, s.opinion) for split, s in by_source]
    if found.difference is not None:
        opinions.append(("generated minus real", found.difference))
    rows = [[name, _shown(o), _ends(o.images)] for name, o in opinions]
    opinion = markdown.table(
        ["mean opinion", "over raters", "over raters and images"], markdown.first_left(3), rows
    )
    by_class = markdown.table(
        ["class", "real", "generated", "generated minus real"],
        markdown.first_left(4),
        [
            [markdown.escape(c.name), *map(_shown, (c.real, c.generated, c.difference))]
            for c in found.classes
        ],
    )
    if found.odds is None:
        odds = f"No odds ratio: {found.no_odds}."
    else:
        o = found.odds
        odds = (
            f"The odds that a generated image is graded above any grade are {o.ratio:.2f} "
            f"[{o.interval.low:.2f}, {o.interval.high:.2f}] times a real one's "
            f"({_p_value(o.p_value)}): a proportional-odds model, generalised estimating equations "
            "with raters as clusters. It is no mixed model: it holds of the raters' average, and "
            "of these images."
        )
    alpha = "is not defined" if found.alpha is None else f"is {found.alpha:.3f}"
    return (
        f"{head} Grades by source\n\nPer cent of the grades given to images of each source.\n\n"
        f"{shares}\n{head} Mean opinion\n\n{opinion}\n{by_class}\n{odds}\n\n"
        f"Krippendorff's alpha (ordinal) {alpha}: 1 is perfect agreement of the raters, 0 none "
        "beyond chance.\n"
    )


def _attention_markdown(made: Report) -> str:
    declared = made.attention
    rule = (
        f"Each rater saw {declared.repeats} images twice; the first grade counts above. Declared "
        f"beforehand: a rater fails if more than {100 * declared.failing:.0f} % of the pairs are "
        f"more than {declared.apart} apart, or all of {ENOUGH} or more grades are the same.\n"
    )
    failing = [rater for rater in made.raters if rater.fails]
    if not failing:
        return f"## Attention\n\n{rule}\nNo rater fails.\n"
    table = markdown.table(
        ["rater", "answered", "pairs", "too far apart", "one grade"],
        markdown.first_left(5),
        [
            [
                str(r.rater),
                f"{r.answered} of {r.asked}",
                str(r.pairs),
                str(r.apart),
                "yes" if r.one_grade else "",
            ]
            for r in failing
        ],
    )
    return f"## Attention\n\n{rule}\nWho fails, by number in links.csv:\n\n{table}"


def _shown(estimate: Estimate, factor: float = 1, digits: int = 2) -> str:
    ends = _ends(estimate.raters, factor, digits)
    return f"{factor * estimate.value:.{digits}f}{f' {ends}' if ends else ''}"


def _ends(interval: Interval | None, factor: float = 1, digits: int = 2) -> str:
    if interval is None:
        return ""
    return f"[{factor * interval.low:.{digits}f}, {factor * interval.high:.{digits}f}]"


def _p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def render_figure(made: Report, kind: str) -> bytes:
    """Shares of each grade by source, as in the paper's Fig. 3, of every rater.

    Args:
        made: what was found.
        kind: ``svg`` or ``png``.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    colours = {"real": "#1b6a86", "generated": "#d9693b"}
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    width = 0.4
    for split, source in made.everyone.sources.items():
        centres = np.array(GRADES) + (width / 2 if split == "generated" else -width / 2)
        heights = np.array([100 * source.shares[grade].value for grade in GRADES])
        axis.bar(centres, heights, width, color=colours[split], label=f"{split} (n = {source.n})")
        for centre, grade in zip(centres, GRADES, strict=True):
            ends = source.shares[grade].raters
            if ends is not None:
                axis.plot([centre, centre], [100 * ends.low, 100 * ends.high], color="#222222")
    axis.set_xticks(GRADES, [f"{grade}\n{GRADE_NAMES[grade]}" for grade in GRADES], fontsize=9)
    axis.set(ylabel="share of grades, per cent", ylim=(0, None))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    buffer = io.BytesIO()
    # Without the time and random names, so that the same answers make the same file.
    undated = {"Date": None} if kind == "svg" else None
    with rc_context({"svg.hashsalt": made.survey}):
        figure.savefig(buffer, format=kind, dpi=150, metadata=undated)
    return buffer.getvalue()
