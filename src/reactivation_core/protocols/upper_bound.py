r"""What does each line of Section 2.2 cost a trained network, and is the last one a bound of its loss?

The chain of Eqs. (4) to (14), `bounds`, is evaluated where a network comes to be when it is awake. Of the ways
to split its update, Eq. (4), the one by input is taken, both parts without noise:

$$ \Delta r_1(r) = \mathrm{step}(r, 0) - r, \qquad
   \Delta r_2(r, \Delta s) = \mathrm{step}(r, \Delta s) - \mathrm{step}(r, 0). $$

Activity is the networks' own, in their precision; all that is made of it is in double precision.

Source: Krishna et al. (2024), Section 2.2.
"""

import copy
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from reactivation_core import circular, phases
from reactivation_core.phases import Ensemble
from reactivation_core.streams import spawn
from reactivation_core.tasks import HeadDirectionTask


class Bounds(NamedTuple):
    r"""The loss after a step and the expressions that Section 2.2 puts in its place; each `(n,)`, one per situation.

    `error` is the error made so far, $\lVert f(s) - D r\rVert$, and `remainder` that of Taylor's expansion, $\lVert
    f(s + \Delta s) - f(s) - f'\Delta s\rVert$.
    """

    loss: Tensor
    taylor: Tensor
    L2: Tensor
    solved: Tensor
    L3: Tensor
    upper: Tensor
    error: Tensor
    remainder: Tensor

    @property
    def whole(self) -> Tensor:
        """The last expression with what the two approximations left out: an upper bound of the loss."""
        return self.upper + self.error + self.remainder


def bounds(
    D: Float[Tensor, "N_o N_r"],
    f: Float[Tensor, "n N_o"],
    f_next: Float[Tensor, "n N_o"],
    change: Float[Tensor, "n N_o"],
    r: Float[Tensor, "n N_r"],
    dr1: Float[Tensor, "n N_r"],
    dr2: Float[Tensor, "n N_r"],
    noise: Float[Tensor, "K n N_r"],
) -> Bounds:
    r"""Eqs. (4) to (14), the mean over noise taken over `K` draws.

    Args:
        f, f_next: $f(s)$ and $f(s + \Delta s)$.
        change: $f'(s)\,\Delta s$.
        dr1, dr2: $\Delta r_1$ and $\Delta r_2$.
        noise: draws of $\sigma\,\eta$.
    """

    def norm(x):
        return x.norm(dim=-1)

    rest = dr1 + noise
    signal, operator = norm(change - dr2 @ D.mT), torch.linalg.matrix_norm(D, 2)
    return Bounds(
        loss=norm(f_next - (r + dr2 + rest) @ D.mT).mean(0),
        taylor=norm(change - dr2 @ D.mT + f - (r + rest) @ D.mT).mean(0),
        L2=signal + norm(f - (r + rest) @ D.mT).mean(0),
        solved=signal + norm(rest @ D.mT).mean(0),
        L3=signal + operator * norm(rest).mean(0),
        upper=signal + operator * rest.square().sum(-1).mean(0).sqrt(),
        error=norm(f - r @ D.mT),
        remainder=norm(f_next - f - change),
    )


class Situations(NamedTuple):
    r"""What the chain is about, at `K` times of `B` waking trajectories.

    `f`, `f_next` and `change` are $f(s)$, $f(s + \Delta s)$ and $f'\Delta s$; `dr1` and `dr2` the parts of the update.
    """

    f: Float[Tensor, "S B K N_o"]
    f_next: Float[Tensor, "S B K N_o"]
    change: Float[Tensor, "S B K N_o"]
    r: Float[Tensor, "S B K N_r"]
    dr1: Float[Tensor, "S B K N_r"]
    dr2: Float[Tensor, "S B K N_r"]


def situations(
    ensemble: Ensemble, n_trajectories: int, n_steps: int, times: list[int], generator: torch.Generator
) -> Situations:
    """Run the networks awake, and look at the step that follows each of `times`, the last of them before `n_steps`."""
    awake = phases.active(ensemble, n_trajectories, n_steps, generator, record=("states",))
    r, s = awake.states[:, :, times], awake.s[:, :, times].double()
    ds = awake.s[:, :, [t + 1 for t in times]].double() - s
    if isinstance(ensemble.task, HeadDirectionTask):
        ds = circular.wrap(ds)
    cells = copy.deepcopy(ensemble.task.cells).double()
    f, change = torch.func.jvp(cells.tuning, (s,), (ds,))[:2]
    still, moved = advance(ensemble, r), advance(ensemble, r, ds)
    return Situations(f, cells.tuning(s + ds), change, *(x.double() for x in (r, still - r, moved - still)))


