r"""Does it matter how far ahead an update looks? Memories and networks that were made for one step, and for many.

Of a linear memory $r' = a\,r + g\,\Delta x + \sqrt v\,\xi$ the closed forms are in `theory`; here it is run. Networks
whose gradients were cut after $k$ steps (`Experiment.truncate`) are asked what they err awake, and what they do asleep.

Source: the proofs are in the book's chapter on it; Williams and Peng (1990) for gradients that are cut.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.signal
import torch
from jaxtyping import Float
from numpy import ndarray

from reactivation_core import circular, phases, theory
from reactivation_core.cells import HeadDirectionCells
from reactivation_core.phases import Ensemble
from reactivation_core.protocols import exchange
from reactivation_core.statistics import population_vector
from reactivation_core.streams import spawn
from reactivation_core.tasks import must_be


class Run(NamedTuple):
    """Of each repeat, in units of the variance of the state: error variance and variance awake, and variance asleep."""

    error: Float[ndarray, " S"]
    awake: Float[ndarray, " S"]
    asleep: Float[ndarray, " S"]


def simulated(memory: theory.Memory, c: float, n_repeats: int, n_chains: int, rng: np.random.Generator) -> Run:
    """Run a linear memory awake and asleep, for eight times its time constant, of which the second half counts.

    Args:
        c: multiplier of the noise's variance asleep.
        n_chains: of each repeat.
    """
    a, g, alpha, v = memory
    n, rows = math.ceil(8 / (1 - a)), []

    def filtered(coefficient: float, drawn: ndarray, start: ndarray | float = 0.0) -> ndarray:
        before = coefficient * np.broadcast_to(start, n_chains)[:, None]
        return scipy.signal.lfilter([1], [1, -coefficient], drawn, zi=before)[0]

    for _ in range(n_repeats):
        start, w, xi = rng.normal(size=n_chains), *rng.normal(size=(2, n_chains, n))
        x = filtered(alpha, math.sqrt(1 - alpha**2) * w, start)
        change = np.diff(x, prepend=start[:, None])
        r = filtered(a, g * change + math.sqrt(v) * xi, start)
        asleep = filtered(a, math.sqrt(c * v) * xi)
        late = slice(n // 2, None)
        rows.append([np.square(y[:, late]).mean() for y in (r - x, r, asleep)])
    return Run(*np.transpose(rows))


class Horizon(NamedTuple):
    r"""Of each network.

    Attributes:
        error: mean size of the error of the bearing awake, rad.
        multiplier: the $c$ that keeps the total variance of a step, $1 + \mathrm{tr}[\mathrm{Cov} F(r, \Delta s) -
            \mathrm{Cov} F(r, 0)]/N v$.
        asleep_over_awake: total variance of activity asleep, $c = 2$, over that awake.
        wandered: mean square turn of the bearing asleep in `LAG` steps, $c = 1$, rad².
        growth: what is added to the mean square error awake in as many steps, rad².
        turned: mean square turn of the head in them, rad².
    """

    error: Float[ndarray, " S"]
    multiplier: Float[ndarray, " S"]
    asleep_over_awake: Float[ndarray, " S"]
    wandered: Float[ndarray, " S"]
    growth: Float[ndarray, " S"]
    turned: Float[ndarray, " S"]


# Waking steps from which on networks are looked at, those over which they wander, and those that they sleep.
FIRST, LAG, ASLEEP = 50, 25, 200


@torch.no_grad()
def examine(ensemble: Ensemble, n_trajectories: int, generator: torch.Generator) -> Horizon:
    """Look at head-direction networks awake for 100 steps and asleep for `ASLEEP`.

    Raises:
        ValueError: for networks without noise, whose multiplier has no value.
    """
    experiment, angles = ensemble.experiment, must_be(HeadDirectionCells, ensemble.task.cells).angles.double().numpy()
    if not experiment.sigma > 0:
        raise ValueError("expected noise sigma > 0, got networks without noise")
    streams, v = spawn(generator, ensemble.numbers), experiment.sigma**2 * experiment.dt

    def bearing(outputs):
        return torch.from_numpy(population_vector(outputs.double().numpy(), angles))

    def total(x):
        return x.double().flatten(1, 2).var(1).sum(-1).numpy()

    awake = phases.active(ensemble, n_trajectories, 100, streams, record=("states", "outputs"))
    read, true = bearing(awake.outputs), awake.s[..., 0].double()
    miss = circular.wrap(read - true)
    squares = miss.square().mean(1)
    asleep = phases.quiescent(ensemble, LAG, 1.0, awake.states[:, :, FIRST - 1], streams, record=("outputs",))
    moved = circular.wrap(bearing(asleep.outputs)[:, :, -1] - read[:, :, FIRST - 1])
    start = phases.starts(ensemble, n_trajectories, streams)
    long = phases.quiescent(ensemble, ASLEEP, math.sqrt(2), start, streams, record=("states",), every=5)
    steps = exchange.steps(ensemble, n_trajectories, range(FIRST, 96, 5), streams)
    turned = circular.wrap(true[:, :, FIRST + LAG - 1] - true[:, :, FIRST - 1])
    return Horizon(
        error=miss[:, :, FIRST:].abs().mean((1, 2)).numpy(),
        multiplier=1 + (total(steps.moved) - total(steps.still)) / (v * ensemble.network.n_units),
        asleep_over_awake=total(long.states[:, :, -10:]) / total(awake.states[:, :, FIRST:96:5]),
        wandered=moved.square().mean(1).numpy(),
        growth=(squares[:, FIRST + LAG - 1] - squares[:, FIRST - 1]).numpy(),
        turned=turned.square().mean(1).numpy(),
    )
