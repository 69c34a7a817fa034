r"""Statistics of states and of decoded trajectories: arrays in, numbers out.

Intervals are over networks.

Source: Krishna et al. (2024), Appendix A.2.
"""

import math
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import numpy as np
import ripser
import scipy.special
import scipy.stats
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.decomposition import PCA


class Interval(NamedTuple):
    """A mean over networks and its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} ({self.low:.3g} to {self.high:.3g})"


Scale = Literal["linear", "log", "logit", "correlation"]

# Of each scale the way there and back, and the bounds of what it is for.
SCALES = {
    "linear": (np.asarray, np.asarray, -np.inf, np.inf),
    "log": (np.log, np.exp, 0.0, np.inf),
    "logit": (scipy.special.logit, scipy.special.expit, 0.0, 1.0),
    "correlation": (np.arctanh, np.tanh, -1.0, 1.0),
}


def fits(values: Float[ndarray, " S"], scale: Scale) -> bool:
    """Whether values lie where a quantity on this scale can."""
    _, _, lowest, highest = SCALES[scale]
    return bool(lowest <= np.min(values) and np.max(values) <= highest)


def interval(values: Float[ndarray, " S"], scale: Scale = "linear") -> Interval:
    r"""Mean over networks with Student's 95 % interval, which takes them as independent draws from a normal law.

    With the scale "log", for what is positive, "logit", for shares, or "correlation", Fisher's, the draws are taken as
    normal on that scale, and the limits, those of the mean on it, lie where the quantity can. Where a value is on a
    bound itself, which has no place on the scale, the limits are those of the values as they are, cut at the bounds.

    Raises:
        ValueError: for fewer than 2 values, or one that is not finite or beyond the scale's bounds.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"expected the values of at least 2 networks, got shape {values.shape}")
    _check_finite("values", values)
    there, back, lowest, highest = SCALES[scale]
    if not fits(values, scale):
        raise ValueError(f"expected values from {lowest:g} to {highest:g} on the scale {scale}, got {values}")
    if lowest in values or highest in values:
        there = back = np.asarray
    on_scale = there(values)
    # Of `scipy.special`, as a law of `scipy.stats` takes a millisecond.
    half = scipy.special.stdtrit(len(values) - 1, 0.975) * on_scale.std(ddof=1) / math.sqrt(len(values))
    low, high = np.clip(back(on_scale.mean() + half * np.array([-1, 1])), lowest, highest)
    return Interval(values.mean(), low, high)


def _check_finite(what: str, values: ndarray) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"expected finite {what}, got {(~np.isfinite(values)).sum()} others")


def each(function: Callable, *arguments: Iterable) -> ndarray:
    """A function of one network's arrays for every network: its values, with the axis `S` first."""
    return np.array([function(*of) for of in zip(*arguments, strict=True)])


def tiles(positions: Float[ndarray, "*shape 2"], limit: float, n_bins: int) -> Int[ndarray, "*shape"]:
    """Which of `n_bins` x `n_bins` tiles of the square within ± `limit` positions are in; what lies outside counts as
    in the nearest one."""
    return np.clip(np.floor((positions / limit + 1) / 2 * n_bins), 0, n_bins - 1).astype(int) @ (n_bins, 1)


def effective_sample_size(values: Float[ndarray, "B T"]) -> float:
    r"""Number of independent draws whose mean would be as precise as that of $B$ independent trajectories of $T$
    correlated steps: $B \operatorname{Var}(x) / \operatorname{Var}(\bar x)$, $\bar x$ the mean of one trajectory."""
    return float(len(values) * values.var() / values.mean(1).var(ddof=1))


def principal_components(states: Float[ndarray, "n N_r"], n_components: int | None = None) -> PCA:
    """Principal components of activity, fitted to the covariance over all trajectories and steps."""
    return PCA(n_components, svd_solver="covariance_eigh").fit(states)


def explained_variance(states: Float[ndarray, "n N_r"], noise: float = 0.0) -> Float[ndarray, " N_r"]:
    """Fraction of the variance of activity in the first 1, 2, … principal components.

    Independent noise of variance `noise` in every unit adds as much to each component, and is subtracted; the curve may
    then exceed 1 before it ends there.
    """
    variances = principal_components(states).explained_variance_ - noise
    return np.cumsum(variances) / variances.sum()


def participation_ratio(states: Float[ndarray, "n N_r"]) -> float:
    r"""Dimension of activity with the covariance $C$, $(\operatorname{tr} C)^2 / \operatorname{tr} C^2$: $k$ where $k$
    components have equal variances and the others none."""
    x = states - states.mean(0, dtype=float).astype(states.dtype)
    # Either product has the trace of C², but for a factor.
    products = x @ x.T if len(x) < x.shape[1] else x.T @ x
    return float(np.square(x).sum(dtype=float) ** 2 / np.square(products).sum(dtype=float))


def project(states: dict[str, Float[ndarray, "S B T N_r"]]) -> dict[str, Float[ndarray, "S n 2"]]:
    """Scores of each phase on the first two principal components of *waking* activity, network by network."""
    flat = {phase: x.reshape(len(x), -1, x.shape[-1]) for phase, x in states.items()}
    planes = [principal_components(x, 2) for x in flat["active"]]
    return {phase: each(PCA.transform, planes, x) for phase, x in flat.items()}


