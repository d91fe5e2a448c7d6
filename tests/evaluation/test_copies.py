"""The copy detector, on pictures of blots: what is a copy, what is not, how often it errs."""

from __future__ import annotations

import sys
from subprocess import run

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.copies import (
    DOCTORINGS,
    LEAST_UNSEEN,
    calibrate,
    doctor,
    likeness,
    reference_windows,
)

GREY = Image.new("RGB", (64, 64), (90, 90, 90))


def blots(seed: int, count: int = 1, side: int = 64, spread: float = 4) -> list[Image.Image]:
    """Pictures of coloured blots, no two alike."""
    noise = np.random.default_rng(seed).normal(size=(count, side, side, 3))
    smooth = gaussian_filter(noise, (0, spread, spread, 0))
    return [Image.fromarray(i) for i in (127 + smooth * 500).clip(0, 255).astype(np.uint8)]


REFERENCES, UNSEEN, FRESH = blots(0, 2), blots(1, 60), blots(2, 60)


@pytest.fixture(scope="module")
def detector():
    return calibrate(REFERENCES, UNSEEN)


@pytest.mark.parametrize("kinds", [(), *((kind,) for kind in DOCTORINGS), DOCTORINGS])
def test_doctored_references_are_copies(detector, kinds):
    copies = [doctor(image, kinds, seed) for image in REFERENCES for seed in range(8)]
    # Blurred and noisy besides, as an autoencoder leaves them.
    noise = np.random.default_rng(0).normal(0, 8, (64, 64, 3))
    soft = [
        Image.fromarray(
            (gaussian_filter(np.float32(i), (1, 1, 0)) + noise).clip(0, 255).astype("u1")
        )
        for i in copies
    ]
    assert detector.copies([*copies, *soft]).all()
    assert detector.novelty([*copies, *FRESH]) == pytest.approx(
        (~detector.copies(FRESH)).sum() / (len(copies) + len(FRESH))
    )


def test_fresh_images_are_rarely_copies_and_of_the_unseen_the_promised_share(detector):
    assert detector.novelty(FRESH) >= 0.85
    above = likeness(UNSEEN, detector.windows) > detector.limit
    assert above.sum() == 2  # a fresh one is above with a chance of 3/61; of 4/61 were over 5 %
    looser = calibrate(REFERENCES, UNSEEN, false_alarms=0.5)
    assert (likeness(UNSEEN, looser.windows) > looser.limit).sum() == 29


def test_too_few_unseen_images_set_no_limit():
    assert LEAST_UNSEEN == 19
    assert calibrate(REFERENCES, UNSEEN[:19]).limit == max(
        likeness(UNSEEN[:19], reference_windows(REFERENCES))
    )
    with pytest.raises(SpurbenchError, match=r"^18 real images .* at least 19$"):
        calibrate(REFERENCES, UNSEEN[:18])


def test_an_image_is_most_like_itself_and_one_of_a_colour_like_nothing():
    windows = reference_windows(REFERENCES)
    assert np.allclose(np.linalg.norm(windows, axis=1), 1, atol=1e-5)
    found = likeness([*REFERENCES, GREY, FRESH[0]], windows)
    assert found[:2] == pytest.approx(1, abs=1e-5)
    assert found[2] == 0
    assert found[3] < 0.9


def test_empty_scenes_are_no_copies_of_a_references_background():
    """The reference is a blot in a corner of a plain gradient; the scene is the gradient alone."""
    slope = np.tile(np.linspace(60, 160, 64)[:, None, None], (1, 64, 3))
    slope[38:] += 12  # a horizon, to which everything here is alike
    reference = slope.copy()
    reference[2:14, 2:14] = (230, 20, 20)
    scene, reference = (Image.fromarray(i.astype(np.uint8)) for i in (slope, reference))
    assert likeness([scene], reference_windows([reference]))[0] < 0.5


def test_crops_to_all_sizes_from_0_7_of_the_side_are_found_wherever_they_lie():
    crops = [(0, 19, 45, 64), (10, 10, 55, 55), (13, 0, 64, 51), (3, 3, 61, 61)]
    found = likeness([REFERENCES[0].crop(box) for box in crops], reference_windows(REFERENCES))
    assert found.min() > 0.94


def test_size_does_not_matter_and_of_a_wide_image_the_central_square_counts():
    windows = reference_windows(REFERENCES)
    large = REFERENCES[0].resize((200, 200), Image.Resampling.BICUBIC)
    wide = Image.new("RGB", (400, 200), (255, 0, 255))
    wide.paste(large, (100, 0))
    assert likeness([large, wide], windows) == pytest.approx(1, abs=0.01)


def test_doctoring_is_a_function_of_its_arguments_and_does_what_it_says():
    (image,) = blots(3, side=32)
    pixels = np.asarray(image)
    assert doctor(image, DOCTORINGS, 5).tobytes() == doctor(image, DOCTORINGS, 5).tobytes()
    assert doctor(image, DOCTORINGS, 5).tobytes() != doctor(image, DOCTORINGS, 6).tobytes()
    assert doctor(image, (), 0).tobytes() == image.tobytes()
    assert (np.asarray(doctor(image, ("mirror",), 0)) == pixels[:, ::-1]).all()
    shifted = [np.asarray(doctor(image, ("shift",), seed)) for seed in range(20)]
    padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode="edge")
    places = [(y, x) for y in range(5) for x in range(5)]
    assert all(
        any((padded[y : y + 32, x : x + 32] == found).all() for y, x in places) for found in shifted
    )
    assert len({found.tobytes() for found in shifted}) > 8
    for seed in range(8):
        for kind, centre in (("brightness", 0.0), ("contrast", pixels.mean())):
            changed = np.asarray(doctor(image, (kind,), seed), float) - centre
            inner = (pixels > 40) & (pixels < 200)
            factor = (changed[inner] * (pixels[inner] - centre)).sum()
            factor /= ((pixels[inner] - centre) ** 2).sum()
            assert 0.74 < factor < 1.26
            assert np.abs(changed[inner] - factor * (pixels[inner] - centre)).max() < 2
        assert doctor(image, ("crop",), seed).size == image.size


def test_it_needs_no_torch():
    code = "import sys, spurbench.evaluation.copies; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code]).returncode == 0
