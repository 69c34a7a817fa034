r"""Statistics of states and of decoded trajectories: arrays in, numbers out.

Densities are kernel estimates with SciPy's default bandwidth; divergences are in nats; intervals are over networks.

Source: Krishna et al. (2024), Appendix A.2; Scott (1992) for the bandwidth.
"""

from typing import NamedTuple

import numpy as np
import ripser
import scipy.fft
import scipy.ndimage
import scipy.spatial
import scipy.stats
from jaxtyping import Float
from numpy import ndarray
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import euclidean_distances

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
    in coordinates where $\hat\Sigma$ is the identity the points are binned to a fine grid, smoothed in Fourier space,
    and interpolated.

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
        extent = np.ceil((white.max(0) + 8 * self.bandwidth - self.origin) / self.spacing).astype(int) + 1
        shape = [scipy.fft.next_fast_len(n, real=True) for n in extent]
        counts = self._bin((white - self.origin) / self.spacing, shape)
        # Sharing a point linearly between two bins adds spacing²/6 to the variance of the kernel.
        width = np.sqrt(self.bandwidth**2 / self.spacing**2 - 1 / 6)
        spectrum = scipy.ndimage.fourier_gaussian(scipy.fft.rfft2(counts), width, n=shape[1])
        smooth = scipy.fft.irfft2(spectrum, shape)
        volume = len(points) * self.spacing**2 * np.linalg.det(self.root)
        self.coefficients = scipy.ndimage.spline_filter(smooth / volume)

    def _whiten(self, x: ndarray) -> ndarray:
        return np.linalg.solve(self.root, (x - self.mean).T).T

    @staticmethod
    def _bin(position: ndarray, shape: list[int]) -> ndarray:
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
        z = np.exp(1j * np.asarray(x))
        series = (z * np.polynomial.polynomial.polyval(z, self.coefficients)).real
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


def sliced_wasserstein(
    x: Float[ndarray, "n d"], y: Float[ndarray, "m d"], generator: np.random.Generator, n_projections: int = 50
) -> float:
    r"""Mean Wasserstein distance between the projections of two samples on random directions, in their unit:

    $$ SW(x, y) = \frac{1}{L} \sum_{l=1}^{L} W_1(u_l \cdot x,\; u_l \cdot y), $$

    $u_l$ uniform on the unit sphere. Two samples of one law are not at distance 0 but, with $n$ independent draws each,
    at about twice the standard deviation of a projection over $\sqrt n$.

    Source: Bonneel et al. (2015).
    """
    u = generator.standard_normal((x.shape[1], n_projections))
    u /= np.linalg.norm(u, axis=0)
    projections = zip((x @ u).T, (y @ u).T, strict=True)
    return float(np.mean([scipy.stats.wasserstein_distance(a, b) for a, b in projections]))


def squared_mmd(x: Float[ndarray, "n d"], y: Float[ndarray, "m d"]) -> float:
    r"""Unbiased estimate of the squared maximum mean discrepancy, which is 0 if and only if the two laws are equal:

    $$ E\,k(x, x') - 2\,E\,k(x, y) + E\,k(y, y'), \qquad k(a, b) = e^{-\lVert a - b\rVert^2 / 2h^2}, $$

    $h$ the median distance between points of `y`, so that all that is compared with one `y` has one kernel. Negative
    values happen; unbiased for independent draws only.

    Source: Gretton et al. (2012).
    """
    xx, yy = (scipy.spatial.distance.squareform(euclidean_distances(z, squared=True), checks=False) for z in (x, y))
    xy = euclidean_distances(x, y, squared=True)
    h2 = np.median(yy)
    return float(sum(sign * np.exp(-d / (2 * h2)).mean() for sign, d in ((1, xx), (-2, xy), (1, yy))))


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


def coverage(positions: Float[ndarray, "n 2"], box: float) -> float:
    """Fraction of the 11 x 11 tiles of a box centred on 0 that hold at least one position."""
    edges = np.linspace(-box / 2, box / 2, 12)
    counts, _, _ = np.histogram2d(*positions.T, bins=(edges, edges))
    return float((counts > 0).mean())


