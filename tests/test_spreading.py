"""How noise and flow spread represented states, where both are known."""

import math

import numpy as np
import pytest
import torch

from reactivation_core import experiments, manifolds, phases
from reactivation_core.protocols import spreading

TIMES = np.array([10, 20, 30])


@pytest.fixture
def ring(generator):
    """The ideal head-direction network, its noise small, with its places."""
    base = experiments.get("head-direction-unbiased")
    small = base.vary(task={"n_cells": 64}, n_units=64, sigma=0.05 / math.sqrt(base.dt))
    ensemble = phases.ideal(small, 900, generator)
    m = ensemble.network.density.points
    manifold = manifolds.fit(ensemble, m + 0.05 * torch.randn(m.shape, generator=generator))
    return ensemble, spreading.Places(manifold, m)


def test_the_ideal_ring_spreads_as_projected_noise_does(ring, generator):
    ensemble, places = ring
    found = spreading.spread(ensemble, [places], 30, 10, 40, 20, generator)
    assert all(x.shape == (1, 3) for x in found)
    last = {name: x[0, -1] for name, x in found._asdict().items()}
    # After the first steps, in which the noise of sleep relaxes.
    assert found.flow[0] == pytest.approx(last["flow"], rel=0.05)
    assert last["flow"] < 0.15 * last["measured"]
    assert last["kept"] == pytest.approx(1, abs=0.05)
    # The ideal ring is not quite that of a projection.
    assert last["measured"] / last["geometry"] == pytest.approx(1, abs=0.2)
    assert last["measured"] / last["small_noise"] == pytest.approx(1, abs=0.2)
    # The population vector hears what is across at once, and adds a constant.
    rise = np.diff(found.small_noise[0]) / np.diff(found.small_noise_along[0])
    assert rise == pytest.approx([1, 1], abs=0.05)
    # Every part is as large again with twice the variance.
    doubled = spreading.spread(ensemble, [places], 30, 10, 40, 20, generator, c=2.0)
    assert doubled.small_noise / found.small_noise == pytest.approx(np.full((1, 3), 2), rel=0.1)


def test_a_turning_ring_flows_by_more_than_half_a_turn(ring, generator):
    ensemble, places = ring
    turn, step = 0.15, ensemble.network.step
    ensemble.network.step = lambda r, ds, noise: step(r, torch.full_like(ds, turn), noise)
    found = spreading.spread(ensemble, [places], 30, 10, 5, 2, generator)
    assert np.sqrt(found.flow[0]) == pytest.approx(turn * TIMES, rel=0.05)


@pytest.mark.parametrize("network, by_ray", [("rnn", True), ("gru", False)])
def test_rectified_networks_are_read_by_rays_and_gated_ones_by_points(tiny_experiment, network, by_ray, generator):
    ensemble = phases.untrained(tiny_experiment.vary(network=network), 2, generator)
    one, two = spreading.fit(ensemble, 20, 20, generator)
    assert one.by_ray == two.by_ray == by_ray
    assert one.waking.shape == (40, 16)
    r = one.waking[:6].reshape(2, 3, 16)
    read = one.manifold.ray if by_ray else one.manifold.place
    assert torch.equal(one(r), read(r.flatten(0, 1)).reshape(2, 3, 2))
    assert np.array_equal(spreading.read([one, two], torch.stack((r, r)))[0], one(r).numpy())
    drawn = one.draw(5, generator)
    assert (drawn[:, None] == one(one.waking)).all(-1).any(1).all()


def test_faded_activity_is_spread_by_more(tiny_ensemble, generator):
    places = spreading.fit(tiny_ensemble[:1], 20, 20, generator)[0]
    r = places.manifold(places.draw(5, generator))
    torch.testing.assert_close(places.projected(r / 2), 4 * places.projected(r), rtol=1e-3, atol=0)
    torch.testing.assert_close(places.gradient(r / 2), 2 * places.gradient(r), rtol=1e-3, atol=1e-4)
