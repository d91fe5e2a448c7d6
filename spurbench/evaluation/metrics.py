"""The measures, as pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def class_rank(logits: NDArray[np.floating], column: NDArray[np.integer]) -> NDArray[np.int64]:
    """The rank of each image's class among the logits, 1 being the classifier's answer.

    Ties are broken as ``argmax`` breaks them, by the lower column, so rank 1 is exactly the images
    whose prediction is the class, and a constant classifier is credited with one class only.

    Args:
        logits: (N, C).
        column: (N,), each image's class as a column.

    Returns:
        (N,), from 1 to C.
    """
    own = np.take_along_axis(logits, column[:, None], axis=1)
    before = np.arange(logits.shape[1])[None, :] < column[:, None]
    return 1 + ((logits > own) | ((logits == own) & before)).sum(axis=1)


def class_probability(
    logits: NDArray[np.floating], column: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Softmax probability of each image's class, in float64: (N,), from (N, C) and (N,)."""
    shifted = logits.astype(np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    own = np.take_along_axis(exponentials, column[:, None], axis=1)[:, 0]
    share: NDArray[np.float64] = own / exponentials.sum(axis=1)
    return share


def class_log_odds(
    logits: NDArray[np.floating], column: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-probability and log-odds of each image's class, exact where its probability is near 1.

    Args:
        logits: (N, C), C > 1.
        column: (N,), each image's class as a column.

    Returns:
        (N,) both.
    """
    from scipy.special import logsumexp

    others = logits.astype(np.float64)
    own = np.take_along_axis(others, column[:, None], axis=1)[:, 0]
    np.put_along_axis(others, column[:, None], -np.inf, axis=1)
    odds = own - logsumexp(others, axis=1)
    return -np.logaddexp(0, -odds), odds


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share (Wilson 1927).

    Raises:
        ValueError: if n is not positive.
    """
    from scipy.stats import binomtest

    if n <= 0:
        raise ValueError("an interval needs at least one observation")
    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def newcombe_interval(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[float, float]:
    """The 95 % interval of a difference of paired shares, a's minus b's (Newcombe 1998, method 10).

    Wilson's intervals of the two shares, squared and added, less what they have in common. Unlike
    Wald's it has a width where all pairs agree, and stays within [-1, 1].

    Args:
        a: (N,), e.g. whether each image is called the class.
        b: (N,), the same of each image's partner.

    Raises:
        ValueError: if there is no pair, or the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"{a.shape} and {b.shape} answers can't be paired")
    n, share_a, share_b = len(a), float(a.mean()), float(b.mean())
    (low_a, high_a), (low_b, high_b) = (wilson_interval(int(x.sum()), n) for x in (a, b))
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    excess = float(both * neither) - int((a & ~b).sum()) * int((~a & b).sum())
    if excess > 0:  # continuity
        excess = max(excess - n / 2, 0)
    spread = np.sqrt(share_a * (1 - share_a) * share_b * (1 - share_b)) * n**2
    phi = excess / spread if spread else 0.0

    def together(x: float, y: float) -> float:
        return float(np.sqrt(max(0.0, x**2 - 2 * phi * x * y + y**2)))

    difference = share_a - share_b
    return (
        difference - together(share_a - low_a, high_b - share_b),
        difference + together(high_a - share_a, share_b - low_b),
    )


def macro_mean(groups: Sequence[NDArray[np.floating]]) -> float:
    """The mean over classes of each class's mean."""
    return float(np.mean([group.mean() for group in groups]))


def chance(answers: Sequence[NDArray[np.integer]], classes: Sequence[int], outputs: int) -> float:
    """The macro accuracy that the same answers would have, dealt to the images at random.

    Args:
        answers: to the images that show each class, an array of class indices for each.
        classes: the classes, in that order.
        outputs: of the classifier, one of which a lone class is.
    """
    if len(classes) == 1:
        return 1 / outputs
    among = [float(np.isin(own, classes).mean()) for own in answers]
    return float(np.mean(among)) / len(classes)


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of a mean over runs, by Student's t; None for fewer than two runs."""
    if len(values) < 2:
        return None
    from scipy.stats import sem, t

    mean, error = float(np.mean(values)), float(sem(values))
    if error == 0:  # where scipy's interval is not a number
        return mean, mean
    low, high = t.interval(0.95, len(values) - 1, loc=mean, scale=error)
    return float(low), float(high)


def cosine_distances(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 - cosine of every pair of feature vectors: (N, M) in [0, 2], from (N, D) and (M, D)."""
    from sklearn.metrics.pairwise import cosine_distances as distances

    found: NDArray[np.float64] = distances(a.astype(np.float64), b.astype(np.float64))
    return found


def mean_pairwise_distance(features: NDArray[np.floating]) -> float:
    """Diversity: the mean cosine distance over all pairs of different images; 0 if all alike."""
    distances = cosine_distances(features, features)
    return float(distances[np.triu_indices(len(features), k=1)].mean())


def kernel_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3.

    The kernel inception distance's formula (Binkowski et al., ICLR 2018, eq. 4), on any features.

    Args:
        a: features, (N, D), N >= 2.
        b: features, (M, D), M >= 2.

    Returns:
        About 0 for two samples of one distribution (it may be a little below), larger the more
        they differ.
    """
    from sklearn.metrics.pairwise import polynomial_kernel

    aa, bb, ab = (polynomial_kernel(x, y, degree=3, coef0=1) for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    within_a = (aa.sum() - np.trace(aa)) / (n * (n - 1))
    within_b = (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within_a + within_b - 2 * ab.mean())


def auroc(positives: NDArray[np.floating], spurious: NDArray[np.floating]) -> float:
    """Area under the ROC curve of p(class), positives against spurious images.

    The "spurious score" as the paper of Neuhaus et al. (ICCV 2023) defines it; 1 means that every
    image that shows the class is surer of it than every image that shows only the feature.
    """
    return float(wins(positives, spurious).mean())


def wins(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Which of each pair is larger: 1 the first, 0 the second, 1/2 neither; (N, M)."""
    won: NDArray[np.float64] = (a[:, None] > b) + (a[:, None] == b) / 2
    return won


def average_precision(positives: NDArray[np.floating], spurious: NDArray[np.floating]) -> float:
    """Average precision of p(class), positives against spurious images.

    What the code that Neuhaus et al. released computes under the name of the spurious score.
    """
    from sklearn.metrics import average_precision_score

    truth = np.r_[np.ones(len(positives)), np.zeros(len(spurious))]
    return float(average_precision_score(truth, np.r_[positives, spurious]))
