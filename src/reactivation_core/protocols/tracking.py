r"""What each term of Eq. (18) does for a network that tracks its state.

Without $\Delta r_1$ nothing is ever cleaned: the squared distance of activity from the clean activity of the true
state grows by $N v$ per step, and by what the tangent steps $m'(s)\,\Delta s$ fall short of $m(s(T)) - m(s(0))$. With
it only the noise along the manifold stays, $v$ per step and dimension, and one step's noise across.

Source: Krishna et al. (2024), Eqs. (16) to (18).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from reactivation_core import theory
from reactivation_core.phases import Ensemble
from reactivation_core.tasks import must_be


class Distances(NamedTuple):
    """Squared distance of activity from the clean activity of the true state after each step, with the whole update and
    without the denoiser, and of what tangent steps alone reach from it."""

    with_denoiser: Float[Tensor, "B T"]
    without: Float[Tensor, "B T"]
    shortfall: Float[Tensor, "B T"]


@torch.no_grad()
def distances(ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator) -> Distances:
    """Run an ideal network on a ring on the same changes with and without its denoiser."""
    network, tuning = must_be(theory.IdealNetwork, ensemble.network), ensemble.task.cells.tuning
    v = network.density.v
    walk = ensemble.task.sample(n_trajectories, n_steps, generator)
    target = network.encode(tuning(walk.s))[0]
    found = []
    for denoises in (True, False):
        r, path = target[:, 0], []
        for t in range(n_steps):
            noise = math.sqrt(v) * torch.randn(r.shape, generator=generator, dtype=r.dtype)
            dr1 = 0 if denoises else theory.drift(network.density, r, v)
            r = network.step(r, walk.ds[0, :, t], noise) - dr1
            path.append((r - target[:, t + 1]).square().sum(-1))
        found.append(torch.stack(path, 1))
    tangents = network.encode(torch.func.jvp(tuning, (walk.s[:, :, :-1],), (walk.ds,))[1])[0]
    shortfall = (target[:, 1:] - target[:, :1] - tangents.cumsum(1)).square().sum(-1)
    return Distances(*found, shortfall=shortfall)
