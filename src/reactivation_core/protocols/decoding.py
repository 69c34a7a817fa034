r"""What does the decoder add? Decoded states and steps where the true ones are known, and the outputs err.

A state is decoded as the mean of the preferred states of the three most active cells. That of perfect outputs stays
the same while the state moves by less than the cells' grain, and leaps when one of the three changes; noise on the
outputs changes the three although nothing moves.

The bearing that all head-direction cells report together, their population vector, errs less. With errors
$N(0, \varepsilon^2)$ of $N_o$ independent outputs, $\kappa = 1/\sigma_{HD}^2$ and cells that peak at 1, to first order,

$$ E|\hat s - s| = \sqrt{\tfrac 2\pi}\;\frac{\varepsilon}{\sqrt{2 N_o}\;e^{-\kappa} I_1(\kappa)} . $$

Functions take cells rather than an ensemble: nothing here depends on a network.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.special
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core import circular
from reactivation_core.cells import HeadDirectionCells, PlaceCells
from reactivation_core.statistics import population_vector


class BearingErrors(NamedTuple):
    """Mean error of the two decoders, in radians, for each size of the outputs' errors."""

    most_active: Float[ndarray, "S sizes"]
    population_vector: Float[ndarray, "S sizes"]


def bearing_errors(
    cells: HeadDirectionCells, s: Float[Tensor, "S B 1"], sizes: Float[ndarray, " sizes"], generator: torch.Generator
) -> BearingErrors:
    """Decode bearings `s` from outputs that err independently, with these standard deviations."""
    o = cells.tuning(s)
    errors = []
    for size in sizes:
        noisy = o + size * torch.randn(o.shape, generator=generator, dtype=o.dtype)
        vector = population_vector(noisy.numpy(), cells.angles.numpy())[..., None]
        decoded = cells.decode(noisy), torch.from_numpy(vector)
        errors.append([circular.distance(x, s).mean((1, 2)).numpy() for x in decoded])
    return BearingErrors(*np.moveaxis(np.array(errors), 0, 2))


def population_vector_error(cells: HeadDirectionCells, sizes: Float[ndarray, " sizes"]) -> Float[ndarray, " sizes"]:
    """The closed form above, for cells that peak at 1, in radians."""
    modulus = scipy.special.i1e(1 / cells.width**2)
    return math.sqrt(2 / math.pi) * sizes / (math.sqrt(2 * len(cells.angles)) * modulus)


def step_ratio(
    cells: PlaceCells, s: Float[Tensor, "S B 2"], lengths: Float[ndarray, " lengths"], angle: Float[Tensor, "S B"]
) -> Float[ndarray, "S B lengths"]:
    """Decoded over true length of steps from positions `s` in directions `angle`, without noise."""
    direction = torch.stack((angle.cos(), angle.sin()), -1)
    start = cells.decode(cells.tuning(s))
    moved = [(cells.decode(cells.tuning(s + a * direction)) - start).norm(dim=-1) / a for a in lengths]
    return torch.stack(moved, -1).numpy()


def jitter(
    cells: PlaceCells, s: Float[Tensor, "S B 2"], levels: Float[ndarray, " levels"], generator: torch.Generator
) -> Float[ndarray, "S levels"]:
    """Mean length of a decoded step of an animal at rest, in metres, where outputs err independently by this share of
    the activity of the most active cell."""
    f = cells.tuning(s)
    peak = f.amax(-1, keepdim=True)

    def decoded(level: float) -> Tensor:
        return cells.decode(f + level * peak * torch.randn(f.shape, generator=generator))

    return torch.stack([(decoded(x) - decoded(x)).norm(dim=-1).mean(1) for x in levels], -1).numpy()


def turn_with_leaps(s: Float[Tensor, "S B T 1"], share: float, generator: torch.Generator) -> Float[ndarray, " S"]:
    """Mean turn per step, in radians, where this share of bearings is decoded anywhere on the circle.

    A turn counts only if both its ends are sound: it is $(1 - share)^2$ of the true one."""
    theta = s[..., 0]
    lost = torch.rand(theta.shape, generator=generator) < share
    anywhere = 2 * math.pi * torch.rand(theta.shape, generator=generator)
    return circular.wrap(torch.where(lost, anywhere, theta).diff(dim=-1)).mean((1, 2)).numpy()
