"""Networks of open units that keep all they are given, in which half of the variance enters by the input."""

import numpy as np
import pytest
import torch

from reactivation_core import experiments, manifolds, noise, phases
from reactivation_core.protocols import directions
from reactivation_core.protocols.spreading import Places

N, STEPS = 6, 20


class Flat(manifolds.Manifold):
    """Places that are linear in activity, and a plane that they are the coordinates of."""

    def __init__(self, L):
        self.L, self.origin = L, torch.full((N,), 10.0)

    def __call__(self, s):
        return self.origin + (s @ torch.linalg.pinv(self.L).T)

    def tangents(self, s):
        return torch.linalg.pinv(self.L).T[:, None].expand(-1, len(s), -1)

    def place(self, r):
        return (r - self.origin) @ self.L.T

    ray = place

    def gradient(self, r):
        return self.L[:, None].expand(-1, len(r), -1)


@pytest.fixture
def case(generator):
    """A network whose recurrence holds every unit, with the places L r, L = B⁺ + M, M B = 0 and as large as B⁺."""
    experiment = experiments.get("position-noisy-unbiased").vary(n_units=N, task={"n_cells": 8}, sigma=0.01)
    ensemble = phases.untrained(experiment, 1, generator)
    B = torch.cat((torch.randn(N - 1, 2, generator=generator), torch.zeros(1, 2)))
    with torch.no_grad():
        ensemble.network.W_rec[0] = torch.eye(N)
        ensemble.network.W_in[0] = B * experiment.tau / experiment.dt
        # Every start is far within where all units are open.
        ensemble.network.encoder[0] = 10 / ensemble.task.cells.tuning(torch.zeros(1, 1, 2)).sum()
    pinv = torch.linalg.pinv(B)
    other = torch.randn(2, N, generator=generator)
    other -= other @ B @ pinv
    L = pinv + other * (pinv.norm() / other.norm())
    return ensemble, Places(Flat(L), torch.zeros(1, N)), B, L


def test_the_directions_of_the_input_are_those_of_open_units(case):
    ensemble, _, B, _ = case
    r = torch.full((1, N), 10.0)
    torch.testing.assert_close(directions.inputs(ensemble, r)[:, 0].T, B)
    with torch.no_grad():
        ensemble.network.W_rec[0, 2, 2] = -1
    B = B.clone()
    B[2] = 0
    torch.testing.assert_close(directions.inputs(ensemble, r)[:, 0].T, B)


def test_half_of_the_variance_goes_with_the_input(case, generator):
    ensemble, places, B, L = case
    found = directions.moved(ensemble, [places], STEPS, 10, 20, 100, generator, directions.KEPT)
    v = 2 * ensemble.experiment.sigma**2 * ensemble.experiment.dt
    whole, without, alone, random, random_open = found.variance[0, :, -1]
    known = STEPS * v * float(L.square().sum())
    assert whole == pytest.approx(known, rel=0.1)
    assert found.variance[0, 0, 0] / whole == pytest.approx(0.5, abs=0.05)
    assert without / whole == pytest.approx(0.5, abs=0.05)
    assert alone / whole == pytest.approx(0.5, abs=0.05)
    assert random / whole == pytest.approx(1 - 2 / N, abs=0.05)
    # The unit that no input reaches keeps all of its noise.
    closed = float(L[:, -1].square().sum() / L.square().sum())
    assert random_open / whole == pytest.approx(closed + (1 - closed) * (1 - 2 / (N - 1)), abs=0.05)
    assert found.motion[0, -1] == pytest.approx(known / 2, rel=0.1)
    assert found.slope[0] == pytest.approx(1, abs=0.1)
    assert found.explained[0] == pytest.approx(0.5, abs=0.05)
    assert found.flow == pytest.approx(np.zeros((1, 2)), abs=1e-6)


def test_small_noise_says_the_same(case, generator):
    ensemble, places, _, L = case
    found = directions.linear(ensemble, [places], STEPS, 5, generator)
    v = 2 * ensemble.experiment.sigma**2 * ensemble.experiment.dt
    assert found.variance == pytest.approx([STEPS * v * float(L.square().sum())], rel=1e-3)
    assert found.input == pytest.approx([0.5], abs=1e-3)
    # The tangents span the rows of L, so that nothing comes from elsewhere.
    assert found.along == pytest.approx([0.5], abs=1e-3)
    assert found.across == pytest.approx([0], abs=1e-3)
    assert found.gain == pytest.approx([1], abs=1e-3)


def test_a_noise_that_has_a_mean_keeps_it(case, generator):
    ensemble, places, _, _ = case
    experiment = ensemble.experiment.vary(noise="uniform")
    uniform = phases.Ensemble(experiment, ensemble.task, ensemble.network)
    found = directions.moved(uniform, [places], STEPS, 10, 20, 100, generator, directions.KEPT[:3])
    whole, without, _ = found.variance[0, :, -1]
    v = 2 * experiment.sigma**2 * experiment.dt / 12
    assert whole == pytest.approx(STEPS * v * float(places.manifold.L.square().sum()), rel=0.1)
    assert without / whole == pytest.approx(0.5, abs=0.05)
    mean = STEPS * 2**0.5 * experiment.sigma * noise.mean("uniform", experiment.dt)
    apart, _ = directions._copies(uniform, places, torch.full((5, N), 10.0), STEPS, STEPS, 200, 0, "without input")
    assert apart.mean((0, 1, 2)).numpy() == pytest.approx((mean * places.manifold.L.sum(1)).numpy(), rel=0.05, abs=0.01)
    assert found.flow[0, -1] == pytest.approx(float((mean * places.manifold.L.sum(1)).square().sum()), rel=1e-2)


def test_gated_networks_are_refused(tiny_experiment, generator):
    ensemble = phases.untrained(tiny_experiment.vary(network="gru"), 1, generator)
    with pytest.raises(ValueError, match="expected RNN, got GRU"):
        directions.inputs(ensemble, torch.zeros(1, 16))


def test_other_noises_are_refused(case, generator):
    ensemble, places, _, _ = case
    for kept in (("without input",), ("all", "none")):
        with pytest.raises(ValueError, match="first 'all'"):
            directions.moved(ensemble, [places], 10, 10, 2, 2, generator, kept)
