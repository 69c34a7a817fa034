r"""Densities of decoded states, and how far apart two of them are.

Kernel estimates in the plane and on the circle with SciPy's default bandwidth; divergences in nats.

Source: Krishna et al. (2024), Appendix A.2; Scott (1992) for the bandwidth.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.spatial
import scipy.stats
from jaxtyping import Float
from numpy import ndarray

# A density ratio is clipped to [1 / CLIP, CLIP], as in the released code, before its logarithm is averaged.
CLIP = 1e7


class KernelDensity:
    r"""Kernel density estimate of points in the plane,

    $$ \hat p(x) = \frac{1}{n} \sum_i N\!\left(x;\, x_i,\, n^{-1/3}\,\hat\Sigma\right), $$

    equal to `scipy.stats.gaussian_kde` (Scott's bandwidth, $n^{-2/(d+4)}$ times the covariance, $d = 2$), and fast:
    in coordinates where $\hat\Sigma$ is the identity the points are binned to a fine grid, smoothed in Fourier space,
    and interpolated. Points further than 8 standard deviations from the mean would make the grid large; their kernels,
    few by Chebyshev's inequality, are summed one by one.

    Args:
        points: `(n, 2)`, not all on one line.
        factor: of Scott's bandwidth, to see what depends on it.

    Raises:
        ValueError: for another shape, values that are not finite, or points on one line.
    """

    def __init__(self, points: ndarray, factor: float = 1.0):
        points = np.asarray(points, dtype=float)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
            raise ValueError(f"expected at least 3 points of shape (n, 2), got {points.shape}")
        if not np.isfinite(points).all():
            raise ValueError("expected finite points, got others")
        self.points = points
        covariance = np.cov(points.T)
        if np.linalg.cond(covariance) > 1e12:
            raise ValueError("expected points that span the plane, got points on one line")
        self.mean, self.root = points.mean(0), np.linalg.cholesky(covariance)
        self.bandwidth = factor * len(points) ** (-1 / 6)
        self.spacing = self.bandwidth / 20
        white = self._whiten(points)
        outside = (np.abs(white) > 8).any(1)
        self.outliers, white = scipy.spatial.KDTree(white[outside]), white[~outside]
        self.origin = white.min(0) - 8 * self.bandwidth
        extent = np.ceil((white.max(0) + 8 * self.bandwidth - self.origin) / self.spacing).astype(int) + 1
        shape: list[int] = [scipy.fft.next_fast_len(n, real=True) for n in extent]  # pyright: ignore[reportAssignmentType]
        counts = self._bin((white - self.origin) / self.spacing, shape)
        # Sharing a point linearly between two bins adds spacing²/6 to the variance of the kernel.
        variance = self.bandwidth**2 / self.spacing**2 - 1 / 6
        spectrum = scipy.fft.rfft2(counts)
        for axis, frequency in enumerate((scipy.fft.fftfreq(shape[0]), scipy.fft.rfftfreq(shape[1]))):
            omega = 2 * np.pi * frequency
            # The kernel, over the transfer function of the cubic spline that is to pass through the values.
            gain = np.exp(-variance * omega**2 / 2) * 3 / (2 + np.cos(omega))
            spectrum *= np.expand_dims(gain, 1 - axis)
        volume = len(points) * self.spacing**2 * np.linalg.det(self.root)
        self.coefficients = scipy.fft.irfft2(spectrum, shape) / volume

    def _whiten(self, x: ndarray) -> ndarray:
        return np.linalg.solve(self.root, (x - self.mean).T).T

    @staticmethod
    def _bin(position: ndarray, shape: list[int]) -> ndarray:
        lower = np.floor(position).astype(int)
        upper = position - lower
        corners = [np.array(corner) for corner in itertools.product((0, 1), repeat=2)]
        index = np.concatenate([np.ravel_multi_index((lower + corner).T, shape) for corner in corners])
        share = np.concatenate([np.abs(1 - corner - upper).prod(1) for corner in corners])
        return np.bincount(index, share, math.prod(shape)).reshape(shape)

    def __call__(self, x: Float[ndarray, "*shape 2"]) -> Float[ndarray, "*shape"]:
        """Density at `x`, per unit area; 0 further than 8 bandwidths from all points."""
        x = np.asarray(x, dtype=float)
        white = self._whiten(x.reshape(-1, 2))
        position = (white - self.origin) / self.spacing
        value = scipy.ndimage.map_coordinates(self.coefficients, position.T, prefilter=False, mode="constant")
        value = np.maximum(value, 0)
        if self.outliers.n:
            value += self._outliers(white)
        return value.reshape(x.shape[:-1])

    def _outliers(self, white: ndarray) -> ndarray:
        reach = 8 * self.bandwidth
        near = scipy.spatial.KDTree(white).sparse_distance_matrix(self.outliers, reach, output_type="ndarray")
        kernels = np.exp(-((near["v"] / self.bandwidth) ** 2) / 2)
        volume = len(self.points) * 2 * np.pi * self.bandwidth**2 * np.linalg.det(self.root)
        return np.bincount(near["i"], kernels, minlength=len(white)) / volume

    def sample(self, n: int, generator: np.random.Generator) -> Float[ndarray, "n 2"]:
        """Independent draws: points chosen at random, displaced by the kernel."""
        chosen = self.points[generator.integers(len(self.points), size=n)]
        return chosen + self.bandwidth * generator.standard_normal((n, 2)) @ self.root.T


class UniformDensity:
    """The uniform density on a square of side `side` centred on 0."""

    def __init__(self, side: float):
        self.side = side

    def __call__(self, x: Float[ndarray, "*shape 2"]) -> Float[ndarray, "*shape"]:
        """Density at `x`, per unit area."""
        return np.asarray((np.abs(x) <= self.side / 2).all(-1) / self.side**2)

    def sample(self, n: int, generator: np.random.Generator) -> Float[ndarray, "n 2"]:
        """Independent draws."""
        return generator.uniform(-self.side / 2, self.side / 2, (n, 2))


class CircularDensity:
    r"""Kernel density estimate of angles, with a normal kernel wrapped around the circle:

    $$ \hat p(\theta) = \frac{1}{2\pi} \Bigl(1 + 2 \sum_{k \ge 1} e^{-k^2 h^2 / 2}\, \mathrm{Re}\, m_k
    e^{ik\theta}\Bigr), \qquad m_k = \frac{1}{n} \sum_j e^{-ik\theta_j}, \qquad
    h = \frac{\pi}{\sqrt 3}\, n^{-1/5}. $$

    $h$ is Scott's bandwidth on a line for the standard deviation of the uniform density on the circle. It depends on
    the number of angles only: their own spread has no origin-free counterpart that would do for several peaks.

    Args:
        angles: in radians, from any interval.
        factor: of Scott's bandwidth, to see what depends on it.

    Raises:
        ValueError: for another shape, no angles, or values that are not finite.
    """

    def __init__(self, angles: ndarray, factor: float = 1.0):
        angles = np.asarray(angles, dtype=float)
        if angles.ndim != 1 or len(angles) == 0:
            raise ValueError(f"expected angles of shape (n,), got {angles.shape}")
        if not np.isfinite(angles).all():
            raise ValueError("expected finite angles, got others")
        self.angles = angles
        self.bandwidth = factor * np.pi / np.sqrt(3) * len(angles) ** (-1 / 5)
        # Terms beyond k = 7 / h are below 1e-10.
        self.k = np.arange(1, np.ceil(7 / self.bandwidth) + 1)
        moments = np.array([np.exp(-1j * k * angles).mean() for k in self.k])
        self.coefficients = np.exp(-((self.k * self.bandwidth) ** 2) / 2) * moments

    def __call__(self, x: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
        """Density at `x`, per radian."""
        z = np.exp(1j * np.asarray(x))
        series = (z * np.polynomial.polynomial.polyval(z, self.coefficients)).real
        return np.maximum(1 + 2 * series, 0) / (2 * np.pi)

    def sample(self, n: int, generator: np.random.Generator) -> Float[ndarray, " n"]:
        """Independent draws, not wrapped: angles chosen at random, displaced by the kernel."""
        chosen = self.angles[generator.integers(len(self.angles), size=n)]
        return chosen + self.bandwidth * generator.standard_normal(n)


AnyDensity = KernelDensity | UniformDensity | CircularDensity


def kl_divergence(p: AnyDensity, q: AnyDensity, generator: np.random.Generator, n: int = 2500) -> float:
    r"""Kullback–Leibler divergence by Monte Carlo, in nats:

    $$ KL(p \,\Vert\, q) \approx \frac{1}{n} \sum_j \log \frac{p(x_j)}{q(x_j)}, \qquad x_j \sim p, $$

    the ratio clipped to $[10^{-7}, 10^7]$."""
    x = p.sample(n, generator)
    with np.errstate(divide="ignore"):
        return float(np.clip(np.log(p(x)) - np.log(q(x)), -np.log(CLIP), np.log(CLIP)).mean())


def kernel(positions: Float[ndarray, "S *shape 2"], factor: float = 1.0) -> list[KernelDensity]:
    """Kernel density of each network, over all its trajectories and steps."""
    return [KernelDensity(x.reshape(-1, 2), factor) for x in positions]


def circular(bearings: Float[ndarray, " S *shape"], factor: float = 1.0) -> list[CircularDensity]:
    """Density on the circle of each network, over all its trajectories and steps."""
    return [CircularDensity(x.ravel(), factor) for x in bearings]


def estimate(states: Float[ndarray, "S *shape d"]) -> list[KernelDensity] | list[CircularDensity]:
    """`kernel` of positions, `d = 2`, or `circular` of bearings, `d = 1`."""
    return circular(states[..., 0]) if states.shape[-1] == 1 else kernel(states)


def divergence(
    p: Sequence[AnyDensity], q: Sequence[AnyDensity], generator: np.random.Generator, n: int = 2500
) -> Float[ndarray, " S"]:
    """`kl_divergence` of each network's pair of densities, in nats."""
    return np.array([kl_divergence(a, b, generator, n) for a, b in zip(p, q, strict=True)])


class Divergences(NamedTuple):
    """KL(column ‖ row) and, the other way round, KL(row ‖ column), in nats."""

    forward: Float[ndarray, "rows columns S"]
    backward: Float[ndarray, "rows columns S"]


def divergences(
    rows: Sequence[Sequence[AnyDensity]], columns: Sequence[Sequence[AnyDensity]], generator: np.random.Generator
) -> Divergences:
    """Every column's densities against every row's, network by network, as in Fig. 2e."""
    forward = [[divergence(q, p, generator) for q in columns] for p in rows]
    backward = [[divergence(p, q, generator) for q in columns] for p in rows]
    return Divergences(np.array(forward), np.array(backward))


def sliced_wasserstein(x: Float[ndarray, "n d"], y: Float[ndarray, "n d"], generator: np.random.Generator) -> float:
    r"""Mean Wasserstein distance between projections of two samples of one size on random directions, in their unit:

    $$ SW(x, y) = \frac{1}{L} \sum_{l=1}^{L} W_1(u_l \cdot x,\; u_l \cdot y), $$

    $L = 50$, $u_l$ uniform on the unit sphere; on a line, $W_1$ is the mean distance between points of one rank. Two
    samples of one law are not at distance 0 but, with $n$ independent draws each, at about twice the standard deviation
    of a projection over $\sqrt n$.

    Source: Bonneel et al. (2015).
    """
    u = generator.standard_normal((x.shape[1], 50))
    u = (u / np.linalg.norm(u, axis=0)).astype(x.dtype)
    return float(np.abs(np.sort(x @ u, 0) - np.sort(y @ u, 0)).mean(dtype=float))
