r"""Which noise can a function of activity remove?

Activity is $r = m + \sqrt v\,\xi$, a clean state and the noise of the step before; the step to come adds fresh noise
$\sqrt v\,\xi^+$, independent of $r$. Of all functions of $r$ the step of the score,
$g^*(r) = E[m \mid r] - r = v\,\nabla\log p(r)$, leaves least of the first,

$$ E\lVert g^*(r) + \sqrt v\,\xi\rVert^2 = (1 - F)\,N v, \qquad F = \frac{v}{N}\,E\lVert\nabla\log p(r)\rVert^2 , $$

and for the second every function can only add its own mean square, $g^*$ the share $F$. That $g^*$ is the conditional
mean is seen without the score: the mean of $m - r$ in small tiles of the plane approaches it as $n^{-1/2}$.

Source: Krishna et al. (2024), Eqs. (15) and (16); Miyasawa (1961).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from reactivation_core import theory
from reactivation_core.statistics import tiles

# Tiles of the square within ± LIMIT on which functions of activity are taken as constant, and the least share of the
# samples in a tile that counts.
N_BINS, LIMIT, LEAST = 12, 4.0, 0.005


class Denoising(NamedTuple):
    """What became of noise, for each repeat.

    Attributes:
        regression: root mean square of the mean of $m - r - g^*$ in a tile, for each number of samples.
        removed: share of the squared error that $g^*$ removes if it is the old noise.
        added: share that it adds if the noise is fresh.
        chance: share of fresh noise that the mean in each tile explains.
        loss: norm of what the factors times $g^*$ leave of old and fresh noise together.
        bound: root of its mean square, as the bound with old noise has it for $D = I$ and no change.
    """

    regression: Float[ndarray, "S sizes"]
    removed: Float[ndarray, " S"]
    added: Float[ndarray, " S"]
    chance: Float[ndarray, " S"]
    loss: Float[ndarray, "S factors"]
    bound: Float[ndarray, "S factors"]


def denoising(
    density: theory.Density,
    clean: Callable[[int], Float[Tensor, "n 2"]],
    n_repeats: int,
    n_samples: int,
    sizes: Sequence[int],
    factors: Sequence[float],
    generator: torch.Generator,
) -> Denoising:
    """Draw clean activity and noise in the plane, and see what the score's step does to old and to fresh noise.

    Args:
        density: of noisy activity.
        clean: draws clean activity.
        sizes: numbers of samples for the regression; the samples are cut into blocks of each.
        factors: on the score's step, for loss and bound.
    """
    found = [_once(density, clean(n_samples), sizes, factors, generator) for _ in range(n_repeats)]
    return Denoising(**{name: np.array([one[name] for one in found]) for name in Denoising._fields})


def explained_by_tile(y: Float[ndarray, "n d"], tile: Int[ndarray, " n"], kept: Bool[ndarray, " K"]) -> float:
    """Mean square of `y` that its mean in each tile explains, of the tiles `kept`."""
    count = np.bincount(tile, minlength=len(kept))
    mean = np.stack([np.bincount(tile, column, len(kept)) for column in y.T], -1) / np.maximum(count, 1)[:, None]
    return float((count / len(y))[kept] @ (mean[kept] ** 2).sum(-1))


def _once(density, m, sizes, factors, generator) -> dict[str, float | list[float]]:
    v, (n, N) = density.v, m.shape
    old, fresh = (math.sqrt(v) * torch.randn(m.shape, generator=generator, dtype=m.dtype) for _ in range(2))
    r = m + old
    step = theory.drift(density, r, v)
    tile = tiles(r.numpy(), LIMIT, N_BINS)
    kept = np.bincount(tile, minlength=N_BINS**2) / n > LEAST
    left = (m - r - step).numpy()

    def regression(size):
        blocks = (slice(start, start + size) for start in range(0, n, size))
        return math.sqrt(np.mean([explained_by_tile(left[block], tile[block], kept) for block in blocks]))

    def square(x):
        return x.square().sum(-1).mean().item()

    return {
        "regression": [regression(size) for size in sizes],
        "removed": 1 - square(step + old) / square(old),
        "added": square(step + fresh) / square(fresh) - 1,
        "chance": explained_by_tile(fresh.numpy(), tile, kept) / (N * v),
        "loss": [(a * step + old + fresh).norm(dim=-1).mean().item() for a in factors],
        "bound": [math.sqrt(square(a * step + old) + N * v) for a in factors],
    }


def removable(density: theory.Density) -> float:
    """The share $F$ of the squared error, by quadrature over the plane within ± 9."""
    axis = torch.linspace(-9, 9, 901, dtype=torch.float64)
    plane = torch.cartesian_prod(axis, axis)
    p = density.log_prob(plane).exp() * (axis[1] - axis[0]) ** 2
    return float(p @ theory.drift(density, plane, density.v).square().sum(-1)) / (2 * density.v)
