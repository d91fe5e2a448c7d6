from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from makers.answers import answered, answers_frame
from makers.measured import save_dataset, save_result
from makers.site import EVIL, evil_site
from spurbench.core import markdown
from spurbench.core.documents import read_toml
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import file_sha256
from spurbench.core.resources import templates
from spurbench.evaluation.metrics import wilson_interval
from spurbench.images.records import DatasetInfo, ImageRecord, ImageSet
from spurbench.leaderboard import entries, pictures, reported
from spurbench.leaderboard import page as site
from spurbench.leaderboard.boards import boards, read
from spurbench.leaderboard.page_data import answers_data, heat_colours


class Tags(HTMLParser):
    """Start tags and their attributes; JSON data blocks by their ids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, Any] = {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.found and self.found[-1][1].get("type") == "application/json" and data.strip():
            self.data[self.found[-1][1]["id"]] = json.loads(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.found)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return save_dataset(tmp_path_factory.mktemp("data") / "set", positives=6)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("again") / "set"
    save_dataset(folder, positives=6)
    return str(folder)


@pytest.fixture(scope="module")
def results(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("results")
    save_result(folder, images, "best", {"real": 0.05, "generated": 0.1})
    save_result(folder, images, "middle", {"real": 0.3, "generated": 0.5}, seed=1)
    save_result(folder, images, "close", {"real": 0.3, "generated": 0.55}, seed=2)
    save_result(folder, images, "worst", {"real": 0.8, "generated": 1.0}, architecture="vit_b_16")
    return folder


def test_build_publishes_entries_tables_and_a_page(results, data, tmp_path):
    written = site.build([results], [data], tmp_path / "board")
    names = sorted(str(p.resolve().relative_to(tmp_path.resolve() / "board")) for p in written)
    key = "_[0-9a-f]{8}.json"
    patterns = [
        "README.md",
        "index.html",
        "spurbench-toy-1.0.0-classes.csv",
        "spurbench-toy-1.0.0.csv",
        "spurbench-toy-1.0.0.md",
        *(f"spurbench-toy-1.0.0/timm-{name}{key}" for name in ("best", "close", "middle", "worst")),
    ]
    assert len(names) == len(patterns)
    assert all(re.fullmatch(p, n) for p, n in zip(patterns, names, strict=True)), names
    before = {path: path.read_bytes() for path in written}
    site.build([results], [data], tmp_path / "board")
    site.build([], [data], tmp_path / "board")  # from the entries alone
    assert {path: path.read_bytes() for path in written} == before


KEPT = """
import gc, sys
from pathlib import Path
from spurbench.leaderboard.entries import Entry
from spurbench.leaderboard.page import build
gc.disable()
build([], [], Path(sys.argv[1]))
print(sum(isinstance(thing, Entry) for thing in gc.get_objects()))
"""


def test_entries_are_given_back_without_the_garbage_collector(results, tmp_path):
    """In a new process: what holds on to them are imports, which are made once."""
    site.build([results], [], tmp_path)
    command = [sys.executable, "-c", KEPT, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("0\n", "")


def test_ties_are_in_markdown_csv_and_page(results, tmp_path):
    site.build([results], [], tmp_path)
    frame = pd.read_csv(tmp_path / "spurbench-toy-1.0.0.csv")
    groups = frame[["classifier", "rank", "tied_first", "tied_last"]].to_numpy().tolist()
    assert groups == [
        ["best", 1, 1, 1],
        ["middle", 2, 2, 3],
        ["close", 3, 2, 3],
        ["worst", 4, 4, 4],
    ]
    table = (tmp_path / "README.md").read_text()
    assert "| 2 | 2–3 | middle |" in table and "| 4 | 4 | worst |" in table
    page = (tmp_path / "index.html").read_text()
    rows = Tags(page).data["board-0"]["rows"]
    assert [row["tied"] for row in rows] == [[1, 1], [2, 3], [2, 3], [4, 4]]


def test_without_answers_there_are_no_tie_groups_and_it_says_whose_lack(images, results, tmp_path):
    lacking = save_result(tmp_path / "more", images, "[lacking]", {"real": 0.5, "generated": 0.5})
    lacking.with_suffix(".parquet").unlink()
    site.build([results, lacking], [], tmp_path / "board")
    for file in ("README.md", "index.html"):
        text = (tmp_path / "board" / file).read_text()
        assert re.search(
            r"No tie groups:.*answers to each image are not known of \\?\[lacking", text
        )
        assert "2–3" not in text
    assert pd.read_csv(tmp_path / "board" / "spurbench-toy-1.0.0.csv")["tied_first"].isna().all()


def test_ties_need_the_same_images(images, results, tmp_path):
    mine = read([results])
    other = mine[0].answers["generated"][0].model_copy(update={"images": "0" * 64})
    answers = {**mine[0].answers, "generated": [other, *mine[0].answers["generated"][1:]]}
    (board,) = boards([mine[0].model_copy(update={"answers": answers}), *mine[1:]])
    assert board.untested == "the answers are not to the same images"
    assert board.p_values == ()
    assert all(row.tied is None for row in board.rows)


def test_the_class_csv_has_wilson_intervals(results, tmp_path):
    site.build([results], [], tmp_path)
    frame = pd.read_csv(tmp_path / "spurbench-toy-1.0.0-classes.csv")
    assert len(frame) == 4 * 2 * 3
    row = frame[(frame["classifier"] == "close") & (frame["split"] == "generated")].iloc[0]
    assert (row["n"], row["spurious_accuracy"]) == (20, 0.55)
    assert (row["low"], row["high"]) == pytest.approx(wilson_interval(11, 20), abs=1e-6)


def bits(packed: str, rows: int, images: int) -> np.ndarray:
    flat = np.unpackbits(np.frombuffer(base64.b64decode(packed), np.uint8), bitorder="little")
    return flat[: rows * images].reshape(rows, images).astype(bool)


def test_images_are_those_measured_with_each_classifiers_answer(images, results, data, tmp_path):
    site.build([results], [data], tmp_path, samples=4)
    blocks = Tags((tmp_path / "index.html").read_text()).data
    board, answers = blocks["board-0"], blocks["answers-0"]
    assert [c["index"] for c in board["classes"]] == [94, 105, 565]
    frame = pd.read_parquet(results / "01.parquet")  # middle, ranked second
    for split in ("generated", "real"):
        assert answers["answered"][split] == [0, 1, 2, 3]
        for position, c in enumerate(board["classes"]):
            records = [
                r for r in images.records if (r.source, r.class_index) == (split, c["index"])
            ]
            records = sorted(records, key=lambda r: r.sha256)
            given = frame.set_index("image_sha256").loc[[r.sha256 for r in records], "prediction"]
            called = bits(answers["bits"][split][str(position)], 4, 20)[1]
            assert called.tolist() == (given == c["index"]).tolist()
            assert board["called"][split][1][position] == called.sum()
            shown = answers["pictures"][split][str(position)]
            assert list(shown) == ["0", "1", "2", "3"]
            for record, uri in zip(records, shown.values(), strict=False):
                picture = Image.open(io.BytesIO(_decode(uri))).convert("RGB")
                original = Image.open(io.BytesIO(record.read()))
                difference = np.abs(np.asarray(picture, int) - np.asarray(original, int)).mean()
                assert picture.size == original.size and difference < 25


def test_as_many_images_are_embedded_as_there_is_room_for(
    results, data, tmp_path, monkeypatch, caplog
):
    site.build([results], [], tmp_path)
    bare = (tmp_path / "index.html").stat().st_size
    monkeypatch.setattr(site, "LIMIT", bare + 5000)
    site.build([results], [data], tmp_path, samples=20)
    page = tmp_path / "index.html"
    assert bare + 3000 < page.stat().st_size <= bare + 5000
    assert "has room for the first" in caplog.text
    shown = Tags(page.read_text()).data["answers-0"]["pictures"]
    counts = [len(own) for split in shown.values() for own in split.values()]
    assert len(counts) == 6 and max(counts) - min(counts) <= 1  # every class alike


def test_a_generated_image_stands_beside_its_own_twin(monkeypatch, tmp_path):
    frame = answers_frame((94,), images=8)
    (board,) = boards(read([answered("one", frame), answered("two", frame)]))
    info = DatasetInfo(name="toy", version="1.0.0", kind="dataset", fingerprint="x")

    def records(source: str) -> tuple[ImageRecord, ...]:
        own = frame[frame["source"] == source].sample(frac=1, random_state=0)
        return tuple(
            ImageRecord(
                path=row.path,
                class_index=94,
                source=row.source,
                sha256=row.image_sha256,
                read=lambda sha256=row.twin_of if source == "control" else row.image_sha256: (
                    coloured(sha256)
                ),
                class_name="hummingbird",
                twin_of=row.twin_of if source == "control" else None,
            )
            for row in own.itertuples()
        )

    controls = ImageSet(records("control"), (), info)
    images = ImageSet(records("generated"), (), info, controls=controls)
    monkeypatch.setattr(pictures, "open_images", lambda name, decode: images)
    shown = pictures.choose(["toy"], [board], 8, 10**6)
    answers = answers_data(board, shown)
    # Twins here are of the colour of their images.
    own, twins = (answers["pictures"][source][0] for source in ("generated", "control"))
    assert len(set(own.values())) == 8 and own == twins
    order = frame[frame["source"] == "generated"].sort_values("image_sha256")["image_sha256"]
    given = frame[frame["source"] == "control"].set_index("twin_of").loc[order]
    called = (given["prediction"] == 94).tolist()
    assert bits(answers["bits"]["control"][0], 2, 8).tolist() == [called, called]
    assert answers["left"]["control"][0] == np.flatnonzero(~given["counted"]).tolist()


def coloured(sha256: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), tuple(bytes.fromhex(sha256[:6]))).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_row_says_all_that_was_measured(tmp_path):
    measured = [
        answered(name, answers_frame((94, 565), images=40, seed=i)) for i, name in enumerate("ab")
    ]
    site.build(measured, [], tmp_path)
    block = Tags((tmp_path / "index.html").read_text()).data["board-0"]
    (entry, *_) = read([tmp_path / "toy-1.0.0" / Path(block["rows"][0]["entries"][0]).name])
    row, summary = block["rows"][0], entry.splits["generated"].summary
    assert row["generated"]["value"] == round(100 * summary.spurious_accuracy, 1)
    assert row["recognition"]["value"] == round(100 * summary.recognition.accuracy, 1)
    assert row["auroc"]["low"] == round(summary.recognition.auroc_interval.low, 3)
    assert row["effect"]["value"] == round(100 * summary.effect.effect, 1)
    assert row["effect"]["low"] == round(100 * summary.effect.interval.low, 1)
    assert row["chance"] == round(100 * summary.chance, 1)
    worst = max(entry.splits["generated"].classes, key=lambda c: c.spurious_accuracy)
    assert row["worst"] == {
        "class": [94, 565].index(worst.index),
        "value": round(100 * worst.spurious_accuracy, 1),
        "n": worst.n,
    }
    assert row["date"] == "2024-02-13"
    assert (tmp_path / row["entries"][0]).is_file()
    for source, n in (("generated", "n"), ("positive", "recognition"), ("control", "effect")):
        counts = [
            c.n if n == "n" else c.recognition.n if n == "recognition" else c.effect.pairs
            for c in entry.splits["generated"].classes
        ]
        assert [c["n"][source] for c in block["classes"]] == counts


def test_names_in_addresses_outlive_new_entries(tmp_path):
    frame = answers_frame((94, 565), images=20)
    site.build([answered("one", frame)], [], tmp_path)
    before = Tags((tmp_path / "index.html").read_text()).data["board-0"]
    better = answers_frame((94, 565), images=20, called=(0.0, 0.0, 0.9, 0.0))
    site.build([answered("two", better)], [], tmp_path)
    after = Tags((tmp_path / "index.html").read_text()).data["board-0"]
    assert after["id"] == before["id"]
    assert [row["id"] for row in after["rows"]][1] == before["rows"][0]["id"]


def test_who_had_a_part_stands_below_without_a_rank_and_with_the_reason(tmp_path):
    frame = answers_frame((94, 565), images=20)
    best = answers_frame((94, 565), images=20, called=(0.1, 0.1, 0.9, 0.0))
    site.build([answered("one", frame), answered("chose", best, role="panel")], [], tmp_path)
    page = (tmp_path / "index.html").read_text()
    rows = Tags(page).data["board-0"]["rows"]
    assert [(row["label"], row["rank"]) for row in rows] == [("one", 1), ("chose", None)]
    assert "panel" in rows[1]["unranked"]
    assert "chose <small>not ranked: panel" in page  # without the script, too


def test_a_page_without_ranks_says_why_and_keeps_the_order(tmp_path):
    shares = {"fooled": (0.5, 0.9, 0.9, 0.1), "untrained": (0.0, 0.0, 0.0, 0.0)}
    for name, called in shares.items():
        frame = answers_frame((94, 565), images=20, called=called)
        answered(name, frame[frame["source"] != "positive"]).write(tmp_path / "r" / f"{name}.json")
    site.build([tmp_path / "r"], [], tmp_path)
    page = (tmp_path / "index.html").read_text()
    block = Tags(page).data["board-0"]
    assert [(row["label"], row["rank"]) for row in block["rows"]] == [
        ("untrained", None),
        ("fooled", None),
    ]
    assert block["p_values"] is None
    assert page.index("Nobody is ranked") < page.index("<table")
    assert "not ranked: recognition not measured; give --positives" in page


def test_p_values_keep_what_is_significant(results, tmp_path):
    site.build([results], [], tmp_path)
    (board,) = boards(read([results]))
    packed = Tags((tmp_path / "index.html").read_text()).data["board-0"]["p_values"]
    held = np.frombuffer(base64.b64decode(packed), "<u2")
    for a in range(4):
        for b in range(a):
            p = board.p_values[a][b]
            shown = held[a * (a - 1) // 2 + b] / 1000
            assert shown == pytest.approx(p, abs=1e-3) and (shown < 0.05) == (p < 0.05)


def test_the_library_is_as_published_and_its_licence_is_in_the_page(results, tmp_path):
    folder = templates() / site.LIBRARY
    said = read_toml(folder / "vendored.toml")
    assert file_sha256(folder / Path(said["path"]).name) == said["sha256"]
    site.build([results], [], tmp_path)
    page = (tmp_path / "index.html").read_text()
    licence = (folder / "LICENSE").read_text()
    assert said["licence"] == "MIT" and "Permission is hereby granted" in licence
    assert licence in page and "sourceMappingURL" not in page
    assert not re.search(r"\beval\(|new Function", page)


def _decode(uri: str) -> bytes:
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return base64.b64decode(body)


def test_other_images_are_not_shown_for_those_measured(results, tmp_path):
    save_dataset(tmp_path / "other", images=19)
    with pytest.raises(SpurbenchError, match="no classifier here was measured on the images of"):
        site.build([results], [str(tmp_path / "other")], tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_a_new_result_joins_those_published_and_replaces_its_own(images, results, tmp_path):
    site.build([results], [], tmp_path)
    new = save_result(tmp_path / "new", images, "newer", {"real": 0.0, "generated": 0.0})
    again = save_result(tmp_path / "new", images, "best", {"real": 0.5, "generated": 0.9})
    site.build([new, again], [], tmp_path)
    frame = pd.read_csv(tmp_path / "spurbench-toy-1.0.0.csv")
    assert frame["classifier"].tolist() == ["newer", "middle", "close", "best", "worst"]


def test_the_page_and_tables_of_the_published_entries_show_the_same_figures(tmp_path):
    site.build([Path(__file__).parents[2] / "leaderboards"], [], tmp_path)
    table = (tmp_path / "mini-1.0.0.md").read_text().split("## By class")[0].replace("\\", "")
    lines = [line for line in table.splitlines() if line.startswith("| ")][2:]
    rows = Tags((tmp_path / "index.html").read_text()).data["board-0"]["rows"]
    assert len(rows) == len(lines) >= 12
    for row, line in zip(rows, lines, strict=True):
        assert f"| {row['label']} |" in line
        for name in ("real", "generated", "recognition"):
            assert "| {value:.1f} [{low:.1f}, {high:.1f}] |".format(**row[name]) in line
        assert "| {value:.3f} [{low:.3f}, {high:.3f}] |".format(**row["auroc"]) in line
        assert "| {value:+.1f} [{low:+.1f}, {high:+.1f}] |".format(**row["effect"]) in line


def test_a_broken_entry_stops_the_build_before_anything_is_written(results, tmp_path):
    site.build([results], [], tmp_path)
    (entry, *_) = sorted((tmp_path / "spurbench-toy-1.0.0").iterdir())
    content = json.loads(entry.read_text())
    content["splits"]["real"]["classes"][0]["spurious_accuracy"] = 0.123
    entry.write_text(json.dumps(content))
    before = (tmp_path / "index.html").read_bytes()
    with pytest.raises(SpurbenchError, match=entry.name):
        site.build([], [], tmp_path)
    assert (tmp_path / "index.html").read_bytes() == before


def test_nothing_to_build_is_an_error(tmp_path):
    with pytest.raises(SpurbenchError, match=r"no results in .*spurbench eval"):
        site.build([], [], tmp_path)


def test_text_from_outside_cannot_break_out_of_the_page(tmp_path):
    board = evil_site(tmp_path)
    page = (board / "index.html").read_text()
    assert "<script>window" not in page and "<img" not in page
    tags = Tags(page)
    assert tags.count("img") == 0
    assert tags.count("script") == len(tags.data) + 1  # the data and the page's own
    assert not [a for _, a in tags.found if any(key.startswith("on") for key in a)]
    assert "{{ 7 * 7 }}" in page  # shown, not rendered
    # It is there, as text, in all its places.
    harmless = markdown.plain(EVIL)
    texts = [v for _, a in tags.found for v in a.values() if v]
    assert f"{harmless} {harmless}" in texts  # the board's title
    assert tags.data["board-0"]["rows"][0]["family"] == harmless
    for file in board.glob("*.md"):
        text = file.read_text()
        assert "<script" not in text and "<img" not in text
        assert "[x](" not in text and "**z**" not in text


def test_the_policy_allows_the_pages_own_script_only(results, tmp_path):
    site.build([results], [], tmp_path)
    page = (tmp_path / "index.html").read_text()
    policy = re.search(r'Security-Policy" content="([^"]*)"', page).group(1)
    policy = policy.replace("&#39;", "'")
    assert "default-src 'none'" in policy
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert re.findall(r"script-src ([^;]*)", policy) == [f"'sha256-{digest}'"]


def test_the_page_names_no_other_file_or_host_to_load(results, data, tmp_path):
    site.build([results], [data], tmp_path)
    page = (tmp_path / "index.html").read_text()
    tags = Tags(page)
    assert not [a for tag, a in tags.found if tag in ("link", "iframe", "object", "base")]
    assert not [a["src"] for _, a in tags.found if "src" in a]
    assert "url(" not in page and "@import" not in page


def test_heat_colours_are_legible():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    for scheme in ("light", "dark"):
        for background, text in heat_colours(scheme):
            low, high = sorted((luminance(background), luminance(text)))
            assert (high + 0.05) / (low + 0.05) >= 4.5


def test_reported_scores_stand_apart_and_rank_nobody(results, tmp_path):
    (tmp_path / "reported.toml").write_text(
        '[[tables]]\ntitle = "T"\nmeasure = "Higher is better."\nsource = "S"\n'
        'url = "https://example.org/x"\nscores = [{ classifier = "theirs", score = 0.01 }]\n'
    )
    site.build([results], [], tmp_path)
    readme = (tmp_path / "README.md").read_text()
    assert "| theirs | 0.010 |" in readme and "not measured here" in readme
    for table in tmp_path.glob("*.csv"):
        assert "theirs" not in table.read_text()
    page = (tmp_path / "index.html").read_text()
    assert "theirs" in page
    assert "theirs" not in [row["label"] for row in Tags(page).data["board-0"]["rows"]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[tables]]\n", "title"),
        ("tables = 3", "tables"),
        ("[[tables", "TOML"),
        *(
            (
                f'[[tables]]\ntitle="t"\nmeasure="m"\nsource="s"\nurl="{url}"\n'
                'scores=[{classifier="c",score=1}]',
                "url",
            )
            for url in ("javascript:x", "https://x/<script>", "https://x/ [x](y)")
        ),
    ],
)
def test_wrong_reported_scores_are_named(tmp_path, text, said):
    (tmp_path / "reported.toml").write_text(text)
    with pytest.raises(SpurbenchError, match=rf"reported\.toml.*{said}"):
        reported.read(tmp_path)


def test_the_reported_scores_of_the_repository_are_sound():
    (table,) = reported.read(Path(__file__).parents[2] / "leaderboards")
    assert {s.classifier: s.score for s in table.scores}["ResNet50"] == 0.851
    assert len(table.scores) == 5


def test_every_entry_of_the_repository_is_sound():
    entries.read_all([Path(__file__).parents[2] / "leaderboards"])
