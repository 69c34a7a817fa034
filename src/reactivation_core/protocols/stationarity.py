r"""Is the distribution of states the same at every step of a motion?

Positions at single steps are compared with positions at steps drawn at random, of other trajectories, by KL divergence
of kernel densities. Two finite samples of one distribution also differ: the floor is the divergence between two sets of
positions at random steps. Kernels blur what is narrower than they are, such as a layer at a wall; therefore positions
are also counted by their distance from the nearest wall. Grouping can only lower a divergence, so that what is found
between the classes at the first step and at all is a lower bound.

Source: Krishna et al. (2024), Appendix B, assumption 3.
"""

from typing import NamedTuple

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float
from numpy import ndarray

from reactivation_core.densities import KernelDensity, kl_divergence
from reactivation_core.streams import spawn
from reactivation_core.trajectories import Animal

# Edges of the classes of distance from the wall, in metres; the last reaches the centre.
EDGES = (0, 0.02, 0.04, 0.06, 0.1, 0.2)
# What counts as near a wall, in metres.
NEAR = 0.1


class Stationarity(NamedTuple):
    """Divergences in nats, one for each of `S` samples of the motion.

    `floor` is between two sets at random steps, `steps` between each of the steps and a set at random steps, `late`
    between the middle and the last of the steps, `grouped` the lower bound for the first step of all, and `near` the
    share of positions near a wall at each of the steps.
    """

    floor: Float[ndarray, " S"]
    steps: Float[ndarray, "S K"]
    late: Float[ndarray, " S"]
    grouped: Float[ndarray, " S"]
    near: Float[ndarray, "S K"]

    @property
    def largest(self) -> Float[ndarray, " S"]:
        """Of the steps, above the floor."""
        return (self.steps - self.floor[:, None]).max(1)


def stationarity(
    motion: Animal,
    steps: list[int],
    n_samples: int,
    n_positions: int,
    generator: torch.Generator,
    rng: np.random.Generator,
) -> Stationarity:
    """Compare the positions of a motion at some steps with those at all, up to the last of them.

    Args:
        n_samples: samples of the motion, `S`.
        n_positions: trajectories on each side of a comparison.
        generator: draws the motion; `rng` the random steps and the Monte Carlo of the divergences.
    """
    s = motion(2 * n_positions, steps[-1], spawn(generator, range(n_samples))).s.numpy()
    distance = np.maximum(motion.box / 2 - np.abs(s).max(-1), 0)
    edges = [*EDGES, motion.box / 2]
    first, all_steps = (
        np.array([np.histogram(x, edges)[0] for x in of]) for of in (distance[..., 1], distance[..., 1:])
    )
    compared = [_compare(one, other, steps, rng) for one, other in s.reshape(n_samples, 2, n_positions, -1, 2)]
    floor, at, late = (np.array(of) for of in zip(*compared, strict=True))
    near = (distance[..., steps] < NEAR).mean(1)
    return Stationarity(floor, at, late, np.asarray(scipy.stats.entropy(first, all_steps, axis=1)), near)


def _compare(one: ndarray, other: ndarray, steps: list[int], rng: np.random.Generator) -> tuple[float, list, float]:
    def anytime(x):
        return x[np.arange(len(x)), rng.integers(1, x.shape[1], len(x))]

    mixed, pooled = (KernelDensity(anytime(x)) for x in (one, other))
    single = [KernelDensity(one[:, t]) for t in steps]
    floor, *at = (kl_divergence(density, pooled, rng) for density in (mixed, *single))
    return floor, at, kl_divergence(single[len(steps) // 2], KernelDensity(other[:, steps[-1]]), rng)
