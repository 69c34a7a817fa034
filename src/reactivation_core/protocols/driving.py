r"""Does noise through the input keep the waking law? Networks driven by displacements that know nothing of place.

A network that integrates its input keeps whatever law of places it starts with, if the input moves places as the animal
moved: noise in the input alone, and recurrent noise as awake, $c = 1$. What drives it here is a *surrogate*, the
displacements of an animal that is somewhere else: in the open (a free walk), or in a box of its own (a walk that stays
within bounds). Added up from where a run begins, they are the null: what an exact integrator would do, which leaves the
box, and one that stops at the walls. What the network adds is how it differs from the latter. Bearings are driven by
the turns of another head, and have no walls.

Source: Krishna et al. (2024), Section 3, for the task.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core import phases, statistics
from reactivation_core.circular import wrap
from reactivation_core.phases import Ensemble
from reactivation_core.protocols import forgetting, spaces
from reactivation_core.streams import spawn
from reactivation_core.tasks import must_be
from reactivation_core.trajectories import Animal, Head, Recording

# Side of a box whose walls are as good as never met, m.
_OPEN = 200.0
# Longest gap of a recording that a run may cross, s; over it the path is taken as straight. No run is without one.
_GAP = 1.0
# Looks of the last 100 steps.
_LATE = 20

WALKS = ("none", "free", "bounded")


def surrogate(
    ensemble: Ensemble, walk: str, n_trajectories: int, n_steps: int, generator: torch.Generator
) -> Float[Tensor, "S B T d"]:
    """Changes of an animal that is somewhere else: in the open, in a box of its own, or at rest. A recorded one is at
    another time of its record; only one that moves by a law can be in the open.

    Raises:
        ValueError: for a walk that is none of `WALKS`, or another motion in the open.
    """
    if walk not in WALKS:
        raise ValueError(f"expected a walk among {', '.join(WALKS)}, got {walk!r}")
    motion = ensemble.task.motion
    if walk == "free":
        motion = Animal.model_validate(must_be(Animal, motion).model_dump() | {"box": _OPEN, "drift": 0.0})
    if isinstance(motion, Recording):
        motion = Recording.model_validate(motion.model_dump() | {"gap": _GAP})
    ds = motion(n_trajectories, n_steps, spawn(generator, ensemble.numbers)).ds
    return torch.zeros_like(ds) if walk == "none" else ds


class Driven(NamedTuple):
    """Every fifth step: decoded states, the start before them; those of an exact integration of the input from the
    same start, and of one that is `held` at the walls of the box; means over runs of the norm of activity and of its
    cosine with a bump. `late` is activity at the looks of the last 100 steps."""

    path: Float[ndarray, "S B T+1 d"]
    exact: Float[ndarray, "S B T+1 d"]
    held: Float[ndarray, "S B T+1 d"]
    norm: Float[ndarray, "S T"]
    cosine: Float[ndarray, "S T"]
    late: Float[ndarray, "S B L N"]


def drive(
    ensemble: Ensemble, start: Float[Tensor, "S B N"], walk: str, n_steps: int, c: float, generator: torch.Generator
) -> Driven:
    """Run the networks on a surrogate, with `c` times the variance of the noise of training."""
    ds = surrogate(ensemble, walk, start.shape[1], n_steps, generator)
    every = forgetting.EVERY
    phase = phases.driven(ensemble, ds, math.sqrt(c), start, generator, forgetting.RECORD, every)
    begin = forgetting.decode(ensemble, start)
    norm, cosine = forgetting.bump(ensemble, phase.states, phase.outputs, phase.decoded)
    motion, integrated = ensemble.task.motion, [begin[:, :, 0]]
    wall = math.inf if isinstance(motion, Head) else motion.box / 2
    for change in ds.numpy().transpose(2, 0, 1, 3):
        integrated.append(np.clip(integrated[-1] + change, -wall, wall))
    moved = ds.cumsum(2)[:, :, every - 1 :: every].numpy()
    exact, held = np.concatenate((begin, begin + moved), 2), np.stack(integrated[::every], 2)
    if isinstance(motion, Head):
        exact, held = (wrap(torch.from_numpy(x)).numpy() for x in (exact, held))
    return Driven(
        np.concatenate((begin, phase.decoded.numpy()), 2),
        exact,
        held,
        norm,
        cosine,
        phase.states[:, :, -_LATE:].numpy(),
    )


def told_apart(x: Float[ndarray, "B T N"], waking: Float[ndarray, "B T N"]) -> float:
    """`spaces.auc` of activity and waking activity, as many trajectories and states of each, in the first 30 principal
    components of both together."""
    states = [of.reshape(-1, of.shape[-1]) for of in (x, waking)]
    basis = statistics.principal_components(np.concatenate(states), min(30, x.shape[-1]))
    first, second = map(basis.transform, states)
    return spaces.auc(first, second, len(x))
