"""What remains of a step's noise, where that is known."""

import pytest
import torch

from reactivation_core import phases
from reactivation_core.networks import Network
from reactivation_core.protocols.correction import correction


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Flat(Network):
    """A linear network that goes a part of the way to a plane in each step, and stays on it."""

    weights = {"W_in": ("N_r", "N_in")}

    def __init__(self, part):
        parameters = {"encoder": normal(1, 12, 5), "D": normal(1, 5, 12), "W_in": normal(1, 12, 2)}
        super().__init__(parameters, 0.1, 0.02)
        plane = torch.linalg.qr(normal(12, 2, seed=1)).Q
        self.part, self.onto = part, plane @ plane.T

    def step(self, r, ds, noise):
        return r - self.part * (r - r @ self.onto) + noise


@pytest.mark.parametrize("part, at_once", [(1.0, 1.0), (0.2, 0.36)])
def test_what_lies_on_the_manifold_stays_and_the_rest_goes_at_the_networks_pace(tiny_experiment, part, at_once):
    network, generator = Flat(part), torch.Generator().manual_seed(3)
    ensemble = phases.Ensemble(tiny_experiment, tiny_experiment.task.draw(1, generator), network)
    r, ds, eta = normal(1, 20_000, 12), torch.zeros(1, 20_000, 20, 2), normal(1, 20_000, 20, 12, seed=2)
    found = correction(ensemble, r, ds, eta, generator)
    stays = float((network.D[0].detach() @ network.onto).square().sum() / network.D.detach().square().sum())
    assert found.output[0, -1] == pytest.approx(stays, rel=0.05)
    assert found.activity[0, -1] == pytest.approx(2 / 12, rel=0.05)
    assert found.at_once[0] == pytest.approx(at_once, abs=0.01)


def test_units_that_only_forget(tiny_ensemble):
    with torch.no_grad():
        tiny_ensemble.network.W_rec.zero_()
    experiment = tiny_ensemble.experiment
    r, ds, eta = torch.rand(3, 4, 16), torch.rand(3, 4, 6, 2), torch.rand(3, 4, 6, 16)
    found = correction(tiny_ensemble, r, ds, eta, torch.Generator().manual_seed(0))
    expected = (1 - experiment.dt / experiment.tau) ** (2 * torch.arange(7)).expand(3, 7)
    for x in found:
        torch.testing.assert_close(x, expected, rtol=1e-3, atol=0)
