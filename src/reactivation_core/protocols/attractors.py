r"""What is slow in a network without input, and where does its flow end?

The step $F$ of a ReLU network without biases is linear between where units open or close, $F(r) = A(r)\,r$
with its Jacobian $A$, and takes rays to rays. Directions in which hardly anything happens are eigenvectors of $A$ whose
eigenvalue is near 1. If the manifold of a network were a continuous attractor, a flow along it would not lead to a few
of its places; and if a constant $b$ on every unit, as the mean of a noise, gives activity a height of its own,
$F(r) + b$ has fixed points there.

Source: Sussillo and Barak (2013).
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor

from reactivation_core import dynamics
from reactivation_core.manifolds import Plane
from reactivation_core.phases import Ensemble
from reactivation_core.protocols.spreading import Places


class Slow(NamedTuple):
    """`count` is the mean number of slow directions, `(S,)`; `moduli` the largest 20 of eigenvalues, `(S, 20)`; means
    over states."""

    count: Float[ndarray, " S"]
    moduli: Float[ndarray, "S 20"]


def slow(ensemble: Ensemble, states: list[Float[Tensor, "n N"]], n_steps: float = 50) -> Slow:
    """Directions whose time constant is above `n_steps`, at some states of each network."""
    moduli = [dynamics.moduli(dynamics.jacobian(ensemble[i], r)) for i, r in enumerate(states)]
    counts = [float(dynamics.slow_directions(x, n_steps).float().mean()) for x in moduli]
    return Slow(np.array(counts), np.array([x.mean(0)[:20].numpy() for x in moduli]))


class Ends(NamedTuple):
    """Where the flow from places leads: `start` and `end`, `(S, n, d)`, bearings by the shorter arc from the start;
    `number` of different ends; `distance` from start to end, root mean square; share `at_rest`, that move less than
    0.01 m or rad in another 100 steps; the last three `(S,)`."""

    start: Float[ndarray, "S n d"]
    end: Float[ndarray, "S n d"]
    number: Float[ndarray, " S"]
    distance: Float[ndarray, " S"]
    at_rest: Float[ndarray, " S"]


def ends(ensemble: Ensemble, places: list[Places], starts: list[Float[Tensor, "n d"]], n_steps: int) -> Ends:
    """Follow the step without noise from places of the manifold; only rays matter, so activity may fade or grow."""
    rows = []
    for i, (of, s) in enumerate(zip(places, starts, strict=True)):
        network, difference = ensemble[i], of.manifold.difference
        r = dynamics.after(network, of.manifold(s), n_steps)
        end = _decoded(network, of, r)
        moved = difference(end, s)
        later = difference(_decoded(network, of, dynamics.after(network, r, 100)), end)
        distance = moved.square().sum(-1).mean().sqrt()
        rest = (later.norm(dim=-1) < 0.01).double().mean()
        rows.append((s.numpy(), (s + moved).numpy(), distinct(of, end), float(distance), float(rest)))
    return Ends(*map(np.array, zip(*rows, strict=True)))


class Rest(NamedTuple):
    """Fixed points of a step with a constant on every unit, `(S,)`: the `share` of starts that reach one where the norm
    of activity is within a factor of two of waking; the median `norm` over that awake; the `number` of different
    places; the largest `modulus` of an eigenvalue of the Jacobian at some of them, below 1 if they are stable."""

    share: Float[ndarray, " S"]
    norm: Float[ndarray, " S"]
    number: Float[ndarray, " S"]
    modulus: Float[ndarray, " S"]


def rest(
    ensemble: Ensemble, places: list[Places], starts: list[Float[Tensor, "n d"]], bias: float, n_steps: int
) -> Rest:
    """Follow the step without noise but with a constant, from places of the manifold."""
    rows = []
    for i, (of, s) in enumerate(zip(places, starts, strict=True)):
        network = ensemble[i]
        r = dynamics.after(network, of.manifold(s), n_steps, bias)
        change = (dynamics.step(network, r, bias) - r).norm(dim=-1) / r.norm(dim=-1)
        norm = r.norm(dim=-1) / of.waking.norm(dim=-1).mean()
        share = (change < 1e-6) & (norm > 0.5) & (norm < 2)
        modulus = dynamics.moduli(dynamics.jacobian(network, r[:3])).max()
        number = distinct(of, _decoded(network, of, r))
        rows.append((float(share.double().mean()), float(norm.median()), number, float(modulus)))
    return Rest(*np.transpose(rows))


def distinct(places: Places, s: Float[Tensor, "n d"]) -> int:
    """Number of places, those that a chain of steps of at most 0.1 m or rad joins counted once."""
    x = s if isinstance(places.manifold, Plane) else torch.cat((s.cos(), s.sin()), -1)
    return int(fcluster(linkage(x.numpy(), "single"), 0.1, "distance").max())


def _decoded(ensemble: Ensemble, places: Places, r: Float[Tensor, "n N"]) -> Float[Tensor, "n d"]:
    if isinstance(places.manifold, Plane):
        return ensemble.task.cells.decode(ensemble.network.readout(r[None]))[0]
    return places(r)