def plane_variance(scores: Float[ndarray, "S n 2"], states: Float[ndarray, "S B T N_r"]) -> Float[ndarray, " S"]:
    """Share of the variance of activity that its scores on a plane have."""
    return scores.var(1).sum(-1) / states.var((1, 2)).sum(-1)


def r_squared(error: Float[ndarray, "n N"], values: Float[ndarray, "n N"]) -> float:
    r"""Share of the variance of `values` that a prediction with this error explains, all columns together:

    $$ R^2 = 1 - \frac{E\lVert\text{error}\rVert^2}{E\lVert x - E x\rVert^2}, $$

    0 for the best constant, and negative for what is worse."""
    return float(1 - np.square(error).sum(1).mean() / np.square(values - values.mean(0)).sum(1).mean())


def two_way(x: Float[ndarray, "J K N"]) -> dict[str, float]:
    """Shares of the mean square of `x` of its mean, of what depends on the first axis alone, on the second alone, and
    on both together: a two-way analysis of variance, summed over the last axis."""
    mean = x.mean((0, 1), keepdims=True)
    first, second = x.mean(1, keepdims=True) - mean, x.mean(0, keepdims=True) - mean
    parts = {"mean": mean, "first": first, "second": second, "both": x - mean - first - second}
    whole = np.square(x).sum(-1).mean()
    return {name: float(np.square(part).sum(-1).mean() / whole) for name, part in parts.items()}


def dimensions(explained: Float[ndarray, "*shape N_r"], fraction: float = 0.9) -> ndarray | np.integer:
    """Principal components needed for this fraction of the variance, along the last axis."""
    return (explained < fraction).sum(-1) + 1


def step_lengths(positions: Float[ndarray, "*shape T d"]) -> Float[ndarray, "*shape T-1"]:
    """Distance between successive decoded positions, in metres."""
    return np.linalg.norm(np.diff(positions, axis=-2), axis=-1)


def coverage(positions: Float[ndarray, "*shape 2"], box: float) -> float:
    """Fraction of the 11 x 11 tiles of a box centred on 0 that hold at least one position."""
    return float((_in_tiles(positions, box) > 0).mean())


def unevenness(positions: Float[ndarray, "*shape 2"], box: float) -> float:
    """Divergence of the shares of the 11 x 11 tiles of a box centred on 0 from equal ones, in nats, of the positions
    inside it. Of $n$ independent draws of the uniform density about $60/n$."""
    counts = _in_tiles(positions, box)
    return float(np.log(counts.size) - scipy.stats.entropy(counts.ravel()))


def near_walls(positions: Float[ndarray, "*shape 2"], box: float, width: float) -> float:
    """Share of positions within `width` of a wall of a box centred on 0, or beyond it."""
    return float((np.abs(positions).max(-1) > box / 2 - width).mean())


def _in_tiles(positions: ndarray, box: float) -> Float[ndarray, "11 11"]:
    edges = np.linspace(-box / 2, box / 2, 12)
    return np.histogram2d(*positions.reshape(-1, 2).T, bins=(edges, edges))[0]


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
        ValueError: for fewer than 2 chains or 4 steps, values not finite, or chains that all stand at one place.
    """
    if len(chains) < 2 or chains.shape[1] < 4:
        raise ValueError(f"expected at least 2 chains of 4 steps, got shape {chains.shape}")
    _check_finite("positions", chains)
    n = chains.shape[1] // 2
    halves = np.concatenate((chains[:, :n], chains[:, -n:])).astype(float)
    if (halves == halves[0, 0]).all():
        raise ValueError(f"expected chains that differ somewhere, got one value, {chains[0, 0]}")
    within, between = halves.var(1, ddof=1).mean(0).sum(), halves.mean(1).var(0, ddof=1).sum()
    return float(np.sqrt((n - 1) / n + (between / within if within else np.inf)))


def memory(twins: Float[ndarray, "B 2 T d"]) -> Float[ndarray, " T"]:
    r"""Share of the variance of positions at each time that the start accounts for, whatever function of the start they
    are: the correlation between two runs $x, x'$ from the same start with noise of their own (Fisher's intraclass
    correlation),

    $$ \frac{E\left[(x - \mu) \cdot (x' - \mu)\right]}{E\,\lVert x - \mu\rVert^2}
       = \frac{\operatorname{Var} E[x \mid \text{start}]}{\operatorname{Var} x} , $$

    $\mu$ the mean over all runs. 1 without noise; about $-1/2B$ when all is forgotten. For a reversible process begun
    in its stationary law it is the autocorrelation at twice the lag.

    Raises:
        ValueError: if all runs are at one place at some time, or a position is not finite.
    """
    _check_finite("positions", twins)
    same = (twins == twins[0, 0]).all((0, 1, 3))
    if same.any():
        raise ValueError(f"expected positions that differ at every time, got one at {same.sum()} of {len(same)} times")
    apart = twins - twins.mean((0, 1))
    return (apart[:, 0] * apart[:, 1]).mean(0).sum(-1) / (apart**2).mean((0, 1)).sum(-1)


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
        ValueError: if no trajectory is longer than the lag, or a position is not finite.
    """
    if not 0 < lag < positions.shape[1]:
        raise ValueError(f"expected a lag of 1 to {positions.shape[1] - 1} steps, got {lag}")
    _check_finite("positions", positions)
    tile, K = tiles(positions, box / 2, n_bins), n_bins**2
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


def ring_depth(density: Callable[[ndarray], ndarray], radius: float) -> float:
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
