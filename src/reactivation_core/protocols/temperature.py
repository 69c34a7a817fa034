r"""Has sleep a temperature?

Sleep with noise of $c$ times the waking variance is Langevin's at the temperature $c/2$. Where the score is that of a
density $p$ along a manifold, the stationary density is

$$ \tilde p \propto p^{2/c}, \qquad c = 2 \text{ in Eq. (19),} $$

flatter for $c > 2$, more peaked for $c < 2$, so that $KL(\tilde p \,\Vert\, p)$ is least, and 0, at $c = 2$; unless $p$
is uniform, which is the same at every $c$. Squared displacements grow as $c$, and so does the variance across the
manifold, where the only spread is that of the noise. A sweep of $c$ measures all of them, from the same starts and with
the same random numbers at every $c$.

Source: Krishna et al. (2024), Eq. (19); Gardiner (2009), section 5.3, for the stationary density.
"""

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core import phases, statistics
from reactivation_core.phases import Ensemble, Phase

# 0, then from 1/2 to 16 by half octaves.
MULTIPLIERS = np.array([0, *2.0 ** np.arange(-1, 4.5, 0.5)])


def sweep(
    ensemble: Ensemble,
    start: Float[Tensor, "S B N_r"],
    n_steps: int,
    generator: torch.Generator,
    measures: Mapping[str, Callable[[Phase], ndarray]],
    record: Iterable[str] = ("states", "decoded"),
    every: int = 1,
    multipliers: ndarray = MULTIPLIERS,
) -> dict[str, Float[ndarray, "S c"]]:
    """Sleep from the same starts with the same random numbers at every multiplier of the waking variance.

    Args:
        measures: by name, what is measured of a run, a value for each network.
        record, every: what of a run they need, and how often, as in `phases.quiescent`.
    """
    state, found = generator.get_state(), {name: [] for name in measures}
    for c in multipliers:
        generator.set_state(state)
        asleep = phases.quiescent(ensemble, n_steps, math.sqrt(c), start, generator, record, every)
        for name, measure in measures.items():
            found[name].append(measure(asleep))
    return {name: np.transpose(values) for name, values in found.items()}


def displacement(x: Float[ndarray, "S B T d"], lag: int) -> Float[ndarray, " S"]:
    """`statistics.mean_squared_displacement` of each network at one lag; bearings should be unwrapped."""
    return np.array([statistics.mean_squared_displacement(of, np.array([lag]))[0] for of in x])


def near(multipliers: Float[ndarray, " c"]) -> ndarray:
    """Which multipliers are from 1/2 to 4, within an octave or two of what the paper has."""
    return (multipliers >= 0.5) & (multipliers <= 4)


def exponent(multipliers: Float[ndarray, " c"], values: Float[ndarray, "S c"]) -> Float[ndarray, " S"]:
    """Exponent with which what noise adds to values grows with the multiplier of its variance, from 1/2 to 4; 1 if in
    proportion. The first multiplier is 0, and its value, no work of noise, is subtracted."""
    chosen = near(multipliers)
    return np.array([statistics.exponent(multipliers[chosen], x[chosen] - x[0]) for x in values])


def lowest(multipliers: Float[ndarray, " c"], divergences: Float[ndarray, "S c"]) -> Float[ndarray, " S"]:
    """Multiplier above 0 with the smallest divergence, of each network."""
    heated = multipliers > 0
    return multipliers[heated][divergences[:, heated].argmin(1)]


def across(clean: Float[ndarray, "S B T N"]) -> list[Float[ndarray, "k N"]]:
    """Orthonormal directions across each network's manifold: orthogonal to the principal components that hold 99 % of
    the variance of waking activity without noise."""
    found = []
    for states in clean:
        basis = statistics.principal_components(states.reshape(-1, states.shape[-1]))
        n_along = np.searchsorted(basis.explained_variance_ratio_.cumsum(), 0.99) + 1
        found.append(basis.components_[n_along:])  # pyright: ignore[reportOptionalSubscript]
    return found


def variance(directions: list[Float[ndarray, "k N"]], states: Float[ndarray, "S B T N"]) -> Float[ndarray, " S"]:
    """Mean over directions of the variance of activity along them, over runs and steps."""
    pairs = zip(directions, states, strict=True)
    return np.array([(r.reshape(-1, r.shape[-1]) @ d.T).var(0).mean() for d, r in pairs])
