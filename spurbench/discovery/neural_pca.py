"""Class-wise neural PCA (Neuhaus et al. 2023, arXiv 2212.04871, section 3).

The features of image x weighted for class k, psi_k(x) = w_k * phi(x), sum to its logit but for the
bias. PCA over the class's training images splits the sum: with mean m and unit directions v_l

    alpha_l(x) = <1, v_l> <psi_k(x) - m, v_l>,    sum over all l of alpha_l(x) = <1, psi_k(x) - m>

which is the logit but for a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spurbench.core.errors import SpurbenchError

Array = NDArray[np.float64]


class Moments:
    """Mean and covariance of vectors that come in batches, exact whatever the batches.

    It holds D x D numbers of 8 bytes: 34 MB for a ResNet-50's 2,048 features.
    """

    def __init__(self, size: int) -> None:
        """Moments of vectors of ``size`` numbers, of none yet."""
        self.count = 0
        self.mean: Array = np.zeros(size)
        self._scatter: Array = np.zeros((size, size))

    def add(self, vectors: NDArray[np.floating]) -> None:
        """Take in a batch (N, D), by Chan et al.'s update (1983)."""
        batch = np.asarray(vectors, np.float64)
        own = batch.mean(axis=0)
        centred, between = batch - own, own - self.mean
        total = self.count + len(batch)
        self._scatter += centred.T @ centred
        self._scatter += np.outer(between, between) * (self.count * len(batch) / total)
        self.mean = self.mean + between * (len(batch) / total)
        self.count = total

    @property
    def covariance(self) -> Array:
        """(D, D), by N - 1."""
        return self._scatter / (self.count - 1)


@dataclass(frozen=True)
class Components:
    """The first components of a class.

    Attributes:
        weight: (D,) w_k, the class's row of the last layer.
        mean: (D,) of psi_k over the training images.
        directions: (L, D) unit vectors v_l, by falling variance; each sums to 0 or more, so that
            alpha_l grows with the projection.
        variances: (L,) of the projections.
        total_variance: of psi_k, in all directions.
    """

    weight: Array
    mean: Array
    directions: Array
    variances: Array
    total_variance: float

    @classmethod
    def of(cls, moments: Moments, weight: NDArray[np.floating], count: int) -> Components:
        """The first ``count`` components, no more than there are dimensions.

        Raises:
            SpurbenchError: if there are fewer than two images.
        """
        from scipy.linalg import eigh

        if moments.count < 2:
            raise SpurbenchError(
                f"a class needs two images or more, and has {moments.count} that can be read"
            )
        covariance = moments.covariance
        size = len(covariance)
        kept = (max(size - count, 0), size - 1)
        variances, vectors = eigh(covariance, subset_by_index=kept)
        directions = vectors.T[::-1]
        signs = np.where(directions.sum(axis=1) < 0, -1.0, 1.0)
        return cls(
            weight=np.asarray(weight, np.float64),
            mean=moments.mean,
            directions=directions * signs[:, None],
            variances=np.maximum(variances[::-1], 0.0),
            total_variance=float(np.trace(covariance)),
        )

    @property
    def sums(self) -> Array:
        """(L,) <1, v_l>: what a step along each direction adds to the logit."""
        return self.directions.sum(axis=1)

    def alphas(self, features: NDArray[np.floating]) -> Array:
        """(N, L) of penultimate features phi (N, D)."""
        psi = np.asarray(features, np.float64) * self.weight
        return ((psi - self.mean) @ self.directions.T) * self.sums

    def save(self, path: Path, alphas: NDArray[np.floating]) -> None:
        """Write them to a safetensors file, with the training images' alphas (N, L)."""
        from safetensors.numpy import save_file

        tensors = {
            "weight": self.weight,
            "mean": self.mean,
            "directions": self.directions,
            "variances": self.variances,
            "total_variance": np.array([self.total_variance]),
            "alphas": np.asarray(alphas, np.float32),
        }
        save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Components:
        """Read what :meth:`save` wrote.

        Raises:
            SpurbenchError: if the file is missing, or no such file.
        """
        tensors = _read(path)
        return cls(
            weight=tensors["weight"],
            mean=tensors["mean"],
            directions=tensors["directions"],
            variances=tensors["variances"],
            total_variance=float(tensors["total_variance"][0]),
        )


def load_alphas(path: Path) -> NDArray[np.float32]:
    """The training images' alphas (N, L) that :meth:`Components.save` wrote."""
    return _read(path)["alphas"]


_NAMES = {"weight", "mean", "directions", "variances", "total_variance", "alphas"}


def _read(path: Path) -> dict[str, NDArray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise SpurbenchError(f"no components at {path}; discover the class again") from None
    except SafetensorError as error:
        raise SpurbenchError(f"{path} is damaged ({error}); discover the class again") from None
    if lacking := sorted(_NAMES - tensors.keys()):
        raise SpurbenchError(f"{path} lacks {lacking[0]}; discover the class again")
    return tensors
