from __future__ import annotations

import numpy as np
import pytest

from spurbench.studies.probe.edits import EDITS, Edit, feature_mask, shuffle_patches, surroundings

BY_NAME = {edit.name: edit for edit in EDITS}


def noise(side: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def disc(side: int = 64, at: tuple[float, float] = (0.4, 0.6), radius: float = 0.2) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    return (y - at[0]) ** 2 + (x - at[1]) ** 2 < radius**2


def test_edits_are_drawn_by_seed_and_image_and_leave_their_input_alone():
    pixels, mask = noise(), disc(32)
    before = pixels.copy()
    for edit in EDITS:
        once = edit(pixels, mask, "a", 0)
        assert once.shape == pixels.shape and once.dtype == np.uint8
        assert (once == edit(pixels, mask, "a", 0)).all()
        assert (once != pixels).any(), edit.name
        drawn = edit.aspect == "shape"
        assert (once != edit(pixels, mask, "b", 0)).any() == drawn
        assert (once != edit(pixels, mask, "a", 1)).any() == drawn
    assert (pixels == before).all()


@pytest.mark.parametrize("name", ["hue-90", "hue-180", "hue-270"])
def test_a_turned_hue_keeps_saturation_and_value(name):
    red = np.full((4, 4, 3), (200, 40, 40), np.uint8)
    turned = BY_NAME[name](red, None, "a", 0).astype(int)
    assert abs(turned.max() - 200) <= 2 and abs(turned.min() - 40) <= 2
    warm = {"hue-90": 1, "hue-180": 2, "hue-270": 2}[name]
    assert turned[0, 0].argmax() == warm or turned[0, 0, warm] >= 198
    grey = np.full((4, 4, 3), 90, np.uint8)
    assert (BY_NAME[name](grey, None, "a", 0) == grey).all()


def test_grey_has_no_colour_and_keeps_luma():
    grey = BY_NAME["grey"](noise(), None, "a", 0)
    assert (grey == grey[..., :1]).all()
    luma = noise() @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey[..., 0] - luma).max() <= 1


@pytest.mark.parametrize("grid", [2, 4, 8])
def test_shuffled_patches_are_the_same_patches_none_in_its_place(grid):
    pixels = noise()
    shuffled = shuffle_patches(pixels, np.random.default_rng(1), grid=grid)
    side = 32 // grid

    def tiles(image):
        cut = image.reshape(grid, side, grid, side, 3).swapaxes(1, 2)
        return [tile.tobytes() for tile in cut.reshape(-1, side, side, 3)]

    before, after = tiles(pixels), tiles(shuffled)
    assert sorted(before) == sorted(after)
    assert all(a != b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("shape", [(33, 50, 3), (3, 7, 3), (1, 1, 3)])
def test_sides_that_a_grid_does_not_divide_are_shuffled_too(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    shuffled = shuffle_patches(pixels, np.random.default_rng(1), grid=4)
    assert shuffled.shape == shape
    colours = [set(map(tuple, image.reshape(-1, 3).tolist())) for image in (shuffled, pixels)]
    assert colours[0] <= colours[1]


def test_blur_takes_texture_by_the_side_and_leaves_the_mean():
    for side in (32, 128):
        stripes = np.zeros((side, side, 3), np.uint8)
        stripes[:, :: 4 * side // 32] = 200
        soft, softer = (BY_NAME[f"blur-{part}"](stripes, None, "a", 0) for part in (64, 16))
        assert abs(soft.mean() - stripes.mean()) < 3
        assert softer.std() < soft.std() < stripes.std()


def test_edits_of_the_feature_leave_the_rest_alone():
    pixels, mask = noise(64), disc(64)
    for name in ("feature-hue", "feature-flat"):
        changed = (BY_NAME[name](pixels, mask, "a", 0) != pixels).any(axis=2)
        assert not changed[~mask].any() and changed[mask].mean() > 0.9
    flat = BY_NAME["feature-flat"](pixels, mask, "a", 0)
    assert np.abs(flat[mask] - pixels[mask].mean(axis=0)).max() <= 1
    empty = np.zeros_like(mask)
    for edit in EDITS:
        if edit.inside:
            assert (edit(pixels, empty, "a", 0) == pixels).all()


def test_a_cut_up_feature_keeps_its_pixels_and_takes_nothing_along():
    pixels, mask = np.full((64, 64, 3), 90, np.uint8), np.zeros((64, 64), bool)
    mask[11:33, 11:19] = mask[25:33, 11:33] = True
    pixels[mask] = np.random.default_rng(0).integers(100, 250, (mask.sum(), 3))
    beside = np.s_[13:16, 28:31]  # in the feature's box
    pixels[beside] = 255
    cut = BY_NAME["feature-patches"](pixels, mask, "a", 0)
    white = (cut == 255).all(axis=2)
    white[beside] = False
    assert not white.any()
    moved = cut[(cut != 90).any(axis=2) & (cut != 255).any(axis=2)]
    assert sorted(map(tuple, moved)) == sorted(map(tuple, pixels[mask]))
    stayed = (cut == pixels).all(axis=2) & mask
    assert stayed.sum() < 0.2 * mask.sum()
    assert ((cut != pixels).any(axis=2).nonzero()[0] < 34).all()


def test_a_place_is_filled_in_as_its_surroundings_are():
    y, _ = np.mgrid[:64, :64]
    background = np.stack([80 + y, 120 + 0 * y, 160 - y], axis=2).astype(np.uint8)
    image, where = background.copy(), disc(radius=0.15)
    image[where] = 250, 10, 10
    filled = surroundings(image, where)
    assert np.abs(filled.astype(int) - background)[where].max() < 16
    assert (filled[~where] == background[~where]).all()
    assert (surroundings(image, np.ones_like(where)) == image).all()


def test_the_mask_follows_the_outline_though_detail_is_smoothed():
    image = np.full((64, 64, 3), 120, np.uint8)
    where = np.zeros((64, 64), bool)
    for left in (12, 24, 36):  # three bars with ground between them
        where[16:48, left : left + 6] = True
    image[where] = 200, 60, 40
    mask = feature_mask(image, np.full_like(image, 120))
    assert (mask & where).sum() / (mask | where).sum() > 0.9


def test_the_mask_is_the_feature_although_the_twins_background_differs():
    y, _ = np.mgrid[:64, :64]
    background = np.stack([80 + y, 120 + 0 * y, 160 - y], axis=2).astype(np.uint8)
    image = background.copy()
    where = disc()
    image[where] = 230, 60, 40
    tinted = np.clip(background.astype(int) + np.array([25, -20, 15]), 0, 255).astype(np.uint8)
    for twin in (background, tinted):
        mask = feature_mask(image, twin)
        assert mask[where].mean() > 0.95 and mask[~where].mean() < 0.15
    assert not feature_mask(image, image).any()
    other = background.copy()
    other[disc(at=(0.7, 0.2), radius=0.12)] = 250, 250, 240  # what only the twin shows is none
    assert not (feature_mask(image, other) & disc(at=(0.7, 0.2), radius=0.1)).any()
    with pytest.raises(ValueError, match="pixels"):
        feature_mask(image, image[:32])


def test_names_are_unique_and_aspects_have_edits_of_the_whole_image():
    assert len(BY_NAME) == len(EDITS)
    whole: list[Edit] = [edit for edit in EDITS if not edit.inside]
    assert {edit.aspect for edit in whole} == {"colour", "shape", "texture"}
