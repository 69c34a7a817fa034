r"""Under which conditions of training does a network sleep in the law of its waking? Two tests of a ring's bearings.

*From one bearing.* A sampler has the waking law $q$ from whatever start, after its mixing time. All runs begin at the
bearing that is rarest awake, with $c$ times the noise variance of waking, and the law of bearings in the last half of
the run is compared with $q$,

$$ KL(\tilde q_c \,\Vert\, q) , $$

for several $c$. Bearings that diffuse freely end in an even law. What this would give is the null; what a second sample
of waking gives is the floor.

*By the drift.* The slope of the drift on the score of waking,

$$ u - D' = \text{slope} \cdot D\,(\log q)' , $$

by `protocols.diffusion` over many steps, is 1 where sleep samples $q$, and 0 where it only diffuses.

A decoder reports some bearing even when no bump is left. So the cosine of the output with the tuning at the bearing
that it reports is held against that awake, and networks without training must not pass.

Source: Krishna et al. (2024), Section 2.4; Risken (1989), chapter 4.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core import phases
from reactivation_core.cells import HeadDirectionCells
from reactivation_core.phases import Ensemble
from reactivation_core.protocols import diffusion, forgetting
from reactivation_core.statistics import population_vector
from reactivation_core.tasks import must_be
from reactivation_core.trajectories import Head

# Bearings, and the s.d. of the kernel about each, in radians.
GRID, WIDTH = diffusion.Grid(60, math.pi, 1), 0.2
# Steps from one look at a run to the next, over which it drifts and diffuses.
LAG = 20


class Run(NamedTuple):
    """Bearings of the population vector every `LAG` steps, the first before the first step of sleep, and the mean
    cosine of the output with the tuning there, and norm of activity, by time."""

    path: Float[ndarray, "S B T 1"]
    cosine: Float[ndarray, "S T"]
    norm: Float[ndarray, "S T"]


@torch.no_grad()
def report(ensemble: Ensemble, states: Float[Tensor, "S B T N_r"]) -> Run:
    """What activity reports."""
    cells = must_be(HeadDirectionCells, ensemble.task.cells)
    outputs = ensemble.network.readout(states)
    bearing = population_vector(outputs.double().numpy(), cells.angles.double().numpy())[..., None]
    norm, cosine = forgetting.bump(ensemble, states, outputs, torch.from_numpy(bearing).to(outputs))
    return Run(bearing, cosine, norm)


def wake(ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator) -> Run:
    """Runs awake, without their starts."""
    states = phases.active(ensemble, n_trajectories, n_steps, generator, record=("states",), every=LAG).states
    return report(ensemble, states)


def asleep(
    ensemble: Ensemble, start: Float[Tensor, "S B N_r"], n_steps: int, c: float, generator: torch.Generator
) -> Run:
    """Runs asleep from given activity, with `c` times the variance of the noise of training."""
    states = phases.quiescent(ensemble, n_steps, math.sqrt(c), start, generator, ("states",), LAG).states
    return report(ensemble, torch.cat((start[:, :, None].to(states), states), 2))


def trough(ensemble: Ensemble, n_trajectories: int) -> Float[Tensor, "S B N_r"]:
    """Activity that encodes the bearing between two peaks of the law awake, or across from the only one."""
    peaks = must_be(Head, ensemble.experiment.task.motion).peaks
    return forgetting.encode(ensemble, torch.full((1, 1), math.pi / peaks), n_trajectories)


class Ends(NamedTuple):
    """KL from the law of the last half of runs to that awake, in nats, by network and multiplier: `asleep`; the null of
    an `even` law; of a law awake that is turned by half the way from one peak to the next, `turned`; and the `floor`,
    a second sample of waking. `cosine` is that of the last half with a bump. `laws` and `awake` are those compared."""

    asleep: Float[ndarray, "S c"]
    even: Float[ndarray, " S"]
    turned: Float[ndarray, "S c"]
    floor: Float[ndarray, " S"]
    cosine: Float[ndarray, "S c"]
    laws: Float[ndarray, "S c cells"]
    awake: Float[ndarray, "S cells"]


def ends(
    ensemble: Ensemble,
    waking: Run,
    n_trajectories: int,
    n_steps: int,
    multipliers: Float[ndarray, " c"],
    generator: torch.Generator,
) -> Ends:
    """Where sleep from the trough ends, for each multiplier with noise of its own."""
    start = trough(ensemble, n_trajectories)
    runs = [asleep(ensemble, start, n_steps, float(c), generator) for c in multipliers]
    half = runs[0].path.shape[2] // 2
    # From one peak to half the way to the next.
    shift = GRID.n // (2 * must_be(Head, ensemble.experiment.task.motion).peaks)
    awake, floor = [], []
    for x in waking.path:
        first, second = (law(x[i::2]) for i in range(2))
        awake.append(law(x))
        floor.append(diffusion.kl(second, first))
    laws = np.array([[law(run.path[i, :, half:]) for run in runs] for i in range(len(ensemble))])
    pairs = list(zip(laws, awake, strict=True))
    even = np.full(GRID.n, 1 / GRID.n)
    return Ends(
        asleep=np.array([[diffusion.kl(p, q) for p in of] for of, q in pairs]),
        even=np.array([diffusion.kl(even, q) for q in awake]),
        turned=np.array([[diffusion.kl(p, np.roll(q, shift)) for p in of] for of, q in pairs]),
        floor=np.array(floor),
        cosine=np.stack([run.cosine[:, half:].mean(1) for run in runs], 1),
        laws=laws,
        awake=np.array(awake),
    )


def law(states: Float[ndarray, "*shape 1"]) -> Float[ndarray, " cells"]:
    """Probabilities of bearings."""
    return diffusion.law(GRID, states.reshape(-1, 1), WIDTH)


def drift(
    ensemble: Ensemble,
    waking: Run,
    n_trajectories: int,
    n_steps: int,
    c: float,
    generator: torch.Generator,
    rng: np.random.Generator,
) -> diffusion.Compared:
    """Drift against score, `diffusion.compare`: half of the runs begin in the trough, half as waking does, and the
    first `LAG` steps, in which activity settles, are left out."""
    half = n_trajectories // 2
    start = torch.cat((trough(ensemble, half), phases.starts(ensemble, half, generator)), 1)
    path = asleep(ensemble, start, n_steps, c, generator).path[:, :, 1:]
    return diffusion.compare(path, waking.path, LAG, GRID, WIDTH, rng)