@torch.no_grad()
def advance(
    ensemble: Ensemble, r: Float[Tensor, "S B K N_r"], ds: Float[Tensor, "S B K d"] | None = None
) -> Float[Tensor, "S B K N_r"]:
    """Activity after one step without noise, and without input where none is given; in the network's precision."""
    r = r.to(ensemble.network.D.dtype)
    ds = r.new_zeros(*r.shape[:3], ensemble.task.n_inputs) if ds is None else ds.to(r.dtype)
    return ensemble.network.step(r.flatten(1, 2), ds.flatten(1, 2), 0.0).unflatten(1, r.shape[1:3])


def chain(ensemble: Ensemble, at: Situations, n_noise: int, generator: torch.Generator) -> Bounds:
    """The expressions of the chain, each `(S, B, K)`, with `n_noise` draws of a step's noise for the means over it."""
    sd = ensemble.experiment.sigma * math.sqrt(ensemble.experiment.dt)
    networks = []
    streams = spawn(generator, ensemble.numbers)
    for stream, D, *parts in zip(streams, ensemble.network.D.detach().double(), *at, strict=True):
        # A time after another, as the draws for all times at once would fill the memory.
        found = []
        for now in zip(*(part.unbind(1) for part in parts), strict=True):
            noise = torch.randn(n_noise, *now[3].shape, generator=stream, dtype=D.dtype)
            found.append(bounds(D, *now, noise=sd * noise))
        networks.append([torch.stack(expression, -1) for expression in zip(*found, strict=True)])
    return Bounds(*(torch.stack(expression) for expression in zip(*networks, strict=True)))


def readout(ensemble: Ensemble, x: Float[Tensor, "S B K N_r"]) -> Float[Tensor, "S B K N_o"]:
    """What the readout makes of activity or of its changes, in double precision."""
    return x.double() @ ensemble.network.D.detach().double()[:, None].mT


def response(ensemble: Ensemble, at: Situations, n_steps: int) -> Float[Tensor, "S T"]:
    r"""How the output follows a single input: the difference that $\Delta s$ makes to it after 1, 2, … steps, no other
    input coming after, regressed on $f'\Delta s$. 1 is an output that has followed."""
    none = at.r + at.dr1
    given = none + at.dr2
    slopes = []
    for _ in range(n_steps):
        difference = readout(ensemble, given.double() - none)
        slopes.append((difference * at.change).sum((1, 2, 3)) / at.change.square().sum((1, 2, 3)))
        given, none = advance(ensemble, given), advance(ensemble, none)
    return torch.stack(slopes, 1)


class Moved(NamedTuple):
    r"""The fraction of $\Delta r_1$ moved into $\Delta r_2$, and what is left of the two terms of Eq. (14), `(S,)`."""

    fraction: Float[Tensor, " S"]
    signal_left: Float[Tensor, " S"]
    noise_left: Float[Tensor, " S"]


def best_split(ensemble: Ensemble, at: Situations) -> Moved:
    r"""Another split: the fraction of $\Delta r_1$ that, moved into $\Delta r_2$, lowers the mean square of the signal
    term most."""
    late, missed = readout(ensemble, at.dr1), at.change - readout(ensemble, at.dr2)
    fraction = (late * missed).sum((1, 2, 3)) / late.square().sum((1, 2, 3))
    moved = fraction[:, None, None, None]
    variance = ensemble.experiment.sigma**2 * ensemble.experiment.dt * at.r.shape[-1]

    def noise_term(dr1):
        return (dr1.square().sum(-1) + variance).sqrt().mean((1, 2))

    signal_left = (missed - moved * late).norm(dim=-1).mean((1, 2)) / missed.norm(dim=-1).mean((1, 2))
    return Moved(fraction, signal_left, noise_term((1 - moved) * at.dr1) / noise_term(at.dr1))
