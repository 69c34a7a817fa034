r"""Does a network add up the changes it is told about, and does the length of its time step matter?

A network is run on inputs that need not be those of its trajectory: none, those of another trajectory, or its own in
another order, whose sum is the same. And a time step $dt$ of the input can be taken in several smaller steps of the
network, each with noise $N(0, dt)$ of the smaller $dt$: if Eq. (2) has a limit as $dt \to 0$, nothing changes.

Source: Krishna et al. (2024), Appendix B, assumptions 1 and 2.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from reactivation_core import noise
from reactivation_core.networks import Network
from reactivation_core.phases import Ensemble
from reactivation_core.streams import spawn
from reactivation_core.tasks import must_be


@torch.no_grad()
def track(
    ensemble: Ensemble,
    start: Float[Tensor, "S B N_r"],
    ds: Float[Tensor, "S B T d"],
    generator: torch.Generator,
    parts: int = 1,
) -> Float[Tensor, "S B T d"]:
    """Decoded states after each time step of the input, from activity `start`, with fresh noise.

    Args:
        ds: inputs; each is given anew in all `parts` of its time step.
        parts: steps of the network in a time step of the input.
    """
    experiment, network = ensemble.experiment, must_be(Network, ensemble.network)
    parameters = {name: value.detach() for name, value in network.named_parameters()}
    network = type(network)(parameters, network.tau, network.dt / parts)
    law, streams = noise.LAWS[experiment.noise], spawn(generator, ensemble.numbers)
    r, decoded = start, []
    for x in ds.unbind(2):
        for _ in range(parts):
            eta = noise.each(law, torch.empty_like(r), network.dt, streams)
            r = network.step(r, x, experiment.sigma * eta)
        decoded.append(ensemble.task.cells.decode(network.readout(r[:, :, None])))
    return torch.cat(decoded, 2)
