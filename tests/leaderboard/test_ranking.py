from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from makers.answers import answered, answers_frame
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.paired import mcnemar
from spurbench.leaderboard import boards as ranking
from spurbench.leaderboard import tables
from spurbench.leaderboard.boards import Board
from spurbench.leaderboard.entries import Entry
from spurbench.leaderboard.fitted import Column, FittedTable

CLASSES = (94, 105, 565)
LONG = "vit_base_patch16_clip_224.laion2b_ft_in12k_in1k"


def entry(name: str, called=(0.5, 0.6, 0.8, 0.2), *, seed: int = 0, images: int = 28, **more: Any):
    generators = more.pop("generators", 1)
    splits = more.pop("splits", ("real", "generated"))
    frame = answers_frame(
        CLASSES, images=images, called=called, generators=generators, splits=splits, seed=seed
    )
    if more.pop("positives", True) is False:
        frame = frame[frame["source"] != "positive"]
    return Entry.of(answered(name, frame, **more), frame)


def board(*results: Entry) -> Board:
    (made,) = ranking.boards(results)
    return made


@pytest.fixture(scope="module")
def mixed() -> Board:
    return board(
        entry("phi", (0.5, 0.9, 0.9, 0.1), role="phi", seed=1),
        entry("chooser", (0.5, 0.1, 0.9, 0.1), role="panel", seed=2),
        entry("untrained", (0.0, 0.0, 0.0, 0.0), seed=3),
        entry(LONG, (0.5, 0.4, 0.9, 0.1), seed=4),
        entry("worse", (0.5, 0.9, 0.9, 0.1), seed=5),
    )


def test_who_made_the_images_or_recognises_nothing_comes_last_with_the_reason(mixed):
    assert [(row.label, row.rank, row.unranked) for row in mixed.rows] == [
        (LONG, 1, None),
        ("worse", 2, None),
        ("untrained", None, "recognises no more than chance"),
        ("chooser", None, "panel: chose the images"),
        ("phi", None, "phi: chose and made the images"),
    ]


def test_who_is_not_ranked_is_in_no_test_and_no_tie_group(mixed):
    assert np.shape(mixed.p_values) == (2, 2)
    assert [row.tied for row in mixed.rows] == [(1, 1), (2, 2), None, None, None]
    # Nor among the tests that the ranked ones' p-values are adjusted for.
    alone = board(
        entry(LONG, (0.5, 0.4, 0.9, 0.1), seed=4), entry("worse", (0.5, 0.9, 0.9, 0.1), seed=5)
    )
    assert mixed.p_values == alone.p_values
    assert 0 < mixed.p_values[0][1] < 0.05


def test_a_constant_answer_does_not_lead_however_few_images_fool_it():
    frame = answers_frame(CLASSES, called=(0.0, 0.0, 0.0, 0.0))
    constant = frame.assign(
        prediction=94,
        rank=np.where(frame["class_index"] == 94, 1, 9),
    )
    made = Entry.of(answered("constant", constant), constant)
    (row, *_) = board(made, entry("sound", (0.5, 0.9, 0.9, 0.1), images=20)).rows[::-1]
    assert (row.label, row.unranked) == ("constant", "recognises no more than chance")


def test_tests_are_of_counted_images_alone():
    a, b = entry("a", seed=1), entry("b", (0.5, 0.2, 0.8, 0.2), seed=2)
    fooled = [np.concatenate([x.fooled[x.counted] for x in e.answers["generated"]]) for e in (a, b)]
    assert len(fooled[0]) == 3 * 24
    assert board(a, b).p_values[0][1] == pytest.approx(mcnemar(*fooled))


def test_who_was_not_measured_on_positives_is_never_ranked():
    made = board(entry("with"), entry("without", positives=False, seed=1))
    reason = "recognition not measured; give --positives"
    assert [(row.label, row.unranked) for row in made.rows] == [("with", None), ("without", reason)]
    alone = board(entry("without", positives=False))
    assert (alone.rows[0].rank, alone.rows[0].unranked) == (None, reason)


