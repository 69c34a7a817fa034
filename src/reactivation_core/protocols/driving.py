r"""Does noise through the input keep the waking law? Networks driven by displacements that know nothing of place.

A network that integrates its input keeps whatever law of places it starts with, if the input moves places as the animal
moved: noise in the input alone, and recurrent noise as awake, $c = 1$. What drives it here is a *surrogate*, the
displacements of an animal that is somewhere else: in the open (a free walk), or in a box of its own (a walk that stays
within bounds). Added up from where a run begins, they are the null: what an exact integrator would do, which leaves the
box. What the network adds is how it differs from that.

Source: Krishna et al. (2024), Section 3, for the task.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from torch import Tensor

from reactivation_core import phases
from reactivation_core.phases import Ensemble
from reactivation_core.protocols import forgetting
from reactivation_core.streams import spawn
from reactivation_core.tasks import must_be
from reactivation_core.trajectories import Animal

# Side of a box whose walls are as good as never met, m.
_OPEN = 200.0
# Principal components of waking activity that are classified, and looks that they are taken from: the last 100 steps.
_COMPONENTS, _LATE = 20, 20

WALKS = ("none", "free", "bounded")


def surrogate(
    ensemble: Ensemble, walk: str, n_trajectories: int, n_steps: int, generator: torch.Generator
) -> Float[Tensor, "S B T 2"]:
    """Displacements of an animal that is somewhere else: in the open, in a box of its own, or at rest.

    Raises:
        ValueError: for a walk that is none of `WALKS`.
    """
    if walk not in WALKS:
        raise ValueError(f"expected a walk among {', '.join(WALKS)}, got {walk!r}")
    motion = must_be(Animal, ensemble.task.motion)
    if walk == "free":
        motion = Animal(**motion.model_dump() | {"box": _OPEN, "drift": 0.0})
    ds = motion(n_trajectories, n_steps, spawn(generator, ensemble.numbers)).ds
    return torch.zeros_like(ds) if walk == "none" else ds


class Driven(NamedTuple):
    """Every fifth step: decoded positions, the start before them; those of an exact integration of the input from the
    same start; means over runs of the norm of activity and of its cosine with a bump. `late` is activity at the looks
    of the last 100 steps."""

    path: Float[ndarray, "S B T+1 2"]
    exact: Float[ndarray, "S B T+1 2"]
    norm: Float[ndarray, "S T"]
    cosine: Float[ndarray, "S T"]
    late: Float[ndarray, "S B L N"]


def drive(
    ensemble: Ensemble, start: Float[Tensor, "S B N"], walk: str, n_steps: int, c: float, generator: torch.Generator
) -> Driven:
    """Run the networks on a surrogate, with `c` times the variance of the noise of training."""
    ds = surrogate(ensemble, walk, start.shape[1], n_steps, generator)
    every = forgetting.EVERY
    phase = phases.driven(ensemble, ds, math.sqrt(c), start, generator, forgetting.RECORD, every)
    begin = forgetting.decode(ensemble, start)
    norm, cosine = forgetting.bump(ensemble, phase.states, phase.outputs, phase.decoded)
    moved = ds.cumsum(2)[:, :, every - 1 :: every].numpy()
    return Driven(
        np.concatenate((begin, phase.decoded.numpy()), 2),
        np.concatenate((begin, begin + moved), 2),
        norm,
        cosine,
        phase.states[:, :, -_LATE:].numpy(),
    )


def told_apart(x: Float[ndarray, "B T N"], waking: Float[ndarray, "n t N"], seed: int) -> float:
    """Area under the curve of a classifier that tells activity from waking activity on trajectories it has not seen:
    0.5 for the same law, 1 if every state is told apart. Boosted trees on the leading components of waking activity and
    on the norm; half of the trajectories train."""
    pca = PCA(_COMPONENTS, svd_solver="covariance_eigh").fit(waking[::2].reshape(-1, waking.shape[-1]))

    def features(of):
        flat = of.reshape(-1, of.shape[-1])
        return np.column_stack((pca.transform(flat), np.linalg.norm(flat, axis=1)))

    train, test = ([features(of[half::2]) for of in (x, waking)] for half in (0, 1))
    labels = [np.repeat((1, 0), [len(of) for of in pair]) for pair in (train, test)]
    trees = HistGradientBoostingClassifier(max_iter=50, random_state=seed, class_weight="balanced")
    trees.fit(np.concatenate(train), labels[0])
    return float(roc_auc_score(labels[1], trees.predict_proba(np.concatenate(test))[:, 1]))
