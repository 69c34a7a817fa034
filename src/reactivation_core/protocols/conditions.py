r"""Under which conditions of training does a network sleep in the law of its waking? Two tests of bearings or places.

*From one state.* A sampler has the waking law $q$ from whatever start, after its mixing time. All runs begin at the
bearing that is rarest awake, or in a corner, with $c$ times the noise variance of waking, and the law of states in the
last half of the run is compared with $q$,

$$ KL(\tilde q_c \,\Vert\, q) , $$

for several $c$. States that diffuse freely end in an even law. What this would give is the null; what a second sample
of waking gives is the floor.

*By the drift.* The slope of the drift on the score of waking,

$$ u - D' = \text{slope} \cdot D\,(\log q)' , $$

by `protocols.diffusion` over many steps, is 1 where sleep samples $q$, and 0 where it only diffuses.

A decoder reports some state even when no bump is left. So the cosine of the output with the tuning at the state that it
reports is held against that awake, and networks without training must not pass.

Source: Krishna et al. (2024), Section 2.4; Risken (1989), chapter 4.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core import phases
from reactivation_core.cells import HeadDirectionCells
from reactivation_core.phases import Ensemble
from reactivation_core.protocols import diffusion, forgetting, spreading
from reactivation_core.statistics import population_vector
from reactivation_core.tasks import must_be
from reactivation_core.trajectories import Head

# Steps from one look at a run to the next, over which it drifts and diffuses.
LAG = 20
_HALVES = slice(None), slice(0, None, 2), slice(1, None, 2)


class Space(NamedTuple):
    """Bearings or places: cells, the s.d. of the kernel about each state in radians or metres, the state where sleep
    begins, the cell where the law awake is turned to, and what activity `(S, B, T, N_r)` reports, `(S, B, T, d)`."""

    grid: diffusion.Grid
    width: float
    rarest: tuple[float, ...]
    turned: int
    read: Callable[[Tensor], ndarray]


def ring(ensemble: Ensemble) -> Space:
    """Bearings of the population vector, from the one between two peaks of the law awake, or across from the only one;
    turned by half the way from one peak to the next."""
    cells, grid = must_be(HeadDirectionCells, ensemble.task.cells), diffusion.Grid(60, math.pi, 1)
    peaks = must_be(Head, ensemble.experiment.task.motion).peaks

    def read(states: Tensor) -> ndarray:
        outputs = ensemble.network.readout(states).double().numpy()
        return population_vector(outputs, cells.angles.double().numpy())[..., None]

    return Space(grid, 0.2, (math.pi / peaks,), grid.n // (2 * peaks), read)


def plane(ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator) -> Space:
    """Places that activity stands for, as by `spreading` of so many waking runs, from a corner; turned so that the
    centre is at a wall. They may be beyond the walls."""
    grid, places = diffusion.Grid(30, 1.2, 2), spreading.fit(ensemble, n_trajectories, n_steps, generator)
    return Space(grid, 0.15, (0.9, 0.9), grid.n**2 // 2, lambda states: spreading.read(places, states))


class Run(NamedTuple):
    """States every `LAG` steps, the first before the first step of sleep, and the mean cosine of the output with the
    tuning there, and norm of activity, by time."""

    path: Float[ndarray, "S B T d"]
    cosine: Float[ndarray, "S T"]
    norm: Float[ndarray, "S T"]


@torch.no_grad()
def report(ensemble: Ensemble, space: Space, states: Float[Tensor, "S B T N_r"]) -> Run:
    """What activity reports."""
    path = space.read(states)
    outputs = ensemble.network.readout(states)
    norm, cosine = forgetting.bump(ensemble, states, outputs, torch.from_numpy(path).to(outputs))
    return Run(path, cosine, norm)


def wake(ensemble: Ensemble, space: Space, n_trajectories: int, n_steps: int, generator: torch.Generator) -> Run:
    """Runs awake, without their starts."""
    states = phases.active(ensemble, n_trajectories, n_steps, generator, record=("states",), every=LAG).states
    return report(ensemble, space, states)


def asleep(
    ensemble: Ensemble,
    space: Space,
    start: Float[Tensor, "S B N_r"],
    n_steps: int,
    c: float,
    generator: torch.Generator,
) -> Run:
    """Runs asleep from given activity, with `c` times the variance of the noise of training."""
    states = phases.quiescent(ensemble, n_steps, math.sqrt(c), start, generator, ("states",), LAG).states
    return report(ensemble, space, torch.cat((start[:, :, None].to(states), states), 2))


def rarest(ensemble: Ensemble, space: Space, n_trajectories: int) -> Float[Tensor, "S B N_r"]:
    """Activity that encodes the state where sleep begins."""
    return forgetting.encode(ensemble, torch.tensor([space.rarest]), n_trajectories)


class Ends(NamedTuple):
    """KL from the law of the last half of runs to that awake, in nats, by network and multiplier: `asleep`; the null of
    an `even` law; of a law awake that is `turned`; and the `floor`, a second sample of waking. `cosine` is that of the
    last half with a bump. `laws` and `awake` are those compared."""

    asleep: Float[ndarray, "S c"]
    even: Float[ndarray, " S"]
    turned: Float[ndarray, "S c"]
    floor: Float[ndarray, " S"]
    cosine: Float[ndarray, "S c"]
    laws: Float[ndarray, "S c cells"]
    awake: Float[ndarray, "S cells"]


def ends(
    ensemble: Ensemble,
    space: Space,
    waking: Run,
    n_trajectories: int,
    n_steps: int,
    multipliers: Float[ndarray, " c"],
    generator: torch.Generator,
) -> Ends:
    """Where sleep from the rarest state ends, for each multiplier with noise of its own."""
    start = rarest(ensemble, space, n_trajectories)
    runs = [asleep(ensemble, space, start, n_steps, float(c), generator) for c in multipliers]
    half = runs[0].path.shape[2] // 2
    awake, first, second = (np.array([law(space, x[part]) for x in waking.path]) for part in _HALVES)
    laws = np.array([[law(space, run.path[i, :, half:]) for run in runs] for i in range(len(ensemble))])
    return Ends(
        asleep=np.stack([own(x, awake) for x in laws.swapaxes(0, 1)], 1),
        even=own(np.full_like(awake, 1 / awake.shape[1]), awake),
        turned=np.stack([own(x, np.roll(awake, space.turned, 1)) for x in laws.swapaxes(0, 1)], 1),
        floor=own(second, first),
        cosine=np.stack([run.cosine[:, half:].mean(1) for run in runs], 1),
        laws=laws,
        awake=awake,
    )


def own(laws: Float[ndarray, "S cells"], of: Float[ndarray, "S cells"]) -> Float[ndarray, " S"]:
    """KL from each network's law to its other one, in nats."""
    return np.array([diffusion.kl(p, q) for p, q in zip(laws, of, strict=True)])


