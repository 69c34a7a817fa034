r"""Does a network track an animal that it was not trained on, such as a rat whose path was recorded?

What a network adds up comes with noise in every step, whether the animal moves or not. So the error is asked for by the
speed of a trajectory, beside that of reporting the start for ever, which is right when the animal stands still and
wrong by the way that it made when it runs.
"""

from typing import NamedTuple

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float
from numpy import ndarray

from reactivation_core import phases
from reactivation_core.phases import Ensemble


class Tracked(NamedTuple):
    """Trajectories awake: true and decoded positions, the mean speed in m/s, and the mean errors in metres of what is
    decoded and of reporting the start for ever."""

    s: Float[ndarray, "S B T 2"]
    decoded: Float[ndarray, "S B T 2"]
    speed: Float[ndarray, "S B"]
    error: Float[ndarray, "S B"]
    staying: Float[ndarray, "S B"]


def track(ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator) -> Tracked:
    """Wake the networks on their task's motion."""
    awake, task = phases.active(ensemble, n_trajectories, n_steps, generator), ensemble.task
    step = awake.s.diff(dim=2).norm(dim=-1).mean(-1)
    errors = task.error(awake.decoded, awake.s), task.staying(awake.s)
    error, staying = (x.mean(-1).numpy() for x in errors)
    return Tracked(awake.s.numpy(), awake.decoded.numpy(), (step / task.motion.dt).numpy(), error, staying)


def by_speed(
    values: Float[ndarray, "S B"], speed: Float[ndarray, "S B"], edges: Float[ndarray, " edges"], least: int
) -> Float[ndarray, "S classes"]:
    """Means over the trajectories in each class of speed; not a number where a network has fewer than `least`."""
    rows = []
    for x, v in zip(values, speed, strict=True):
        mean, count = (
            scipy.stats.binned_statistic(v, x, of, edges).statistic  # pyright: ignore[reportArgumentType]
            for of in ("mean", "count")
        )
        rows.append(np.where(count < least, np.nan, mean))
    return np.array(rows)
