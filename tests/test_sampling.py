"""Sleep on the three manifolds and of an ideal network, where the law is known."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from reactivation_core import experiments, phases, theory
from reactivation_core.protocols import sampling

manifolds = pytest.mark.parametrize("manifold", [sampling.Flat(), sampling.UnitCircle(), sampling.Curve()])


@manifolds
def test_coordinates_of_points_near_the_manifold(manifold, generator):
    density = manifold.density(1e-4)
    clean = manifold.coordinates(density.sample(500, generator))
    assert clean.place.shape == (500,) and (clean.across.abs() < 0.06).all()
    off = manifold.coordinates(torch.tensor([manifold.far], dtype=torch.float64))
    assert off.across.abs().max() < 1e-6


@manifolds
def test_awake_is_the_mean_of_the_statistic(manifold, generator):
    r = sampling.waking(manifold, 1e-3, 2, 10_000, generator)
    assert r.shape == (2, 10_000, len(manifold.far))
    mean = manifold.statistic(manifold.coordinates(r).place).mean()
    assert mean == pytest.approx(manifold.awake(1e-3), abs=0.03)
    assert manifold.expected(1e-3, 2) == pytest.approx(manifold.awake(1e-3), rel=1e-3)


def test_expected_on_the_ring_is_von_mises_and_on_the_curve_weighs_its_speed():
    assert sampling.UnitCircle().expected(0.01, 1) == pytest.approx(theory.mean_cosine(2.0))
    s = torch.arange(4096, dtype=torch.float64) * (2 * math.pi / 4096)
    q = (2 * s.cos()).exp() / (1 + (2 * s).sin().square()).sqrt()
    assert sampling.Curve().expected(0.01, 1) == pytest.approx(float(q @ s.cos() / q.sum()))


@pytest.mark.parametrize("c", [1, 2])
def test_sleep_forgets_the_far_side_and_is_as_wide_as_its_noise(c, generator):
    ring, v = sampling.UnitCircle(), 0.02
    r = sampling.settled(ring, v, c, 2, 2000, generator)
    place, off = ring.coordinates(r)
    assert place.cos().mean() == pytest.approx(ring.expected(v, c), abs=0.05)
    assert off.var() == pytest.approx(c * v, rel=0.1)
    assert np.square(sampling.across(ring, v, c, 2, 2000, generator)).mean() == pytest.approx(c, rel=0.1)


def test_waking_estimate_has_the_variance_of_its_closed_form(generator):
    estimate = sampling.waking_estimate(0.05, 0.5, 2, 4000, 200, generator)
    assert estimate.var() == pytest.approx(theory.waking_variance(1.0, 0.05, 0.5), rel=0.05)


def test_an_ideal_network_asleep(generator):
    experiment = experiments.get("head-direction-unbiased").vary(task={"n_cells": 32}, n_units=32, sigma=2.0)
    ensemble = phases.ideal(experiment, 64, generator)
    found = sampling.ring_asleep(ensemble, 2.0, 2, 100, 10, 3, generator)
    assert found.correlation.shape == found.squared_step.shape == (2, 3)
    assert found.bearing.shape == (2, 100) and found.across.shape == (2, 100 * 32)
    assert found.variance_across == pytest.approx([2, 2], rel=0.05)
    per_radian = ensemble.network.tangents[0].norm(dim=-1).mean().item()
    expected = 2 * ensemble.network.density.v / per_radian**2
    assert found.squared_step.mean() == pytest.approx(expected, rel=0.25)


def test_departure_of_one_normal_law_from_another():
    found = sampling.departure(np.sqrt(2) * np.random.default_rng(0).standard_normal(20_000), scipy.stats.norm())
    assert found.ks == pytest.approx(0.083, abs=0.01)
    assert found.kl == pytest.approx((1 - np.log(2)) / 2, abs=0.02)
