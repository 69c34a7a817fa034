r"""By which gate does noise reach the place that a gated network represents, and do gated networks rest?

Without input the step of Eq. (A.5) carries a small displacement $\delta r$ along by four routes. With
$\alpha = dt/\tau$ and the candidate $h = \tanh(W_r (g \odot r))$,

$$ \delta r' = (1 - \alpha(1 - z))\,\delta r + \alpha(1 - z)(1 - h^2)\,W_r (g\,\delta r)
   + \alpha(1 - z)(1 - h^2)\,W_r (r\,g(1 - g)\,W_g\,\delta r) + \alpha (r - h)\,z(1 - z)\,W_z\,\delta r , $$

leak, candidate, reset gate and update gate; products of activities are unit by unit. A gate that is *clamped* is
computed from other activity than the copy's own, and its route is closed to the copy's noise.

Functions take one network, an ensemble with `S = 1`.

Source: Krishna et al. (2024), Eqs. (A.3) to (A.5).
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core import dynamics, noise, phases
from reactivation_core.manifolds import Plane
from reactivation_core.networks import GRU, Network
from reactivation_core.phases import Ensemble
from reactivation_core.protocols.spreading import Places
from reactivation_core.tasks import must_be

Gates = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def gates(network: GRU, r: Float[Tensor, "1 B N"]) -> tuple[Tensor, Tensor]:
    """The update gate $z$ and the reset gate $g$ without input."""
    return gate(network, "z", r), gate(network, "g", r)


def gate(network: GRU, name: str, r: Float[Tensor, "1 B N"]) -> Float[Tensor, "1 B N"]:
    """One of the two, "z" or "g"."""
    return torch.sigmoid(r @ getattr(network, f"W_{name}").mT)


def hold(network: GRU, held: str, quiet: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """The gates of activity `r`, but those named in `held`, "z", "g" or both, which are of `quiet`, for each copy or
    for all copies of a run."""
    quiet = quiet.repeat_interleave(r.shape[1] // quiet.shape[1], 1)
    z, g = (gate(network, name, quiet if name in held else r) for name in "zg")
    return z, g


def level(network: GRU, r: Tensor) -> tuple[Tensor, Tensor]:
    """The gates of activity `r`, the update gate in all units its mean over units."""
    z, g = gates(network, r)
    return z.mean(-1, keepdim=True).expand_as(z), g


@torch.no_grad()
def copies(
    ensemble: Ensemble,
    path: Float[Tensor, "T n N"],
    n_copies: int,
    generator: torch.Generator,
    choose: Gates | None = None,
    c: float = 1.0,
) -> Float[Tensor, "T-1 n n_copies N"]:
    """Activity of noisy copies of runs without noise, from where those start.

    Args:
        path: of `dynamics.flow`.
        choose: makes a step's gates of the activity of copies, `(1, n n_copies, N)`, and of those runs, `(1, n, N)`;
            the network's own if left out.
        c: multiplies the variance of the noise of training.
    """
    network, experiment = ensemble.network, ensemble.experiment
    r, states = path[0].repeat_interleave(n_copies, 0)[None], []
    still, law = r.new_zeros(*r.shape[:2], ensemble.task.n_inputs), noise.LAWS[experiment.noise]
    for clean in path[:-1]:
        xi = math.sqrt(c) * experiment.sigma * law(torch.empty_like(r), experiment.dt, generator)
        if choose:
            r = must_be(GRU, network).step(r, still, xi, choose(r, clean[None]))
        else:
            r = network.step(r, still, xi)
        states.append(r[0].unflatten(0, (-1, n_copies)))
    return torch.stack(states)


def held_at_place(ensemble: Ensemble, places: Places, held: str) -> Gates:
    r"""Gates that know where a copy is, and nothing of its noise across the manifold: computed from the run without
    noise, moved along the manifold to the copy's place, $\bar r + m(s) - m(\bar s)$."""

    def choose(r, clean):
        m, n = places.manifold, r.shape[1] // clean.shape[1]
        off = (clean[0] - m(places(clean)[0])).repeat_interleave(n, 0)
        return hold(must_be(GRU, ensemble.network), held, (m(places(r)[0]) + off)[None], r)

    return choose


def variances(places: Places, noisy: Float[Tensor, "T n copies N"], times: range) -> Float[ndarray, " times"]:
    """Variance of the places of copies about their mean, at each of some times, in m²."""
    return np.array([float(places(noisy[t - 1]).var(1).sum(-1).mean()) for t in times])


