from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from makers.site import EVIL
from makers.survey import designed, links, made_survey, simulated
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.studies.survey.answers import Grades, grades, read_answers
from spurbench.studies.survey.design import Survey
from spurbench.studies.survey.report import (
    Report,
    render_figure,
    render_markdown,
    report,
    summarise,
)
from spurbench.studies.survey.store import FILE, Answer, Store


def answers_of(survey: Survey, given: Grades) -> dict[int, list[Answer]]:
    """As raters would send them."""
    made = {}
    for row, order in enumerate(survey.orders):
        seen: set[int] = set()
        made[row] = []
        for position, item in enumerate(order):
            grade = (given.again if item in seen else given.first)[row, item]
            seen.add(item)
            if np.isfinite(grade):
                made[row].append(Answer(position=position, grade=int(grade), revision=1))
    return made


@pytest.fixture(scope="module")
def biased():
    survey = designed(raters=30, items=60)
    return survey, simulated(survey, np.random.default_rng(0), bias=0.8)


@pytest.fixture(scope="module")
def found(biased):
    return summarise(*biased)


def test_grades_come_from_the_positions_at_which_they_were_given(biased):
    survey, given = biased
    back = grades(survey, answers_of(survey, given))
    np.testing.assert_array_equal(back.first, given.first)
    np.testing.assert_array_equal(back.again, given.again)


def test_a_known_preference_is_recovered(found):
    everyone = found.everyone
    low, high = everyone.difference.raters.low, everyone.difference.raters.high
    assert low < -0.78 < high < -0.4  # 0.8, but for what stars cut off at their ends
    assert everyone.odds.interval.high < 0.5
    assert everyone.sources["real"].n == everyone.sources["generated"].n == 900
    for split, source in everyone.sources.items():
        total = sum(share.value for share in source.shares.values())
        assert total == pytest.approx(1)
        mean = sum(grade * share.value for grade, share in source.shares.items())
        assert source.opinion.value == pytest.approx(mean), split
    assert all(c.difference.raters.high < 0 for c in everyone.classes)
    assert everyone.sources["real"].shares[5].value > everyone.sources["generated"].shares[5].value


def test_what_holds_of_other_images_too_is_less_certain(biased):
    survey, _ = biased
    given = simulated(survey, np.random.default_rng(3), quality=1.0, taste=0.1)
    estimate = summarise(survey, given).everyone.difference
    widths = [ends.high - ends.low for ends in (estimate.raters, estimate.images)]
    assert widths[1] > 1.5 * widths[0]


def test_bars_are_the_shares_of_their_source(found, monkeypatch):
    drawn = {}

    def bar(_, centres, heights, width, *, color, label):
        drawn[label] = list(heights)

    monkeypatch.setattr("matplotlib.axes.Axes.bar", bar)
    monkeypatch.setattr("matplotlib.axes.Axes.legend", lambda *_, **__: None)
    render_figure(found, "svg")
    assert drawn == {
        f"{split} (n = 900)": [100 * share.value for share in source.shares.values()]
        for split, source in found.everyone.sources.items()
    }


def test_no_preference_is_an_interval_over_zero():
    survey = designed(raters=30, items=60)
    everyone = summarise(survey, simulated(survey, np.random.default_rng(5))).everyone
    for estimate in (everyone.difference.raters, everyone.difference.images):
        assert estimate.low < 0 < estimate.high
    assert everyone.odds.interval.low < 1 < everyone.odds.interval.high


def test_who_fails_the_checks_is_listed_and_shown_both_with_and_without(biased):
    survey, given = biased
    rng = np.random.default_rng(1)
    first, again = given.first.copy(), given.again.copy()
    first[3] = rng.integers(1, 6, 60)
    again[3] = np.where(np.isfinite(again[3]), (first[3] + 2) % 5 + 1, np.nan)  # 2 or 3 apart
    first[7] = 5
    again[7] = np.where(np.isfinite(again[7]), 5, np.nan)
    made = summarise(survey, Grades(given.raters, first, again, given.asked))
    failing = {rater.rater: rater for rater in made.raters if rater.fails}
    assert {4, 8} <= set(failing) and len(failing) <= 4
    assert failing[4].apart == failing[4].pairs == 6 and not failing[4].one_grade
    assert failing[8].apart == 0 and failing[8].one_grade
    assert made.everyone.raters == 30 and made.attentive.raters == 30 - len(failing)
    text = render_markdown(made)
    assert "| 4 | 66 of 66 | 6 | 6 |  |" in text and "| 8 | 66 of 66 | 6 | 0 | yes |" in text
    assert "## Without those who fail" in text


def test_pairs_may_be_as_far_apart_as_was_declared(biased):
    survey, given = biased
    again = np.where(np.isfinite(given.again), np.where(given.first > 1, given.first - 1, 2), NAN)
    made = summarise(survey, Grades(given.raters, given.first, again, given.asked))
    assert not any(rater.apart for rater in made.raters)
    strict = survey.model_copy(
        update={"attention": survey.attention.model_copy(update={"apart": 0})}
    )
    made = summarise(strict, Grades(given.raters, given.first, again, given.asked))
    assert all(rater.apart == rater.pairs == 6 and rater.fails for rater in made.raters)
    assert made.attentive is None  # nobody is left


