r"""Is the represented place a sampler? Its drift and diffusion, and what law they lead to.

If the place $s$ of activity asleep were a Markov process with small changes, it would be known by its drift $u(s)$ and
diffusion $D(s)$, per step, and the density of places would change by the Fokker–Planck equation,

$$ \partial_t p = -\nabla \cdot J, \qquad J_a = u_a\,p - \sum_b \partial_b (D_{ab}\,p) . $$

Where it rests without a current, $J = 0$, with the law $\tilde q$, $u = \nabla \cdot D + D\,\nabla \log \tilde q$.
Eq. (19) with $c$ times the noise variance of waking asks for $\tilde q = q^{2/c}$, $q$ the law awake:

$$ u - \nabla \cdot D = \tfrac2c\, D\,\nabla \log q , $$

whose slope is estimated here, beside what is left. Drift and diffusion are kernel averages of changes over a lag of
many steps, in which the scatter of a single reading does not count; the equation is solved by finite volumes with
exponential fitting, whose probabilities stay positive along each axis and add up to 1.

States are positions, `d = 2`, on a square grid, or bearings, `d = 1`, on the circle.

Source: Risken (1989), chapters 4 and 6; Lamouroux and Lehnertz (2009) for the kernel averages; Scharfetter and Gummel
(1969) for the fluxes.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse
import scipy.special
import scipy.stats
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.sparse.linalg import expm_multiply, spsolve

from reactivation_core import circular, statistics

# Shares of a sampler's moves are counted on so many tiles along a side, or around the circle.
N_TILES = 6


class Grid(NamedTuple):
    """Cells of the square within ± `limit`, `n` along a side, or of the circle, `limit` π."""

    n: int
    limit: float
    d: int

    @property
    def spacing(self) -> float:
        """Side of a cell."""
        return 2 * self.limit / self.n

    @property
    def points(self) -> Float[ndarray, "cells d"]:
        """Middles of the cells."""
        axis = (np.arange(self.n) + 0.5) * self.spacing - self.limit
        return np.stack(np.meshgrid(*[axis] * self.d, indexing="ij"), -1).reshape(-1, self.d)

    def difference(self, a: ndarray, b: ndarray) -> ndarray:
        """From `b` to `a`, on the circle the shorter way."""
        return a - b if self.d == 2 else circular.wrap(torch.from_numpy(a - b)).numpy()

    def gradient(self, values: Float[ndarray, " cells"]) -> Float[ndarray, "cells d"]:
        """By central differences."""
        if self.d == 1:
            return ((np.roll(values, -1) - np.roll(values, 1)) / (2 * self.spacing))[:, None]
        slopes = np.gradient(values.reshape(self.n, self.n), self.spacing)
        return np.stack(slopes, -1).reshape(-1, 2)

    def divergence(self, D: Float[ndarray, "cells d d"]) -> Float[ndarray, "cells d"]:
        r"""$\sum_b \partial_b D_{ab}$."""
        axes = range(self.d)
        return np.stack([sum((self.gradient(D[:, a, b])[:, b] for b in axes), np.zeros(len(D))) for a in axes], -1)


class Coefficients(NamedTuple):
    """Drift and diffusion per step in each cell of a grid, and the `weight` of changes that began about it."""

    drift: Float[ndarray, "cells d"]
    diffusion: Float[ndarray, "cells d d"]
    weight: Float[ndarray, " cells"]


def estimate(paths: Float[ndarray, "B T d"], lag: int, grid: Grid, width: float) -> Coefficients:
    """Kernel averages over changes from one time of paths to the next, `lag` steps later.

    Args:
        width: s.d. of the normal kernel about the place where a change begins.
    """
    s, change = (x.reshape(-1, grid.d) for x in (paths[:, :-1], grid.difference(paths[:, 1:], paths[:, :-1])))
    apart = grid.difference(grid.points[:, None], s[None])
    kernel = np.exp(-np.square(apart).sum(-1) / (2 * width**2))
    weight = kernel.sum(1)
    kernel = kernel / weight[:, None]
    mean = kernel @ change
    square = np.einsum("cn,na,nb->cab", kernel, change, change, optimize=True)
    covariance = square - mean[:, :, None] * mean[:, None]
    return Coefficients(mean / lag, covariance / (2 * lag), weight / weight.sum())


def operator(
    grid: Grid, drift: Float[ndarray, "cells d"], diffusion: Float[ndarray, "cells d d"]
) -> scipy.sparse.csr_array:
    """The Fokker–Planck operator on probabilities of cells, per step; nothing leaves the square."""
    cells = np.arange(grid.n**grid.d).reshape([grid.n] * grid.d)
    rows, columns, values = [], [], []

    def flux(i, j, cell, rate):
        """A flux from i to j of `rate` times the probability of a cell."""
        rows.extend((i.ravel(), j.ravel()))
        columns.extend((cell.ravel(), cell.ravel()))
        values.extend((-rate.ravel(), rate.ravel()))

    h = grid.spacing
    for a in range(grid.d):
        i, j = _neighbours(grid, cells, a)
        u, D = (drift[i, a] + drift[j, a]) / 2, diffusion[:, a, a]
        peclet = u * h * 2 / (D[i] + D[j])
        flux(i, j, i, D[i] / h**2 / scipy.special.exprel(-peclet))
        flux(i, j, j, -D[j] / h**2 / scipy.special.exprel(peclet))
        for b in range(grid.d):
            if b != a:
                for middle in (i, j):
                    for end, sign in zip(_ends(cells, b), (1, -1), strict=True):
                        of = end.ravel()[middle]
                        flux(i, j, of, -sign * diffusion[of, a, b] / (4 * h**2))
    shape = (cells.size, cells.size)
    index = (np.concatenate(rows), np.concatenate(columns))
    return scipy.sparse.coo_array((np.concatenate(values), index), shape).tocsr()


def _neighbours(grid: Grid, cells: ndarray, axis: int) -> tuple[ndarray, ndarray]:
    """Cells on both sides of every face across an axis."""
    if grid.d == 1:
        return cells, np.roll(cells, -1)
    n = cells.shape[axis]
    return np.take(cells, range(n - 1), axis), np.take(cells, range(1, n), axis)


def _ends(cells: ndarray, axis: int) -> tuple[ndarray, ndarray]:
    """The cell above and the cell below every cell along an axis, itself at a wall."""
    n = cells.shape[axis]
    return tuple(np.take(cells, np.clip(np.arange(n) + k, 0, n - 1), axis) for k in (1, -1))


def stationary(L: scipy.sparse.csr_array) -> Float[ndarray, " cells"]:
    """The probabilities of cells that stay."""
    A, right = L.tolil(), np.zeros(len(L.indptr) - 1)
    # One equation follows from the others; the sum takes its place.
    A[0], right[0] = 1, 1
    p = np.clip(np.asarray(spsolve(A.tocsc(), right)), 0, None)
    return p / p.sum()


def evolve(L: scipy.sparse.csr_array, p: Float[ndarray, " cells"], n_steps: int) -> Float[ndarray, " cells"]:
    """Probabilities of cells after so many steps."""
    p = np.clip(expm_multiply(L * n_steps, p), 0, None)
    return p / p.sum()


def along(
    grid: Grid, diffusion: Float[ndarray, "cells d d"], law: Float[ndarray, " cells"]
) -> Float[ndarray, "cells d"]:
    r"""$D\,\nabla \log q$."""
    return np.einsum("cab,cb->ca", diffusion, grid.gradient(np.log(np.maximum(law, 1e-6 / len(law)))))


class Sampler(NamedTuple):
    """How far drift and diffusion are those of a sampler of `q`: the `slope` of the drift less ∇·D on D ∇ log q, the
    share of it that this explains, and the share that a `current` has, which no law without one could have."""

    slope: float
    explained: float
    current: float


def sampler(grid: Grid, of: Coefficients, q: Float[ndarray, " cells"], p: Float[ndarray, " cells"]) -> Sampler:
    r"""Regress on a law `q`; by the law `p` that stays, $u - \nabla \cdot D - D\,\nabla \log p$ is a current over $p$.
    Cells count by `weight`."""

    def inner(x, y):
        return float(of.weight @ (x * y).sum(-1))

    drift, score = of.drift - grid.divergence(of.diffusion), along(grid, of.diffusion, q)
    left = drift - along(grid, of.diffusion, p)
    product, size, whole = inner(drift, score), inner(score, score), inner(drift, drift)
    return Sampler(product / size, product**2 / size / whole, inner(left, left) / whole)


class Compared(NamedTuple):
    """Every network's `Sampler`, and those of two walks of its diffusion that start where its runs do: one that samples
    the waking law, one without drift. Then its drift less ∇·D, and D ∇ log q."""

    slope: Float[ndarray, "S cases"]
    explained: Float[ndarray, "S cases"]
    current: Float[ndarray, "S cases"]
    drift: Float[ndarray, "S cells d"]
    asked: Float[ndarray, "S cells d"]


def compare(
    paths: Float[ndarray, "S B T d"],
    waking: Float[ndarray, "S n t d"],
    lag: int,
    grid: Grid,
    width: float,
    rng: np.random.Generator,
) -> Compared:
    """Whether places asleep have the drift of a sampler at $c = 2$; `paths` has every `lag`-th step, `width` is that of
    kernels."""
    rows = []
    for path, states in zip(paths, waking, strict=True):
        q = law(grid, states.reshape(-1, grid.d), width)
        own = estimate(path, lag, grid, width)
        d = float(own.weight @ np.trace(own.diffusion, axis1=1, axis2=2)) / grid.d
        field = d * grid.gradient(np.log(np.maximum(q, 1e-3 / len(q))))
        walks = (walk(grid, x, d, path[:, 0], lag * (path.shape[1] - 1), lag, rng) for x in (field, 0 * field))
        found = (own, *(estimate(x, lag, grid, width) for x in walks))
        of = [sampler(grid, x, q, stationary(operator(grid, x.drift, x.diffusion))) for x in found]
        fields = own.drift - grid.divergence(own.diffusion), along(grid, own.diffusion, q)
        rows.append((*np.transpose(of), *fields))
    return Compared(*map(np.array, zip(*rows, strict=True)))


class Laws(NamedTuple):
    """KL from the law of the last times of sleep, of half of the runs, to others, in nats, `(S,)` each: what drift and
    diffusion of the other half have `made` of the first places by then, and the law that `stays`; that `awake`; that of
    the first places, `begin`; and sleep of the other half, `again`."""

    made: Float[ndarray, " S"]
    stays: Float[ndarray, " S"]
    awake: Float[ndarray, " S"]
    begin: Float[ndarray, " S"]
    again: Float[ndarray, " S"]


def laws(
    paths: Float[ndarray, "S B T d"],
    waking: Float[ndarray, "S n t d"],
    lag: int,
    n_last: int,
    grid: Grid,
    width: float,
) -> Laws:
    """What the Fokker–Planck equation says of the last `n_last` times of paths; the others as in `compare`."""
    rows = []
    for path, states in zip(paths, waking, strict=True):
        fit, test = path[::2], path[1::2]
        of = estimate(fit, lag, grid, width)
        L = operator(grid, of.drift, of.diffusion)
        end, begin, again, awake = (
            law(grid, x.reshape(-1, grid.d), width) for x in (test[:, -n_last:], test[:, 0], fit[:, -n_last:], states)
        )
        n_steps = round(lag * (path.shape[1] - 1 - (n_last - 1) / 2))
        others = evolve(L, begin, n_steps), stationary(L), awake, begin, again
        rows.append([kl(end, x) for x in others])
    return Laws(*np.transpose(rows))


def walk(
    grid: Grid,
    drift: Float[ndarray, "cells d"],
    diffusion: float,
    start: Float[ndarray, "B d"],
    n_steps: int,
    every: int,
    rng: np.random.Generator,
) -> Float[ndarray, "B T d"]:
    """A known case: a walk with the drift of the cell it is in and one diffusion, reflected at walls of the square; the
    start and every so many steps."""
    s, path = start.astype(float), [start]
    for t in range(1, n_steps + 1):
        cell = np.clip(((s + grid.limit) / grid.spacing).astype(int), 0, grid.n - 1)
        s = s + drift[cell @ grid.n ** np.arange(grid.d)[::-1]]
        s = s + np.sqrt(2 * diffusion) * rng.standard_normal(s.shape)
        if grid.d == 2:
            s = grid.limit - np.abs((s + grid.limit) % (4 * grid.limit) - 2 * grid.limit)
        else:
            s = circular.wrap(torch.from_numpy(s)).numpy()
        if t % every == 0:
            path.append(s)
    return np.stack(path, 1)


def law(grid: Grid, states: Float[ndarray, "n d"], width: float) -> Float[ndarray, " cells"]:
    """Probabilities of cells, by a normal kernel about each state."""
    apart = grid.difference(grid.points[:, None], states[None])
    p = np.exp(-np.square(apart).sum(-1) / (2 * width**2)).sum(1)
    return p / p.sum()


def kl(p: Float[ndarray, " cells"], q: Float[ndarray, " cells"]) -> float:
    """KL(p ‖ q) of probabilities of cells, in nats; those of `q` below a millionth of uniform ones count as that."""
    return float(scipy.stats.entropy(p, np.maximum(q, 1e-6 / len(q))))


class Markov(NamedTuple):
    """Total variation between moves over two lags and what is to predict them, of other paths: moves over one lag
    `twice`; moves over two lags, the `floor`; moves over `once` one lag, as if the second added nothing."""

    twice: float
    floor: float
    once: float


def chapman_kolmogorov(paths: Float[ndarray, "B T d"], limit: float) -> Markov:
    """Whether moves over two lags are those over one lag, twice, as those of a Markov process are; from one half of the
    paths to the other."""
    if paths.shape[-1] == 1:
        paths = np.concatenate((paths, np.zeros_like(paths)), -1)
    fit, test = paths[::2], paths[1::2]

    def moves(x, lag):
        return statistics.transitions(x, lag, 2 * limit, N_TILES)

    one, two = moves(fit, 1), moves(fit, 2)
    origin = one.sum(1, keepdims=True)
    rows = np.divide(one, origin, out=np.zeros_like(one), where=origin > 0)
    found = moves(test, 2)
    return Markov(*(statistics.transition_distance(x, found) for x in (origin * (rows @ rows), two, one)))
