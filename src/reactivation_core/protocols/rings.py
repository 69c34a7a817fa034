r"""Is a ring that principal components show one in the network, or a line that the readout maps to a ring?

Two measures. *Loops* of a cloud of states are counted by persistent homology: a ring has one that lasts far longer than
all others, `statistics.loops`. *Return*: a network driven through several full turns is, one lap on, where it was on a
ring, and elsewhere on a helix, two laps on twice as far. The distance at equal bearings is measured in units of that to
the opposite bearing, of activity $r$ and of its ray $r/\lVert r\rVert$.

Source: Tralie et al. (2018) for persistent homology.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core import phases
from reactivation_core import statistics as stats
from reactivation_core.cells import HeadDirectionCells
from reactivation_core.phases import Ensemble
from reactivation_core.tasks import must_be

# Full turns that the input makes in `returns`, and steps of each.
LAPS, LAP = 5, 100


class Rings(NamedTuple):
    """`loop_awake` and `loop_asleep`: the longest loop over the next. `one_lap` and `two_laps`: the distance back to
    where activity, and its ray, was."""

    loop_awake: Float[ndarray, " S"]
    loop_asleep: Float[ndarray, " S"]
    one_lap: Float[ndarray, "S 2"]
    two_laps: Float[ndarray, "S 2"]


def rings(ensemble: Ensemble, n_trajectories: int, n_driven: int, generator: torch.Generator) -> Rings:
    """The measures of head-direction networks: loops of every tenth state of 100 steps awake and 200 asleep; returns of
    `n_driven` states driven around."""
    start = phases.starts(ensemble, n_trajectories, generator)
    record = {"record": ("states",), "every": 10}
    awake = phases.active(ensemble, n_trajectories, 100, generator, **record).states
    asleep = phases.quiescent(ensemble, 200, math.sqrt(2), start, generator, **record).states
    ratios = [[loop_ratio(r.flatten(0, 1), generator) for r in states] for states in (awake, asleep)]
    back = np.array([returns(ensemble[i], start[i : i + 1, :n_driven]) for i in range(len(ensemble))])
    return Rings(*map(np.array, ratios), *back.transpose(2, 0, 1))


def loop_ratio(states: Float[Tensor, "n N"], generator: torch.Generator) -> float:
    """Length of the longest loop over that of the second longest, of 200 states chosen at random."""
    chosen = torch.randperm(len(states), generator=generator)[:200]
    longest, second = stats.loops(states[chosen].numpy())[:2]
    return longest / second


@torch.no_grad()
def returns(ensemble: Ensemble, start: Float[Tensor, "1 B N"]) -> Float[ndarray, "2 2"]:
    """Distance at equal bearings over that to the opposite bearing, of activity and of its rays (rows), after one lap
    and after two (columns); means over starts. Infinite where a run is not carried around.

    Args:
        ensemble: one network of the head-direction task.
        start: activity.
    """
    network, angles = ensemble.network, must_be(HeadDirectionCells, ensemble.task.cells).angles
    B, T = start.shape[1], LAPS * LAP
    ds = start.new_full((1, B, T, 1), 2 * math.pi / LAP)
    r = network(start, ds, start.new_zeros(1, B, T, start.shape[-1]))[0]
    o = network.readout(r[None])[0][..., : len(angles)]
    ratios = []
    for bearing, path in zip(np.unwrap(stats.population_vector(o.numpy(), angles.numpy())), r.numpy(), strict=True):
        turned = np.maximum.accumulate(bearing - bearing[LAP])
        if turned[-1] < 6 * math.pi:
            return np.full((2, 2), math.inf)
        # At twenty bearings of the first lap after one of warming up; half a lap on, one and two.
        at = np.linspace(0, 2 * math.pi, 20, endpoint=False)
        for x in (path, path / np.linalg.norm(path, axis=-1, keepdims=True)):
            first, *others = (x[np.searchsorted(turned, at + lag * math.pi)] for lag in (0, 1, 2, 4))
            across, *apart = (np.linalg.norm(y - first, axis=-1).mean() for y in others)
            ratios.append(np.array(apart) / across)
    return np.reshape(ratios, (-1, 2, 2)).mean(0)
