r"""Does quiescence forget where it started?

A sampler of the waking law has that law from whatever start, after its mixing time; dynamics that only keep what they
are given do not. Runs begin at the encoded starts of waking, which have the right law from the outset, or all at one
state of the world, and are asked for

- the divergence of decoded states from waking, in windows of time, beside the same runs frozen at their starts;
- memory, `statistics.memory`, by two runs from each start with noise of their own;
- $\hat R$, `statistics.split_rhat`;
- the norm of activity and the cosine of the output with the tuning at the decoded state: the decoder names some state
  even when no bump is left.

States are positions, `d = 2`, or bearings, `d = 1`.

Source: Gelman and Rubin (1992); Krishna et al. (2024), Section 2.4.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core import densities, phases, statistics
from reactivation_core.densities import AnyDensity
from reactivation_core.phases import Ensemble, Phase

# Steps from one look at a run to the next, and from one correction of the norm, where it is held, to the next.
EVERY, CORRECTED = 5, 10

RECORD = ("states", "outputs", "decoded")


class Waking(NamedTuple):
    """What sleep is compared with: a density of decoded states for each network, the decoded states that this density
    leaves out, and means over runs and steps of the norm and of the cosine with a bump."""

    density: Sequence[AnyDensity]
    left_out: Float[ndarray, "S n T d"]
    variance: Float[ndarray, " S"]
    norm: Float[ndarray, " S"]
    cosine: Float[ndarray, " S"]


class Sleep(NamedTuple):
    """Every fifth step: decoded states, the start before them, and means over runs of the norm of activity and of its
    cosine with a bump. `end` is activity at the last step."""

    path: Float[ndarray, "S B T+1 d"]
    norm: Float[ndarray, "S T"]
    cosine: Float[ndarray, "S T"]
    end: Float[ndarray, "S B N_r"]


def wake(ensemble: Ensemble, n_trajectories: int, n_left_out: int, n_steps: int, generator: torch.Generator) -> Waking:
    """Waking of as many runs as make the density, and some more, looked at every fifth step."""
    n = n_trajectories + n_left_out
    phase = phases.active(ensemble, n, n_steps, generator, record=RECORD, every=EVERY)
    norm, cosine = bump(ensemble, phase.states, phase.outputs, phase.decoded)
    x = phase.decoded.numpy()
    return Waking(
        densities.estimate(x[:, :n_trajectories]),
        x[:, n_trajectories:],
        plane(x).var((1, 2)).sum(-1),
        norm.mean(-1),
        cosine.mean(-1),
    )


@torch.no_grad()
def encode(ensemble: Ensemble, states: Float[Tensor, "n d"], n_trajectories: int) -> Float[Tensor, "S B N_r"]:
    """Activity that encodes each state, for as many runs from it, one state after the other."""
    s = states.repeat_interleave(n_trajectories, 0).expand(len(ensemble), -1, -1)
    return ensemble.network.encode(ensemble.task.cells.tuning(s))


@torch.no_grad()
def decode(ensemble: Ensemble, r: Float[Tensor, "S B N_r"]) -> Float[ndarray, "S B 1 d"]:
    """States that activity reports, as a path of one step."""
    return ensemble.task.cells.decode(ensemble.network.readout(r[:, :, None])).numpy()


@torch.no_grad()
def sleep(
    ensemble: Ensemble,
    start: Float[Tensor, "S B N_r"],
    n_steps: int,
    c: float,
    generator: torch.Generator,
    norm: Float[ndarray, " S"] | None = None,
) -> Sleep:
    """Quiescent runs from given activity.

    Args:
        c: multiplies the variance of the noise of training.
        norm: to which activity is scaled back every tenth step; if left out it is free.
    """
    path, norms, cosines, end = [decode(ensemble, start)], [], [], start
    for phase in parts(ensemble, start, n_steps, c, generator, norm):
        size, cosine = bump(ensemble, phase.states, phase.outputs, phase.decoded)
        path.append(phase.decoded.numpy())
        norms.append(size)
        cosines.append(cosine)
        end = phase.states[:, :, -1, : ensemble.network.n_units]
    return Sleep(np.concatenate(path, 2), np.hstack(norms), np.hstack(cosines), end.numpy())


def parts(
    ensemble: Ensemble,
    start: Float[Tensor, "S B N_r"],
    n_steps: int,
    c: float,
    generator: torch.Generator,
    norm: Float[ndarray, " S"] | None = None,
) -> Iterator[Phase]:
    """Ten steps of `sleep` after another, with the states before the norm is corrected."""
    r, N = start, ensemble.network.n_units
    for _ in range(0, n_steps, CORRECTED):
        phase = phases.quiescent(ensemble, CORRECTED, math.sqrt(c), r, generator, RECORD, EVERY)
        r = phase.states[:, :, -1]
        if norm is not None:
            r = r * (torch.from_numpy(norm)[:, None] / r[..., :N].norm(dim=-1))[..., None]
        yield phase


def windows(
    path: Float[ndarray, "S B T d"],
    density: Sequence[AnyDensity],
    length: int,
    generator: np.random.Generator,
    n: int = 2500,
) -> Float[ndarray, "S windows"]:
    """KL(asleep ‖ awake) of decoded states in windows of so many looks, in nats, from `n` draws each."""
    parts = np.split(path, range(length, path.shape[2], length), 2)
    return np.stack([densities.divergence(densities.estimate(x), density, generator, n) for x in parts], 1)


def frozen(path: Float[ndarray, "S B T d"], length: int) -> Float[ndarray, "S B length d"]:
    """The null without dynamics: every run stays where it starts, for so many looks."""
    return np.repeat(path[:, :, :1], length, 2)


def memory(path: Float[ndarray, "S B T d"], again: Float[ndarray, "S n T d"]) -> Float[ndarray, "S T"]:
    """`statistics.memory` of the first `n` runs, each beside another from the same start."""
    twins = np.stack((path[:, : again.shape[1]], again), 2)
    return statistics.each(statistics.memory, plane(twins))


def dimension(r: Float[ndarray, "S B N_r"]) -> Float[ndarray, " S"]:
    """`statistics.participation_ratio` of activity over runs, of the first half of them and of the second, in the mean:
    two runs from each start are then not taken for runs of their own. Of `n` runs it is at most `n - 1`, and low where
    activity has as many dimensions, so that it is for comparison with as many."""
    halves = np.split(r, 2, 1)
    return np.mean([statistics.each(statistics.participation_ratio, x) for x in halves], 0)


def first_below(times: Float[ndarray, " T"], values: Float[ndarray, " T"], threshold: float) -> float:
    """First time at which `values` are below a threshold, interpolated; infinite if they never are."""
    below = np.flatnonzero(np.asarray(values) < threshold)
    if len(below) == 0:
        return float("inf")
    i = below[0]
    if i == 0:
        return float(times[0])
    share = (values[i - 1] - threshold) / (values[i - 1] - values[i])
    return float(times[i - 1] + share * (times[i] - times[i - 1]))


def memory_time(values: Float[ndarray, "S T"]) -> Float[ndarray, " S"]:
    r"""Steps until memory is below $1/e$, by means over two looks, as one alone is noisy; all steps if it never is."""
    smooth = (values[:, 1:-1:2] + values[:, 2::2]) / 2
    times = EVERY * (2 * np.arange(smooth.shape[1]) + 1.5)
    last = float(EVERY * (values.shape[1] - 1))
    return np.array([min(first_below(times, of, math.exp(-1)), last) for of in smooth])


def rhat(path: Float[ndarray, "S B T d"]) -> Float[ndarray, " S"]:
    """`statistics.split_rhat` of each network's runs."""
    return statistics.each(statistics.split_rhat, plane(path))


def plane(states: Float[ndarray, "*shape d"]) -> Float[ndarray, "*shape 2"]:
    """States as points that have a mean: positions as they are, bearings on the unit circle."""
    if states.shape[-1] == 1:
        return np.concatenate((np.cos(states), np.sin(states)), -1)
    return states


def bump(ensemble: Ensemble, states: Tensor, outputs: Tensor, decoded: Tensor) -> tuple[ndarray, ndarray]:
    """Norm of activity, and cosine of the output with the tuning at the decoded state; means over runs, `(S, T)`."""
    cosine = torch.cosine_similarity(outputs, ensemble.task.cells.tuning(decoded), -1)
    r = states[..., : ensemble.network.n_units]
    return r.norm(dim=-1).mean(1).numpy(), cosine.mean(1).numpy()
