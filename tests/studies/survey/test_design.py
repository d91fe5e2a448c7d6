from __future__ import annotations

import io
import json
import stat

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from makers.measured import noise, save_dataset
from makers.survey import links, made_survey
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.images.sources import open_images
from spurbench.studies.survey.design import Survey, choose, order, orders, read_tokens
from spurbench.studies.survey.make import alike


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    made_survey(folder, raters=3, contact="<b>Ada</b>", zipped=True)
    return folder / "survey"


@pytest.mark.parametrize(("items", "repeats"), [(60, 6), (12, 5), (40, 30), (4, 0), (2, 2)])
def test_an_order_shows_every_image_once_and_some_again_well_after(items, repeats):
    gap = min(10, items // 4)
    for seed in range(30):
        made = order(items, repeats, np.random.default_rng(seed))
        assert set(made) == set(range(items)) and len(made) == items + repeats
        for item in range(items):
            places = [i for i, shown in enumerate(made) if shown == item]
            assert len(places) <= 2
            if len(places) == 2:
                between = set(made[places[0] + 1 : places[1]])
                assert len(between) >= gap and item not in between


def test_each_rater_has_an_order_and_repetitions_of_their_own():
    made = orders(40, 20, 6, seed=0)
    assert len(set(made)) == 20
    repeated = {frozenset(i for i in range(40) if one.count(i) == 2) for one in made}
    assert len(repeated) > 15
    assert made == orders(40, 20, 6, seed=0) != orders(40, 20, 6, seed=1)
    # Real and generated ones are mixed: the first shown is any of them.
    assert len({one[0] for one in made}) > 10


def test_more_repetitions_than_fit_are_refused():
    with pytest.raises(SpurbenchError, match="--repeats 30 is the most"):
        order(40, 31, np.random.default_rng(0))


def test_half_of_a_classs_images_are_real_and_the_seed_draws_them(tmp_path):
    images = save_dataset(tmp_path / "data", images=9)
    chosen = choose(images.records, 6, "all", seed=0)
    assert len({record.sha256 for record in chosen}) == 18
    for index in (94, 565, 105):
        sources = [record.source for record in chosen if record.class_index == index]
        assert sorted(sources) == ["generated"] * 3 + ["real"] * 3
    assert chosen == choose(images.records[::-1], 6, "all", seed=0)
    assert chosen != choose(images.records, 6, "all", seed=1)
    some = choose(images.records, 6, "koala, 94", seed=0)
    assert {record.class_index for record in some} == {94, 105}
    with pytest.raises(SpurbenchError, match=r"class 94 .* has 9 real images, and --images 20"):
        choose(images.records, 20, "all", seed=0)
    with pytest.raises(SpurbenchError, match="no class 'kiwi' in the dataset; it has"):
        choose(images.records, 6, "kiwi", seed=0)


def test_nothing_but_pixels_tells_the_sources_apart():
    def encoded(kind, size, **settings):
        buffer = io.BytesIO()
        noise("real", 94, 0).resize(size).save(buffer, kind, **settings)
        return Image.open(buffer)

    exif = Image.Exif()
    exif[0x0110] = "a camera"
    photograph = encoded("JPEG", (80, 60), quality=70, exif=exif, comment=b"taken")
    generated = encoded("PNG", (64, 64))
    made = [Image.open(io.BytesIO(alike(i.convert("RGB"), 48))) for i in (photograph, generated)]
    for image in made:
        assert (image.format, image.size, image.mode) == ("JPEG", (48, 48), "RGB")
        assert set(image.info) == {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert not image.getexif()
    assert made[0].quantization == made[1].quantization
    assert made[0].layer == made[1].layer


def test_what_raters_get_names_no_class_no_feature_and_no_source(survey):
    design = Survey.read(survey)
    words = {"hummingbird", "freight", "red flower", "graffiti", "spurious_feature"}
    hidden = [item.sha256 for item in design.items] + ["toy", design.dataset.fingerprint]
    for path in (survey / "static").rglob("*.html"):
        text = path.read_text()
        assert not [word for word in (*words, *hidden) if word in text.partition("<body")[2]]
    names = {path.stem for path in (survey / "static" / "images").iterdir()}
    assert names == {item.image for item in design.items}
    sources = [item.source for item in design.items]
    assert list(names) and [i.image for i in design.items] == sorted(names)
    # Sorted by name, sources are in no order: the names were drawn blindly.
    assert sources != sorted(sources) and sources != sorted(sources, reverse=True)
    sizes = {Image.open(path).size for path in (survey / "static" / "images").iterdir()}
    assert sizes == {(32, 32)}


def test_links_are_random_and_for_the_owners_eyes(survey, tmp_path):
    rows = links(survey)
    assert [row["rater"] for row in rows] == ["1", "2", "3"]
    tokens = [row["token"] for row in rows]
    assert all(len(token) == 32 and len(set(token)) > 5 for token in tokens)
    assert all(row["link"] == f"http://127.0.0.1:8000/r/{row['token']}" for row in rows)
    assert all((survey / row["page"]).is_file() for row in rows)
    assert stat.S_IMODE((survey / "links.csv").stat().st_mode) == 0o600
    assert not [token for token in tokens if token in (survey / "survey.json").read_text()]
    assert read_tokens(survey, Survey.read(survey)) == {t: i for i, t in enumerate(tokens)}
    made_survey(tmp_path, raters=3)
    assert not set(tokens) & {row["token"] for row in links(tmp_path / "survey")}


def test_every_rater_gets_a_zip_with_their_page_alone(survey):
    import zipfile

    with zipfile.ZipFile(survey / "packages" / "rater-002.zip") as archive:
        pages = [name for name in archive.namelist() if name.endswith(".html")]
        assert pages == ["survey/start.html"]
        assert links(survey)[1]["token"] in archive.read("survey/start.html").decode()
        assert sum(name.endswith(".jpg") for name in archive.namelist()) == 12


def test_what_raters_are_told_is_escaped(survey):
    text = (survey / links(survey)[0]["page"]).read_text()
    assert "&lt;b&gt;Ada&lt;/b&gt;" in text and "<b>Ada" not in text


def test_a_survey_is_never_written_over(survey):
    before = (survey / "survey.json").read_bytes()
    with pytest.raises(SpurbenchError, match="may hold answers; name another --output"):
        made_survey(survey.parent, data=survey.parent / "data")
    assert (survey / "survey.json").read_bytes() == before


def test_a_design_that_does_not_fit_itself_is_refused(survey, tmp_path):
    document = json.loads((survey / "survey.json").read_text())
    document["orders"][0][0] = 99
    (tmp_path / "survey.json").write_text(json.dumps(document))
    with pytest.raises(SpurbenchError, match="does not hold every item"):
        Survey.read(tmp_path)
    with pytest.raises(SpurbenchError, match="is no survey"):
        Survey.read(tmp_path / "nowhere")


def test_commands_end_in_one_line(tmp_path):
    def said(*arguments):
        result = CliRunner().invoke(main, ["survey", *map(str, arguments)])
        assert result.exit_code == 1 and result.output.count("\n") == 1
        return result.output

    save_dataset(tmp_path / "data", images=4)
    odd = said("make", tmp_path / "data", "--images", 5, "--output", tmp_path / "s")
    assert "--images 5 is not even" in odd
    assert "no survey.json" in said("serve", tmp_path)
    assert "no survey.json" in said("report", tmp_path)
    made_survey(tmp_path, data=tmp_path / "data", images=4)
    assert "nobody has answered yet" in said("report", tmp_path / "survey")
    assert open_images(str(tmp_path / "data")).records
