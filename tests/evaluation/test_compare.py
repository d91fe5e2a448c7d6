from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from makers.measured import save_dataset, save_result
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation import compare
from spurbench.evaluation.bootstrap import bootstrap_interval
from spurbench.evaluation.paired import mcnemar
from spurbench.evaluation.results import Result
from spurbench.images.sheets import Captioned, captioned_sheet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare")
    images = save_dataset(root / "data")
    # The first half fools A, the first fifth B: B is fooled by nothing that does not fool A.
    save_result(root, images, "before", {"real": 0.5, "generated": 0.5})
    save_result(root, images, "after", {"real": 0.2, "generated": 0.5}, seed=3)
    save_result(root, images, "nested", {"real": 0.2, "generated": 0.5})
    return root


def test_differences_and_tests_are_those_of_the_paired_answers(folder):
    found = compare.compare(Result.read(folder / "00.json"), Result.read(folder / "01.json"))
    assert (found.a, found.b) == ("before", "after")
    a, b = (
        pd.read_parquet(folder / f"{stem}.parquet").sort_values(["class_index", "image_sha256"])
        for stem in ("00", "01")
    )
    for split, part in found.splits.items():
        own, other = ((f[f["source"] == split]["rank"] == 1).to_numpy() for f in (a, b))
        assert (part.only_a, part.only_b) == ((own & ~other).sum(), (~own & other).sum())
        assert part.p_value == mcnemar(own, other)
        classes = a[a["source"] == split]["class_index"].to_numpy()
        groups = [(other * 1.0 - own)[classes == index] for index in np.unique(classes)]
        interval = bootstrap_interval(groups, resamples=2000, seed=0)
        assert (part.interval.low, part.interval.high) == interval
        assert part.difference == pytest.approx(part.b - part.a)
        for c, group in zip(part.classes, groups, strict=True):
            assert c.difference == pytest.approx(group.mean())
            assert c.adjusted_p_value >= c.p_value
    assert found.splits["real"].difference == pytest.approx(-0.3)
    assert found.splits["real"].p_value < 0.01 < 0.5 < found.splits["generated"].p_value


def test_pairing_narrows_the_interval_where_answers_agree(folder):
    nested = compare.compare(
        Result.read(folder / "00.json"), Result.read(folder / "02.json")
    ).splits["real"]
    shuffled = compare.compare(
        Result.read(folder / "00.json"), Result.read(folder / "01.json")
    ).splits["real"]
    assert nested.difference == pytest.approx(shuffled.difference)
    assert nested.only_b == 0 < shuffled.only_b
    assert nested.interval.high - nested.interval.low < (
        shuffled.interval.high - shuffled.interval.low
    )


def test_swapping_the_two_turns_the_signs(folder):
    there = compare.compare(
        Result.read(folder / "00.json"), Result.read(folder / "01.json")
    ).splits["real"]
    back = compare.compare(Result.read(folder / "01.json"), Result.read(folder / "00.json")).splits[
        "real"
    ]
    assert back.difference == pytest.approx(-there.difference)
    assert (back.only_a, back.only_b, back.p_value) == (there.only_b, there.only_a, there.p_value)


def test_the_images_listed_differ_most(folder):
    found = compare.compare(
        Result.read(folder / "00.json"), Result.read(folder / "01.json"), images=5
    )
    a, b = (
        pd.read_parquet(folder / f"{stem}.parquet").set_index("image_sha256")["probability"]
        for stem in ("00", "01")
    )
    expected = (a - b).abs().sort_values(ascending=False)
    assert [i.image_sha256 for i in found.images] == expected.index[:5].tolist()
    first = found.images[0]
    assert (first.a_probability, first.b_probability) == (
        a[first.image_sha256],
        b[first.image_sha256],
    )


