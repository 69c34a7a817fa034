r"""How far do noise, and the flow without it, carry the state that a network represents?

Activity $r$ without input stands for a place $s(r)$ of the world, a position or a bearing. Noisy copies of a run
without noise spread about it, with a variance of their places that two predictions stand beside. A network that
computed Eq. (18) would project noise onto its manifold $m(s)$ at every step, and keep that share only,

$$ \operatorname{Var}(t) = v \sum_{j=1}^{t} \operatorname{tr} G_j^{-1}, \qquad G = m'^\top m', $$

$G_j$ at the place of step $j$ and $v = \sigma^2 dt$. A ReLU network without biases is homogeneous, $F(\lambda r) =
\lambda F(r)$: only the direction of activity, its ray, stands for a place, and activity that has faded to
$\lambda\,m(s)$ is turned by $1/\lambda$ as much. The other prediction is `linear_variance`: the linearised
steps carry what noise is across the manifold as well. Noise along it alone, carried in the same way, tells the two
apart.

Source: van Kampen (2007), chapter VIII, for the linear-noise approximation.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core import dynamics, manifolds, phases
from reactivation_core.manifolds import Manifold
from reactivation_core.networks import GRU
from reactivation_core.phases import Ensemble


def linear_variance(
    ensemble: Ensemble, path: Float[Tensor, "T n N"], gradient: Float[Tensor, "d n N"], v: float
) -> Float[Tensor, " n"]:
    """Variance, summed over `d` quantities, that noise of variance `v` per step and unit adds along a path without
    noise; the others as in `dynamics.carried`."""
    added = (v * L.square().sum((0, 2)) for L in dynamics.carried(ensemble, path, gradient))
    return sum(added, path.new_zeros(path.shape[1]))


@dataclass(frozen=True)
class Places:
    """Which places activity of one network stands for: that of its ray, or of the nearest point of the manifold.

    `waking` is the activity that the manifold was fitted to. Gated networks are not homogeneous, and are read by
    nearest points.
    """

    manifold: Manifold
    waking: Float[Tensor, "n N"]
    by_ray: bool = True

    def __call__(self, r: Float[Tensor, "*shape N"]) -> Float[Tensor, "*shape d"]:
        """The places of activity, in metres or radians."""
        read = self.manifold.ray if self.by_ray else self.manifold.place
        return read(r.flatten(0, -2)).unflatten(0, r.shape[:-1])

    def gradient(self, r: Float[Tensor, "n N"]) -> Float[Tensor, "d n N"]:
        """Of the place, per unit of activity."""
        return self.manifold.gradient(r) if self.by_ray else manifolds.dual(self.manifold.tangents(self(r)))

    def projected(self, r: Float[Tensor, "n N"], s: Float[Tensor, "n d"] | None = None) -> Float[Tensor, " n"]:
        r"""$\operatorname{tr} G^{-1}$: what projected noise of unit variance adds to that of places in a step;
        `s` is the places of activity, if at hand."""
        s = self(r) if s is None else s
        trace = manifolds.dual(self.manifold.tangents(s)).square().sum((0, 2))
        return trace * (self.manifold(s).norm(dim=-1) / r.norm(dim=-1)) ** 2 if self.by_ray else trace

    def draw(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Places of so many states of waking activity."""
        s = self(self.waking)
        return s[torch.randperm(len(s), generator=generator)[:n]]


def fit(ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator) -> list[Places]:
    """The places of every network, from every tenth step of waking activity."""
    awake = phases.active(ensemble, n_trajectories, n_steps, generator, record=("states",), every=10)
    by_ray = not isinstance(ensemble.network, GRU)
    return [Places(manifolds.fit(ensemble[i], r), r, by_ray) for i, r in enumerate(awake.states.flatten(1, 2))]


def read(places: list[Places], states: Float[Tensor, "S B T N"]) -> Float[ndarray, "S B T d"]:
    """The places of activity of every network."""
    return np.stack([of(r).numpy() for of, r in zip(places, states, strict=True)])


class Spread(NamedTuple):
    """What moves places along runs without noise, means over starts; each `(S, times)`.

    `measured` is the variance of noisy copies about the run without noise, in m² or rad²; `small_noise` that of the
    linearised steps, `small_noise_along` the part of it from noise along the manifold; `geometry` that of projected
    noise with activity at its waking norm, `geometry_faded` at its own; `flow` the mean square of how far the run
    itself moves; `kept` its norm over that at its start.
    """

    measured: Float[ndarray, "S times"]
    small_noise: Float[ndarray, "S times"]
    small_noise_along: Float[ndarray, "S times"]
    geometry: Float[ndarray, "S times"]
    geometry_faded: Float[ndarray, "S times"]
    flow: Float[ndarray, "S times"]
    kept: Float[ndarray, "S times"]


def spread(
    ensemble: Ensemble,
    places: list[Places],
    n_steps: int,
    every: int,
    n_starts: int,
    n_copies: int,
    generator: torch.Generator,
    c: float = 1.0,
) -> Spread:
    """What noise and flow do to places in `n_steps` of sleep, after as many.

    Args:
        places: of every network, from `fit`.
        every: steps from one time to the next.
        n_starts, n_copies: runs without noise, and noisy copies of each.
        c: multiplies the variance of the noise of training.
    """
    start = phases.sleep(ensemble, n_starts, n_steps, generator, c, ("states",), n_steps).states[:, :, 0]
    copies = start.repeat_interleave(n_copies, 1)
    noisy = phases.quiescent(ensemble, n_steps, math.sqrt(c), copies, generator, ("states",), every).states
    v = c * ensemble.experiment.sigma**2 * ensemble.experiment.dt
    rows = [_spread(ensemble[i], of, start[i], noisy[i], every, v) for i, of in enumerate(places)]
    return Spread(*np.array(rows).swapaxes(0, 1))


@torch.no_grad()
def _spread(
    ensemble: Ensemble,
    places: Places,
    start: Float[Tensor, "n N"],
    noisy: Float[Tensor, "m times N"],
    every: int,
    v: float,
) -> list[list[float]]:
    """A row of every field of `Spread`."""
    n_steps, difference = every * noisy.shape[1], places.manifold.difference
    path = dynamics.flow(ensemble, start, n_steps)
    s = places(path)
    faded = v * torch.stack([places.projected(r, x).mean() for r, x in zip(path, s, strict=True)])[1:].cumsum(0)
    # Step by step, as some bearings go around more than half a turn.
    moved = difference(s[1:], s[:-1]).cumsum(0)
    tangents = [places.manifold.tangents(x) for x in s]
    bases = torch.stack([manifolds.orthonormal(x) for x in tangents[1:]])
    rows = []
    for t, r in zip(range(every, n_steps + 1, every), noisy.unbind(1), strict=True):
        apart = difference(places(r).unflatten(0, (len(start), -1)), s[t][:, None])
        L = torch.stack(list(dynamics.carried(ensemble, path[: t + 1], places.gradient(path[t])))).flip(0)
        along = torch.einsum("tdni,tani->tdan", L, bases[:t])
        rows.append(
            (
                apart.square().sum(-1).mean(),
                v * L.square().sum((0, 1, 3)).mean(),
                v * along.square().sum((0, 1, 2)).mean(),
                t * v * manifolds.dual(tangents[t]).square().sum((0, 2)).mean(),
                faded[t - 1],
                moved[t - 1].square().sum(-1).mean(),
                (path[t].norm(dim=-1) / start.norm(dim=-1)).mean(),
            )
        )
    return np.transpose(rows).tolist()
