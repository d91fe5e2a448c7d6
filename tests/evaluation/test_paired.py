from __future__ import annotations

import itertools

import numpy as np
import pytest

from spurbench.evaluation.paired import holm, mcnemar, pairwise, sign_flip, tie_groups


def answers(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return np.array(a), np.array(b)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        # 2 * (C(11,0) + C(11,1) + C(11,2)) / 2^11 = 2 * 67 / 2048
        (9, 2, 134 / 2048),
        (2, 9, 134 / 2048),
        (5, 0, 2 / 32),
        (6, 0, 2 / 64),
        (3, 3, 1.0),
        (1, 0, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_is_the_sign_test_of_the_discordant_images(only_a, only_b, p):
    assert mcnemar(*answers(7, only_a, only_b, 4)) == pytest.approx(p)
    # Images that fool both or neither say nothing.
    assert mcnemar(*answers(700, only_a, only_b, 40)) == pytest.approx(p)


def test_answers_to_other_numbers_of_images_cannot_be_paired():
    with pytest.raises(ValueError, match="paired"):
        mcnemar(np.zeros(3, bool), np.zeros(4, bool))


def test_holm_by_hand():
    # Sorted 0.01, 0.03, 0.04: times 3, 2, 1, and never below the one before.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_pairwise_adjusts_over_all_pairs():
    a, b = answers(0, 10, 0, 10)
    p = pairwise(np.stack([b, b, a]))
    assert np.array_equal(p, p.T) and np.all(np.diag(p) == 1)
    assert p[0, 1] == 1
    # The two raw values of 2 / 2^10 are the smallest of three: times 3, and then not below.
    assert p[0, 2] == p[1, 2] == pytest.approx(3 * 2 / 1024)
    assert pairwise(np.stack([a])).tolist() == [[1]]


def test_a_group_is_who_cannot_be_told_from_its_first():
    p = np.ones((4, 4))
    p[0, 2] = p[2, 0] = p[0, 3] = p[3, 0] = 0.01  # 0 differs from 2 and 3
    assert tie_groups(p) == [0, 0, 2, 2]
    p[2, 3] = p[3, 2] = 0.049
    assert tie_groups(p) == [0, 0, 2, 3]
    p[2, 3] = p[3, 2] = 0.05
    assert tie_groups(p) == [0, 0, 2, 2]


def flipped(differences: list[int]) -> float:
    """The share of all sign patterns whose sum is as far from nought."""
    signs = np.array(list(itertools.product([-1, 1], repeat=len(differences))))
    sums = signs @ np.array(differences)
    return float(np.mean(np.abs(sums) >= abs(sum(differences))))


@pytest.mark.parametrize(
    "differences",
    [[1, 1, 2, -1, 2, 0, 1], [2, 2, 2], [1, -1], [2, -1, -1], [-2, -2, 1, -1, -1, -1, 0, 0]],
)
def test_signs_are_flipped_in_every_way(differences):
    found = sign_flip(np.array(differences))
    assert found == pytest.approx(flipped([d for d in differences if d]))
    assert sign_flip(-np.array(differences)) == pytest.approx(found)


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 2), (0, 6), (3, 3), (0, 0)])
def test_flipping_signs_of_single_answers_is_mcnemar_s_test(only_a, only_b):
    a, b = answers(4, only_a, only_b, 5)
    assert sign_flip(a.astype(int) - b.astype(int)) == pytest.approx(mcnemar(a, b))