@pytest.fixture(scope="module")
def rankless() -> Board:
    return board(
        entry("worse", (0.5, 0.9, 0.9, 0.1), positives=False, seed=1),
        entry("untrained", (0.0, 0.0, 0.0, 0.0), positives=False, seed=2),
        entry("chose", (0.5, 0.1, 0.9, 0.1), positives=False, role="panel", seed=3),
    )


def test_without_positives_an_untrained_network_leads_nothing(rankless):
    assert [row.label for row in rankless.rows] == ["untrained", "chose", "worse"]
    assert {row.rank for row in rankless.rows} == {row.tied for row in rankless.rows} == {None}
    assert rankless.p_values == ()


def test_a_board_without_ranks_says_above_its_table_why_and_what_would_give_them(rankless, mixed):
    (sentence,) = [rankless.no_ranks]
    assert sentence.startswith("Nobody is ranked") and "spurbench eval --positives" in sentence
    terminal = printed(tables.to_table(rankless), 400)
    assert terminal[1] == sentence and terminal[2].split()[0] == "classifier"
    first = next(line for line in terminal if line.startswith("untrained"))
    assert "0.0 [0.0, " in first
    page = tables.to_markdown([rankless])
    assert page.index(sentence) < page.index("| classifier") and "| # |" not in page
    assert "| recognition not measured; give --positives |" in page
    document = tables.to_document(rankless)
    assert document["no_ranks"] == sentence
    assert [(row["rank"], row["classifier"]) for row in document["rows"]] == [
        (None, "untrained"),
        (None, "chose"),
        (None, "worse"),
    ]
    lines = list(csv.DictReader(io.StringIO(tables.to_csv(rankless))))
    assert [line["rank"] for line in lines] == ["", "", ""]
    assert [line["unranked"] for line in lines][1:] == [
        "panel: chose the images",
        "recognition not measured; give --positives",
    ]
    assert mixed.no_ranks is None


def test_where_nobody_recognises_the_classes_nobody_is_ranked_and_the_reason_stands_beside():
    made = board(entry("untrained", (0.0, 0.0, 0.0, 0.0)))
    assert "--positives" not in made.no_ranks
    text = " ".join("\n".join(printed(tables.to_table(made), 400)).split())
    assert "Not ranked (recognises no more than chance): untrained" in text


def test_config_protocol_and_yes_no_models_have_boards_of_their_own():
    made = ranking.boards(
        [
            entry("a"),
            entry("a", config="curated"),
            entry("a", protocol="neuhaus"),
            entry("b", source="timm", seed=1),
        ]
    )
    assert [(b.title, len(b.rows)) for b in made] == [
        ("toy 1.0.0", 2),
        ("toy 1.0.0, curated", 1),
        ("toy 1.0.0, neuhaus", 1),
    ]
    asked = entry("c")
    vlm = asked.model_copy(
        update={"classifier": asked.classifier.model_copy(update={"source": "vlm"})}
    )
    assert [b.title for b in ranking.boards([entry("a"), vlm])] == [
        "toy 1.0.0",
        "toy 1.0.0, yes/no",
    ]
    assert len({*tables.file_stems([*made, *ranking.boards([vlm])])}) == 4


def test_a_plain_folder_goes_by_its_name_and_by_its_images_only_beside_a_namesake():
    (made,) = ranking.boards([entry("a", version=None)])
    assert made.title == "toy"
    images = entry("a", version=None).dataset.model_copy(update={"fingerprint": "f" * 64})
    made = ranking.boards(
        [entry("a", version=None), entry("a", version=None).model_copy(update={"dataset": images})]
    )
    assert {b.title for b in made} == {f"toy ({b.identity})" for b in made}


def test_what_an_interval_covers_is_said():
    assert "this set of images only" in board(entry("a")).covers
    several = board(entry("a", generators=4))
    assert several.generators == 4
    assert "4 independent generators" in several.covers
    assert "2 independent generators" in board(entry("a", generators=2)).covers
    real = board(entry("a", splits=["real"]))
    assert real.generators == 0 and "this set of images only" in real.covers


