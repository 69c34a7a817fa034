r"""What does a network do awake and asleep? Questions for any ensemble, each measure beside its null.

`QUESTIONS` maps their names to functions `(Ensemble, torch.Generator)`. Sleep is that of Eq. (19), with the multiplier
of the noise's variance that the settings have. States are positions in metres or bearings in radians.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from reactivation_core import densities, phases
from reactivation_core.phases import Ensemble, Phase
from reactivation_core.protocols import forgetting

N_TRAJECTORIES = 200

# Steps in which the pace is measured.
LAG = 10


class Measure(NamedTuple):
    """A value of each network, its null, and what that is of."""

    values: Float[ndarray, " S"]
    null: Float[ndarray, " S"]
    of: str
    unit: str = ""


def _asleep(ensemble: Ensemble, generator: torch.Generator, c: float | None = None) -> Phase:
    experiment = ensemble.experiment
    c = experiment.quiescent_noise**2 if c is None else c
    return phases.sleep(ensemble, N_TRAJECTORIES, experiment.n_quiescent_steps, generator, c)


def _unit(ensemble: Ensemble) -> str:
    return "m" if ensemble.task.n_inputs == 2 else "rad"


def tracking(ensemble: Ensemble, generator: torch.Generator) -> dict[str, Measure]:
    """How far the state that is reported awake is from the true one, beside who reports the start for ever."""
    awake = phases.active(ensemble, N_TRAJECTORIES, ensemble.experiment.n_steps, generator)
    error = ensemble.task.error(awake.decoded, awake.s).mean((1, 2)).numpy()
    still = ensemble.task.staying(awake.s).mean((1, 2)).numpy()
    return {"decoding error": Measure(error, still, "the start, for ever", _unit(ensemble))}


def reactivation(ensemble: Ensemble, generator: torch.Generator) -> dict[str, Measure]:
    r"""$\mathrm{KL}(\text{asleep} \,\Vert\, \text{awake})$ of decoded states in nats, beside runs that stand still
    where sleep begins: the starts of waking have its law already."""
    rng = np.random.default_rng(generator.initial_seed())
    awake = phases.active(ensemble, N_TRAJECTORIES, ensemble.experiment.n_steps, generator).decoded.numpy()
    asleep = _asleep(ensemble, generator).decoded.numpy()
    waking = densities.estimate(awake)
    found, null = (
        densities.divergence(densities.estimate(x), waking, rng) for x in (asleep, forgetting.frozen(asleep, 1))
    )
    return {"divergence from waking": Measure(found, null, "standing still", "nats")}


def memory(ensemble: Ensemble, generator: torch.Generator) -> dict[str, Measure]:
    """What two runs of sleep from one start have in common at their end, 1 if nothing is forgotten, beside two runs
    from different starts."""
    start = phases.starts(ensemble, N_TRAJECTORIES, generator)
    n_steps, scale = ensemble.experiment.n_quiescent_steps, ensemble.experiment.quiescent_noise
    path, again = (
        phases.quiescent(ensemble, n_steps, scale, start, generator, every=n_steps).decoded.numpy() for _ in range(2)
    )
    same, other = (forgetting.memory(path, x)[:, -1] for x in (again, np.roll(again, 1, axis=1)))
    return {"memory of the start": Measure(same, other, "another start")}


def pace(ensemble: Ensemble, generator: torch.Generator) -> dict[str, Measure]:
    """Root mean square of how far the reported state moves in ten steps, awake and asleep, beside sleep without
    noise."""
    awake = phases.active(ensemble, N_TRAJECTORIES, ensemble.experiment.n_steps, generator)
    moved = {}
    for name, phase in (
        ("awake", awake), ("asleep", _asleep(ensemble, generator)), ("null", _asleep(ensemble, generator, 0.0))
    ):  # fmt: skip
        x = phase.decoded
        if x.shape[2] <= LAG:
            raise ValueError(f"expected phases of more than {LAG} steps, got {x.shape[2]}")
        moved[name] = ensemble.task.error(x[:, :, LAG:], x[:, :, :-LAG]).square().mean((1, 2)).sqrt().numpy()
    null = moved.pop("null")
    return {f"pace {name}": Measure(x, null, "sleep without noise", _unit(ensemble)) for name, x in moved.items()}


QUESTIONS: dict[str, Callable[[Ensemble, torch.Generator], dict[str, Measure]]] = {
    "tracking": tracking,
    "reactivation": reactivation,
    "memory": memory,
    "pace": pace,
}