def test_the_command_writes_json_and_a_sheet(folder, tmp_path):
    arguments = ["compare", str(folder / "00.json"), str(folder / "01.json"), "--images", "7"]
    arguments += ["--data", str(folder / "data"), "--output", str(tmp_path)]
    said = CliRunner().invoke(main, arguments)
    assert said.exit_code == 0, said.output
    assert "-30.0" in said.output and "hummingbird" in said.output
    document = json.loads((tmp_path / "comparison.json").read_text())
    assert document["schema"] == "spurbench.comparison/2"
    assert compare.Comparison.model_validate(document).splits["real"].n == 60
    sheet = Image.open(tmp_path / "images.png").convert("RGB")
    assert sheet.width == 10 + 6 * 154
    # Every one of the seven is there: its middle is not the sheet's white.
    top = 10 + 3 * 20
    step = (sheet.height - top) // 2
    middles = [(10 + 154 * (i % 6) + 72, top + step * (i // 6) + 72) for i in range(8)]
    assert [sheet.getpixel(m) != (255, 255, 255) for m in middles] == [True] * 7 + [False]


def test_the_sheet_says_whose_answers_it_shows(folder, tmp_path, monkeypatch):
    drawn = {}

    def record(pictures, heading):
        drawn.update(pictures=pictures, heading=heading)
        return captioned_sheet(pictures, heading=heading)

    monkeypatch.setattr(compare, "captioned_sheet", record)
    found = compare.compare(*(Result.read(folder / f"{i:02d}.json") for i in range(2)), images=3)
    compare.write(found, tmp_path, str(folder / "data"))
    assert drawn["heading"][:2] == [f"A: {found.a}", f"B: {found.b}"]
    for picture, image in zip(drawn["pictures"], found.images, strict=True):
        assert f"{image.a_probability:.0%}" in picture.lines[1]
        assert f"{image.b_probability:.0%}" in picture.lines[2]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("difference", 1.01),
        ("difference", -1.01),
        ("a", 1.01),
        ("b", -0.01),
        ("only_a", -1),
        ("only_b", -1),
        ("p_value", -0.01),
        ("n", 0),
    ],
)
def test_a_comparison_of_impossible_numbers_is_refused(folder, key, value):
    found = compare.compare(*(Result.read(folder / f"{i:02d}.json") for i in range(2)))
    document = found.model_dump(mode="json", by_alias=True)
    assert compare.Comparison.model_validate(document) == found
    document["splits"]["real"][key] = value
    with pytest.raises(ValueError, match=key):
        compare.Comparison.model_validate(document)


def test_other_images_a_lost_parquet_and_no_common_split_are_refused(folder, tmp_path):
    other = save_dataset(tmp_path / "other", images=19)
    mine = {"real": 0.2, "generated": 0.5}
    elsewhere = save_result(tmp_path, other, "x", mine)
    with pytest.raises(SpurbenchError, match="did not see the same real images"):
        compare.compare(Result.read(folder / "00.json"), Result.read(elsewhere))
    document = json.loads((folder / "00.json").read_text())
    document["splits"].pop("real")
    generated = folder / "generated.json"
    generated.write_text(json.dumps(document))
    document = json.loads((folder / "00.json").read_text())
    document["splits"].pop("generated")
    real = folder / "real.json"
    real.write_text(json.dumps(document))
    with pytest.raises(SpurbenchError, match="no split in common"):
        compare.compare(Result.read(generated), Result.read(real))
    elsewhere.with_suffix(".parquet").unlink()
    with pytest.raises(SpurbenchError, match=r"parquet is missing; .*spurbench eval"):
        compare.compare(Result.read(elsewhere), Result.read(elsewhere))
    found = compare.compare(Result.read(folder / "00.json"), Result.read(folder / "01.json"))
    with pytest.raises(SpurbenchError, match="is not the dataset that was measured"):
        compare.write(found, tmp_path / "out", str(tmp_path / "other"))
    assert not (tmp_path / "out").exists()


def test_a_line_too_long_for_its_image_is_cut_short_within_it():
    picture = Image.new("RGB", (50, 50), "black")
    sheet = captioned_sheet([Captioned(picture, ["W" * 200]), Captioned(picture, [""])], columns=2)
    beyond = sheet.crop((10 + 144, 10 + 146, sheet.width, sheet.height))
    assert beyond.getextrema() == ((255, 255),) * 3
