"""Forgetting: a sampler of a normal law in the plane, and one of uniform bearings, whose every law is known."""

import math

import numpy as np
import pytest
import torch

from reactivation_core import densities, phases, theory
from reactivation_core.protocols import forgetting

SPREAD, GROUPS, RUNS, STEPS, WINDOW = 0.5, 3, 100, 1000, 200
LOOKS = slice(None, None, forgetting.EVERY)
LENGTH = WINDOW // forgetting.EVERY
NORMAL = theory.Gaussian(torch.full((2,), SPREAD**2, dtype=torch.float64), 1e-12)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def in_the_plane(tau, start):
    """Langevin runs that forget as exp(-t / tau), and the factor on displacements per step."""
    rho = math.exp(-1 / tau)
    return theory.chain(NORMAL, start, SPREAD**2 * (1 - rho), 2, STEPS, generator(1))[:, :, LOOKS].numpy(), rho


def on_the_ring(q, start):
    """Bearings of Langevin runs on a ring with a uniform law, which turn by a variance of q in a step."""
    r = torch.stack((start.cos(), start.sin()), -1)
    x, y = theory.chain(theory.Circle(1.0, q / 2), r, q / 2, 2, STEPS, generator(1)).unbind(-1)
    return torch.atan2(y, x)[:, :, LOOKS, None].numpy()


def window_divergences(rho, place, variance):
    """KL from the stationary normal law of runs from (place, place), window by window, on a grid."""
    axis = np.linspace(-3, 3, 301)
    log_q = -(axis[:, None] ** 2 + axis**2) / (2 * variance) - np.log(2 * np.pi * variance)
    found = []
    for begin in range(0, STEPS, WINDOW):
        t = np.arange(begin + 1, begin + WINDOW + 1, 4)
        at_time = variance * (1 - rho ** (2 * t))
        one = np.exp(-((axis[:, None] - place * rho**t) ** 2) / (2 * at_time)) / np.sqrt(2 * np.pi * at_time)
        p = one @ one.T / len(t)
        found.append((p * (np.log(p + 1e-300) - log_q)).sum() * (axis[1] - axis[0]) ** 2)
    return np.array(found)


def stationary_rhat(correlation):
    """R-hat of a stationary process with this correlation at lags 1, 2, … below half a run,
    looked at every few steps."""
    n = STEPS // forgetting.EVERY // 2
    lag = np.arange(1, n)
    g = (1 + 2 * ((1 - lag / n) * correlation(forgetting.EVERY * lag)).sum()) / n
    return math.sqrt((1 - 1 / n) / (1 - g))


def twice(x):
    return torch.cat((x, x), 1)


@pytest.mark.parametrize("tau", [50, 5000])
def test_a_sampler_in_the_plane_forgets_at_its_known_rate(tau):
    usual = NORMAL.sample(GROUPS * RUNS, generator()).reshape(GROUPS, RUNS, 2)
    runs, rho = in_the_plane(tau, twice(usual))
    memory = forgetting.memory(runs[:, :RUNS], runs[:, RUNS:])
    assert np.abs(memory.mean(0) - np.exp(-2 * np.arange(0, STEPS + 1, forgetting.EVERY) / tau)).max() < 0.2
    if tau == 50:
        assert forgetting.memory_time(memory).mean() == pytest.approx(tau / 2, rel=0.2)
    else:
        assert (forgetting.memory_time(memory) == STEPS).all()
    rhat = forgetting.rhat(runs[:, :RUNS, 1:]).mean()
    assert rhat == pytest.approx(stationary_rhat(lambda k: rho**k), rel=0.1)


