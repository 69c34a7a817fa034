r"""What do adaptation and momentum do to sleep?

`networks.SecondOrder` is a network with both. Momentum adds to a step $F(r)$ a share of the last change,

$$ r_{t+1} = F(r_t) + (1 - \lambda)\,(r_t - r_{t-1}) . $$

In a direction in which the network alone loses the share $k$ of its activity in a step and gets noise of variance $v$,
this is an autoregression of second order, with the stationary variance

$$ \frac{v}{k\,(2 - k)} \;\longrightarrow\; \frac{v\,(2 - \lambda)}{\lambda\,k\,\bigl(2\,(2 - \lambda) - k\bigr)}, $$

larger by $1/\lambda$ for small $k$: momentum heats. With noise of variance $\lambda v$ the *temperature is matched*.
Where nothing is lost, $k = 0$, noise and flow go $1/\lambda$ times as far in the long run, so that at matched
temperature diffusion and flow are those of the network alone, $1/\lambda$ times as fast. An eigenvalue $\nu$ of the
step becomes the two roots of $x^2 - (\nu + 1 - \lambda)\,x + 1 - \lambda$, and activity that turns, with $\nu$ complex,
may grow.

Adaptation makes two of a direction in which nothing is lost, be it the norm of activity or a place: with the leak
$\alpha = dt/\tau$ the pair $(r, a)$ is mapped by

$$ \begin{pmatrix} 1 & -\alpha b \\ 1/\tau_a & 1 - 1/\tau_a \end{pmatrix} , $$

which turns where $4\,\alpha\,b\,\tau_a > 1$: activity then goes down to zero. Where a network restores its norm, a
place that adaptation lags by $u$ is pushed on by $\alpha b\,u$ in a step and caught up with by $u/\tau_a$: places at
rest are unstable where $\alpha\,b > 1/\tau_a$, and move by themselves.

Source: Polyak (1964) for momentum; Casco-Rodriguez et al. (2026) for both in such networks.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy import ndarray

from reactivation_core import densities, phases, statistics
from reactivation_core.networks import SecondOrder
from reactivation_core.phases import Ensemble
from reactivation_core.protocols import forgetting, motion, spreading
from reactivation_core.protocols.spreading import Places
from reactivation_core.tasks import must_be
from reactivation_core.trajectories import Animal, Head

# Where runs begin, beside the starts of waking: the centre of the box and a corner, or two bearings.
POSITIONS, BEARINGS = ((0.0, 0.0), (0.9, 0.9)), ((0.0,), (math.pi / 2,))
# Looks of a block of 40 steps, over which memory and the bump are averaged; of the first 100 steps, which are read
# along the manifold; and of the last 200, which are compared with waking.
BLOCK, FIRST, LAST = 8, 20, 40
# By how much the cosine with a bump may be below that of waking, and how near a wall is, m.
LOST, NEAR = 0.06, 0.2


def growth(eigenvalues: Complex[ndarray, " n"], friction: float) -> float:
    """The factor by which the fastest direction of a step with these eigenvalues grows in a step with momentum."""
    half = (eigenvalues + 1 - friction) / 2
    root = np.sqrt(half**2 - (1 - friction) + 0j)
    return float(np.abs((half + root, half - root)).max())


class Found(NamedTuple):
    """Sleep from three starts: those of waking, and the centre of the box and a corner, or the bearings 0 and π/2.

    `memory` of the starts of waking, the `cosine` with a bump and the `norm` over waking are means over blocks of 40
    steps; `kl_as_awake`, `kl_centre` and `kl_corner` the divergence of states in the last 200 steps from waking, in
    nats. From the starts of waking, `explored` is the share of 11 x 11 tiles that a run enters, `walls` that of
    positions within 0.2 m of a wall; of the first 100 steps, along the manifold, `exponent` and `msd` are those of
    `motion.Motion`. The last four are of positions only.
    """

    memory: Float[ndarray, "S blocks"]
    cosine: Float[ndarray, "S blocks"]
    norm: Float[ndarray, "S blocks"]
    kl_as_awake: Float[ndarray, " S"]
    kl_centre: Float[ndarray, " S"]
    kl_corner: Float[ndarray, " S"]
    explored: Float[ndarray, " S"]
    walls: Float[ndarray, " S"]
    exponent: Float[ndarray, " S"]
    msd: Float[ndarray, "S lags"]


@torch.no_grad()
def examine(
    ensemble: Ensemble,
    places: list[Places] | None,
    waking: forgetting.Waking,
    n_runs: int,
    n_steps: int,
    c: float,
    generator: torch.Generator,
    rng: np.random.Generator,
    held: bool = False,
    **order: float,
) -> Found:
    """Sleep of networks with adaptation and momentum.

    Args:
        places: of every network, from `spreading.fit`; without, `exponent` and `msd` are not numbers. For positions.
        waking: from `forgetting.wake`.
        n_runs: from each start; twice as many from those of waking, in pairs.
        c: multiplies the variance of the noise of training.
        held: whether activity is scaled back to the norm of waking every tenth step, velocity and adaptation with it.
        order: `b`, `tau_a` and `friction` of `networks.SecondOrder`.

    Raises:
        ValueError: for fewer than 200 steps, or a number that is no multiple of 40.
    """
    if n_steps < LAST * forgetting.EVERY or n_steps % (BLOCK * forgetting.EVERY):
        raise ValueError(f"expected a multiple of 40 steps, 200 at least, got {n_steps}")
    task = ensemble.task.motion
    box = None if isinstance(task, Head) else must_be(Animal, task).box
    moved = replace(ensemble, network=SecondOrder(ensemble.network, **order))
    awake = phases.starts(moved, n_runs, generator).repeat(1, 2, 1)
    start = torch.cat((awake, forgetting.encode(moved, torch.tensor(POSITIONS if box else BEARINGS), n_runs)), 1)
    paths, cosines, norms, states = [forgetting.decode(moved, start)], [], [], []
    for phase in forgetting.parts(moved, start, n_steps, c, generator, waking.norm if held else None):
        paths.append(phase.decoded.numpy())
        norm, cosine = forgetting.bump(
            moved, *(x[:, : 2 * n_runs] for x in (phase.states, phase.outputs, phase.decoded))
        )
        norms.append(norm)
        cosines.append(cosine)
        if len(states) * forgetting.CORRECTED < FIRST * forgetting.EVERY:
            states.append(phase.states[:, :n_runs, :, : ensemble.network.n_units])
    path = np.concatenate(paths, 2)
    first, again, *rest = np.split(path, 4, 1)
    late = [densities.estimate(x[:, :, -LAST:]) for x in (first, *rest)]
    as_awake, centre, corner = (densities.divergence(x, waking.density, rng) for x in late)
    lags = motion.lags(forgetting.EVERY)
    exponent, msd = np.full(len(first), np.nan), np.full((len(first), len(lags)), np.nan)
    if places is not None:
        moves = motion.motion(spreading.read(places, torch.cat(states, 2)), forgetting.EVERY)
        exponent, msd = moves.exponent, moves.msd
    explored = walls = np.full(len(first), np.nan)
    if box:
        explored = statistics.each(lambda x: np.mean([statistics.coverage(run, box) for run in x]), first)
        walls = statistics.each(lambda x: statistics.near_walls(x, box, NEAR), first)
    return Found(
        blocks(forgetting.memory(first, again)[:, 1:]),
        blocks(np.hstack(cosines)),
        blocks(np.hstack(norms)) / waking.norm[:, None],
        as_awake,
        centre,
        corner,
        explored,
        walls,
        exponent,
        msd,
    )


def blocks(values: Float[ndarray, "S T"]) -> Float[ndarray, "S blocks"]:
    """Means over blocks of 40 steps."""
    return values.reshape(len(values), -1, BLOCK).mean(-1)


def forgotten(found: Found, waking: forgetting.Waking) -> Float[ndarray, " S"]:
    """The least memory of the start in any block that has a bump, with a cosine at most 0.06 below that of waking; 1 if
    none has."""
    kept = found.cosine >= waking.cosine[:, None] - LOST
    return np.where(kept, found.memory, 1.0).min(1)
