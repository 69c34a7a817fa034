r"""Does sleep go around the ring, or does it only diffuse? Current, gradient and entropy production of bearings.

Of the bearing $\theta$ of a stationary process, with density $p$ and diffusion constant $D(\theta)$ per step, the mean
turns after and before a bearing, per step,

$$ a_\pm(\theta) = \pm E\left[\theta(t \pm \tau) - \theta(t) \mid \theta(t) = \theta\right] / \tau, $$

split the drift $a_+ = b + u$ into the current's part $b = \frac12 (a_+ + a_-)$ and a gradient's,
$u = \frac12 (a_+ - a_-)$. For a diffusion $u = D' + D\,(\log p)'$ and $b = J/p$, $J$ the same at every bearing. Noise
of the reading that is drawn anew each time is in $u$ and $D$, not in $b$. In the metric $1/D$ the two parts are
orthogonal, and

$$ e = \int \frac{b^2}{D}\,p\;d\theta $$

is the rate of entropy production, in nats: 0 if and only if the process is reversible. Of a bearing that is read from
a larger diffusion in its stationary law it is a lower bound for the whole's, as $b$ and $D$ are then means over what
is not read (Cauchy and Schwarz); reading noise raises $D$ and lowers it further. It is no bound where these premises
fail: networks take finite steps, turns are of `LAG` of them, and a process that has not settled is irreversible
without any lasting current.

*Null.* To run every trajectory forwards or backwards by a coin changes nothing of a reversible process. It leaves
$p$ and $D$ as they are and gives each trajectory's flux a random sign, which shows what $e$ is by chance: above 0, as
it is a square.

Source: Nelson (1967), chapter 13, for the two derivatives; Seifert (2012) for entropy production.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core import circular, phases
from reactivation_core.cells import HeadDirectionCells
from reactivation_core.phases import Ensemble
from reactivation_core.statistics import population_vector
from reactivation_core.streams import spawn
from reactivation_core.tasks import must_be

# Bearings in a bin and steps of a turn, long against the time constant of the networks, 2 steps, and short against the
# time of a turn.
N_BINS, LAG = 24, 5
# Turns of a bin below which nothing is said of it; and draws of the null.
MIN_VISITS, N_NULL = 20, 200


def ring_generator(drift: Float[Tensor, " n"]) -> Float[Tensor, "n n"]:
    r"""Generator $L f = f'' + a f'$ of a diffusion on the circle, at `n` even angles from 0, with the drift $a$ there
    over the diffusion constant.

    Derivatives are those of trigonometric interpolation. The diffusion of places on a ring of radius $R$ with a von
    Mises density has the generator $\frac{c\,\sigma^2}{2 R^2} L$ with $a = -\frac{2\kappa}{c} \sin\theta$. The real
    parts of the eigenvalues of $-L$ are rates; the least but 0 is the spectral gap.

    Source: Risken (1996), chapter 6, for the method of eigenfunctions.

    Raises:
        ValueError: for an even number of angles, whose highest harmonic has no derivative.
    """
    n = len(drift)
    if n % 2 == 0:
        raise ValueError(f"expected an odd number of angles, got {n}")
    k = 1j * torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)[:, None]
    modes = torch.fft.fft(torch.eye(n, dtype=torch.complex128), dim=0)
    first, second = (torch.fft.ifft(k**order * modes, dim=0).real for order in (1, 2))
    return second + drift[:, None] * first


def ring_rates(drift: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Real parts of the eigenvalues of minus `ring_generator`, least first: 0, the spectral gap, …"""
    return torch.linalg.eigvals(-ring_generator(drift)).real.sort().values


def ring_production(concentration: float, turns: float, diffusion: float) -> float:
    r"""Entropy production of a diffusion on the circle that has a von Mises density $p$ and goes round $J$ = `turns`
    times per unit of time, in nats per unit of time:

    $$ \int \frac{(J/p)^2}{D}\,p\,d\theta = \frac{J^2}{D}\,\bigl(2\pi I_0(\kappa)\bigr)^2 . $$

    Args:
        diffusion: $D$, rad² per unit of time.
    """
    bessel = torch.special.i0(torch.tensor(concentration, dtype=torch.float64)).item()
    return turns**2 / diffusion * (2 * math.pi * bessel) ** 2


class Currents(NamedTuple):
    r"""Of one network, or, stacked by `asleep`, with an axis `S` first; by bearing in `N_BINS` bins from $-\pi$.

    Attributes:
        density: $p$, per radian.
        drift: $b$, rad per step; 0 where the bearing is seldom.
        gradient: $u$, rad per step.
        diffusion: $D$, rad² per step.
        turning: mean turn, $2\pi$ times the current, rad per step.
        production: $e$, nats per step, with the mean of its null taken off.
        excess: the same over the standard deviation of the null.
        share: of the mean square drift in the metric $1/D$, the current's.
        share_null: what chance makes of the share, the null's mean $e$ in place of the current's.
        unevenness: standard deviation of the drift $b + u$ over bins, over its mean, in size.
        divergence: of $p$ from the uniform density, nats.
    """

    density: Float[ndarray, "*S bins"]
    drift: Float[ndarray, "*S bins"]
    gradient: Float[ndarray, "*S bins"]
    diffusion: Float[ndarray, "*S bins"]
    turning: float | Float[ndarray, " S"]
    production: float | Float[ndarray, " S"]
    excess: float | Float[ndarray, " S"]
    share: float | Float[ndarray, " S"]
    share_null: float | Float[ndarray, " S"]
    unevenness: float | Float[ndarray, " S"]
    divergence: float | Float[ndarray, " S"]


