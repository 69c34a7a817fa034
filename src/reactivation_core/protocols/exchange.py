r"""May input and noise change places? The condition under which sleep keeps the law of waking.

A waking step is $r' = F(r, \Delta s) + \zeta$, a step of sleep $r' = F(r, 0) + \sqrt c\,\zeta$, with $\zeta$ the noise
of a step, of variance $v$ in each unit. For normal noise both carry the law of $r$ to one law *if and only if*

$$ \operatorname{Law} F(r, \Delta s) = \operatorname{Law} F(r, 0) * N\!\left(0, (c - 1)\,v\,I\right). $$

Whatever the law of the noise, if its variance is finite the covariances must agree:

$$ \operatorname{Cov} F(r, \Delta s) - \operatorname{Cov} F(r, 0) = (c - 1)\,v\,I , $$

so that in every direction the input must add the same, $c - 1$ in units of $v$. `examine` measures both for an
ensemble: the *excess* of the left side by direction, and the distance of the two laws after one step. `keeping` puts
any step to the test over many.

Source: the theorem is proved in the book's chapter on it; Krishna et al. (2024), Section 2.4.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from sklearn.decomposition import PCA
from torch import Tensor

from reactivation_core import circular, noise, phases
from reactivation_core.phases import Ensemble
from reactivation_core.streams import spawn


class Steps(NamedTuple):
    r"""Waking steps without their noise: $F(r, \Delta s)$, $F(r, 0)$, and $F(r, \Delta s')$ with the input $\Delta s'$
    of another trajectory at the same step."""

    moved: Float[Tensor, "S B T N"]
    still: Float[Tensor, "S B T N"]
    shuffled: Float[Tensor, "S B T N"]


@torch.no_grad()
def steps(
    ensemble: Ensemble, n_trajectories: int, times: Sequence[int], generator: torch.Generator | list[torch.Generator]
) -> Steps:
    """The steps that networks take awake after each of `times` steps."""
    run = phases.active(ensemble, n_trajectories, times[-1] + 1, generator, record=("states",))
    before = [t - 1 for t in times]
    r, ds = run.states[:, :, before], run.s[:, :, times] - run.s[:, :, before]
    # Bearings are wrapped.
    ds = (ds if ds.shape[-1] == 2 else circular.wrap(ds)).to(run.s)
    inputs = ds, torch.zeros_like(ds), ds.roll(1, 1)
    return Steps(
        *(ensemble.network.step(r.flatten(1, 2), x.flatten(1, 2), 0.0).unflatten(1, r.shape[1:3]) for x in inputs)
    )


def excess(moved: Float[Tensor, "B T N"], still: Float[Tensor, "B T N"], v: float) -> Float[ndarray, " N"]:
    r"""What the input adds to the variance of a step, in units of `v`, by direction, from the largest to the least:

    $$ \frac{1}{v}\;u_k^\top\left[\operatorname{Cov} F(r, \Delta s) - \operatorname{Cov} F(r, 0)\right] u_k , $$

    $u_k$ the eigenvectors of the bracket in one half of the trajectories, the covariances those of the other half; mean
    over the two ways round. So what is chance in one half does not pass for spread.
    """
    halves = [slice(None, len(moved) // 2), slice(len(moved) // 2, None)]
    first, second = (np.cov(moved[h].flatten(0, 1).T) - np.cov(still[h].flatten(0, 1).T) for h in halves)
    found = []
    for a, b in ((first, second), (second, first)):
        u = np.linalg.eigh(a).eigenvectors[:, ::-1]
        found.append(((b @ u) * u).sum(0) / v)
    return np.mean(found, 0)


class Scale:
    """Principal components of some activity, each in its standard deviations.

    Args:
        r: activity, of more states than units.
    """

    def __init__(self, r: Float[Tensor, "n N"]):
        self.basis = PCA(whiten=True, svd_solver="covariance_eigh").fit(r.double().numpy())

    def apart(self, x: Float[Tensor, "n N"], y: Float[Tensor, "n N"]) -> float:
        """Wasserstein distance of two samples of one size along a component, the mean over components."""
        first, second = (np.sort(self.basis.transform(of.double().numpy()), 0) for of in (x, y))
        return float(np.abs(first - second).mean())


class Exchange(NamedTuple):
    r"""Of each network: `excess` with the input and with that of other trajectories, and distances from the law that a
    waking step leaves, in waking standard deviations, of a second waking sample and of a step of sleep for each $c$."""

    excess: Float[ndarray, "S N"]
    shuffled: Float[ndarray, "S N"]
    floor: Float[ndarray, " S"]
    asleep: Float[ndarray, "S c"]

    @property
    def over_floor(self) -> Float[ndarray, "S c"]:
        """The distances of sleep over that of a second waking sample, the mean over networks."""
        return self.asleep / self.floor.mean()


def examine(
    ensemble: Ensemble,
    n_trajectories: int,
    times: Sequence[int],
    multipliers: Sequence[float],
    generator: torch.Generator,
) -> Exchange:
    """Put the steps of an ensemble's networks to the test.

    Args:
        n_trajectories: of each network; a third of them gives the scale of distances, and one each the two samples.
        times: waking steps after which the next is looked at.
        multipliers: of the noise's variance asleep.
        generator: draws trajectories and noise, a stream for each network.

    Raises:
        ValueError: for networks without noise.
    """
    if not ensemble.experiment.sigma > 0:
        raise ValueError("expected noise sigma > 0, got networks without noise")
    rows = [
        _examine(ensemble[i], n_trajectories, times, multipliers, one)
        for i, one in enumerate(spawn(generator, ensemble.numbers))
    ]
    return Exchange(*map(np.array, zip(*rows, strict=True)))


def _examine(ensemble, n_trajectories, times, multipliers, generator) -> tuple[ndarray, ndarray, float, list[float]]:
    experiment = ensemble.experiment
    moved, still, shuffled = (x[0] for x in steps(ensemble, n_trajectories, times, [generator]))
    zeta = experiment.sigma * noise.LAWS[experiment.noise](torch.empty_like(moved), experiment.dt, generator)
    v = float(zeta.var())
    third = n_trajectories // 3
    scale, other, reference = (slice(third * i, third * (i + 1)) for i in range(3))
    awake = moved + zeta
    measure = Scale(awake[scale].flatten(0, 1))
    to = awake[reference].flatten(0, 1)
    asleep = [(still + math.sqrt(c) * zeta)[other].flatten(0, 1) for c in multipliers]
    floor, *distances = (measure.apart(x, to) for x in (awake[other].flatten(0, 1), *asleep))
    return excess(moved, still, v), excess(shuffled, still, v), floor, distances


class Keeping(NamedTuple):
    """Distance of sleep's law from waking's at the same step, and that of a second waking sample, in waking standard
    deviations, for each repeat."""

    asleep: Float[ndarray, " S"]
    floor: Float[ndarray, " S"]

    @property
    def over_floor(self) -> Float[ndarray, " S"]:
        """The first over the mean of the second."""
        return self.asleep / self.floor.mean()


def keeping(
    step: Callable[[Tensor, Tensor | None], Tensor],
    start: Float[Tensor, "B N"],
    changes: Float[Tensor, "S B T d"],
    v: float,
    c: float,
    n_asleep: int,
    generator: torch.Generator,
) -> Keeping:
    r"""Does sleep keep the waking law over many steps? Of trajectories awake for `T` steps one third gives the scale,
    one the waking law; one goes to sleep `n_asleep` steps before the end, and is also followed awake.

    Args:
        step: $F(r, \Delta s)$; with None, $F(r, 0)$.
        start: activity awake.
        changes: $\Delta s$, for `S` repeats.
        v, c: variance of the noise awake, and its multiplier asleep.
    """

    def noisy(r, variance):
        return r + math.sqrt(variance) * torch.randn(r.shape, generator=generator, dtype=r.dtype)

    rows, third = [], len(start) // 3
    for repeat in changes:
        r = start
        for t, change in enumerate(repeat.unbind(1)):
            if t == repeat.shape[1] - n_asleep:
                asleep = r[:third]
            r = noisy(step(r, change), v)
        for _ in range(n_asleep):
            asleep = noisy(step(asleep, None), c * v)
        scale, reference = Scale(r[third : 2 * third]), r[2 * third : 3 * third]
        rows.append([scale.apart(x, reference) for x in (asleep, r[:third])])
    return Keeping(*np.transpose(rows))
