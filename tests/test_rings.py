"""A ring, and a helix that the readout maps to one."""

import math

import numpy as np
import pytest
import torch

from reactivation_core import experiments, phases, theory
from reactivation_core.protocols import rings


@pytest.fixture
def experiment():
    base = experiments.get("head-direction-unbiased")
    return base.vary(task={"n_cells": 64}, n_units=64, sigma=0.05 / math.sqrt(base.dt))


def test_the_ideal_ring_has_one_loop_and_returns(experiment, generator):
    ensemble = phases.ideal(experiment, 900, generator)
    found = rings.rings(ensemble, 20, 5, generator)
    assert found.loop_awake > 5
    assert found.loop_asleep > 5
    assert found.one_lap.max() < 0.05
    assert found.two_laps.max() < 0.05


def test_a_helix_does_not_return_and_is_twice_as_far_after_two_laps(experiment, generator):
    task, _ = experiment.draw(1, generator)
    s = 7 * math.pi * torch.linspace(-1, 1, 6301)[:-1, None]
    D = torch.linalg.qr(torch.randn(65, 65, generator=generator, dtype=torch.float64))[0]

    def f(s):
        return torch.cat((task.cells.tuning(s[None])[0], 0.3 * s), -1)

    helix = theory.IdealNetwork(f, s, D, experiment.sigma**2 * experiment.dt)
    start = helix.density.points[None, 900:905]
    one, two = rings.returns(phases.Ensemble(experiment, task, helix), start)[0]
    assert one > 0.2
    assert two / one == pytest.approx(2, abs=0.2)


def test_a_network_that_is_not_carried_around_does_not_return(experiment, generator):
    untrained = phases.untrained(experiment, 1, generator)
    start = phases.starts(untrained, 2, generator)
    assert np.isinf(rings.returns(untrained, start)).all()
