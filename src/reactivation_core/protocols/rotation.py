r"""Does the bearing that a network reports keep turning when the input is off?

A turn is the angle between successive bearings $\hat s$ by the shorter way, $\hat u(t) = \hat s(t + dt) - \hat s(t)
\in [-\pi, \pi)$; its mean is the angular velocity per step. Two decoders report $\hat s$. The paper's takes the mean
of the three most active cells, and is drawn to one neighbour after another while noise reorders them; that scatter
cancels in a mean of turns, and not in the share of them that goes backwards. The *population vector* takes all cells.

Independent turns of mean $\mu$ and standard deviation $\varsigma$ are reversed over $n$ steps in a share
$\Phi(-\sqrt n\,\mu/\varsigma)$ of spans, $\Phi$ the normal distribution function.

Source: Krishna et al. (2024), Fig. C.5.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from reactivation_core import circular, phases
from reactivation_core.cells import HeadDirectionCells
from reactivation_core.phases import Ensemble, Phase
from reactivation_core.statistics import population_vector
from reactivation_core.tasks import must_be


class Turns(NamedTuple):
    """Turns, in radians, of the decoded bearing, of the population vector and, awake, of the head; and `gathered`, the
    length of the mean of unit vectors along the last bearings: near 0 if they are all around, 1 if they are one."""

    decoded: Float[ndarray, "S B T-1"]
    vector: Float[ndarray, "S B T-1"]
    gathered: Float[ndarray, " S"]
    true: Float[ndarray, "S B T-1"] | None = None


def turns(ensemble: Ensemble, parts: Iterable[Phase]) -> Turns:
    """Turns of a phase with "decoded" and "outputs" recorded, in one part or several of some trajectories each."""
    angles = must_be(HeadDirectionCells, ensemble.task.cells).angles.numpy()
    decoded, vector, true = [], [], []
    for part in parts:
        decoded.append(part.decoded[..., 0])
        vector.append(torch.from_numpy(population_vector(part.outputs.numpy(), angles)))
        true += [part.s[..., 0]] if hasattr(part, "s") else []
    last = torch.cat(decoded, 1)[:, :, -1].numpy()
    return Turns(
        circular.turns(torch.cat(decoded, 1)).numpy(),
        circular.turns(torch.cat(vector, 1)).numpy(),
        np.abs(np.exp(1j * last).mean(1)),
        circular.turns(torch.cat(true, 1)).numpy() if true else None,
    )


RECORD = ("decoded", "outputs")

# Trajectories that run together: the outputs of all cells in all steps are large.
TOGETHER = 100


def awake(ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator) -> Turns:
    """Turns of networks that are told those of the head."""
    sizes = _few(n_trajectories)
    return turns(ensemble, (phases.active(ensemble, n, n_steps, generator, record=RECORD) for n in sizes))


def asleep(ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator) -> Turns:
    """Turns with the input off and the variance of the noise doubled."""
    sizes = _few(n_trajectories)
    return turns(ensemble, (phases.sleep(ensemble, n, n_steps, generator, record=RECORD) for n in sizes))


def _few(n: int) -> list[int]:
    return [min(TOGETHER, n - done) for done in range(0, n, TOGETHER)]


class Rotation(NamedTuple):
    """Of turns: their mean and standard deviation, the shares that are clockwise and, `leaps`, above a right angle."""

    velocity: Float[ndarray, " S"]
    spread: Float[ndarray, " S"]
    reversed: Float[ndarray, " S"]
    leaps: Float[ndarray, " S"]


def rotation(turns: Float[ndarray, "S B T"]) -> Rotation:
    """What turns of each network amount to, over all trajectories and steps."""
    trajectories_and_steps = (1, 2)
    return Rotation(
        turns.mean(trajectories_and_steps),
        turns.std(trajectories_and_steps),
        (turns < 0).mean(trajectories_and_steps),
        (np.abs(turns) > math.pi / 2).mean(trajectories_and_steps),
    )


def turned(turns: Float[ndarray, "*shape T"]) -> Float[ndarray, "*shape T+1"]:
    """The way since the start, from 0, in whole turns: does not break where an angle jumps from π to -π."""
    total = turns.cumsum(-1) / (2 * math.pi)
    return np.concatenate((np.zeros_like(total[..., :1]), total), -1)


def reversed_spans(turns: Float[ndarray, "S B T"], n: int) -> Float[ndarray, " S"]:
    """Share of spans of `n` steps, all origins together, in which the bearing turns clockwise."""
    way = turned(turns)
    return (way[..., n:] < way[..., :-n]).mean((1, 2))
