"""Slow directions and where flows end, in networks where both are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from reactivation_core import experiments, manifolds, phases
from reactivation_core.networks import RNN
from reactivation_core.protocols import attractors, spreading


@pytest.fixture
def rings(generator):
    """Ideal head-direction networks with the same readout, that know 900 bearings and 8; and the ring's places."""
    base = experiments.get("head-direction-unbiased")
    small = base.vary(task={"n_cells": 64}, n_units=64, sigma=0.05 / math.sqrt(base.dt))
    fine = phases.ideal(small, 900, generator)
    coarse = phases.ideal(small, 8, generator, D=fine.network.D[0])
    m = fine.network.density.points
    return fine, coarse, spreading.Places(manifolds.fit(fine, m), m)


def test_the_ideal_ring_has_one_slow_direction_and_one_that_knows_few_bearings_none(rings):
    fine, coarse, places = rings
    for ensemble, count in ((fine, 1), (coarse, 0)):
        found = attractors.slow(ensemble, [ensemble.network.density.points[:4]])
        assert found.count.tolist() == [count]
        assert found.moduli.shape == (1, 20)


def test_flow_leads_to_the_bearings_that_a_network_knows(rings, generator):
    fine, coarse, places = rings
    s = places.draw(200, generator)
    found = attractors.ends(coarse, [places], [s], 100)
    assert found.number.tolist() == [8]
    assert found.at_rest.tolist() == [1]
    # Uniform within the half of an eighth of a turn.
    assert found.distance == pytest.approx(math.pi / 8 / math.sqrt(3), rel=0.1)
    assert np.abs(found.end - found.start).max() < math.pi / 8 + 0.01
    assert attractors.ends(fine, [places], [s], 100).distance < 0.1


def test_with_a_bias_a_leak_rests_at_one_place(tiny_ensemble, generator):
    experiment, shapes = tiny_ensemble.experiment, RNN.shapes(1, 16, 24, 2)
    places = spreading.fit(tiny_ensemble[:1], 20, 20, generator)
    leak = RNN({name: torch.zeros(shape) for name, shape in shapes.items()}, experiment.tau, experiment.dt)
    alone = replace(tiny_ensemble[0], network=leak)
    height = float(places[0].waking.norm(dim=-1).mean()) / 4
    alpha = experiment.dt / experiment.tau
    for multiple, share in ((1, 1), (3, 0)):
        found = attractors.rest(alone, places, [places[0].draw(5, generator)], multiple * alpha * height, 200)
        assert found.share.tolist() == [share]
        assert found.norm == pytest.approx(multiple, rel=1e-3)
        assert found.number.tolist() == [1]
        assert found.modulus == pytest.approx(1 - alpha)


def test_places_that_a_chain_of_short_steps_joins_count_once(rings):
    places = rings[2]
    s = torch.tensor([[0.0], [0.09], [0.18], [1.0], [math.pi - 0.01], [0.01 - math.pi]])
    assert attractors.distinct(places, s) == 3
