r"""How does a phase move: how far, how fast, in which direction, and is it the same backwards?

The argument of Section 2.4 is about a stationary law, and says nothing of time. Paths of any kind are measured here:
decoded positions, places read along the manifold, unwrapped bearings. Three motions have closed forms. The Langevin
step of Eq. (19) whose $p$ is normal with variance $\lambda$ in the plane, turned by an angle $\alpha$ in each step,
has a law that does not know of $\alpha$ nor of the pace, and with correlation $\rho$ per step

$$ E\lVert x(t+k) - x(t)\rVert^2 = 4 \lambda\,(1 - \rho^k \cos k\alpha) ; $$

turned, it is not reversible. The animal in the open, with Rayleigh steps of scale $b$ and headings turned by
$N(0, \omega^2 dt^2)$ per step, has

$$ E\lVert s(t+k) - s(t)\rVert^2
   = 2 b^2 \Bigl(k + \tfrac\pi2 \sum_{j=1}^{k-1} (k - j)\,e^{-j \omega^2 dt^2 / 2}\Bigr) . $$
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from reactivation_core import statistics as stats
from reactivation_core import theory
from reactivation_core.trajectories import Animal

LAGS = np.array([1, 2, 3, 5, 7, 10, 15, 20, 25, 35, 50, 75])
# Where exponents are fitted: 5 steps are the time constant of a unit.
SHORTEST, LONGEST = 5, 25


class Motion(NamedTuple):
    """How paths move, of every network.

    `msd` is the mean squared displacement at `lags`, `exponent` its slope over those of 5 to 25 steps, and
    `increment_exponent` from its increments between 5, 10 and 20, which a scatter of the reading does not lower; `pace`
    the root mean square of displacements in 10 steps; `correlation` that of the place with itself at `lags`,
    `direction` that of a displacement of 5 steps with the next.
    """

    msd: Float[ndarray, "S lags"]
    exponent: Float[ndarray, " S"]
    increment_exponent: Float[ndarray, " S"]
    pace: Float[ndarray, " S"]
    correlation: Float[ndarray, "S lags"]
    direction: Float[ndarray, " S"]


def lags(every: int = 1) -> Int[ndarray, " lags"]:
    """Those of `LAGS` that paths with every so many steps have."""
    return LAGS[LAGS % every == 0]


def motion(paths: Float[ndarray, "S B T d"], every: int = 1) -> Motion:
    """The measures of paths, in metres or radians, of which every step is known or one in `every`, 1 or 5."""
    of = lags(every)
    msd = stats.each(lambda x: stats.mean_squared_displacement(x, of // every), paths)
    five = paths[:, :, :: 5 // every]
    return Motion(
        msd,
        stats.each(lambda x: exponent(x, every), msd),
        stats.each(lambda x: stats.increment_exponent(*x[np.isin(of, (5, 10, 20))].tolist()), msd),
        np.sqrt(msd[:, of == 10][:, 0]),
        stats.each(lambda x: stats.autocorrelation(x, of // every), paths),
        stats.each(lambda x: stats.autocorrelation(np.diff(x, axis=1), np.array([1]))[0], five),
    )


def exponent(msd: Float[ndarray, " lags"], every: int = 1) -> float:
    """Slope of the logarithm of a mean squared displacement at `lags(every)`, over those of 5 to 25 steps."""
    fitted = (lags(every) >= SHORTEST) & (lags(every) <= LONGEST)
    return stats.exponent(lags(every)[fitted], msd[fitted])


class Moves(NamedTuple):
    """Moves from tile to tile: `shares` of all; `unbalanced`, the share that no reverse move balances in excess of
    paths of which a coin's toss turns every one about in time or not; `one_way`, that over the share of moves to
    another tile."""

    shares: Float[ndarray, "S K K"]
    unbalanced: Float[ndarray, " S"]
    one_way: Float[ndarray, " S"]


def moves(
    paths: Float[ndarray, "S B T 2"], lag: int, box: float, n_bins: int, n_tosses: int, rng: np.random.Generator
) -> Moves:
    """Transitions of positions in `lag` steps, and whether they are the same backwards.

    Args:
        box, n_bins: side of the box, in metres, and its tiles along each side.
        n_tosses: of coins for all paths.
    """

    def shares(x):
        return stats.transitions(x, lag, box, n_bins)

    def excess(x):
        tossed = []
        for _ in range(n_tosses):
            back = rng.random((len(x), 1, 1)) < 0.5
            tossed.append(stats.asymmetry(shares(np.where(back, x[:, ::-1], x))))
        return stats.asymmetry(shares(x)) - np.mean(tossed)

    found, unbalanced = stats.each(shares, paths), stats.each(excess, paths)
    return Moves(found, unbalanced, unbalanced / (1 - found.trace(axis1=1, axis2=2)))


def sampler(
    variance: float,
    time: float,
    angle: float,
    shape: tuple[int, int],
    n_steps: int,
    generator: torch.Generator,
) -> Float[Tensor, "S B T 2"]:
    """Runs of the Langevin step in the plane with this variance, turned by `angle` in each step; without the noise
    their correlation would fall to 1/e in `time` steps."""
    density = theory.Gaussian(torch.full((2,), variance, dtype=torch.float64), 1e-12)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    r, path = density.sample(math.prod(shape), generator).reshape(*shape, 2), []
    for _ in range(n_steps):
        # Noise is isotropic, so that it may be turned with the rest.
        r = theory.langevin(density, r, variance * (1 - math.exp(-1 / time)), 2, generator) @ turn.mT
        path.append(r)
    return torch.stack(path, 2)


def sampler_msd(variance: float, time: float, angle: float) -> Float[ndarray, " lags"]:
    """Mean squared displacement of `sampler` at `LAGS`."""
    settled = theory.stationary_variance(variance, variance * (1 - math.exp(-1 / time)), 2)
    return 4 * settled * (1 - np.exp(-LAGS / time) * np.cos(LAGS * angle))


def animal_msd(animal: Animal) -> Float[ndarray, " lags"]:
    """Mean squared displacement at `LAGS` of an animal without walls."""
    kept = math.exp(-((animal.turning * animal.dt) ** 2) / 2)
    pairs = np.array([sum((k - j) * kept**j for j in range(1, k)) for k in LAGS])
    return 2 * (animal.speed * animal.dt) ** 2 * (LAGS + math.pi / 2 * pairs)
