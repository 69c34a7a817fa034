r"""What can the estimators resolve? Their errors on laws whose answer is known, at the sizes of the paper.

The mean of a kernel estimate over samples is the true density smoothed by the kernel. For points spread over a box of
side $L$ Scott's bandwidth $h$ makes the kernel's standard deviation $b = hL/\sqrt{12}$, and the share of the estimate
outside the box and its divergence from the uniform density have closed forms.

Points along a trajectory are not independent. Stationary autoregressions stand in for trajectories, and are given a law
by a transformation, so that every point has it exactly.

The variance of a path about its own mean lacks the variance of that mean. For an autoregression with correlation $\rho$
per step, seen at $T$ steps,

$$ \frac{\operatorname{Var}(\bar x)}{\operatorname{var}} = \frac1T\left(\frac{1 + \rho}{1 - \rho}
   - \frac{2\rho\,(1 - \rho^T)}{T\,(1 - \rho)^2}\right), $$

and a free diffusion between walls is a sum of such modes.

Source: Scott (1992) for the bandwidth; Efron and Tibshirani (1993) for the bootstrap.
"""

from typing import NamedTuple

import numpy as np
import scipy.integrate
import scipy.signal
import scipy.stats
from jaxtyping import Float
from numpy import ndarray
from scipy.special import ndtr

from reactivation_core import densities, statistics
from reactivation_core.densities import KernelDensity

BOX = 2.2
RADIUS, WIDTH = 0.35, 0.08


def _ring(z: ndarray) -> ndarray:
    angle = 2 * np.pi * ndtr(z[..., 1])
    return np.abs(RADIUS + WIDTH * z[..., :1]) * np.stack((np.cos(angle), np.sin(angle)), -1)


# Transformations of standard normal points in the plane.
LAWS = {
    "normal": lambda z: z,
    "shifted": lambda z: z + (0.5, 0),
    "doubled": lambda z: np.sqrt(2) * z,
    "halved": lambda z: z / np.sqrt(2),
    "uniform": lambda z: BOX * (ndtr(z) - 0.5),
    "ring": _ring,
}


def normal_divergence(v: float, shift: float = 0.0) -> float:
    r"""$KL(N(\mu, vI) \Vert N(0, I)) = v - 1 - \log v + \lVert\mu\rVert^2/2$ in the plane, in nats."""
    return float(v - 1 - np.log(v) + shift**2 / 2)


def ring_divergence() -> float:
    """KL of the ring from the uniform density of the box, in nats: an integral over the radius."""
    # The density on a ring is that of the radius over 2 pi r.
    log_radius, _ = scipy.integrate.quad(lambda z: scipy.stats.norm.pdf(z) * np.log(RADIUS + WIDTH * z), -4, 4)
    entropy = 0.5 * np.log(2 * np.pi * np.e * WIDTH**2) + np.log(2 * np.pi) + log_radius
    return float(np.log(BOX**2) - entropy)


class Case(NamedTuple):
    """Two laws, by name, and their true divergence in nats."""

    law: str
    against: str
    truth: float


CASES = (
    Case("normal", "normal", 0.0),
    Case("shifted", "normal", normal_divergence(1, 0.5)),
    Case("doubled", "normal", normal_divergence(2)),
    Case("halved", "normal", normal_divergence(0.5)),
    Case("uniform", "uniform", 0.0),
    Case("ring", "uniform", ring_divergence()),
)


def autoregression(n: int, T: int, rho: float, rng: np.random.Generator) -> Float[ndarray, "n T 2"]:
    """Stationary normal paths in the plane, each coordinate with correlation `rho` from step to step."""
    noise = rng.standard_normal((2, n, T))
    noise[:, :, 1:] *= np.sqrt(1 - rho**2)
    return np.stack(scipy.signal.lfilter([1], [1, -rho], noise), -1)


def density(law: str, n: int, T: int, rho: float, rng: np.random.Generator) -> KernelDensity:
    """Kernel estimate of a law from autoregressions."""
    return KernelDensity(LAWS[law](autoregression(n, T, rho, rng)).reshape(-1, 2))


class Known(NamedTuple):
    """Estimated divergences by law, and the densities of the last repetition."""

    values: dict[str, Float[ndarray, " repeats"]]
    densities: dict[str, tuple[KernelDensity, KernelDensity]]


