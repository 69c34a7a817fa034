"""What does another setting change? An ensemble on another motion, and a few numbers of its waking and quiescence.

Losses are over that of an output of zero, since cells of another kind have another scale.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core import densities, phases, statistics
from reactivation_core.cells import PlaceCells
from reactivation_core.phases import Ensemble
from reactivation_core.tasks import PositionTask, must_be
from reactivation_core.trajectories import Animal, Recorded, Recording


def on_motion(ensemble: Ensemble, motion: Animal | Recorded | Recording) -> Ensemble:
    """The same networks and place cells, on another motion."""
    return replace(ensemble, task=PositionTask(len(ensemble), motion, must_be(PlaceCells, ensemble.task.cells)))


class Staying(NamedTuple):
    """Mean error in metres of reporting the start for ever, and share of the box's tiles that a trajectory visits."""

    error: Float[ndarray, " S"]
    tiles: Float[ndarray, " S"]


def staying(task: PositionTask, n_trajectories: int, n_steps: int, generator: torch.Generator) -> Staying:
    """How far an animal gets in a trajectory."""
    s = task.sample(n_trajectories, n_steps, generator).s
    tiles = [np.mean([statistics.coverage(path, task.motion.box) for path in of]) for of in s.numpy()]
    return Staying(task.staying(s)[:, :, 1:].mean((1, 2)).numpy(), np.array(tiles))


class Summary(NamedTuple):
    """A few numbers of each network.

    `loss` is the last of training, over that of an output of zero; `error` the decoding error awake, in metres; norms
    are of activity after the last step; `leaps` the share of steps longer than 0.3 m in quiescence; `kl` is
    KL(quiescent || active) of decoded positions, in nats.
    """

    loss: Float[ndarray, " S"]
    error: Float[ndarray, " S"]
    norm_awake: Float[ndarray, " S"]
    norm_asleep: Float[ndarray, " S"]
    leaps: Float[ndarray, " S"]
    kl: Float[ndarray, " S"]


def summary(
    ensemble: Ensemble,
    n_trajectories: int,
    n_steps_awake: int,
    n_steps_asleep: int,
    generator: torch.Generator,
    rng: np.random.Generator,
) -> Summary:
    """Run an ensemble awake, and asleep with the paper's noise."""
    record = ("states", "decoded")
    awake = phases.active(ensemble, n_trajectories, n_steps_awake, generator, record=record)
    asleep = phases.sleep(ensemble, n_trajectories, n_steps_asleep, generator, record=record)
    norm_awake, norm_asleep = (of.states[:, :, -1].norm(dim=-1).mean(1).numpy() for of in (awake, asleep))
    quiescent, active = (densities.kernel(of.decoded.numpy()) for of in (asleep, awake))
    return Summary(
        loss=(must_be(Tensor, ensemble.history)[:, -1, 0] / ensemble.task.silence(awake.s)).numpy(),
        error=ensemble.task.error(awake.decoded, awake.s).mean((1, 2)).numpy(),
        norm_awake=norm_awake,
        norm_asleep=norm_asleep,
        leaps=(statistics.step_lengths(asleep.decoded.numpy()) > 0.3).mean((1, 2)),
        kl=densities.divergence(quiescent, active, rng),
    )
