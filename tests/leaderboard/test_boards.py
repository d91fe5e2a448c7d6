from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from spurbench.classifiers.info import ClassifierInfo, Mended, Preprocessing
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.results import (
    ClassResult,
    Interval,
    Recognition,
    Result,
    Settings,
    SplitResult,
    Summary,
)
from spurbench.images.records import DatasetInfo
from spurbench.leaderboard import tables
from spurbench.leaderboard.boards import boards as boards_of
from spurbench.leaderboard.boards import read
from spurbench.leaderboard.entries import Entry
from spurbench.leaderboard.tables import to_csv, to_markdown, to_table

NAMES = {94: "hummingbird", 565: "freight car", 105: "koala"}


def split(accuracy: dict[int, float], n: int = 75, auroc: float | None = 0.875) -> SplitResult:
    """A split from each class's spurious accuracy; without an AUROC, without recognition."""
    worst = max(accuracy, key=accuracy.__getitem__)
    mean = float(np.mean(list(accuracy.values())))
    return SplitResult(
        summary=Summary(
            n=n * len(accuracy),
            classes=len(accuracy),
            generators=1,
            spurious_accuracy=mean,
            spurious_accuracy_interval=Interval(low=max(mean - 0.01, 0), high=min(mean + 0.02, 1)),
            top5=1.0,
            mean_probability=0.25,
            worst_class=NAMES[worst],
            worst_class_spurious_accuracy=accuracy[worst],
            worst_class_n=n,
            chance=None if auroc is None else 0.1,
            recognition=None
            if auroc is None
            else Recognition(
                n=n,
                accuracy=1.0,
                interval=Interval(low=1, high=1),
                auroc=auroc,
                auroc_interval=Interval(low=auroc, high=auroc),
                average_precision=auroc,
            ),
        ),
        classes=[
            ClassResult(
                index=index,
                name=NAMES[index],
                wnid="n00000000",
                n=n,
                spurious_accuracy=value,
                spurious_accuracy_interval=Interval(low=0, high=1),
                top5=1.0,
                mean_probability=0.25,
            )
            for index, value in accuracy.items()
        ],
    )


