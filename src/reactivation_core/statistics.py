r"""Statistics of states and of decoded trajectories: arrays in, numbers out.

Densities are kernel estimates with SciPy's default bandwidth; divergences are in nats; intervals are over networks.

Source: Krishna et al. (2024), Appendix A.2; Scott (1992) for the bandwidth.
"""

from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.stats
from jaxtyping import Float
from numpy import ndarray
from sklearn.decomposition import PCA

# A density ratio is clipped to [1 / CLIP, CLIP], as in the released code, before its logarithm is averaged.
CLIP = 1e7


class Interval(NamedTuple):
    """A mean over networks and its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def interval(values: Float[ndarray, " S"]) -> Interval:
    """Mean over networks with Student's 95 % interval, which takes them as independent draws from a normal law."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"expected the values of at least 2 networks, got shape {values.shape}")
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
    return Interval(values.mean(), values.mean() - half, values.mean() + half)


class Density:
    r"""Kernel density estimate of points in the plane,

    $$ \hat p(x) = \frac{1}{n} \sum_i N\!\left(x;\, x_i,\, n^{-1/3}\,\hat\Sigma\right), $$

    equal to `scipy.stats.gaussian_kde` (Scott's bandwidth, $n^{-2/(d+4)}$ times the covariance, $d = 2$), and fast:
    in coordinates where $\hat\Sigma$ is the identity the points are binned to a fine grid, smoothed one axis at a
    time, and interpolated.

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
        self.origin = white.min(0) - 8 * self.bandwidth
        shape = np.ceil((white.max(0) + 8 * self.bandwidth - self.origin) / self.spacing).astype(int) + 1
        counts = self._bin((white - self.origin) / self.spacing, shape)
        # Sharing a point linearly between two bins adds spacing²/6 to the variance of the kernel.
        width = np.sqrt(self.bandwidth**2 / self.spacing**2 - 1 / 6)
        smooth = scipy.ndimage.gaussian_filter(counts, width, truncate=8, mode="constant")
        volume = len(points) * self.spacing**2 * np.linalg.det(self.root)
        self.coefficients = scipy.ndimage.spline_filter(smooth / volume)

    def _whiten(self, x: ndarray) -> ndarray:
        return np.linalg.solve(self.root, (x - self.mean).T).T

    @staticmethod
    def _bin(position: ndarray, shape: ndarray) -> ndarray:
        lower = np.floor(position).astype(int)
        upper_share = position - lower
        counts = np.zeros(shape)
        for i in (0, 1):
            for j in (0, 1):
                share = np.abs(1 - i - upper_share[:, 0]) * np.abs(1 - j - upper_share[:, 1])
                index = np.ravel_multi_index((lower + (i, j)).T, shape)
                counts += np.bincount(index, share, minlength=counts.size).reshape(shape)
        return counts

    def __call__(self, x: Float[ndarray, "*shape 2"]) -> Float[ndarray, "*shape"]:
        """Density at `x`, per unit area; 0 further than 8 bandwidths from all points."""
        x = np.asarray(x, dtype=float)
        position = (self._whiten(x.reshape(-1, 2)) - self.origin) / self.spacing
        value = scipy.ndimage.map_coordinates(self.coefficients, position.T, prefilter=False, mode="constant")
        return np.maximum(value, 0).reshape(x.shape[:-1])

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
        return (np.abs(x) <= self.side / 2).all(-1) / self.side**2

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

    Raises:
        ValueError: for another shape, no angles, or values that are not finite.
    """

    def __init__(self, angles: ndarray):
        angles = np.asarray(angles, dtype=float)
        if angles.ndim != 1 or len(angles) == 0:
            raise ValueError(f"expected angles of shape (n,), got {angles.shape}")
        if not np.isfinite(angles).all():
            raise ValueError("expected finite angles, got others")
        self.angles = angles
        self.bandwidth = np.pi / np.sqrt(3) * len(angles) ** (-1 / 5)
        # Terms beyond k = 7 / h are below 1e-10.
        self.k = np.arange(1, np.ceil(7 / self.bandwidth) + 1)
        moments = np.array([np.exp(-1j * k * angles).mean() for k in self.k])
        self.coefficients = np.exp(-((self.k * self.bandwidth) ** 2) / 2) * moments

    def __call__(self, x: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
        """Density at `x`, per radian."""
        series = (np.exp(1j * np.asarray(x)[..., None] * self.k) @ self.coefficients).real
        return np.maximum(1 + 2 * series, 0) / (2 * np.pi)

    def sample(self, n: int, generator: np.random.Generator) -> Float[ndarray, " n"]:
        """Independent draws, not wrapped: angles chosen at random, displaced by the kernel."""
        chosen = self.angles[generator.integers(len(self.angles), size=n)]
        return chosen + self.bandwidth * generator.standard_normal(n)


AnyDensity = Density | UniformDensity | CircularDensity


def kl_divergence(p: AnyDensity, q: AnyDensity, generator: np.random.Generator, n: int = 2500) -> float:
    r"""Kullback–Leibler divergence by Monte Carlo, in nats:

    $$ KL(p \,\Vert\, q) \approx \frac{1}{n} \sum_j \log \frac{p(x_j)}{q(x_j)}, \qquad x_j \sim p, $$

    the ratio clipped to $[10^{-7}, 10^7]$."""
    x = p.sample(n, generator)
    with np.errstate(divide="ignore"):
        return float(np.clip(np.log(p(x)) - np.log(q(x)), -np.log(CLIP), np.log(CLIP)).mean())


def effective_sample_size(values: Float[ndarray, "B T"]) -> float:
    r"""Number of independent draws whose mean would be as precise as that of $B$ independent trajectories of $T$
    correlated steps: $B \operatorname{Var}(x) / \operatorname{Var}(\bar x)$, $\bar x$ the mean of one trajectory."""
    return float(len(values) * values.var() / values.mean(1).var(ddof=1))


def principal_components(states: Float[ndarray, "n N_r"], n_components: int | None = None) -> PCA:
    """Principal components of activity, fitted to the covariance over all trajectories and steps."""
    return PCA(n_components, svd_solver="covariance_eigh").fit(states)


def explained_variance(states: Float[ndarray, "n N_r"]) -> Float[ndarray, " N_r"]:
    """Fraction of the variance of activity in the first 1, 2, … principal components."""
    return np.cumsum(principal_components(states).explained_variance_ratio_)


def dimensions(explained: Float[ndarray, "*shape N_r"], fraction: float = 0.9) -> ndarray:
    """Principal components needed for this fraction of the variance, along the last axis."""
    return (explained < fraction).sum(-1) + 1


def step_lengths(positions: Float[ndarray, "*shape T 2"]) -> Float[ndarray, "*shape T-1"]:
    """Distance between successive decoded positions, in metres."""
    return np.linalg.norm(np.diff(positions, axis=-2), axis=-1)


def coverage(positions: Float[ndarray, "n 2"], box: float, n_bins: int = 11) -> float:
    """Fraction of the `n_bins` x `n_bins` tiles of a box centred on 0 that hold at least one position."""
    edges = np.linspace(-box / 2, box / 2, n_bins + 1)
    counts, _, _ = np.histogram2d(*positions.T, bins=(edges, edges))
    return float((counts > 0).mean())


def total_variance(positions: Float[ndarray, "*shape T d"]) -> Float[ndarray, "*shape"]:
    """Variance of each decoded trajectory over its steps, summed over coordinates, in m²."""
    return positions.var(axis=-2).sum(-1)


def ring_depth(density: Density | UniformDensity, radius: float, core: float = 0.1) -> float:
    """Mean density within `core` of 0 over the largest mean density along a circle about 0, of at most `radius`.

    1 for a density without a hole at its centre, 0 for a ring.
    """
    r = np.linspace(0, radius, 201)
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    circles = r[:, None, None] * np.stack((np.cos(angle), np.sin(angle)), -1)
    profile = density(circles).mean(1)
    inside = r <= core
    return float(np.average(profile[inside], weights=r[inside]) / profile.max())


def ring_hole(points: Float[ndarray, "n 2"], centre: Float[ndarray, " 2"]) -> float:
    """The radius about `centre` that 5 % of the points fall short of, over their median radius.

    1 for a circle, 0.32 for an evenly filled disc, 0.27 for a normal cloud.
    """
    low, median = np.quantile(np.linalg.norm(points - centre, axis=-1), (0.05, 0.5))
    return float(low / median)


def ring_order(points: Float[ndarray, "n 2"], bearings: Float[ndarray, " n"], centre: Float[ndarray, " 2"]) -> float:
    r"""Correlation of the angle about `centre` with a bearing, whichever way round and from whatever origin:

    $$ \max_{\pm} \left\lvert \frac{1}{n} \sum_j e^{i(\vartheta_j \mp \theta_j)} \right\rvert, $$

    1 where one determines the other, about $1/\sqrt{n}$ for independent uniform angles."""
    angle = np.arctan2(*(points - centre).T[::-1])
    return float(max(abs(np.exp(1j * (angle - sign * bearings)).mean()) for sign in (1, -1)))
