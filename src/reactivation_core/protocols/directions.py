r"""Which directions of its noise move the place that a network represents?

An input $\Delta s$ enters a step of a rectified network by $B(r) = \partial F(r, \Delta s)/\partial \Delta s$, which is
$\alpha\,W_{in}$ in the rows of open units, $\alpha = dt/\tau$: as many directions of activity as the state has
coordinates. Noise $\xi$ in them cannot be told from an input, the *motion* $B^+ \xi$, $B^+ = (B^\top B)^{-1} B^\top$.

Let $L_j$ be the gradient of the place at the end by activity $j$ steps before, `dynamics.carried`. A network that adds
up its input with a gain $g$ has $L_j B = g I$, and of all such $L_j$ the shortest is $g B^+$. So small noise of
variance $v$ spreads places by

$$ \operatorname{Var} = v \sum_j \lVert L_j\rVert^2 \;\ge\; g^2\,v \sum_j \operatorname{tr}\,(B^\top B)^{-1}
   = g^2 \operatorname{Var} \sum_j B^+ \xi_j , $$

with equality if noise moves places by these directions alone. Noise that is kept out of them loses what $L_j B B^+$
carries, this least variance.

Source: the least norm by the theorem of Gauss and Markov; van Kampen (2007), chapter VIII, for the linear-noise
approximation.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core import dynamics, manifolds, noise, phases
from reactivation_core.networks import RNN
from reactivation_core.phases import Ensemble
from reactivation_core.protocols.spreading import Places
from reactivation_core.streams import spawn, stream
from reactivation_core.tasks import must_be

# Which noise is let in: all; all but in the directions of the input, or those alone; all but in as many random
# directions, or in random ones among the units by which the input enters.
KEPT = ("all", "without input", "input alone", "without random", "without random open")
# Multiplies the variance of the noise of training.
C = 2.0


@torch.no_grad()
def inputs(ensemble: Ensemble, r: Float[Tensor, "n N"]) -> Float[Tensor, "d n N"]:
    r"""The columns of $B$ at each state of one network, activity per unit of the input.

    Raises:
        ValueError: for a network that is not rectified.
    """
    network = must_be(RNN, ensemble.network)
    opened = r @ network.W_rec[0].mT > 0
    return network.W_in[0].mT[:, None] * opened * (network.dt / network.tau)


def filtered(
    kept: str, B: Float[Tensor, "d n N"], xi: Float[Tensor, "n N"], generator: torch.Generator
) -> Float[Tensor, "n N"]:
    """The part of noise that one of `KEPT` lets in."""
    if kept == "all":
        return xi
    random = kept.startswith("without random")
    axes = torch.randn(B.shape, generator=generator, dtype=B.dtype) if random else B
    if kept == "without random open":
        axes = axes * (B != 0)
    inside = torch.einsum("dni,nd->ni", axes, torch.einsum("dni,ni->nd", manifolds.dual(axes), xi))
    return inside if kept == "input alone" else xi - inside


class Moved(NamedTuple):
    """What noise does to places along runs asleep, for each of the noises `kept`.

    `variance` is that of places about their mean over copies, in m² or rad²; `motion` that of the motion that all noise
    amounts to. `slope` is that of places on this motion at the end, about their means over
    copies, and `explained` its share of their variance, both of all noise. `flow` is the mean square of how far runs
    without noise move. `place` and `summed` are what slope and share are of: places and motion at the end.
    """

    variance: Float[ndarray, "S kept times"]
    motion: Float[ndarray, "S times"]
    slope: Float[ndarray, " S"]
    explained: Float[ndarray, " S"]
    flow: Float[ndarray, "S times"]
    place: Float[ndarray, "S n copies d"]
    summed: Float[ndarray, "S n copies d"]


def moved(
    ensemble: Ensemble,
    places: list[Places],
    n_steps: int,
    every: int,
    n_starts: int,
    n_copies: int,
    generator: torch.Generator,
    kept: tuple[str, ...],
) -> Moved:
    """Noisy copies of runs asleep, after `n_steps` of sleep, each time with the same noise but for what is kept out.

    Args:
        places: of every network, from `spreading.fit`.
        every: steps from one time to the next.
        n_starts, n_copies: states asleep, and noisy copies of each.
        kept: of `KEPT`, "all" first.

    Raises:
        ValueError: for other noises, or "all" not first.
    """
    if not set(kept) <= set(KEPT) or kept[0] != KEPT[0]:
        raise ValueError(f"expected noises among {', '.join(KEPT)}, the first 'all', got {kept}")
    start = phases.sleep(ensemble, n_starts, n_steps, generator, C, ("states",), n_steps).states[:, :, 0]
    seeds = [int(torch.randint(2**31, (), generator=one)) for one in spawn(generator, ensemble.numbers)]
    rows = [
        _moved(ensemble[i], of, start[i], n_steps, every, n_copies, seed, kept)
        for i, (of, seed) in enumerate(zip(places, seeds, strict=True))
    ]
    return Moved(*map(np.array, zip(*rows, strict=True)))


def _moved(ensemble, of, start, n_steps, every, n_copies, seed, kept) -> tuple:
    first, *others = (_copies(ensemble, of, start, n_steps, every, n_copies, seed, one) for one in kept)
    variances = [x.var(2).sum(-1).mean(1).numpy() for x, _ in (first, *others)]
    x, motion = (path - path.mean(2, keepdim=True) for path in first)
    product, size = (x[-1] * motion[-1]).mean(), motion[-1].square().mean()
    flow = dynamics.flow(ensemble, start, n_steps, _mean(ensemble))[::every]
    apart = _unwrapped(of, flow[:, :, None])[:, :, 0]
    return (
        np.array(variances),
        first[1].var(2).sum(-1).mean(1).numpy(),
        float(product / size),
        float(product**2 / size / x[-1].square().mean()),
        apart.square().sum(-1).mean(1).numpy(),
        x[-1].numpy(),
        motion[-1].numpy(),
    )


def _mean(ensemble: Ensemble) -> float:
    """Of the noise asleep on a unit in a step."""
    experiment = ensemble.experiment
    return noise.mean(experiment.noise, experiment.dt) * experiment.sigma * C**0.5


@torch.no_grad()
def _copies(
    ensemble: Ensemble,
    of: Places,
    start: Tensor,
    n_steps: int,
    every: int,
    n_copies: int,
    seed: int,
    kept: str,
) -> tuple[Float[Tensor, "times n copies d"], Float[Tensor, "times n copies d"]]:
    """How far places are from their start, and the motion that the noise amounts to, summed, where all is let in."""
    experiment, law = ensemble.experiment, noise.LAWS[ensemble.experiment.noise]
    noises, axes = stream(seed, 0), stream(seed, 1)
    r = start.repeat_interleave(n_copies, 0)
    mean, states, motions = _mean(ensemble), [r], []
    motion = r.new_zeros(len(r), ensemble.task.n_inputs)
    for t in range(1, n_steps + 1):
        # What a noise has of a mean is left as it is.
        xi = C**0.5 * experiment.sigma * law(torch.empty_like(r), experiment.dt, noises) - mean
        B = inputs(ensemble, r)
        if kept == "all":
            motion = motion + torch.einsum("dni,ni->nd", manifolds.dual(B), xi)
        r = dynamics.step(ensemble, r) + filtered(kept, B, xi, axes) + mean
        if t % every == 0:
            states.append(r)
            motions.append(motion)
    motion = torch.stack(motions).unflatten(1, (-1, n_copies))
    return _unwrapped(of, torch.stack(states).unflatten(1, (-1, n_copies))), motion


def _unwrapped(of: Places, states: Float[Tensor, "times n copies N"]) -> Float[Tensor, "later n copies d"]:
    """How far places are from those at first; bearings added up from time to time."""
    s = of(states)
    return of.manifold.difference(s[1:], s[:-1]).cumsum(0)


class Linear(NamedTuple):
    r"""The same by the linearised steps, along runs without noise, `(S,)` each: the `variance` at the end; the shares
    of it from noise in the directions of the `input`, from what the tangents of the manifold have beside these
    (`along`), and from all else (`across`); and `gain`, by how much an input moves the place at the end over what it
    says, the mean of $\operatorname{tr}(L_j B)/d$ over all but the last ten steps."""

    variance: Float[ndarray, " S"]
    input: Float[ndarray, " S"]
    along: Float[ndarray, " S"]
    across: Float[ndarray, " S"]
    gain: Float[ndarray, " S"]


@torch.no_grad()
def linear(ensemble: Ensemble, places: list[Places], n_steps: int, n_starts: int, generator: torch.Generator) -> Linear:
    """Where the variance of `moved` comes from, for small noise; arguments as there."""
    start = phases.sleep(ensemble, n_starts, n_steps, generator, C, ("states",), n_steps).states[:, :, 0]
    v = C * ensemble.experiment.sigma**2 * ensemble.experiment.dt
    rows = []
    for i, of in enumerate(places):
        path, parts, gains = dynamics.flow(ensemble[i], start[i], n_steps, _mean(ensemble)), [], []
        gradient = of.gradient(path[-1])
        for L, before, after in zip(
            dynamics.carried(ensemble[i], path, gradient), path[:-1].flip(0), path[1:].flip(0), strict=True
        ):
            B = inputs(ensemble[i], before)
            both = manifolds.orthonormal(torch.cat((B, of.manifold.tangents(of(after)))))
            entered = torch.einsum("ani,bni->nab", L, both).square().sum(1).mean(0)
            parts.append((float(L.square().sum((0, 2)).mean()), *(float(x.sum()) for x in entered.split(len(B)))))
            gains.append(float(torch.einsum("dni,dni->n", L, B).mean()) / len(B))
        whole, by_input, along = np.sum(parts, 0)
        rows.append((v * whole, by_input / whole, along / whole, 1 - (by_input + along) / whole, np.mean(gains[10:])))
    return Linear(*np.transpose(rows))
