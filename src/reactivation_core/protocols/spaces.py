r"""Does a network have the waking law of activity asleep, $\tilde p(r) = p(r)$? Distances, space by space.

Densities cannot be estimated in hundreds of dimensions, and none is needed: two distances, the sliced Wasserstein one
and the maximum mean discrepancy, are 0 for equal laws only and take samples. They are measured in `SPACES`: activity;
its parts along and across the manifold, the principal components of clean waking activity that hold 99 % of its
variance, and the others; its direction $r/\lVert r\rVert$; outputs $D\,r$; and decoded states, bearings as points of
the unit circle.

Beside sleep stand a second and independent waking set, the *floor*, as equal laws are no nearer than that; and shuffled
waking states, in which each unit keeps its law and nothing else is left. Where shuffled states are as near as sleep is,
a small distance says nothing of the joint law.

Source: Bonneel et al. (2015) and Gretton et al. (2012) for the distances; Krishna et al. (2024), Section 2.4.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from reactivation_core import densities, phases, statistics
from reactivation_core.phases import Ensemble
from reactivation_core.streams import spawn

SPACES = ("states", "along", "across", "direction", "outputs", "decoded")
# What is compared with waking; "early" are the first 20 steps, "late" the last 20. Asleep, c = 2 if not said.
RUNS = ("awake early", "awake late", "asleep early", "asleep late", "asleep late, c = 1", "shuffled")


class Spaces:
    """The same states of one network in each of `SPACES`.

    Args:
        ensemble: one network.
        clean: waking activity without noise.
    """

    def __init__(self, ensemble: Ensemble, clean: Float[ndarray, "n N"]):
        self.ensemble, self.basis = ensemble, statistics.principal_components(clean)
        self.n_along = statistics.dimensions(np.cumsum(self.basis.explained_variance_ratio_), 0.99)

    @torch.no_grad()
    def __call__(self, r: Float[ndarray, "n N"]) -> dict[str, Float[ndarray, "n d"]]:
        scores = self.basis.transform(r)
        outputs = self.ensemble.network.readout(torch.from_numpy(r)[None])
        decoded = self.ensemble.task.cells.decode(outputs)[0].numpy()
        if decoded.shape[1] == 1:
            decoded = np.hstack((np.cos(decoded), np.sin(decoded)))
        direction = r / np.linalg.norm(r, axis=1, keepdims=True)
        parts = r, scores[:, : self.n_along], scores[:, self.n_along :], direction, outputs[0].numpy(), decoded
        return dict(zip(SPACES, parts, strict=True))


class Sample(NamedTuple):
    """States of one network: the waking reference, what is compared with it, and waking without noise."""

    reference: Float[ndarray, "n N"]
    others: dict[str, Float[ndarray, "n N"]]
    clean: Float[ndarray, "m N"]


def sample(ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator, seed: int) -> Sample:
    """States of `RUNS`, every second step of a window, and as reference ten evenly spaced steps of another waking set;
    without noise, the first half of the steps of half as many trajectories.

    Args:
        ensemble: one network; one without noise awake has none asleep.
        n_trajectories, n_steps: of each of five runs.
        generator: draws trajectories, starts and noise.
        seed: of the shuffling.
    """
    scale = 1.0 if ensemble.experiment.sigma else 0.0
    windows = {"early": slice(0, 20, 2), "late": slice(n_steps - 20, n_steps, 2)}

    def awake(noise_scale, share=1):
        sizes = n_trajectories // share, n_steps // share
        return phases.active(ensemble, *sizes, generator, noise_scale, ("states",)).states[0].numpy()

    def asleep(c):
        run = phases.sleep(ensemble, n_trajectories, n_steps, generator, scale * c, ("states",))
        return run.states[0].numpy()

    def flat(r, steps):
        return r[:, steps].reshape(-1, r.shape[-1])

    first, second, clean = awake(scale), awake(scale), awake(0.0, 2)
    doubled, single = asleep(2.0), asleep(1.0)
    runs = (second, "early"), (second, "late"), (doubled, "early"), (doubled, "late"), (single, "late")
    others = [flat(run, windows[when]) for run, when in runs]
    others.append(np.random.default_rng(seed).permuted(others[1], axis=0))
    reference = flat(first, np.arange(1, 11) * n_steps // 10 - 1)
    return Sample(reference, dict(zip(RUNS, others, strict=True)), flat(clean, slice(None)))


class Distances(NamedTuple):
    r"""Distances of `RUNS` from the waking reference.

    `sw` is the sliced Wasserstein distance in waking standard deviations of a random projection in that space, `mmd`
    the squared maximum mean discrepancy of every second state. `mean` is the distance of mean activities over the root
    of its total waking variance, `norm` the gain in $\lVert r\rVert$ in waking standard deviations.
    """

    sw: Float[ndarray, "S runs spaces"]
    mmd: Float[ndarray, "S runs spaces"]
    mean: Float[ndarray, "S runs"]
    norm: Float[ndarray, "S runs"]

    def over_floor(self, run: str) -> Float[ndarray, "S spaces"]:
        """The sliced distance of a run over that of a second waking set in the same steps, the mean over networks."""
        floor = "awake early" if "early" in run else "awake late"
        return self.sw[:, RUNS.index(run)] / self.sw[:, RUNS.index(floor)].mean(0)


def distances(of: Spaces, found: Sample, seed: int) -> Distances:
    """Distances of one network's sample, without the axis `S`; all are of the same random projections."""
    to = of(found.reference)
    norms, spread = np.linalg.norm(found.reference, axis=1), math.sqrt(found.reference.var(0).sum())
    sw, mmd, mean, norm = [], [], [], []
    for states in found.others.values():
        pairs = [(x, to[space]) for space, x in of(states).items()]
        sw.append(
            [
                densities.sliced_wasserstein(x, y, np.random.default_rng(seed)) / math.sqrt(y.var(0).mean())
                for x, y in pairs
            ]
        )
        mmd.append([densities.squared_mmd(x[::2], y[::2]) for x, y in pairs])
        mean.append(np.linalg.norm(states.mean(0) - found.reference.mean(0)) / spread)
        norm.append((np.linalg.norm(states, axis=1).mean() - norms.mean()) / norms.std())
    return Distances(*map(np.array, (sw, mmd, mean, norm)))


def compare(ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator, seed: int) -> Distances:
    """Every network's `RUNS` beside its waking.

    Args:
        n_trajectories, n_steps: of `sample`.
        generator: as there, a stream for each network.
        seed: of random projections, which are the same for all that is compared, and of the shuffling.
    """
    rows = []
    for i, one in enumerate(spawn(generator, ensemble.numbers)):
        found = sample(ensemble[i], n_trajectories, n_steps, one, seed)
        rows.append(distances(Spaces(ensemble[i], found.clean), found, seed))
    return Distances(*map(np.array, zip(*rows, strict=True)))