@pytest.mark.parametrize("tau", [50, 5000])
def test_divergences_from_one_place_are_those_of_the_known_law(tau):
    rng = np.random.default_rng(0)
    rho = math.exp(-1 / tau)
    variance = theory.stationary_variance(SPREAD**2, SPREAD**2 * (1 - rho), 2)
    law = math.sqrt(variance) * rng.standard_normal((GROUPS, 20_000, 2))
    place = 0.75
    runs, _ = in_the_plane(tau, torch.full((GROUPS, RUNS, 2), place, dtype=torch.float64))
    found = forgetting.windows(runs[:, :, 1:], densities.estimate(law), LENGTH, rng)
    assert found.shape == (GROUPS, STEPS // WINDOW)
    # 100 runs are lumpy.
    assert np.abs(found.mean(0) - window_divergences(rho, place, variance)).max() < 0.4
    assert found.mean(0)[-1] > 1.5 if tau == 5000 else found.mean(0)[-1] < 0.2


def test_bearings_forget_at_their_known_rate():
    rng, q = np.random.default_rng(0), 0.01
    everywhere = 2 * math.pi * torch.rand(GROUPS, RUNS, generator=generator(), dtype=torch.float64)
    runs = on_the_ring(q, twice(everywhere))
    memory = forgetting.memory(runs[:, :RUNS], runs[:, RUNS:])
    assert np.abs(memory.mean(0) - np.exp(-q * np.arange(0, STEPS + 1, forgetting.EVERY))).max() < 0.2
    rhat = forgetting.rhat(runs[:, :RUNS, 1:]).mean()
    assert rhat == pytest.approx(stationary_rhat(lambda k: np.exp(-q * k / 2)), rel=0.1)
    uniform = densities.estimate(rng.uniform(-np.pi, np.pi, (GROUPS, 20_000, 1)))
    one = on_the_ring(q, torch.zeros(GROUPS, RUNS, dtype=torch.float64))
    found = forgetting.windows(one[:, :, 1:], uniform, LENGTH, rng, 40_000)
    # A wrapped normal law of variance q t, smoothed by the estimate's kernel.
    h, k = densities.CircularDensity(np.zeros(RUNS * LENGTH)).bandwidth, np.arange(1, 60)
    for window, value in enumerate(found.mean(0)):
        t = np.arange(window * WINDOW, (window + 1) * WINDOW) + 1
        a = np.exp(-(k[:, None] ** 2) * (q * t + h**2) / 2).mean(1)
        ratio = np.maximum(1 + 2 * np.cos(np.linspace(-np.pi, np.pi, 2000)[:, None] * k) @ a, 1e-300)
        assert value == pytest.approx((ratio * np.log(ratio)).mean(), abs=0.1)


def test_the_dimension_is_that_of_runs_from_different_starts():
    rng = np.random.default_rng(0)
    start = rng.standard_normal((2, 400, 60)) * (np.arange(60) < 5)
    assert forgetting.dimension(np.tile(start, (1, 2, 1))) == pytest.approx(5, rel=0.05)
    # n runs alike in N directions: 1 / (1 / N + 1 / n), and twice the runs would say more.
    even = rng.standard_normal((2, 20, 60))
    assert forgetting.dimension(np.tile(even, (1, 2, 1))) == pytest.approx(1 / (1 / 60 + 1 / 20), rel=0.1)
    # One direction has all the variance, a common mean none.
    assert forgetting.dimension(7 + start[..., :1] * np.ones(60)) == pytest.approx(1)


def test_frozen_runs_are_remembered_and_never_mix():
    start = np.random.default_rng(0).standard_normal((2, 20, 1, 2))
    still = forgetting.frozen(start, 8)
    assert still.shape == (2, 20, 8, 2)
    assert (still == start).all()
    assert forgetting.memory(still, still) == pytest.approx(1)
    assert np.isinf(forgetting.rhat(still)).all()


@pytest.mark.parametrize("tiny_experiment", ["position-noisy-unbiased", "head-direction-unbiased"], indirect=True)
def test_networks_wake_and_sleep_from_waking_and_from_one_state(tiny_ensemble, generator):
    waking = forgetting.wake(tiny_ensemble, 6, 4, 10, generator)
    d = waking.left_out.shape[-1]
    assert waking.left_out.shape == (3, 4, 2, d)
    assert len(waking.density) == len(waking.norm) == 3
    place = torch.full((1, d), 0.3)
    start = forgetting.encode(tiny_ensemble, place, 5)
    assert torch.equal(start, start[:, :1].expand(-1, 5, -1))
    run = forgetting.sleep(tiny_ensemble, start, 20, 2.0, generator)
    assert run.path.shape == (3, 5, 5, d)
    assert (run.path[:, :, :1] == forgetting.decode(tiny_ensemble, start)).all()
    assert run.norm.shape == run.cosine.shape == (3, 4)
    assert (np.abs(run.cosine) <= 1 + 1e-6).all()


def test_sleep_is_that_of_phases_and_the_norm_can_be_held(tiny_ensemble):
    start = phases.starts(tiny_ensemble, 5, generator())
    free = forgetting.sleep(tiny_ensemble, start, 10, 2.0, generator(1))
    record = ("states", "decoded")
    expected = phases.quiescent(tiny_ensemble, 10, math.sqrt(2), start, generator(1), record, every=forgetting.EVERY)
    assert (free.path[:, :, 1:] == expected.decoded.numpy()).all()
    assert free.norm == pytest.approx(expected.states.norm(dim=-1).mean(1).numpy())
    assert (free.end == expected.states[:, :, -1].numpy()).all()
    held = forgetting.sleep(tiny_ensemble, start, 200, 0.0, generator(1), norm=np.full(3, 5.0, np.float32))
    # Between two corrections an untrained network fades by ten steps of its leak at most.
    assert held.norm[:, -1].min() > 5 * 0.8**10
    assert forgetting.sleep(tiny_ensemble, start, 200, 0.0, generator(1)).norm[:, -1].max() < 1e-3


def test_first_below_interpolates():
    times = np.array([1.0, 2.0, 4.0])
    assert forgetting.first_below(times, np.array([1.0, 0.6, 0.2]), 0.5) == pytest.approx(2.5)
    assert forgetting.first_below(times, np.array([0.1, 0.0, 0.0]), 0.5) == 1.0
    assert forgetting.first_below(times, np.array([1.0, 1.0, 1.0]), 0.5) == np.inf
