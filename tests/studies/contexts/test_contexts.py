from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from makers.rows import in_context, provenance, row, write
from makers.toy import save_toy_detector
from spurbench.classifiers.detectors import load_detector
from spurbench.core.errors import SpurbenchError
from spurbench.dataset.manifest import Manifest, read_rows
from spurbench.images.decode import decode_rgb
from spurbench.studies.contexts import measure
from spurbench.studies.contexts.measure import Contexts, association, called
from spurbench.studies.contexts.study import study

CPU = torch.device("cpu")
BEACH, MARKET = "on the beach", "in a market"


def images(shown, hidden, stratum):
    """So many images, spurious ones and others, where the context shows, and where not."""
    return [
        (spurious, visible, stratum)
        for visible, counts in ((True, shown), (False, hidden))
        for spurious, count in zip((True, False), counts, strict=True)
        for _ in range(count)
    ]


def test_images_are_compared_within_strata():
    """One class is spurious and often in its place, the other neither: together the sign turns."""
    entries = images((70, 30), (18, 2), "a") + images((2, 18), (30, 70), "b")
    found = association(entries)
    crude = (72 / 48) / (48 / 72)
    assert crude > 2
    odds = (70 * 2 + 2 * 70) / (30 * 18 + 18 * 30)
    assert found.odds_ratio == pytest.approx(odds) and found.high < 1
    assert (found.visible, found.hidden) == ((72, 120), (48, 120))
    excess = 72 - 100 * 88 / 120 - 20 * 32 / 120
    variance = 2 * (100 * 20 * 88 * 32) / (120**2 * 119)
    assert found.p_value == pytest.approx(chi2.sf(excess**2 / variance, 1))


def test_intervals_hold_what_is_planted_and_chance_is_no_finding():
    rng = np.random.default_rng(0)
    ratio, inside, found = 0.4, 0, 0
    for _ in range(60):
        entries, null = [], []
        for stratum, base in enumerate((0.3, 0.6, 0.85)):
            for visible in rng.random(60) < 0.2 + 0.25 * stratum:
                odds = base / (1 - base) * (ratio if visible else 1)
                entries.append((rng.random() < odds / (1 + odds), bool(visible), stratum))
                null.append((rng.random() < base, bool(visible), stratum))
        told = association(entries)
        inside += told.low < ratio < told.high
        found += association(null).p_value < 0.05
    assert inside >= 53 and found <= 8


def test_what_cant_be_compared_has_no_number():
    one_sided = association(images((3, 1), (0, 0), "a"))
    assert (one_sided.visible, one_sided.odds_ratio, one_sided.p_value) == ((3, 4), None, None)
    never = association(images((0, 5), (5, 5), "a"))
    assert (never.odds_ratio, never.low) == (0.0, None) and never.p_value < 0.1
    assert association([]).visible == (0, 0)


def test_shares_are_means_over_classes():
    few = [row("generated", i) for i in (0, 2)]  # both called the class
    many = [replace(row("generated", i), class_index=7) for i in (1, 3, 5, 6)]  # one of four
    share = called([*few, *many], "vit")
    assert (share.n, share.value) == (6, pytest.approx((1 + 1 / 4) / 2))
    assert share.low < share.value < share.high


def test_the_panel_at_once_is_fooled_by_what_fools_each_of_it():
    both, one = (row("generated", i) for i in (0, 2))
    panel = [replace(both.panel[0], classifier="a", rank=1), replace(both.panel[0], classifier="b")]
    panel = [*panel[:1], replace(panel[1], rank=1)]
    images = [
        replace(both, panel=tuple(panel)),
        replace(one, panel=(panel[0], replace(panel[1], rank=4))),
    ]
    assert called(images, None).value == 0.5
    assert (called(images, "a").value, called(images, "b").value) == (1, 0.5)


