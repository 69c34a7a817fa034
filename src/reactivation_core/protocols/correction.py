r"""How fast does a network correct what the noise of a single step does to it?

To activity at one time noise of one more step is added, and the difference that it makes is followed, all other noise
and all input being the same:

$$ e_k = \frac{E\lVert D\,(r'(k) - r(k))\rVert^2}{E\lVert D\,(r'(0) - r(0))\rVert^2} $$

after $k$ further steps, and likewise in activity. What lies along the manifold stays, as it cannot be told from motion.
A network that cancels all else at once has $e_1 = e_2 = \dots$, and units that only forget have
$e_k = (1 - dt/\tau)^{2k}$.

Source: Krishna et al. (2024), Appendix B, assumption 4.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from reactivation_core import noise
from reactivation_core.phases import Ensemble
from reactivation_core.streams import spawn


class Correction(NamedTuple):
    """What remains of the noise after 0, 1, …, `K` steps, as a share of its mean square."""

    output: Float[Tensor, "S K+1"]
    activity: Float[Tensor, "S K+1"]

    @property
    def at_once(self) -> Float[Tensor, " S"]:
        """Of what is gone from the output after `K` steps, the share that is gone after one."""
        return (1 - self.output[:, 1]) / (1 - self.output[:, -1])


@torch.no_grad()
def correction(
    ensemble: Ensemble,
    r: Float[Tensor, "S B N_r"],
    ds: Float[Tensor, "S B K d"],
    eta: Float[Tensor, "S B K N_r"],
    generator: torch.Generator,
) -> Correction:
    """Disturb activity `r` by the noise of one step, and run it beside itself.

    Args:
        ds, eta: input and noise of the steps after, the same in both runs.
        generator: draws the disturbance.
    """
    experiment, network = ensemble.experiment, ensemble.network
    law, streams = noise.LAWS[experiment.noise], spawn(generator, ensemble.numbers)
    added = experiment.sigma * noise.each(law, torch.empty_like(r), experiment.dt, streams)
    later = network(r + added, ds, eta) - network(r, ds, eta)
    difference = torch.cat((added[:, :, None], later), 2)
    squares = (x.square().sum(-1).mean(1) for x in (network.readout(difference), difference))
    return Correction(*(x / x[:, :1] for x in squares))
