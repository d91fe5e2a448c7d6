from __future__ import annotations

import json

import pytest

from makers.measured import save_dataset, save_result
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.results import Result


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("result")
    shares = {"real": {94: 0.25, 565: 0.5, 105: 0.8}, "generated": 0.75}
    return save_result(folder, save_dataset(folder / "set"), "a", shares)


def test_a_table_shows_the_numbers_of_the_result(file):
    result = Result.read(file)
    for split, part in result.splits.items():
        sheet = result.sheet(split)
        for cells, numbers in zip(
            [*sheet.rows, sheet.mean], [*part.classes, part.summary], strict=True
        ):
            shown = dict(zip(sheet.headings, cells, strict=True))
            interval = numbers.spurious_accuracy_interval
            assert shown == {
                "class": getattr(numbers, "name", "macro mean"),
                "n": str(numbers.n),
                "spurious accuracy": f"{numbers.spurious_accuracy:.1%}".replace("%", " %"),
                "95 % interval": f"{interval.low:.1%} to {interval.high:.1%}".replace("%", ""),
                "top-5": f"{numbers.top5:.1%}".replace("%", " %"),
                "mean probability": str(round(numbers.mean_probability, 4)).ljust(6, "0"),
            }
    assert [cells[2] for cells in result.sheet("real").rows] == ["25.0 %", "80.0 %", "50.0 %"]


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("summary", "n"), 0),
        (("summary", "classes"), 0),
        (("summary", "spurious_accuracy"), 1.01),
        (("summary", "top5"), -0.01),
        (("summary", "mean_probability"), 1.01),
        (("summary", "worst_class_spurious_accuracy"), 1.01),
        (("summary", "generators"), -1),
        (("summary", "worst_class_n"), 0),
        (("summary", "chance"), 1.01),
        (("summary", "spurious_accuracy_interval", "low"), -0.01),
        (("summary", "spurious_accuracy_interval", "high"), 1.01),
        (("splits", "real", "classes", 0, "n"), 0),
        (("splits", "real", "classes", 0, "spurious_accuracy"), -0.01),
        (("splits", "real", "classes", 0, "top5"), 1.01),
        (("splits", "real", "classes", 0, "mean_probability"), -0.01),
        (("splits", "test"), {}),
        (("schema",), "spurbench.result/1"),
        (("protocol",), "mine"),
        (("config",), "mine"),
        (("role",), "mine"),
        (("new",), 1),
    ],
)
def test_numbers_that_cannot_be_are_refused(file, tmp_path, where, value):
    document = json.loads(file.read_text())
    Result.read(file)
    inner = document
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(document))
    with pytest.raises(SpurbenchError, match=str(where[-1])):
        Result.read(changed)
