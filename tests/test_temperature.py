"""The temperature of sleep: on a ring with a von Mises law of bearings the density at every c is known."""

import math

import numpy as np
import pytest
import scipy.special
import torch

from reactivation_core import densities, phases, theory
from reactivation_core.protocols import temperature

MULTIPLIERS = temperature.MULTIPLIERS


@pytest.fixture(scope="module")
def swept():
    """Divergence, squared turn over 25 steps and spread across of Langevin runs on the ring at every multiplier."""
    v, kappa, generator, rng = 4e-3, 1.0, torch.Generator().manual_seed(0), np.random.default_rng(0)
    ring = theory.Circle(1.0, v, kappa)
    law = densities.CircularDensity(np.random.default_rng(1).vonmises(0, kappa, 100_000))
    start, kl, turns, across = ring.sample(500, generator), [], [], []
    for c in MULTIPLIERS:
        path = theory.chain(ring, start, v, c, 3000, generator)
        bearings = torch.atan2(path[..., 1], path[..., 0]).numpy()
        density = densities.CircularDensity(bearings[:, 1500::50].ravel())
        kl.append(densities.kl_divergence(density, law, rng, 20_000))
        turns.append(temperature.displacement(np.unwrap(bearings)[None, ..., None], 5)[0])
        across.append(float(path[:, 1500:].norm(dim=-1).var()))
    return kappa, *np.array([kl, turns, across])[:, None]


def test_the_divergence_is_that_of_the_law_to_the_power_2_over_c(swept):
    kappa, kl, _, _ = swept
    k = 2 * kappa / MULTIPLIERS[1:]
    i0, i1 = scipy.special.i0, scipy.special.i1
    expected = np.log(i0(kappa) / i0(k)) + (k - kappa) * i1(k) / i0(k)
    # Smoothing by the kernel takes the edge off narrow densities.
    assert np.allclose(kl[0, 1:], expected, rtol=0.2, atol=0.015)
    assert abs(math.log2(temperature.lowest(MULTIPLIERS, kl)[0] / 2)) <= 0.5


def test_what_noise_adds_grows_with_its_variance(swept):
    _, _, turns, across = swept
    for values in (turns, across):
        assert temperature.exponent(MULTIPLIERS, values)[0] == pytest.approx(1, abs=0.15)


def test_an_exponent_is_of_what_noise_adds():
    values = 3 + 2 * MULTIPLIERS[None] ** 1.5
    assert temperature.exponent(MULTIPLIERS, values) == pytest.approx(1.5)
    assert MULTIPLIERS[temperature.near(MULTIPLIERS)] == pytest.approx(2.0 ** np.arange(-1, 2.5, 0.5))
    assert temperature.lowest(MULTIPLIERS, np.abs(MULTIPLIERS - 4)[None]) == 4


def test_across_is_what_the_leading_components_leave():
    rng = np.random.default_rng(0)
    # Two directions with nearly all variance, four with little.
    scale, basis = np.array([3, 2, 0.1, 0.1, 0.1, 0.1]), np.linalg.qr(rng.standard_normal((6, 6)))[0]
    states = (scale * rng.standard_normal((1, 50, 40, 6))) @ basis.T
    (directions,) = temperature.across(states)
    assert directions.shape == (4, 6)
    assert np.abs(directions @ basis[:, :2]).max() < 0.01
    assert temperature.variance([directions], states) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("tiny_experiment", ["position-noisy-unbiased", "head-direction-unbiased"], indirect=True)
def test_a_sweep_is_sleep_from_the_same_starts_with_the_same_noise(tiny_ensemble):
    start = phases.starts(tiny_ensemble, 5, torch.Generator().manual_seed(0))
    measures = {
        "decoded": lambda run: run.decoded.mean((1, 2, 3)).numpy(),
        "norm": lambda run: run.states.norm(dim=-1).mean((1, 2)).numpy(),
    }
    found = temperature.sweep(tiny_ensemble, start, 20, torch.Generator().manual_seed(1), measures)
    for j in (0, 3):
        scale = math.sqrt(MULTIPLIERS[j])
        generator = torch.Generator().manual_seed(1)
        run = phases.quiescent(tiny_ensemble, 20, scale, start, generator, ("states", "decoded"))
        for name, measure in measures.items():
            assert found[name].shape == (3, len(MULTIPLIERS))
            assert (found[name][:, j] == measure(run)).all()