def known(n: int, T_asleep: int, T_awake: int, rho: float, n_repeats: int, rng: np.random.Generator) -> Known:
    """Every case, its first law seen in `n` paths of `T_asleep` steps and its second in paths of `T_awake`."""
    values = {case.law: [] for case in CASES}
    pairs: dict[str, tuple[KernelDensity, KernelDensity]] = {}
    for _ in range(n_repeats):
        q = {law: density(law, n, T_awake, rho, rng) for law in ("normal", "uniform")}
        for law, against, _ in CASES:
            pairs[law] = density(law, n, T_asleep, rho, rng), q[against]
            values[law].append(densities.kl_divergence(*pairs[law], rng))
    return Known({law: np.array(of) for law, of in values.items()}, pairs)


def halves(
    positions: Float[ndarray, "S B T 2"], n: int, n_pairs: int = 1
) -> tuple[list[KernelDensity], list[KernelDensity]]:
    """Densities of disjoint sets of `n` trajectories of one law: the first and the second of each pair, pair by pair
    for every network."""
    sets = [densities.kernel(positions[:, i * n : (i + 1) * n]) for i in range(2 * n_pairs)]
    return sum(sets[::2], []), sum(sets[1::2], [])


def mass_outside(bandwidth: float) -> float:
    r"""Share of the kernel estimate of uniform points that lies outside their box:
    $1 - (1 - \sqrt{2/\pi}\,b/L)^2$ with $b/L = h/\sqrt{12}$."""
    return float(1 - (1 - np.sqrt(2 / np.pi) * bandwidth / np.sqrt(12)) ** 2)


def wall_divergence(bandwidth: float) -> float:
    r"""KL of the uniform density from the kernel estimate of its points, $4\,(b/L)\int_0^\infty -\log\Phi(t)\,dt$, in
    nats."""
    integral, _ = scipy.integrate.quad(lambda t: -np.log(ndtr(t)), 0, 10)
    return float(4 * bandwidth / np.sqrt(12) * integral)


def variance_missed(rho: ndarray, T: int) -> ndarray:
    """Share of the variance that is in the mean of a path, the closed form above."""
    return ((1 + rho) / (1 - rho) - 2 * rho * (1 - rho**T) / (T * (1 - rho) ** 2)) / T


def reflected_walk(n: int, T: int, step: float, rng: np.random.Generator) -> Float[ndarray, "n T 2"]:
    """Free diffusion between the walls of the box, from uniform starts; `step` is its standard deviation per axis."""
    start = rng.uniform(-BOX / 2, BOX / 2, (n, 1, 2))
    x = start + step * rng.standard_normal((n, T, 2)).cumsum(1)
    return np.abs((x + BOX / 2) % (2 * BOX) - BOX) - BOX / 2


def walk_variance(steps: Float[ndarray, " steps"], T: int) -> Float[ndarray, " steps"]:
    r"""Mean total variance of a `reflected_walk` about its own mean, in m².

    Odd modes $\cos(k\pi x/L)$ hold the shares $96/(\pi k)^4$ of $L^2/12$ and decay at $a^2 (k\pi/L)^2/2$ per step."""
    k = np.arange(1, 400, 2)
    share = 96 / (np.pi * k) ** 4
    rho = np.exp(-(steps[:, None] ** 2) * (k * np.pi / BOX) ** 2 / 2)
    return BOX**2 / 6 * (1 - (share * variance_missed(rho, T)).sum(1) / share.sum())


def interval_coverage(
    samples: Float[ndarray, "n S"], mean: float, rng: np.random.Generator
) -> dict[str, Float[ndarray, " n"]]:
    """Whether the 95 % interval from the values of each row holds the mean, 1 or 0: Student's, and two bootstraps'."""
    student = np.array([statistics.interval(values) for values in samples])
    bounds = {"student": (student[:, 1], student[:, 2])}
    for method in ("percentile", "BCa"):
        found = scipy.stats.bootstrap(
            (samples,), np.mean, axis=1, n_resamples=500, batch=100, method=method, rng=rng
        ).confidence_interval
        bounds[method.lower()] = found.low, found.high
    return {method: ((low < mean) & (mean < high)).astype(float) for method, (low, high) in bounds.items()}