def test_a_link_to_a_row_outlives_other_rows(mixed):
    alone = board(entry(LONG, (0.5, 0.4, 0.9, 0.1), seed=4))
    assert alone.rows[0].key == mixed.rows[0].key
    assert len({row.key for row in mixed.rows}) == 5
    assert mixed.rows[0].files == (f"toy-1.0.0/timm-{LONG}_{mixed.rows[0].files[0][-13:]}",)


def printed(table: Any, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 140, 400])
def test_at_any_width_names_are_whole_and_what_was_left_out_is_said(mixed, width):
    lines = printed(tables.to_table(mixed), width)
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert "…" not in text and "..." not in text
    first = next(i for i, line in enumerate(lines) if line.startswith("1 "))
    start = lines[1].index("classifier")
    # The name's column, folded or not, down to the next classifier.
    name = "".join(line[start:].split("  ")[0].strip() for line in lines[first : first + 2])
    assert name.startswith(LONG)
    shown = [heading for heading in tables.IMPORTANCE if heading in lines[1].split("  ")]
    missing = " ".join(text.partition("No room for: ")[2].split())
    for heading in tables.IMPORTANCE:
        assert f" {heading} " in f" {' '.join(lines[1].split())} " or heading in missing, shown
    assert ("No room for" in text) == (width < 300)


def test_at_eighty_columns_the_numbers_that_rank_and_recognition_stay(mixed):
    heading = printed(tables.to_table(mixed), 80)[1]
    assert {"classifier", "generated", "recognition", "effect"} <= {*heading.split()}


def test_columns_go_by_their_importance():
    table = FittedTable(
        "t", [Column(str(i), ["x" * 10], importance=i) for i in (0, 3, 1, 2)], rest="more"
    )
    kept, left_out = table.fit(26)
    assert ([c.heading for c in kept], left_out) == (["0", "1"], ["3", "2"])


def test_a_limit_shows_the_best_and_says_of_how_many(mixed):
    text = "\n".join(printed(tables.to_table(mixed, 1), 400))
    assert LONG in text and "worse" not in text and "1 of 5 classifiers." in text
    assert len(tables.to_document(mixed, 2)["rows"]) == 2


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    for made in (entry("a\x1b[31m[red]"), entry(LONG, seed=1)):
        made.write(folder / made.folder / made.file_name)
    return folder


def test_json_is_what_the_csv_says_and_nothing_else_is_printed(published, tmp_path):
    done = CliRunner().invoke(main, ["leaderboard", str(published), "--json", "--limit", "1"])
    assert done.exit_code == 0, done.output
    (document,) = json.loads(done.stdout)
    assert document["title"] == "toy 1.0.0" and document["classifiers"] == 2
    (row,) = document["rows"]
    (made,) = ranking.boards(ranking.read([published]))
    assert row == json.loads(json.dumps(tables.to_document(made)["rows"][0]))
    assert row["generated_recognition_low"] < row["generated_recognition"]


def test_a_pipe_gets_every_column_on_one_line_and_names_command_no_terminal(published):
    done = CliRunner().invoke(main, ["leaderboard", "show", str(published)])
    assert done.exit_code == 0, done.output
    assert "No room for" not in done.output and "\x1b" not in done.output
    (line,) = [line for line in done.output.splitlines() if LONG in line and "[" in line]
    assert "2024-02-13" in line
    assert any("[31m[red]" in line for line in done.output.splitlines())


def test_a_limit_is_at_least_one(published):
    done = CliRunner().invoke(main, ["leaderboard", str(published), "--limit", "0"])
    assert done.exit_code == 2


def test_two_results_that_disagree_are_refused():
    with pytest.raises(SpurbenchError, match=r"two results of a .* disagree"):
        board(entry("a"), entry("a", seed=1))
