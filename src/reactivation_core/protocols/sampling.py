r"""What does sleep sample, along a manifold of clean activity and across it?

Where the density of clean activity is smooth along the manifold, Eq. (19) with $c$ times the noise variance of waking
is expected to sample $q^{2/c}$ there, $q$ the density of waking with respect to length, to leading order in the noise
$v$ of a step; across the manifold activity has the variance $c\,v$ from the first step on, whatever $v$.

Three manifolds test it, all with closed forms of what is expected: `Flat`, a line with normal activity along it;
`UnitCircle`, with a von Mises density of angles; `Curve`, a closed curve in space, $m(s) = (\cos s, \sin s,
\frac12 \cos 2s)$, whose curvature and speed vary, with a von Mises density of $s$. Then an ideal network on the ring of
its bearings, in as many dimensions as it has units.

Source: Krishna et al. (2024), Section 2.4.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import scipy.stats
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core import circular, phases, theory
from reactivation_core.phases import Ensemble
from reactivation_core.tasks import must_be

# Concentration of the von Mises densities.
KAPPA = 1.0


class Departure(NamedTuple):
    """How far samples are from a law: Kolmogorov-Smirnov distance, and divergence in nats."""

    ks: float
    kl: float


def departure(samples: Float[ndarray, " n"], law: scipy.stats.distributions.rv_frozen) -> Departure:
    """Distances of samples on a line from a law of `scipy.stats`. The divergence is less the entropy, estimated from
    the spacings of the ordered samples, and less the mean log density. Of independent draws of the law itself neither
    is 0."""
    divergence = -scipy.stats.differential_entropy(samples) - law.logpdf(samples).mean()  # pyright: ignore[reportAttributeAccessIssue]
    return Departure(float(scipy.stats.kstest(samples, law.cdf).statistic), float(divergence))


def relaxation_time(length: float, sigma: float, c: float) -> float:
    r"""Time in which quiescence forgets its place on a closed curve of this length with $p$ uniform along it:

    $$ T = \frac{2}{c\,\sigma^2}\left(\frac{\text{length}}{2\pi}\right)^2. $$

    The correlation of $e^{i\theta}$, $\theta$ the place along the curve as an angle, falls as $e^{-t/T}$; in seconds.
    """
    return 2 / (c * sigma**2) * (length / (2 * math.pi)) ** 2


def switching_time(v: float, c: float, log_odds: float) -> float:
    r"""Steps in which `theory.langevin` forgets on which of two points at distance 2 it is, for small $v$:

    $$ \sqrt{\frac{2\pi}{c\,v}}\; \frac{e^{1/2cv}}{2 \cosh(\lambda/2c)}, $$

    $\lambda$ the logarithm of the ratio of their weights. For points at a distance $2a$ take $v/a^2$ for $v$.
    """
    return math.sqrt(2 * math.pi / (c * v)) * math.exp(1 / (2 * c * v)) / (2 * math.cosh(log_odds / (2 * c)))


class Coordinates(NamedTuple):
    """Where activity is along a manifold, and its deviations from there in the directions across."""

    place: Float[Tensor, "*shape"]
    across: Float[Tensor, "*shape k"]


class KnownManifold(ABC):
    """One of the three, and what is expected of sleep on it."""

    # Clean activity far from where most activity is.
    far: tuple[float, ...]

    @abstractmethod
    def density(self, v: float) -> theory.Density:
        """Of noisy activity."""

    @abstractmethod
    def coordinates(self, r: Float[Tensor, "*shape N"]) -> Coordinates:
        """Place along the manifold and deviation across it."""

    def statistic(self, place: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """What is averaged over places: the cosine, for closed manifolds."""
        return place.cos()

    def law(self, v: float):
        """Law of the place awake, of `scipy.stats`."""
        return scipy.stats.vonmises(KAPPA)

    def awake(self, v: float) -> float:
        """Mean of the statistic awake."""
        return theory.mean_cosine(KAPPA)

    @abstractmethod
    def expected(self, v: float, c: float) -> float:
        """Mean of the statistic asleep, of $q^{2/c}$."""

    @abstractmethod
    def relaxation(self, v: float, c: float) -> float:
        """Steps in which the start is forgotten but for the share $1/e$, about."""


class Flat(KnownManifold):
    """An axis of the plane, with normal activity of variance 1 along it."""

    far = (3.0, 0.0)

    def density(self, v):
        """Normal."""
        return theory.Gaussian(torch.tensor([1.0, 0.0], dtype=torch.float64), v)

    def coordinates(self, r):
        """The two axes."""
        return Coordinates(r[..., 0], r[..., 1:])

    def statistic(self, place):
        """The square."""
        return place.square()

    def law(self, v):
        """Normal."""
        return scipy.stats.norm(scale=math.sqrt(1 + v))

    def awake(self, v):
        """The variance."""
        return 1 + v

    def expected(self, v, c):
        """`theory.stationary_variance`."""
        return theory.stationary_variance(1 + v, v, c)

    def relaxation(self, v, c):
        """That of the drift, whatever the noise."""
        return 1 / v


class UnitCircle(KnownManifold):
    """The unit circle of the plane, its angle von Mises."""

    far = (-1.0, 0.0)
    speed = torch.ones(4096, dtype=torch.float64)
    _s = torch.arange(4096, dtype=torch.float64) * (2 * math.pi / 4096) - math.pi

    def density(self, v):
        """In closed form."""
        return theory.Circle(1.0, v, KAPPA)

    def coordinates(self, r):
        """Angle and radius, less 1."""
        return Coordinates(torch.atan2(r[..., 1], r[..., 0]), r.norm(dim=-1, keepdim=True) - 1)

    def _sleeping(self, c: float) -> Tensor:
        # q = p(s) / speed, and the density of s is that of length times the speed.
        return ((2 * KAPPA / c) * self._s.cos()).exp() * self.speed ** (1 - 2 / c)

    def expected(self, v, c):
        """By quadrature."""
        q = self._sleeping(c)
        return float(q @ self._s.cos() / q.sum())

    def relaxation(self, v, c):
        """That of diffusion over a circle of the same length."""
        return float(2 * self.speed.mean() ** 2 / (c * v))


class Curve(UnitCircle):
    r"""The curve $(\cos s, \sin s, \frac12 \cos 2s)$, its $s$ von Mises; 128 points stand for it."""

    far = (-1.0, 0.0, 0.5)
    speed = (1 + (2 * UnitCircle._s).sin().square()).sqrt()

    @staticmethod
    def points(s: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape 3"]:
        """The curve."""
        return torch.stack((s.cos(), s.sin(), (2 * s).cos() / 2), -1)

    def density(self, v):
        """A mixture."""
        s = torch.arange(128, dtype=torch.float64) * (2 * math.pi / 128)
        return theory.Mixture(self.points(s), v, (KAPPA * s.cos()).exp())

    def coordinates(self, r):
        """Of the nearest of 4096 points, and two directions normal to the curve there."""
        clean = self.points(self._s)
        near = torch.cat([torch.cdist(part, clean).argmin(-1) for part in r.reshape(-1, 3).split(500)])
        s = self._s[near]
        outward = torch.stack((s.cos(), s.sin(), 0 * s), -1)
        tangent = torch.stack((-s.sin(), s.cos(), -(2 * s).sin()), -1)
        third = torch.linalg.cross(tangent / self.speed[near][:, None], outward)
        off = r.reshape(-1, 3) - clean[near]
        across = torch.stack(((off * outward).sum(-1), (off * third).sum(-1)), -1)
        return Coordinates(s.reshape(r.shape[:-1]), across.reshape(*r.shape[:-1], 2))


def settled(
    manifold: KnownManifold, v: float, c: float, n_repeats: int, n_chains: int, generator: torch.Generator
) -> Float[Tensor, "S B N"]:
    """Activity of chains that all start at the far side, after six relaxation times asleep."""
    start = torch.tensor(manifold.far, dtype=torch.float64).expand(n_repeats, n_chains, -1)
    n_steps = round(6 * manifold.relaxation(v, c))
    return theory.langevin(manifold.density(v), start, v, c, generator, n_steps)


def waking(
    manifold: KnownManifold, v: float, n_repeats: int, n_chains: int, generator: torch.Generator
) -> Float[Tensor, "S B N"]:
    """Independent draws of noisy activity."""
    return manifold.density(v).sample(n_repeats * n_chains, generator).reshape(n_repeats, n_chains, -1)


def across(
    manifold: KnownManifold, v: float, c: float, n_repeats: int, n_chains: int, generator: torch.Generator
) -> Float[ndarray, "S n"]:
    r"""Deviations across the manifold in units of $\sqrt v$, all directions together, ten steps after waking."""
    r = waking(manifold, v, n_repeats, n_chains, generator)
    r = theory.langevin(manifold.density(v), r, v, c, generator, n_steps=10)
    return manifold.coordinates(r).across.flatten(1).numpy() / math.sqrt(v)


def waking_estimate(
    v: float, correlation: float, n_repeats: int, n_chains: int, n_steps: int, generator: torch.Generator
) -> Float[Tensor, "S B"]:
    """The estimate of a waking network in `theory.waking_variance`, its state of variance 1, after so many steps."""
    b = 1 - v / (1 + v)
    x = estimate = torch.randn(n_repeats, n_chains, generator=generator, dtype=torch.float64)
    for _ in range(n_steps):
        xi = torch.randn(2, *x.shape, generator=generator, dtype=x.dtype)
        moved = correlation * x + math.sqrt(1 - correlation**2) * xi[0]
        estimate, x = b * estimate + moved - x + math.sqrt(v) * xi[1], moved
    return estimate


class RingAsleep(NamedTuple):
    r"""An ideal network on a ring, asleep from the bearing 0.

    Attributes:
        correlation: mean cosine of the bearing after each block of steps.
        squared_step: mean square of the bearing's last single step in each block.
        bearing: at the end.
        across: deviations from the ring at the end, all directions together, in units of $\sqrt v$.
        variance_across: mean square of the deviation per dimension across, over $v$.
    """

    correlation: Float[ndarray, "S blocks"]
    squared_step: Float[ndarray, "S blocks"]
    bearing: Float[ndarray, "S B"]
    across: Float[ndarray, "S n"]
    variance_across: Float[ndarray, " S"]


def ring_asleep(
    ensemble: Ensemble, c: float, n_repeats: int, n_chains: int, block: int, n_blocks: int, generator: torch.Generator
) -> RingAsleep:
    """Put an ideal network to sleep at the bearing 0, with `c` times the noise variance of waking."""
    network, tuning = must_be(theory.IdealNetwork, ensemble.network), ensemble.task.cells.tuning
    v = network.density.v
    r = network.encode(tuning(torch.zeros(1, n_repeats * n_chains, 1)))
    correlation, squared_step = [], []
    for _ in range(n_blocks):
        states = phases.quiescent(ensemble, block, math.sqrt(c), r, generator, record=("states",)).states
        before, bearing = (network.bearing(states[0, :, t]).reshape(n_repeats, -1) for t in (-2, -1))
        correlation.append(bearing.cos().mean(1))
        squared_step.append(circular.wrap(bearing - before).square().mean(1))
        r = states[:, :, -1]
    clean = network.encode(tuning(bearing.reshape(1, -1, 1).float()))
    off = (r - clean).reshape(n_repeats, n_chains, -1)
    return RingAsleep(
        correlation=torch.stack(correlation, 1).numpy(),
        squared_step=torch.stack(squared_step, 1).numpy(),
        bearing=bearing.numpy(),
        across=off.flatten(1).numpy() / math.sqrt(v),
        variance_across=(off.square().sum(-1).mean(1) / (off.shape[-1] - 1) / v).numpy(),
    )