def currents(bearings: Float[ndarray, "B T"], rng: np.random.Generator) -> Currents:
    """What the trajectories of one network's bearing amount to.

    Args:
        bearings: of independent trajectories, every `LAG` steps, in radians.
        rng: draws the signs of the null.

    Raises:
        ValueError: for fewer than 2 trajectories, or 2 bearings.
    """
    B, T = bearings.shape
    if B < 2 or T < 2:
        raise ValueError(f"expected at least 2 trajectories of 2 bearings, got shape {bearings.shape}")
    bins = np.floor((bearings / (2 * math.pi) + 0.5) % 1 * N_BINS).astype(int) % N_BINS
    turn = circular.wrap(torch.from_numpy(np.diff(bearings))).numpy()
    cells = np.arange(B)[:, None] * N_BINS + bins

    def sums(of, cell):
        return np.bincount(cell.ravel(), of.ravel(), B * N_BINS).reshape(B, N_BINS)

    # Of each trajectory: number, sum and sum of squares of the turns that leave a bin, and of those that reach it.
    leave, reach = ([sums(turn**k, c) for k in range(3)] for c in (cells[:, :-1], cells[:, 1:]))
    count, square = ((leave[k] + reach[k]).sum(0) / 2 for k in (0, 2))
    p, seen = count / count.sum(), count >= MIN_VISITS

    def per_visit(of, visits=count):
        return np.where(seen, of / np.maximum(visits, 1), 0) / LAG

    after, before = (per_visit(x[1].sum(0), x[0].sum(0)) for x in (leave, reach))
    # Half the sum of both, over the visits of both: the flux, whose sign a reversal turns.
    flux = (leave[1] + reach[1]) / 2
    drift, gradient = per_visit(flux.sum(0)), (after - before) / 2
    diffusion = (per_visit(square) - LAG * drift**2) / 2

    def production(of):
        return np.where(seen, p * of**2 / np.where(diffusion > 0, diffusion, 1), 0).sum(-1)

    signs = rng.choice((-1.0, 1.0), (N_NULL, B))
    found, osmotic, null = production(drift), production(gradient), production(per_visit(signs @ flux))
    whole = drift + gradient
    return Currents(
        density=p * N_BINS / (2 * math.pi),
        drift=drift,
        gradient=gradient,
        diffusion=diffusion,
        turning=float(turn.mean()) / LAG,
        production=float(found - null.mean()),
        excess=_ratio(found - null.mean(), null.std()),
        share=_ratio(found, found + osmotic),
        share_null=_ratio(null.mean(), null.mean() + osmotic),
        unevenness=_ratio(whole.std(), abs(whole.mean())),
        divergence=float((p[seen] * np.log(p[seen] * N_BINS)).sum()),
    )


def _ratio(a: float, b: float) -> float:
    """0 where both are."""
    return float(a / b) if b > 0 else 0.0


def simulated(
    concentration: float, turns: float, diffusion: float, n_trajectories: int, n_steps: int, rng: np.random.Generator
) -> Float[ndarray, "B T"]:
    r"""The known case: small steps $D\,(\log p)' + J/p$ with noise of variance $2 D$ keep a von Mises density $p$ and
    go round `turns` $= J$ times per step; starts are drawn from $p$, and all steps are given."""
    angle = rng.vonmises(0, concentration, n_trajectories)
    path = np.empty((n_trajectories, n_steps))
    for t in range(n_steps):
        path[:, t] = angle
        inverse = 2 * math.pi * np.i0(concentration) * np.exp(-concentration * np.cos(angle))
        step = turns * inverse - diffusion * concentration * np.sin(angle)
        angle = angle + step + math.sqrt(2 * diffusion) * rng.normal(size=n_trajectories)
    return (path + math.pi) % (2 * math.pi) - math.pi


@torch.no_grad()
def asleep(
    ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator, c: float = 2.0
) -> Currents:
    """Of the population vector's bearing in the last half of so many steps asleep, network by network.

    Args:
        n_steps: of which half are a multiple of `LAG`.
    """
    angles = must_be(HeadDirectionCells, ensemble.task.cells).angles.double().numpy()
    half, found = n_steps // 2, []
    for i, one in enumerate(spawn(generator, ensemble.numbers)):
        network = ensemble[i]
        early = phases.sleep(network, n_trajectories, half, one, c, ("states",), half)
        late = phases.quiescent(network, half, math.sqrt(c), early.states[:, :, -1], one, ("outputs",), LAG)
        bearings = population_vector(late.outputs[0].double().numpy(), angles)
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=one)))
        found.append(currents(bearings, rng))
    return Currents(*(np.array(x) for x in zip(*found, strict=True)))
