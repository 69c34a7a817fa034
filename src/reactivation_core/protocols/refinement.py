r"""Is a time step of $dt$ fine enough? Quiescence in finer steps, on one path of the noise.

Eq. (A.1) is one Euler–Maruyama step of a stochastic differential equation with additive noise, for which the method is
of strong order 1: on one path of the Brownian motion the error of $r$ is in proportion to $dt$, where the drift is
smooth. A reference with steps finer by $F$ has an error of its own, so that what is measured with steps finer by $n$
goes as $1/n - 1/F$.

Source: Kloeden and Platen (1992), Section 10.2.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Integer
from numpy import ndarray
from torch import Tensor

from reactivation_core import phases
from reactivation_core.networks import Network
from reactivation_core.phases import Ensemble
from reactivation_core.tasks import must_be


@torch.no_grad()
def strong_errors(
    ensemble: Ensemble,
    levels: Integer[ndarray, " levels"],
    finest: int,
    n_trajectories: int,
    seconds: float,
    generator: torch.Generator,
) -> Float[ndarray, "S levels"]:
    """Error of activity in quiescence with steps finer by each level, relative to activity, by norm.

    Args:
        levels: parts into which the ensemble's step is cut; divisors of `finest`.
        finest: of the reference.
        seconds: length of the run.
    """
    experiment, network = ensemble.experiment, must_be(Network, ensemble.network)
    weights = {name: value.double() for name, value in network.named_parameters()}
    start = phases.starts(ensemble, n_trajectories, generator).double()
    S, B, N = start.shape
    n_steps = round(seconds / experiment.dt)
    fine = torch.randn(S, B, n_steps * finest, N, generator=generator, dtype=torch.float64)
    fine *= experiment.sigma * math.sqrt(experiment.dt / finest)

    def end(n: int) -> Tensor:
        refined = type(network)(weights, experiment.tau, experiment.dt / n)
        r, still = start, start.new_zeros(S, B, ensemble.task.n_inputs)
        for noise in fine.unflatten(2, (n_steps * n, finest // n)).sum(3).unbind(2):
            r = refined.step(r, still, noise)
        return r

    exact = end(finest)
    errors = [((end(int(n)) - exact).norm(dim=(1, 2)) / exact.norm(dim=(1, 2))).numpy() for n in levels]
    return np.stack(errors, 1)


def order(levels: Integer[ndarray, " levels"], errors: Float[ndarray, "S levels"], finest: int) -> Float[ndarray, " S"]:
    """Slope of the logarithm of each network's errors, 1 for an error in proportion to the step."""
    first_order = np.log(1 / np.asarray(levels) - 1 / finest)
    return np.polyfit(first_order, np.log(errors.T), 1)[0]
