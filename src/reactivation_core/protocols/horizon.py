r"""Does it matter how far ahead an update looks? Memories and networks that were made for one step, and for many.

Of a linear memory $r' = a\,r + g\,\Delta x + \sqrt v\,\xi$ what it
does once it is stationary is known in closed form. Networks
whose gradients were cut after $k$ steps (`Experiment.truncate`) are asked what they err awake, and what they do asleep.

Source: the proofs are in the book's chapter on it; Williams and Peng (1990) for gradients that are cut.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.signal
import torch
from jaxtyping import Float
from numpy import ndarray

from reactivation_core import circular, phases
from reactivation_core.cells import HeadDirectionCells
from reactivation_core.phases import Ensemble
from reactivation_core.protocols import exchange
from reactivation_core.statistics import population_vector
from reactivation_core.streams import spawn
from reactivation_core.tasks import must_be


class Memory(NamedTuple):
    r"""A linear memory of a scalar state, and what it does once it is stationary, in units of the state's variance.

    $$ r(t + dt) = a\,r + g\,\Delta x + \sqrt v\,\xi, \qquad x(t + dt) = x + \Delta x = \alpha\,x + w $$

    with $w$ uncorrelated with all before it. With $\delta = 1 - \alpha$,

    $$ E\,r x = \frac{g\,\delta}{1 - a\alpha}, \qquad
       E\,r^2 = \frac{2 g^2\,\delta}{(1 + a)(1 - a\alpha)} + \frac{v}{1 - a^2} . $$

    Attributes:
        decay: $a$, within $\pm 1$.
        gain: $g$.
        correlation: $\alpha$ of the state from step to step, within $\pm 1$.
        v: variance of the noise of a step.
    """

    decay: float
    gain: float
    correlation: float
    v: float

    @property
    def awake(self) -> float:
        r"""Variance awake, $E\,r^2$."""
        a, g, alpha, v = self
        return 2 * g**2 * (1 - alpha) / ((1 + a) * (1 - a * alpha)) + self.asleep(1)

    @property
    def error(self) -> float:
        """Error variance, $E(r - x)^2$."""
        a, g, alpha, _ = self
        return self.awake - 2 * g * (1 - alpha) / (1 - a * alpha) + 1

    def asleep(self, c: float) -> float:
        r"""Variance at which it settles without input, $c\,v/(1 - a^2)$."""
        return c * self.v / (1 - self.decay**2)

    @property
    def multiplier(self) -> float:
        """The $c$ with which the variance asleep is that awake."""
        return self.awake / self.asleep(1)


def first_order_memory(correlation: float, v: float) -> Memory:
    r"""Eq. (18): $a = 1 - v/(1 + v)$ and $g = 1$, which takes one step's noise for the whole error. Its multiplier is
    $1 + 2\delta/(\delta + v)$, and its error tends to 1/2 as $v \to 0$."""
    return Memory(1 / (1 + v), 1.0, correlation, v)


def consistent_memory(correlation: float, v: float) -> Memory:
    r"""Best for one step, given the law that it makes itself: $a\,r + g\,\Delta x$ is the linear regression of the next
    state on $r$ and $\Delta x$. Its covariance $C$ with the state is the one root between 0 and 1 of

    $$ C\,(1 - C)^2 = v\left(\frac{2 C}{\delta} - 1\right), $$

    its error $1 - C + v$."""
    delta = 1 - correlation
    roots = np.roots([1, -2, 1 - 2 * v / delta, v])
    C = float(next(x.real for x in roots if abs(x.imag) < 1e-9 and 0 < x.real < 1))
    a = C * (1 + correlation) / 2 / (C + v - delta * C**2 / 2)
    return Memory(a, (1 + a * C) / 2, correlation, v)


def best_memory(correlation: float, v: float) -> Memory:
    r"""Of least error once stationary: $g = (1 + a)/2$ and $a$ a root of

    $$ 4 v\,a\,(1 - a\alpha)^2 = (1 - \alpha^2)(1 - a^2)^2 . $$

    As $v \to 0$, $1 - a \approx \sqrt{v\,\delta/(1 + \alpha)}$, and the error is $\sqrt{v\,(1 + \alpha)/\delta}$."""
    square = np.polymul([-correlation, 1], [-correlation, 1])
    decay = np.polymul([-1, 0, 1], [-1, 0, 1])
    roots = np.roots(np.polysub(4 * v * np.polymul(square, [1, 0]), (1 - correlation**2) * decay))
    found = [float(x.real) for x in roots if abs(x.imag) < 1e-9 and 0 < x.real < 1]
    return min((Memory(a, (1 + a) / 2, correlation, v) for a in found), key=lambda memory: memory.error)


def truncated_memory(correlation: float, v: float, horizon: int) -> Memory:
    r"""Where gradient descent rests if gradients are cut after `horizon` steps: with $e = r - x$, $a$ and $g$ at which

    $$ \sum_{l=1}^{k} (k + 1 - l)\,a^{l-1}\,E\left[e(t)\,\big(r(t - l\,dt),\ \Delta x(t - l\,dt)\big)\right] = 0 . $$

    For $k = 1$ it is `consistent_memory`, for $k \to \infty$ `best_memory`.

    Raises:
        ValueError: for a horizon below 1, or if no such point is found.
    """
    if horizon < 1:
        raise ValueError(f"expected a horizon of at least 1 step, got {horizon}")
    lag = np.arange(horizon)

    def gradient(x):
        memory = Memory(float(np.tanh(x[0])), x[1], correlation, v)
        a, g = memory[:2]
        covariance = g * (1 - correlation) / (1 - a * correlation)
        law = np.array([[memory.awake, covariance], [covariance, 1]])
        # The state (r, x), l steps before: E[z(t) z(t - l)^T] = A^l E[z z^T].
        powers, step = [law], np.array([[a, g * (correlation - 1)], [0, correlation]])
        for _ in lag:
            powers.append(step @ powers[-1])
        e = np.array([1, -1]) @ np.array(powers)
        by = np.stack((e[1:, 0], e[:-1, 1] - e[1:, 1]))
        return by @ ((horizon - lag) * a**lag) / horizon

    near = consistent_memory(correlation, v)
    found = scipy.optimize.root(gradient, [np.arctanh(near.decay), near.gain], tol=1e-12)
    if not found.success:
        raise ValueError(f"no point of rest found for correlation {correlation}, v {v} and horizon {horizon}")
    return Memory(float(np.tanh(found.x[0])), float(found.x[1]), correlation, v)


class Run(NamedTuple):
    """Of each repeat, in units of the variance of the state: error variance and variance awake, and variance asleep."""

    error: Float[ndarray, " S"]
    awake: Float[ndarray, " S"]
    asleep: Float[ndarray, " S"]


def simulated(memory: Memory, c: float, n_repeats: int, n_chains: int, rng: np.random.Generator) -> Run:
    """Run a linear memory awake and asleep, for eight times its time constant, of which the second half counts.

    Args:
        c: multiplier of the noise's variance asleep.
        n_chains: of each repeat.
    """
    a, g, alpha, v = memory
    n, rows = math.ceil(8 / (1 - a)), []

    def filtered(coefficient: float, drawn: ndarray, start: ndarray | float = 0.0) -> ndarray:
        before = coefficient * np.broadcast_to(start, n_chains)[:, None]
        return scipy.signal.lfilter([1], [1, -coefficient], drawn, zi=before)[0]

    for _ in range(n_repeats):
        start, w, xi = rng.normal(size=n_chains), *rng.normal(size=(2, n_chains, n))
        x = filtered(alpha, math.sqrt(1 - alpha**2) * w, start)
        change = np.diff(x, prepend=start[:, None])
        r = filtered(a, g * change + math.sqrt(v) * xi, start)
        asleep = filtered(a, math.sqrt(c * v) * xi)
        late = slice(n // 2, None)
        rows.append([np.square(y[:, late]).mean() for y in (r - x, r, asleep)])
    return Run(*np.transpose(rows))


class Horizon(NamedTuple):
    r"""Of each network.

    Attributes:
        error: mean size of the error of the bearing awake, rad.
        multiplier: the $c$ that keeps the total variance of a step, $1 + \mathrm{tr}[\mathrm{Cov} F(r, \Delta s) -
            \mathrm{Cov} F(r, 0)]/N v$.
        asleep_over_awake: total variance of activity asleep, $c = 2$, over that awake.
        wandered: mean square turn of the bearing asleep in `LAG` steps, $c = 1$, rad².
        growth: what is added to the mean square error awake in as many steps, rad².
        turned: mean square turn of the head in them, rad².
    """

    error: Float[ndarray, " S"]
    multiplier: Float[ndarray, " S"]
    asleep_over_awake: Float[ndarray, " S"]
    wandered: Float[ndarray, " S"]
    growth: Float[ndarray, " S"]
    turned: Float[ndarray, " S"]


# Waking steps from which on networks are looked at, those over which they wander, and those that they sleep.
FIRST, LAG, ASLEEP = 50, 25, 200


@torch.no_grad()
def examine(ensemble: Ensemble, n_trajectories: int, generator: torch.Generator) -> Horizon:
    """Look at head-direction networks awake for 100 steps and asleep for `ASLEEP`.

    Raises:
        ValueError: for networks without noise, whose multiplier has no value.
    """
    experiment, angles = ensemble.experiment, must_be(HeadDirectionCells, ensemble.task.cells).angles.double().numpy()
    if not experiment.sigma > 0:
        raise ValueError("expected noise sigma > 0, got networks without noise")
    streams, v = spawn(generator, ensemble.numbers), experiment.sigma**2 * experiment.dt

    def bearing(outputs):
        return torch.from_numpy(population_vector(outputs.double().numpy(), angles))

    def total(x):
        return x.double().flatten(1, 2).var(1).sum(-1).numpy()

    awake = phases.active(ensemble, n_trajectories, 100, streams, record=("states", "outputs"))
    read, true = bearing(awake.outputs), awake.s[..., 0].double()
    miss = circular.wrap(read - true)
    squares = miss.square().mean(1)
    asleep = phases.quiescent(ensemble, LAG, 1.0, awake.states[:, :, FIRST - 1], streams, record=("outputs",))
    moved = circular.wrap(bearing(asleep.outputs)[:, :, -1] - read[:, :, FIRST - 1])
    start = phases.starts(ensemble, n_trajectories, streams)
    long = phases.quiescent(ensemble, ASLEEP, math.sqrt(2), start, streams, record=("states",), every=5)
    steps = exchange.steps(ensemble, n_trajectories, range(FIRST, 96, 5), streams)
    turned = circular.wrap(true[:, :, FIRST + LAG - 1] - true[:, :, FIRST - 1])
    return Horizon(
        error=miss[:, :, FIRST:].abs().mean((1, 2)).numpy(),
        multiplier=1 + (total(steps.moved) - total(steps.still)) / (v * ensemble.network.n_units),
        asleep_over_awake=total(long.states[:, :, -10:]) / total(awake.states[:, :, FIRST:96:5]),
        wandered=moved.square().mean(1).numpy(),
        growth=(squares[:, FIRST + LAG - 1] - squares[:, FIRST - 1]).numpy(),
        turned=turned.square().mean(1).numpy(),
    )
