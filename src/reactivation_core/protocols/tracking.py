r"""What each term of Eq. (18) does for a network that tracks its state.

Without $\Delta r_1$ nothing is ever cleaned: the squared distance of activity from the clean activity of the true
state grows by $N v$ per step, and by what the tangent steps $m'(s)\,\Delta s$ fall short of $m(s(T)) - m(s(0))$. With
it only the noise along the manifold stays, $v$ per step and dimension, and one step's noise across.

Tangent steps are the first order of an update that goes to the mean of the next clean activity, $E[D^\dagger
f(s + \Delta s) \mid r, \Delta s]$, `theory.OptimalNetwork`. The two are compared on a circle; in the box, where walls
make $\Delta s$ depend on $s$, `Walls` says how.

Source: Krishna et al. (2024), Eqs. (16) to (18).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reactivation_core import circular, theory
from reactivation_core.phases import Ensemble
from reactivation_core.streams import spawn
from reactivation_core.tasks import must_be
from reactivation_core.trajectories import Animal


def turn_variance(network: theory.IdealNetwork, turning: float) -> float:
    r"""Variance that a normal turn $\Delta s$ of s.d. `turning` adds to the bearing of an ideal network on a ring: its
    tangent leaves the ring, and the next step takes activity back to the nearest point, to the turn $x$ with

    $$ \Delta s = -\frac{m'(x) \cdot m(0)}{m'(x) \cdot m'(0)}, $$

    short of the mark. It is $E(\Delta s - x)^2$, of the order of $\Delta s^6$.
    """
    m, slope, half = network.density.points, network.tangents[0], len(network.s) // 2
    turn = -(slope @ m[half]) / (slope @ slope[half])
    # Up to the greatest turn that is still taken back to a nearest point, on both sides of the start.
    reach = int(torch.nonzero(turn[half:].diff() <= 0)[0])
    taken = slice(half - reach, half + reach + 1)
    ds = torch.linspace(-5, 5, 2001, dtype=torch.float64) * turning
    x = np.interp(ds.numpy(), turn[taken].numpy(), network.s[taken, 0].double().numpy())
    weights = (-(ds / turning).square() / 2).softmax(0)
    return float(weights @ (ds - torch.from_numpy(x)).square())


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


def turned(m: Float[Tensor, "*shape 2"], angle: Float[Tensor, "*shape"], tangent: bool) -> Float[Tensor, "*shape 2"]:
    """Points of the plane turned about 0 by an angle, or moved as far along the tangent."""
    across = torch.stack((-m[..., 1], m[..., 0]), -1)
    if tangent:
        return m + angle[..., None] * across
    return angle.cos()[..., None] * m + angle.sin()[..., None] * across


def circle_error(
    ring: theory.Circle, turns: Float[Tensor, "B T"], tangent: bool, generator: torch.Generator
) -> Float[Tensor, "B T"]:
    r"""Squared error of the bearing of activity after each step on a circle, in rad², from a clean start.

    The one-step optimum turns the denoised state, $r + g^* = R(\Delta s)\,E[m \mid r]$; Eq. (18) moves it along the
    tangent.
    """
    r, s, found = ring.radius * torch.eye(2, dtype=torch.float64)[:1].expand(len(turns), 2), 0.0, []
    for turn in turns.double().unbind(1):
        m, s = r + theory.drift(ring, r, ring.v), s + turn
        noise = math.sqrt(ring.v) * torch.randn(m.shape, generator=generator, dtype=m.dtype)
        r = turned(m, turn, tangent) + noise
        found.append(circular.wrap(torch.atan2(r[:, 1], r[:, 0]) - s).square())
    return torch.stack(found, 1)


class Walls:
    r"""What a displacement tells of the place in the box: $p(\Delta s \mid s_j)$ as the product over the two axes of
    $p(\Delta x \mid x)$, counted in paths of the animal.

    Args:
        motion: the animal.
        side: points on a side of the grid over the box, those of `phases.ideal`.
        n_trajectories: paths of 100 steps.
        generator: draws them.
    """

    # Classes of displacements along an axis, and the largest, in metres.
    N_CLASSES, REACH = 41, 0.08

    def __init__(self, motion: Animal, side: int, n_trajectories: int, generator: torch.Generator):
        self.side, self.box = side, motion.box
        walk = motion(n_trajectories, 100, spawn(generator, range(1)))
        x, dx = walk.s[:, :, :-1].flatten(), walk.ds.flatten()
        # In a mirror the box is the same.
        x, dx = torch.cat((x, -x)), torch.cat((dx, -dx))
        place = ((x / self.box + 0.5) * (side - 1)).round().long().clamp(0, side - 1)
        index = place * self.N_CLASSES + self._class(dx)
        # One count more in each class, so that nothing is impossible.
        counts = 1 + torch.bincount(index, minlength=side * self.N_CLASSES).reshape(side, -1).double()
        self.share = (counts / counts.sum(1, keepdim=True)).T

    def _class(self, dx: Tensor) -> Tensor:
        return ((dx / self.REACH + 1) / 2 * (self.N_CLASSES - 1)).round().long().clamp(0, self.N_CLASSES - 1)

    def __call__(self, ds: Float[Tensor, "*shape 2"]) -> Float[Tensor, "*shape J"]:
        x, y = self.share[self._class(ds)].unbind(-2)
        return (x[..., :, None] * y[..., None, :]).flatten(-2)
