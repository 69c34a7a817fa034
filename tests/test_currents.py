"""Currents of a diffusion on the ring whose law and current are known."""

import math

import numpy as np
import pytest
import torch

from reactivation_core import theory
from reactivation_core.protocols import currents

D = 0.002


def found(kappa, turns):
    rng = np.random.default_rng(0)
    path = currents.simulated(kappa, turns, D, 400, 500, rng)
    return currents.currents(path[:, :: currents.LAG], rng)


@pytest.mark.parametrize(("kappa", "turns"), [(0.0, 0.002), (1.0, 0.001), (1.0, -0.001)])
def test_a_known_current(kappa, turns):
    of = found(kappa, turns)
    assert of.turning == pytest.approx(2 * math.pi * turns, rel=0.05)
    assert of.drift * of.density == pytest.approx(np.full(24, turns), rel=0.25)
    assert of.production == pytest.approx(currents.ring_production(kappa, turns, D), rel=0.15)
    assert of.diffusion.mean() == pytest.approx(D, rel=0.05)
    assert of.excess > 20 and of.share > 0.9


def test_a_gradient_is_no_current():
    of = found(1.0, 0.0)
    middle = (np.arange(24) + 0.5) * (2 * math.pi / 24) - math.pi
    expected = -D * np.sin(middle)
    # Of the mean turn in LAG steps, less than LAG times that of one.
    slope = of.density @ (of.gradient * expected) / (of.density @ expected**2)
    assert slope == pytest.approx(1, abs=0.2)
    assert abs(of.excess) < 4 and of.share < 0.3
    assert of.divergence == pytest.approx(theory.mean_cosine(1.0) - math.log(np.i0(1.0)), abs=0.05)


def test_noise_of_the_reading_makes_no_current():
    rng = np.random.default_rng(1)
    path = currents.simulated(1.0, 0.0, D, 400, 500, rng) + 0.1 * rng.normal(size=(400, 500))
    assert abs(currents.currents(path[:, ::5], rng).excess) < 4


def test_what_stands_still_has_no_current():
    of = currents.currents(np.full((3, 20), 0.5), np.random.default_rng(0))
    assert of.turning == of.production == of.share == 0 and of.divergence == pytest.approx(math.log(24))


@pytest.mark.parametrize("shape", [(1, 10), (3, 1)])
def test_too_few_trajectories_are_refused(shape):
    with pytest.raises(ValueError, match="at least 2 trajectories"):
        currents.currents(np.zeros(shape), np.random.default_rng(0))


@pytest.mark.parametrize("tiny_experiment", ["head-direction-biased"], indirect=True)
def test_runs_asleep(tiny_ensemble, generator):
    of = currents.asleep(tiny_ensemble, 4, 40, generator)
    assert of.density.shape == (3, 24) and of.turning.shape == (3,)


ANGLES = torch.arange(101, dtype=torch.float64) * (2 * math.pi / 101)


@pytest.mark.parametrize("kappa", [0.0, 1.5])
def test_the_ring_generator_differentiates_and_keeps_its_law(kappa):
    L = currents.ring_generator(-kappa * ANGLES.sin())
    f = ANGLES.cos() + (2 * ANGLES).sin()
    first, second = 2 * (2 * ANGLES).cos() - ANGLES.sin(), -ANGLES.cos() - 4 * (2 * ANGLES).sin()
    torch.testing.assert_close(L @ f, second - kappa * ANGLES.sin() * first)
    torch.testing.assert_close((kappa * ANGLES.cos()).exp() @ L, torch.zeros(101), atol=1e-9, rtol=0, check_dtype=False)


def test_rates_of_a_level_ring_and_of_one_with_a_sharp_density():
    assert currents.ring_rates(0 * ANGLES)[:5].tolist() == pytest.approx([0, 1, 1, 4, 4], abs=1e-8)
    # Near the mode the diffusion is that of Ornstein and Uhlenbeck, whose gap is the curvature.
    assert currents.ring_rates(-50 * ANGLES.sin())[1] == pytest.approx(50, rel=0.02)
    with pytest.raises(ValueError, match="odd number"):
        currents.ring_rates(torch.zeros(100, dtype=torch.float64))


@pytest.mark.parametrize("turns", [0.1, 1.0, 10.0])
def test_a_current_keeps_the_law_and_makes_no_rate_less(turns):
    p = ANGLES.cos().softmax(0) * 101 / (2 * math.pi)
    still, moved = -ANGLES.sin(), turns / p - ANGLES.sin()
    assert (p @ currents.ring_generator(moved)).abs().max() < 1e-8 * max(1, turns)
    assert currents.ring_rates(moved)[1] >= currents.ring_rates(still)[1] - 1e-9


def test_entropy_production_by_quadrature():
    p = (0.7 * ANGLES.cos()).softmax(0) * 101 / (2 * math.pi)
    expected = ((0.3 / p) ** 2 / 0.2 * p).mean() * 2 * math.pi
    assert currents.ring_production(0.7, 0.3, 0.2) == pytest.approx(float(expected))