def total_variance(positions: Float[ndarray, "*shape T d"]) -> Float[ndarray, "*shape"]:
    """Variance of each decoded trajectory over its steps, summed over coordinates, in m²."""
    return positions.var(axis=-2).sum(-1)


def split_rhat(chains: Float[ndarray, "B T d"]) -> float:
    r"""How far chains are from having forgotten where they started:

    $$ \hat R = \sqrt{\frac{\frac{n-1}{n}\,W + \operatorname{Var}(\bar x)}{W}}, $$

    each chain cut into halves of $n$ steps, $W$ the mean variance within a half, $\operatorname{Var}(\bar x)$ that of
    the means of the halves, both summed over coordinates. 1 if every half visits all that all together visit; infinite
    for chains that stand still at different places.

    Source: Gelman and Rubin (1992); cut into halves, to see drifts too, after Vehtari et al. (2021).

    Raises:
        ValueError: for fewer than 2 chains or 4 steps.
    """
    if len(chains) < 2 or chains.shape[1] < 4:
        raise ValueError(f"expected at least 2 chains of 4 steps, got shape {chains.shape}")
    n = chains.shape[1] // 2
    halves = np.concatenate((chains[:, :n], chains[:, -n:])).astype(float)
    within, between = halves.var(1, ddof=1).mean(0).sum(), halves.mean(1).var(0, ddof=1).sum()
    with np.errstate(divide="ignore"):
        return float(np.sqrt((n - 1) / n + np.divide(between, within)))


def memory(twins: Float[ndarray, "B 2 T d"]) -> Float[ndarray, " T"]:
    r"""Share of the variance of positions at each time that the start accounts for, whatever function of the start they
    are: the correlation between two runs $x, x'$ from the same start with noise of their own (Fisher's intraclass
    correlation),

    $$ \frac{E\left[(x - \mu) \cdot (x' - \mu)\right]}{E\,\lVert x - \mu\rVert^2}
       = \frac{\operatorname{Var} E[x \mid \text{start}]}{\operatorname{Var} x} , $$

    $\mu$ the mean over all runs. 1 without noise; about $-1/2B$ when all is forgotten. For a reversible process begun
    in its stationary law it is the autocorrelation at twice the lag.
    """
    apart = twins - twins.mean((0, 1))
    return (apart[:, 0] * apart[:, 1]).mean(0).sum(-1) / (apart**2).mean((0, 1)).sum(-1)


def first_below(times: Float[ndarray, " T"], values: Float[ndarray, " T"], threshold: float) -> float:
    """First time at which `values` are below a threshold, interpolated; infinite if they never are."""
    below = np.flatnonzero(np.asarray(values) < threshold)
    if len(below) == 0:
        return float("inf")
    i = below[0]
    if i == 0:
        return float(times[0])
    share = (values[i - 1] - threshold) / (values[i - 1] - values[i])
    return float(times[i - 1] + share * (times[i] - times[i - 1]))


def autocorrelation(x: Float[ndarray, "B T d"], lags: ndarray) -> Float[ndarray, " lags"]:
    """Correlation of what lies so many steps apart, coordinates and trajectories together, about the mean of them all.

    1 at lag 0; the mean of single trajectories is not taken off, which would bend short ones towards 0.
    """
    apart = x - x.mean((0, 1))
    T = x.shape[1]
    return np.array([(apart[:, : T - k] * apart[:, k:]).sum(-1).mean() for k in lags]) / (apart**2).sum(-1).mean()


def mean_squared_displacement(x: Float[ndarray, "*shape T d"], lags: ndarray) -> Float[ndarray, " lags"]:
    """Mean square of the distance between positions so many steps apart, over all trajectories and origins, in m²."""
    T = x.shape[-2]
    return np.array([((x[..., k:, :] - x[..., : T - k, :]) ** 2).sum(-1).mean() for k in lags])


def exponent(lags: ndarray, values: ndarray) -> float:
    """Slope of log `values` against log `lags`, by least squares: of a mean squared displacement 1 for diffusion, 2 for
    straight lines."""
    return float(np.polyfit(np.log(lags), np.log(values), 1)[0])