def nearer(laws: Float[ndarray, "S cells"], of: Float[ndarray, "S cells"]) -> Float[ndarray, " S"]:
    """Logarithm of how much nearer each network's law is to its own other one than, in the mean, to those of others."""
    kl = np.array([[diffusion.kl(p, q) for q in of] for p in laws])
    others = (kl.sum(1) - kl.diagonal()) / (len(kl) - 1)
    return np.log(others / kl.diagonal())


def law(space: Space, states: Float[ndarray, "*shape d"]) -> Float[ndarray, " cells"]:
    """Probabilities of states."""
    return diffusion.law(space.grid, states.reshape(-1, space.grid.d), space.width)


def drift_on_score(
    ensemble: Ensemble,
    space: Space,
    waking: Run,
    n_trajectories: int,
    n_steps: int,
    c: float,
    generator: torch.Generator,
    rng: np.random.Generator,
) -> diffusion.Compared:
    """Drift against score, `diffusion.compare`: half of the runs begin at the rarest state, half as waking does, and
    the first `LAG` steps, in which activity settles, are left out."""
    half = n_trajectories // 2
    start = torch.cat((rarest(ensemble, space, half), phases.starts(ensemble, half, generator)), 1)
    path = asleep(ensemble, space, start, n_steps, c, generator).path[:, :, 1:]
    return diffusion.compare(path, waking.path, LAG, space.grid, space.width, rng)


def normal(
    space: Space,
    waking: Run,
    asleep: diffusion.Compared,
    n_trajectories: int,
    n_steps: int,
    rng: np.random.Generator,
) -> Float[ndarray, " S"]:
    """The slope that is read of walks with each network's diffusion, begun as in `drift_on_score`, that sample the
    normal law with the mean and variance of waking."""
    grid, half, slopes = space.grid, n_trajectories // 2, []
    for path, asked in zip(waking.path, asleep.asked, strict=True):
        states = path.reshape(-1, grid.d)
        q = law(space, states)
        score = grid.gradient(np.log(np.maximum(q, 1e-6 / len(q))))
        D = float((asked * score).sum() / np.square(score).sum())
        drift = D * (states.mean(0) - grid.points) / states.var(0)
        start = np.concatenate((np.tile(space.rarest, (half, 1)), rng.choice(states, half)))
        walk = diffusion.walk(grid, drift, D, start, n_steps, LAG, rng)[:, 1:]
        of = diffusion.estimate(walk, LAG, grid, space.width)
        stays = diffusion.stationary(diffusion.operator(grid, of.drift, of.diffusion))
        slopes.append(diffusion.sampler(grid, of, q, stays).slope)
    return np.array(slopes)