NAN = np.nan


def test_one_rater_alone_has_no_intervals(biased):
    survey, given = biased
    made = summarise(survey, given.only(np.arange(30) == 2))
    assert made.everyone.difference.raters is None and made.everyone.odds is None
    assert made.everyone.alpha is None
    assert "two raters" in render_markdown(made)
    assert render_figure(made, "png").startswith(b"\x89PNG")


def test_who_saw_little_of_it_counts_with_what_they_saw(biased):
    survey, given = biased
    generated = np.array([item.source == "generated" for item in survey.items])
    some = np.where(generated, given.first, NAN)
    made = summarise(survey, Grades(given.raters, some, given.again * NAN, given.asked))
    assert set(made.everyone.sources) == {"generated"} and made.everyone.difference is None
    assert not made.everyone.classes and made.finished == 0
    render_markdown(made)


def test_text_in_a_classs_name_is_escaped(biased):
    survey, given = biased
    items = tuple(item.model_copy(update={"class_name": EVIL}) for item in survey.items)
    evil = survey.model_copy(
        update={"items": items, "dataset": survey.dataset.model_copy(update={"name": EVIL})}
    )
    made = summarise(evil, given)
    text = render_markdown(made)
    assert "hacked" in text
    assert "<script" not in text and "<img" not in text and "[x](" not in text


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """A survey, half answered at the server, half in files."""
    folder = tmp_path_factory.mktemp("sent")
    survey = made_survey(folder, raters=4, images=4, repeats=2)
    given = simulated(survey, np.random.default_rng(2), bias=1.0)
    answers = answers_of(survey, given)
    store = Store(folder / "survey" / FILE, survey.id)
    store.save([(rater, answers[rater]) for rater in (0, 1)])
    store.close()
    (folder / "mail").mkdir()
    for rater in (2, 3):
        document = {
            "schema": "spurbench.survey.answers/1",
            "survey": survey.id,
            "token": links(folder / "survey")[rater]["token"],
            "answers": [answer.model_dump() for answer in answers[rater]],
        }
        (folder / "mail" / f"{rater}.json").write_text(json.dumps(document))
    return folder, survey, given


def test_the_report_reads_the_servers_answers_and_those_that_were_sent(sent, tmp_path):
    folder, survey, given = sent
    done = CliRunner().invoke(
        main,
        ["survey", "report", *map(str, (folder / "survey", folder / "mail", "--output", tmp_path))],
    )
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "report.json").read_text())
    made = Report.model_validate(document)
    assert made.invited == made.finished == 4
    assert made.everyone == summarise(survey, given).everyone
    assert (tmp_path / "report.md").read_text().strip() in done.output
    assert (tmp_path / "grades.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "grades.svg").read_text()
    # What is published lets nobody answer.
    written = "".join(path.read_text() for path in tmp_path.glob("report.*"))
    assert not [row for row in links(folder / "survey") if row["token"] in written]
    again = report(folder / "survey", [folder / "mail"], tmp_path / "again")
    assert again == made
    names = ("report.json", "grades.svg")
    assert not [
        n for n in names if (tmp_path / n).read_bytes() != (tmp_path / "again" / n).read_bytes()
    ]


def test_the_last_of_a_raters_answers_counts_wherever_it_came_from(sent, tmp_path):
    folder, survey, _ = sent
    path = tmp_path / "later.json"
    document = json.loads((folder / "mail" / "2.json").read_text())
    document["token"] = links(folder / "survey")[0]["token"]
    document["answers"] = [
        {"position": 0, "grade": 1, "revision": 9},
        {"position": 1, "grade": 1, "revision": 1},
    ]
    path.write_text(json.dumps(document))
    before = read_answers(folder / "survey", survey, [])[0]
    after = read_answers(folder / "survey", survey, [path])[0]
    assert after[0].grade == 1 and after[0].revision == 9
    assert after[1:] == before[1:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"survey": "0" * 32}, "of no rater of the survey"),
        ({"token": "0" * 32}, "of no rater of the survey"),
        ({"answers": [{"position": 99, "grade": 1, "revision": 1}]}, "was not asked"),
        ({"answers": [{"position": 0, "grade": 7, "revision": 1}]}, "answers.0.grade"),
        ({"schema": "other"}, "schema"),
    ],
)
def test_files_that_are_no_answers_to_it_are_refused(sent, tmp_path, change, said):
    folder, survey, _ = sent
    document = json.loads((folder / "mail" / "2.json").read_text()) | change
    (tmp_path / "bad.json").write_text(json.dumps(document))
    with pytest.raises(SpurbenchError, match=said):
        read_answers(folder / "survey", survey, [tmp_path])