def increment_exponent(first: float, second: float, third: float) -> float:
    r"""Exponent $\alpha$ of $a + b\,k^\alpha$ from its values at $k$, $2k$ and $4k$, whatever $a$:

    $$ \alpha = \log_2 \frac{y(4k) - y(2k)}{y(2k) - y(k)} . $$

    Of mean squared displacements $a$ is the scatter of a decoder that is drawn anew within $k$ steps. Not a number
    where the increments differ in sign.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.log2((third - second) / (second - first)))


def transitions(positions: Float[ndarray, "B T 2"], lag: int, box: float, n_bins: int) -> Float[ndarray, "K K"]:
    """Shares of moves from tile to tile in `lag` steps, all origins together; rows are tiles of origin, the sum is 1.

    The box centred on 0 has `n_bins` x `n_bins` tiles; what lies outside counts as in the nearest one.

    Raises:
        ValueError: if no trajectory is longer than the lag.
    """
    if not 0 < lag < positions.shape[1]:
        raise ValueError(f"expected a lag of 1 to {positions.shape[1] - 1} steps, got {lag}")
    tile = np.clip(np.floor((positions / box + 0.5) * n_bins), 0, n_bins - 1).astype(int) @ (n_bins, 1)
    K = n_bins**2
    counts = np.bincount((tile[:, :-lag] * K + tile[:, lag:]).ravel(), minlength=K**2)
    return counts.reshape(K, K) / counts.sum()


def transition_distance(p: Float[ndarray, "K K"], q: Float[ndarray, "K K"]) -> float:
    r"""Total variation between the rows of two transition matrices, weighted by where `q` starts:

    $$ \sum_i q_i\; \tfrac12 \sum_j \left\lvert p(j \mid i) - q(j \mid i) \right\rvert , $$

    the share of moves to be redirected to make one of the other. A tile where `p` has no moves counts 1."""
    origin_p, origin_q = p.sum(1, keepdims=True), q.sum(1, keepdims=True)
    rows = (np.divide(x, o, out=np.zeros_like(x), where=o > 0) for x, o in ((p, origin_p), (q, origin_q)))
    difference = np.abs(np.subtract(*rows)).sum(1) / 2
    return float(origin_q[:, 0] @ np.where(origin_p[:, 0] > 0, difference, 1.0))


def asymmetry(p: Float[ndarray, "K K"]) -> float:
    r"""Share of moves that no reverse move balances, $\frac12 \sum_{ij} \lvert p_{ij} - p_{ji}\rvert$: 0 for a
    reversible process, 1 if every move goes one way only."""
    return float(np.abs(p - p.T).sum() / 2)


def ring_depth(density: Density | UniformDensity, radius: float) -> float:
    """Mean density within 0.1 m of 0 over the largest mean density along a circle about 0, of at most `radius`.

    1 for a density without a hole at its centre, 0 for a ring.
    """
    r = np.linspace(0, radius, 201)
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    circles = r[:, None, None] * np.stack((np.cos(angle), np.sin(angle)), -1)
    profile = density(circles).mean(1)
    inside = r <= 0.1
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


def loops(states: Float[ndarray, "n N_r"]) -> Float[ndarray, " bars"]:
    """Lengths of the bars of the first persistent homology of states (Vietoris and Rips), longest first.

    A bar is a loop that exists while balls about the states grow, from the distance that closes it to the one that
    fills it; a ring has one that is much longer than all others.

    Source: Tralie et al. (2018), ripser.
    """
    born, filled = ripser.ripser(states)["dgms"][1].T
    return np.sort(filled - born)[::-1]


def population_vector(
    outputs: Float[ndarray, "*shape N_o"], angles: Float[ndarray, " N_o"]
) -> Float[ndarray, "*shape"]:
    r"""Bearing that all cells report together, the angle of $\sum_i o_i e^{i\theta_i}$, in radians.

    A bump of evenly spaced cells is given exactly; and as it takes every cell, not the few highest, it does not jump
    between neighbours of the peak."""
    x, y = (outputs @ of(angles).astype(outputs.dtype) for of in (np.cos, np.sin))
    return np.arctan2(y, x)