def test_images_of_one_generator_say_less_than_as_many_of_several():
    images = [row("generated", i) for i in range(8)]
    ranks = [replace(image.panel[0], rank=1 + 3 * (i >= 4)) for i, image in enumerate(images)]
    alike, mixed = (
        [
            replace(image, panel=(rank,), replicate=of(i))
            for i, (image, rank) in enumerate(zip(images, ranks, strict=True))
        ]
        for of in (lambda i: i // 4, lambda i: i % 4)
    )
    wide, narrow = called(alike, None), called(mixed, None)
    assert wide.value == narrow.value == 0.5
    assert (wide.low, wide.high) == (0, 1) and 0 < narrow.low < narrow.high < 1


@pytest.fixture
def rows():
    generated = [row("generated", i) for i in range(8)]
    generated[1] = replace(generated[1], object_absent=False)
    return {
        "real": [row("real", i) for i in range(3)],
        "generated": generated,
        "contexts-generated": [
            *(in_context(image, BEACH, object_absent=i != 2) for i, image in
              enumerate(generated[:6])),
            *(in_context(image, MARKET, object_absent=True) for image in generated[:6]),
        ],
    }  # fmt: skip


def test_images_of_the_same_noise_are_compared_as_far_as_they_count(rows):
    contexts = Contexts.of(rows, [BEACH, MARKET])
    generated = rows["generated"]
    assert list(contexts.plain) == [generated[i] for i in (0, 2, 3, 4, 5)]
    assert {phrase: len(of) for phrase, of in contexts.placed.items()} == {BEACH: 5, MARKET: 6}
    longer = [in_context(generated[0], f"{BEACH} at night")]
    told = Contexts.of(rows | {"contexts-generated": longer}, [BEACH, f"{BEACH} at night"])
    assert dict(told.placed) == {f"{BEACH} at night": longer}


def table(found) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(found.csv())))


def test_a_dataset_s_contexts_become_tables_and_a_picture(rows, tmp_path, monkeypatch):
    write(tmp_path / "d", rows=rows)
    folder = save_toy_detector(tmp_path / "detector", ["object:hummingbird", f"context:{BEACH}"])
    detector = load_detector(str(folder), device=CPU)
    manifest, stored = Manifest.read(tmp_path / "d"), read_rows(tmp_path / "d")
    contexts = Contexts.of(stored, [BEACH, MARKET])
    placed = contexts.placed[BEACH]
    scores = detector.probabilities([decode_rgb(r.read()) for r in placed])[:, 1].tolist()
    threshold = sorted(scores)[2]
    section = manifest.provenance.recipe["contexts"] | {"threshold": threshold}
    recipe = manifest.provenance.recipe | {"contexts": section}
    manifest = manifest.model_copy(update={"provenance": provenance(recipe=recipe)})
    monkeypatch.setattr(measure, "BATCH", 4)  # images go to the detector in parts
    (accuracy, visible), figure = study(manifest, stored, detector=str(folder), device=CPU)

    lines = [line for line in table(accuracy) if line["classifier"] == "vit"]
    assert [(line["context"], line["n"]) for line in lines] == [
        ("no context", "5"), (BEACH, "5"), (MARKET, "6"),
    ]  # fmt: skip
    assert float(lines[0]["spurious_accuracy"]) == 3 / 5
    (line,) = table(visible)  # nobody knows what a market looks like
    shows = [score >= threshold for score in scores]
    spurious = [r.consistently_spurious for r in placed]
    assert (line["context"], line["visible"], line["hidden"]) == (BEACH, "3", "2")
    both = sum(a and b for a, b in zip(shows, spurious, strict=True))
    assert (line["visible_spurious"], line["hidden_spurious"]) == (
        str(both), str(sum(spurious) - both),
    )  # fmt: skip
    plain = detector.probabilities([decode_rgb(r.read()) for r in contexts.plain])[:, 1]
    assert float(line["visible_without_asking"]) == (plain >= threshold).float().mean()
    assert len(figure.axes) == 3
    words = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert words[0] == "hummingbird: 1 of 1"
    assert words[1:3] == ["hummingbird: 1 of 1", f"context {'' if shows[0] else 'not '}visible"]


def test_without_a_detector_the_rest_is_told(rows, tmp_path):
    write(tmp_path / "d", rows=rows)
    manifest, stored = Manifest.read(tmp_path / "d"), read_rows(tmp_path / "d")
    with pytest.raises(SpurbenchError, match="gone"):
        study(manifest, stored, detector=str(tmp_path / "gone"), device=CPU)
    recipe = manifest.provenance.recipe | {"check": {"object_detector": str(tmp_path / "gone")}}
    manifest = manifest.model_copy(update={"provenance": provenance(recipe=recipe)})
    (accuracy,), _ = study(manifest, stored, detector=None, device=CPU)
    assert "Which contexts show is not known: object detector" in accuracy.notes[-1]
    assert study(manifest, stored | {"contexts-generated": []}, detector=None, device=CPU) == (
        [],
        None,
    )