def result(
    name: str,
    *,
    real: dict[int, float] | None = None,
    generated: dict[int, float] | None = None,
    auroc: float | None = 0.875,
    n: int = 75,
    weights: str = "",
    checkpoint: str | None = None,
    mode: Any = "whole",
    dataset: str = "spurbench-mini",
    version: str | None = "1.0.0",
    fingerprint: str | None = None,
    created: str = "2024-02-13T00:00:00+00:00",
) -> Result:
    splits: dict[Any, SplitResult] = {}
    if real is not None:
        splits["real"] = split(real, n, auroc)
    if generated is not None:
        splits["generated"] = split(generated, n, auroc)
    return Result(
        summary=next(iter(splits.values())).summary,
        splits=splits,
        classifier=ClassifierInfo(
            spec=name,
            name=name,
            source="timm",
            architecture="resnet50",
            parameters=25_000_000,
            head="imagenet-1k",
            weights_sha256=weights or f"weights of {name}",
            checkpoint=checkpoint,
        ),
        dataset=DatasetInfo(
            name=dataset,
            version=version,
            kind="dataset" if version else "folder",
            fingerprint=fingerprint or f"{version} {'+'.join(splits)}",
        ),
        preprocessing=Preprocessing(
            mode=mode,
            resize=(224,) if mode == "whole" else (256,),
            crop=(224, 224),
            interpolation="bicubic",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        damaged=[],
        settings=Settings(bootstrap_resamples=10, bootstrap_seed=0),
        predictions="x.parquet",
        predictions_sha256="0",
        environment={},
        created=created,
    )


def boards(results):
    return boards_of([Entry.of(result, None) for result in results])


def both(name: str, real: float, generated: float, **more: Any) -> Result:
    return result(name, real={94: real}, generated={94: generated}, **more)


def test_fewest_fooled_by_generated_images_comes_first_and_equals_share_a_rank():
    (board,) = boards(
        [both("d", 0.1, 0.9), both("c", 0.2, 0.5), both("a", 0.9, 0.3), both("b", 0.3, 0.5)]
    )
    assert board.ranked_by == "generated"
    assert [(row.rank, row.label) for row in board.rows] == [(1, "a"), (2, "b"), (2, "c"), (4, "d")]


def test_shares_that_differ_by_rounding_only_are_equal():
    (board,) = boards([both("a", 0, 0.1 + 0.2), both("b", 0, 0.3)])
    assert [row.rank for row in board.rows] == [1, 1]


def test_without_generated_images_real_ones_rank():
    (board,) = boards([result("a", real={94: 0.5}), result("b", real={94: 0.4})])
    assert board.ranked_by == "real"
    assert [(row.rank, row.label) for row in board.rows] == [(1, "b"), (2, "a")]
    assert [row.gap for row in board.rows] == [None, None]


def test_a_row_without_the_split_that_ranks_is_last_and_unranked():
    (board,) = boards([result("a", real={94: 0.0}), both("b", 0.5, 0.9)])
    assert [(row.rank, row.label) for row in board.rows] == [(1, "b"), (None, "a")]


def test_gap_is_over_the_classes_that_both_splits_have():
    (board,) = boards([result("a", real={94: 0.2, 105: 0.9}, generated={94: 0.5, 565: 0.1})])
    assert board.rows[0].gap == pytest.approx(0.3)
    (board,) = boards([result("a", real={94: 0.5, 105: 0.7}, generated={94: 0.5, 105: 0.1})])
    assert board.rows[0].gap == pytest.approx(-0.3)
    (board,) = boards([result("a", real={94: 0.5}, generated={105: 0.1})])
    assert board.rows[0].gap is None


def test_dataset_versions_never_share_a_table():
    made = boards([both("a", 0, 0, version=v) for v in ("1.10.0", "1.9.0", "2.0.0")])
    assert [board.version for board in made] == ["1.9.0", "1.10.0", "2.0.0"]
    assert [len(board.rows) for board in made] == [1, 1, 1]


def test_other_images_under_the_same_version_get_their_own_table_and_it_is_said(caplog):
    made = boards([both("a", 0, 0, fingerprint="f1"), both("b", 0, 0, fingerprint="f2")])
    assert [[row.label for row in board.rows] for board in made] == [["a"], ["b"]]
    assert "spurbench-mini 1.0.0: results are of 2 different sets of images" in caplog.text


def test_results_on_another_number_of_images_are_not_joined():
    made = boards([result("a", real={94: 0.5}), both("b", 0.5, 0.5, n=74)])
    assert len(made) == 2


def test_data_without_a_version_is_known_by_its_images_alone():
    made = boards(
        [
            result("a", real={94: 0.5}, version=None, dataset="images", fingerprint="f1"),
            result("b", real={94: 0.5}, version=None, dataset="photos", fingerprint="f1"),
            result("c", real={94: 0.5}, version=None, dataset="images", fingerprint="f2"),
        ]
    )
    assert [[row.label for row in board.rows] for board in made] == [["a", "b"], ["c"]]
    assert [board.title for board in made] == ["images (f1)", "images (f2)"]


def test_real_and_generated_results_of_one_classifier_are_joined():
    parts = [result("a", generated={94: 0.75}), result("a", real={94: 0.25})]
    (board,) = boards([*parts, both("b", 0.5, 0.5)])
    assert [(row.label, row.gap) for row in board.rows] == [("b", 0.0), ("a", 0.5)]
    (board,) = boards([*parts, result("b", real={94: 0.3})])
    assert [(row.label, row.gap) for row in board.rows] == [("a", 0.5), ("b", None)]


def test_the_same_result_twice_is_one_row_and_a_contradiction_is_refused():
    later = "2025-01-01T00:00:00+00:00"
    (board,) = boards([both("a", 0.5, 0.6), both("a", 0.5, 0.6, created=later)])
    assert len(board.rows) == 1
    with pytest.raises(SpurbenchError, match=r"two results of a .*split generated.*2024.*2025"):
        boards([both("a", 0.5, 0.6), both("a", 0.5, 0.7, created=later)])


def mended_of(base: Result, name: str, dataset: str | None = None, **more: Any) -> Result:
    """A result of what was made of another's classifier."""
    made = both(name, 0.1, 0.1, **more)
    mended = Mended(base=base.classifier.weights_sha256, method="fine-tune", dataset=dataset)
    return made.model_copy(
        update={"classifier": made.classifier.model_copy(update={"mended": mended})}
    )


def test_a_mended_classifier_stands_beside_what_it_was_made_of():
    base = both("base", 0.9, 0.8, weights="1" * 64)
    (board,) = boards([base, mended_of(base, "better"), both("other", 0.5, 0.5)])
    bases = {row.label: board.base_of(row) and board.base_of(row).label for row in board.rows}
    assert bases == {"base": None, "better": "base", "other": None}
    (line,) = [line for line in to_markdown([board]).splitlines() if "| better |" in line]
    assert "| base |" in line
    # Asked in another way, the two are not before and after.
    (board,) = boards([base, mended_of(base, "better", mode="model")])
    assert not any(board.base_of(row) for row in board.rows)
    assert "mended from |" not in to_markdown([board])


def test_who_was_mended_with_a_dataset_is_not_ranked_by_it():
    base = both("base", 0.9, 0.8, weights="1" * 64)
    here = mended_of(base, "here", "spurbench-mini")
    elsewhere = mended_of(base, "elsewhere", "photographs")
    (board,) = boards([base, here, elsewhere])
    ranks = {row.label: (row.rank, row.unranked) for row in board.rows}
    assert ranks == {
        "elsewhere": (1, None),
        "base": (2, None),
        "here": (None, "mended: trained on images of this dataset"),
    }


def test_other_preprocessing_or_weights_are_other_rows_and_marked():
    (board,) = boards(
        [
            both("a", 0.5, 0.1),
            both("a", 0.5, 0.2, mode="model"),
            both("a", 0.5, 0.3, weights="0123456789"),
            both("a", 0.5, 0.4, weights="abcdef", checkpoint="mine.safetensors"),
        ]
    )
    text = pd.read_csv(io.StringIO(to_csv(board)))
    assert list(zip(text["classifier"], text["preprocessing"], strict=True)) == [
        ("a @weights ", "whole: 224, bicubic"),
        ("a", "model: 256, crop 224, bicubic"),
        ("a @01234567", "whole: 224, bicubic"),
        ("a + mine.safetensors", "whole: 224, bicubic"),
    ]


def test_csv_is_numbers():
    (board,) = boards(
        [both("a, b", 0.25, 0.75, auroc=0.5), result("c", real={94: 0.125}, auroc=None)]
    )
    frame = pd.read_csv(io.StringIO(to_csv(board)))
    assert frame.loc[0, "classifier"] == "a, b"
    assert frame.loc[0, "gap"] == 0.5
    assert frame.loc[0, "generated_spurious_accuracy"] == 0.75
    assert frame.loc[0, "generated_spurious_accuracy_high"] == pytest.approx(0.77)
    assert frame.loc[0, "real_worst_class"] == "hummingbird"
    assert frame.loc[0, "real_auroc"] == 0.5
    assert frame.loc[0, "created"] == "2024-02-13T00:00:00+00:00"
    assert frame.loc[1, "real_spurious_accuracy"] == 0.125
    assert frame.loc[1, ["gap", "generated_n", "real_auroc"]].isna().all()
    text = {
        "classifier",
        "source",
        "architecture",
        "family",
        "training_data",
        "head",
        "weights_sha256",
        "preprocessing",
    }
    text |= {"dataset", "dataset_version", "real_worst_class", "generated_worst_class"}
    text |= {"config", "protocol", "created", "unranked"}
    assert all(np.issubdtype(frame[c].dtype, np.number) for c in set(frame) - text)


def test_markdown_rows_say_percent_intervals_gap_and_worst_class():
    (board,) = boards([result("a", real={94: 0.2, 105: 0.4}, generated={94: 0.6, 105: 0.5})])
    row = next(line for line in to_markdown([board]).splitlines() if line.startswith("| 1 |"))
    assert [cell.strip() for cell in row.strip("|").split(" | ")] == [
        "1",
        "a",
        "resnet50",
        r"100.0 \[100.0, 100.0\]",
        r"0.875 \[0.875, 0.875\]",
        r"30.0 \[29.0, 32.0\]",
        r"55.0 \[54.0, 57.0\]",
        "+25.0",
        "0.250",
        "hummingbird (60.0, n 75)",
        "150 / 150",
        "whole: 224, bicubic",
        "2024-02-13",
    ]


def test_scores_have_columns_only_where_they_were_measured():
    def header(made):
        return next(line for line in to_markdown(made).splitlines() if "| classifier |" in line)

    assert "AUROC" not in header(boards([both("a", 0.5, 0.5, auroc=None)]))
    made = boards([both("a", 0.5, 0.5)])
    assert "| recognition | AUROC |" in header(made)
    assert r"| 0.875 \[" in to_markdown(made)


def test_text_from_outside_cannot_break_the_page(tmp_path):
    evil = "<script>alert(1)</script> | [x](javascript:y) `z`\n# head"
    made = boards([both(evil, 0.5, 0.5, dataset=evil)])
    page = to_markdown(made)
    files = tables.write(made, tmp_path)
    for text in (page, *(file.read_text() for file in files if file.suffix == ".md")):
        assert "<script" not in text and "&lt;script&gt;" in text
        assert "[x](" not in text
        assert not any(line.startswith("# head") for line in text.splitlines())
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    assert pd.read_csv(files[1])["classifier"].tolist() == [evil]


def test_the_terminal_shows_names_as_they_are():
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(to_table(boards([both("[red]a[/red]\x1b[31m", 0.5, 0.5)])[0]))
    text = console.export_text()
    assert "[red]a[/red]\N{REPLACEMENT CHARACTER}[31m" in text
    assert "50.0 [49.0, 52.0]" in text
    console.print(to_table(boards([result("a", real={94: 0.5})])[0]))
    heading = console.export_text().splitlines()[1]
    assert "real" in heading and "generated" not in heading


def test_no_class_is_the_worst_where_all_are_never_answered():
    table = to_markdown(boards([both("a", 0.0, 0.0)]))
    assert "hummingbird" not in table.split("| #")[1]


def test_write_makes_a_page_and_a_csv_per_board_and_an_index(tmp_path):
    made = boards(
        [
            both("a", 0.5, 0.5),
            both("a", 0.5, 0.5, version="1.1.0"),
            both("a", 0.5, 0.5, dataset="Owner/set", fingerprint="f1"),
            both("b", 0.5, 0.5, dataset="Owner/set", fingerprint="f2"),
            result("a", real={94: 0.5}, version=None, dataset="../images", fingerprint="f3"),
        ]
    )
    written = tables.write(made, tmp_path / "boards")
    stems = [
        "images-f3",
        "Owner-set-1.0.0-f1",
        "Owner-set-1.0.0-f2",
        "spurbench-mini-1.0.0",
        "spurbench-mini-1.1.0",
    ]
    names = [f"{stem}{suffix}" for stem in stems for suffix in (".md", ".csv")] + ["README.md"]
    assert [str(path.relative_to(tmp_path / "boards")) for path in written] == names
    assert sorted(p.name for p in (tmp_path / "boards").iterdir()) == sorted(names)
    index = written[-1].read_text()
    assert all(f"]({name})" in index for name in names[:-1])
    assert index.count("\n## ") == len(made) + 1
    again = [path.read_bytes() for path in written]
    tables.write(made, tmp_path / "boards")
    assert [path.read_bytes() for path in written] == again


def test_the_order_of_results_does_not_matter():
    results = [both("a", 0.5, 0.5), both("b", 0.1, 0.5), both("c", 0.5, 0.2, version="1.1.0")]
    assert to_markdown(boards(results)) == to_markdown(boards(results[::-1]))


def test_folders_are_searched_and_other_json_is_passed_over(tmp_path):
    both("a", 0.5, 0.5).write(tmp_path / "deep" / "a.json")
    both("b", 0.5, 0.5).write(tmp_path / "b.json")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "dataset.json").write_text(json.dumps({"schema": "spurbench.dataset/1"}))
    found = read([tmp_path, tmp_path / "b.json"])
    assert sorted(r.classifier.name for r in found) == ["a", "b"]
    assert found == read([tmp_path / "b.json", tmp_path / "deep"])
    with pytest.raises(SpurbenchError, match=r"dataset\.json is not a spurbench\.result/2"):
        read([tmp_path / "dataset.json"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"schema": "spurbench.res', r"broken\.json is damaged"),
        (b"\xff\xfe{}", r"broken\.json is damaged"),
        (
            b'{"schema": "spurbench.result/2", "summary": {}}',
            r"broken\.json is not a spurb.*summary",
        ),
        (
            b'{"schema": "spurbench.result/1"}',
            r"broken\.json is not a spurbench\.result/2 .*schema",
        ),
    ],
)
def test_a_broken_result_is_named(tmp_path, content, said):
    both("a", 0.5, 0.5).write(tmp_path / "a.json")
    (tmp_path / "broken.json").write_bytes(content)
    with pytest.raises(SpurbenchError, match=said) as caught:
        read([tmp_path])
    assert "\n" not in str(caught.value)


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(SpurbenchError, match=r"no results in .*spurbench eval"):
        read([tmp_path])
    with pytest.raises(SpurbenchError, match=r"no file or folder of results at .*missing"):
        read([tmp_path / "missing"])