HELD = {"update gate": "z", "reset gate": "g", "both": "zg"}


@torch.no_grad()
def follow(
    ensemble: Ensemble, places: Places, n_starts: int, n_copies: int, times: range, seed: int
) -> tuple[Float[Tensor, "T n N"], dict[str, Float[ndarray, " times"]]]:
    """Runs without noise from states of sleep, and the variance of places of their noisy copies, with the same noise
    however gates are clamped; beside it `geometry`, that of noise which is projected onto the manifold at each step."""
    network, n = ensemble.network, times[-1]
    generator = torch.Generator().manual_seed(seed)
    asleep = phases.sleep(ensemble, n_starts, n, generator, 1.0, ("states",), n)
    r = dynamics.flow(ensemble, asleep.states[0, :, -1], n)[-1]
    path = dynamics.flow(ensemble, r, n)

    def spread(path, choose=None):
        return variances(places, copies(ensemble, path, n_copies, generator.manual_seed(seed), choose), times)

    v = ensemble.experiment.sigma**2 * ensemble.experiment.dt
    geometry = v * torch.stack([places.projected(r).mean() for r in path[1:]]).cumsum(0)
    found = {"nothing": spread(path), "geometry": geometry[[t - 1 for t in times]].numpy()}
    if isinstance(network, GRU):
        for name, held in HELD.items():
            found[name] = spread(path, held_at_place(ensemble, places, held))
        found["reset gate, anchored"] = spread(path, lambda r, clean: hold(network, "g", clean, r))
        averaged, still = [r], r.new_zeros(1, len(r), ensemble.task.n_inputs)
        for _ in range(n):
            x = averaged[-1][None]
            averaged.append(network.step(x, still, 0.0, level(network, x))[0])
        found["update gate, averaged"] = spread(torch.stack(averaged), lambda r, clean: level(network, r))
    return path, found


@torch.no_grad()
def kept_by_leak(network: Network, states: Float[Tensor, "B T N"], weights: Float[Tensor, " N"]) -> float:
    """Mean square, along directions with these squared `weights`, of unit noise in units that only leak, at the gates
    of a run of one network; mean over steps and runs."""
    alpha, u, total = network.dt / network.tau, torch.ones_like(states[:, 0]), 0.0
    for t in range(states.shape[1]):
        if t:
            z = gates(network, states[None, :, t - 1])[0][0] if isinstance(network, GRU) else 0.0
            u = 1 + (1 - alpha * (1 - z)) ** 2 * u
        total = total + u.mean(0)
    return float(weights @ total) / states.shape[1]


class Rest(NamedTuple):
    """Where runs without noise end: from which places, at which; whether they rest there, their norm, over that of
    clean waking; and the largest modulus of an eigenvalue of the Jacobian, over three ends, at rest before others."""

    begin: Float[ndarray, "n 2"]
    end: Float[ndarray, "n 2"]
    at_rest: ndarray
    norm: Float[ndarray, " n"]
    modulus: float


@torch.no_grad()
def rest(ensemble: Ensemble, places: Places, n_starts: int, n_steps: int, generator: torch.Generator) -> Rest:
    """Runs without noise from points of the manifold, the last 500 steps in double precision. At rest is what is
    within $10^{-5}$ of its candidate, relative to its norm, and has a norm within a factor of two of clean waking."""
    network = copy.deepcopy(must_be(GRU, ensemble.network)).double()
    exact = replace(ensemble, network=network)
    begin = places.draw(n_starts, generator)
    r = places.manifold(begin)
    for k in range(0, n_steps, 100):
        one, r = (exact, r.double()) if k >= n_steps - 500 else (ensemble, r)
        r = dynamics.after(one, r, 100)
    z, _ = gates(network, r[None])
    apart = (dynamics.step(exact, r) - r) / (network.dt / network.tau * (1 - z[0]))
    still = (apart.norm(dim=-1) < 1e-5 * r.norm(dim=-1)).numpy()
    norm = (r.norm(dim=-1) / must_be(Plane, places.manifold).norm).numpy()
    A = dynamics.jacobian(exact, r[np.argsort(~still, kind="stable")[:3].copy()])
    modulus = float(torch.linalg.eigvals(A).abs().max())
    at_rest = still & (norm > 0.5) & (norm < 2)
    return Rest(begin.numpy(), places(r.float()).numpy(), at_rest, norm, modulus)
