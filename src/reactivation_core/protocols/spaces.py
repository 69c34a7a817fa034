r"""Does a network have the waking law of activity asleep, $\tilde p(r) = p(r)$?

Densities cannot be estimated in hundreds of dimensions, and none is needed. If two laws are equal, no classifier can
tell states of one from states of the other, in trajectories that it was not fitted to; `auc` is the chance that it
ranks a state of sleep above one of waking, 1/2 for equal laws. The sliced Wasserstein distance says where laws differ,
in each of `SPACES`: activity; its parts along and across the manifold, the principal components of clean waking
activity that hold 99 % of its variance, and the others; its direction $r/\lVert r\rVert$; outputs $D\,r$; and decoded
states, bearings as points of the unit circle. It sees means and variances, and little of how units go together.

Beside sleep stand two further and independent waking sets, whose means are the *floor*, as equal laws are no nearer
than that; and shuffled waking states, in which each unit keeps its law and nothing else is left.

Source: Lopez-Paz and Oquab (2017) for tests by classifiers, Bonneel et al. (2015) for the distance; Krishna et al.
(2024), Section 2.4.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from reactivation_core import densities, phases, statistics
from reactivation_core.phases import Ensemble
from reactivation_core.streams import spawn

SPACES = ("states", "along", "across", "direction", "outputs", "decoded")
# Those in which sleep is told from waking.
TOLD = ("states", "direction")
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
    """States of one network, those of a trajectory together: a reference set, sets of `RUNS` to compare with it, and
    waking without noise."""

    reference: Float[ndarray, "n N"]
    runs: dict[str, list[Float[ndarray, "n N"]]]
    clean: Float[ndarray, "m N"]


def sample(ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator, seed: int) -> Sample:
    """States of `RUNS`, every second step of a window, three independent sets of those awake; as reference ten evenly
    spaced steps of the first waking set; without noise, the first half of the steps of half as many trajectories.

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

    waking, clean = [awake(scale) for _ in range(3)], awake(0.0, 2)
    doubled, single = asleep(2.0), asleep(1.0)
    runs = {f"awake {name}": [flat(r, steps) for r in waking] for name, steps in windows.items()}
    runs |= {f"asleep {name}": [flat(doubled, steps)] for name, steps in windows.items()}
    runs["asleep late, c = 1"] = [flat(single, windows["late"])]
    runs["shuffled"] = [np.random.default_rng(seed).permuted(runs["awake late"][1], axis=0)]
    reference = flat(waking[0], np.arange(1, 11) * n_steps // 10 - 1)
    return Sample(reference, runs, flat(clean, slice(None)))


def auc(x: Float[ndarray, "n d"], y: Float[ndarray, "m d"], n_trajectories: int) -> float:
    r"""Area under the receiver operating characteristic of a quadratic discriminant between two sets of states, the
    mean over five folds of trajectories that it was not fitted to: 0.5 for equal laws, $\Phi(\delta/\sqrt 2)$ for
    normal laws of one covariance whose means are $\delta$ standard deviations apart.

    Args:
        x, y: as many states of each trajectory, those of a trajectory together.
        n_trajectories: of each set.
    """
    states, of_y = np.concatenate((x, y)), np.repeat((0, 1), (len(x), len(y)))
    groups = np.concatenate([np.repeat(np.arange(n_trajectories), len(z) // n_trajectories) for z in (x, y)])
    # A hundredth of the unit matrix keeps covariances invertible where states hardly vary.
    classifier = make_pipeline(StandardScaler(), QuadraticDiscriminantAnalysis(reg_param=0.01))
    folds = GroupKFold(5)
    return float(cross_val_score(classifier, states, of_y, groups=groups, cv=folds, scoring="roc_auc").mean())


class Comparison(NamedTuple):
    r"""`RUNS` beside waking; the floor, of "awake early" and "awake late", is the mean over independent waking sets.

    `auc` is that between a run and waking in the steps "late", in `TOLD`, by the first 30 principal components of all
    that is compared; 0.5 for what is not. `sw` is the sliced Wasserstein distance
    from the reference, in waking standard deviations of a random projection in that space. `norm` is the gain in
    $\lVert r\rVert$ in waking standard deviations.
    """

    auc: Float[ndarray, "S runs told"]
    sw: Float[ndarray, "S runs spaces"]
    norm: Float[ndarray, "S runs"]

    def over_floor(self, run: str) -> Float[ndarray, "S spaces"]:
        """The sliced distance of a run over that of further waking sets in the same steps, the mean over networks."""
        floor = "awake early" if "early" in run else "awake late"
        return self.sw[:, RUNS.index(run)] / self.sw[:, RUNS.index(floor)].mean(0)


Points = dict[str, Float[ndarray, "n d"]]


def told_apart(runs: dict[str, list[Points]], n_trajectories: int) -> Float[ndarray, "runs told"]:
    """`Comparison.auc` of one network's states in `TOLD`."""
    values = np.full((len(RUNS), len(TOLD)), 0.5)
    for j, space in enumerate(TOLD):
        late = {run: [of[space] for of in runs[run]] for run in RUNS if "late" in run}
        every = np.concatenate([x for sets in late.values() for x in sets])
        # Of all sets together: components of one set would fit its noise, and tell it from the others.
        basis = statistics.principal_components(every, min(30, every.shape[1]))
        scores = {run: [basis.transform(x) for x in sets] for run, sets in late.items()}
        waking = scores.pop("awake late")
        pairs = {run: [(x, waking[0])] for run, (x,) in scores.items()}
        pairs["awake late"] = list(itertools.combinations(waking, 2))
        for run, of in pairs.items():
            values[RUNS.index(run), j] = np.mean([auc(*pair, n_trajectories) for pair in of])
    return values


def distances(reference: Points, runs: dict[str, list[Points]], seed: int) -> Float[ndarray, "runs spaces"]:
    """`Comparison.sw` of one network's states; all distances are of the same projections."""

    def sliced(of):
        pairs = [(of[space], reference[space]) for space in reference]
        generators = (np.random.default_rng(seed) for _ in pairs)
        return [
            densities.sliced_wasserstein(x, y, generator) / math.sqrt(y.var(0).mean())
            for (x, y), generator in zip(pairs, generators, strict=True)
        ]

    # The first waking set holds the reference.
    return np.array([np.mean([sliced(of) for of in sets[run.startswith("awake") :]], 0) for run, sets in runs.items()])


def gains(reference: Points, runs: dict[str, list[Points]]) -> Float[ndarray, " runs"]:
    """`Comparison.norm` of one network's states."""
    norms = np.linalg.norm(reference["states"], axis=1)
    return np.array([np.linalg.norm(sets[-1]["states"], axis=1).mean() - norms.mean() for sets in runs.values()]) / (
        norms.std()
    )


def compare(ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator, seed: int) -> Comparison:
    """Every network's `RUNS` beside its waking.

    Args:
        n_trajectories, n_steps: of `sample`.
        generator: as there, a stream for each network.
        seed: of random projections, which are the same for all that is compared, and of the shuffling.
    """
    rows = []
    for i, one in enumerate(spawn(generator, ensemble.numbers)):
        found = sample(ensemble[i], n_trajectories, n_steps, one, seed)
        of = Spaces(ensemble[i], found.clean)
        reference, runs = of(found.reference), {run: [of(r) for r in sets] for run, sets in found.runs.items()}
        told = told_apart(runs, n_trajectories)
        rows.append((told, distances(reference, runs, seed), gains(reference, runs)))
    return Comparison(*map(np.array, zip(*rows, strict=True)))
