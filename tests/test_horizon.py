"""Memories and networks made for one step and for many: cases whose answer is known."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from reactivation_core import phases, theory
from reactivation_core.networks import RNN
from reactivation_core.phases import Ensemble
from reactivation_core.protocols import horizon


@pytest.mark.parametrize("make", [horizon.first_order_memory, horizon.consistent_memory, horizon.best_memory])
def test_a_memory_does_what_its_closed_form_says(make):
    memory = make(0.8, 0.05)
    run = horizon.simulated(memory, 2.0, 2, 20_000, np.random.default_rng(0))
    assert run.error == pytest.approx(memory.error, rel=0.03)
    assert run.awake == pytest.approx(memory.awake, rel=0.03)
    assert run.asleep == pytest.approx(memory.asleep(2), rel=0.03)


@pytest.mark.parametrize("tiny_experiment", ["head-direction-unbiased"], indirect=True)
def test_a_network_that_only_leaks_hears_no_input_and_loses_the_bearing(tiny_experiment, generator):
    task, network = tiny_experiment.draw(2, generator)
    zero = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    leak = RNN(zero | {"encoder": network.encoder.detach(), "D": network.D.detach()}, network.tau, network.dt)
    found = horizon.examine(Ensemble(tiny_experiment, task, leak), 600, generator)
    assert found.multiplier == pytest.approx(1)
    # What is left of the start is nothing, and noise settles at twice its variance awake.
    assert found.asleep_over_awake == pytest.approx(2, rel=0.1)
    assert found.error == pytest.approx(math.pi / 2, abs=0.15)


@pytest.mark.parametrize("tiny_experiment", ["head-direction-unbiased"], indirect=True)
def test_an_ideal_network_wanders_asleep_as_it_errs_awake(tiny_experiment, generator):
    experiment = tiny_experiment.vary(task={"n_cells": 32}, n_units=32, sigma=0.3)
    ideal = phases.ideal(experiment, 512, generator, kind=theory.OptimalNetwork)
    found = horizon.examine(ideal, 500, generator)
    assert found.wandered / found.growth == pytest.approx(1, abs=0.35)
    assert found.turned > 4 * found.growth
    with pytest.raises(ValueError, match="noise sigma > 0"):
        horizon.examine(Ensemble(experiment.vary(sigma=0.0), ideal.task, ideal.network), 3, generator)


MEMORIES = pytest.mark.parametrize("correlation, v", [(0.9, 0.1), (0.9, 1e-4), (0.5, 0.01), (-0.3, 0.05)])


@MEMORIES
def test_moments_of_a_memory_solve_its_recursion(correlation, v):
    memory = horizon.Memory(0.83, 0.7, correlation, v)
    step = np.array([[0.83, 0.7 * (correlation - 1)], [0, correlation]])
    drawn = (1 - correlation**2) * np.array([[0.49, 0.7], [0.7, 1]]) + np.diag([v, 0])
    law = scipy.linalg.solve_discrete_lyapunov(step, drawn)
    assert memory.awake == pytest.approx(law[0, 0])
    assert memory.error == pytest.approx(law[0, 0] - 2 * law[0, 1] + law[1, 1])
    assert memory.asleep(memory.multiplier) == pytest.approx(memory.awake)
    # What noise does to the error is what it does asleep.
    assert memory.asleep(1) < memory.error


@MEMORIES
def test_the_memory_of_eq_18_is_that_of_the_other_closed_forms(correlation, v):
    memory = horizon.first_order_memory(correlation, v)
    assert memory.awake == pytest.approx(theory.waking_variance(1.0, v, correlation))
    assert memory.multiplier == pytest.approx(theory.waking_multiplier(1.0, v, correlation))
    assert memory.multiplier == pytest.approx(1 + 2 * (1 - correlation) / (1 - correlation + v))


@MEMORIES
def test_a_consistent_memory_is_the_regression_under_the_law_it_makes(correlation, v):
    memory = horizon.consistent_memory(correlation, v)
    a, g, delta = memory.decay, memory.gain, 1 - correlation
    C = g * delta / (1 - a * correlation)
    seen = np.array([[memory.awake, -delta * C], [-delta * C, 2 * delta]])
    assert np.linalg.solve(seen, [correlation * C, delta]) == pytest.approx([a, g])
    assert memory.error == pytest.approx(1 - C + v)


@MEMORIES
def test_no_memory_errs_less_than_the_best(correlation, v):
    best = horizon.best_memory(correlation, v)
    decays, gains = np.tanh(np.linspace(-2, 6, 200)), np.linspace(0, 1.5, 100)
    errors = [horizon.Memory(a, g, correlation, v).error for a in decays for g in gains]
    assert best.error <= min(errors) < 1.2 * best.error
    assert horizon.consistent_memory(correlation, v).error < 1.3 * best.error


@pytest.mark.parametrize("memory", [horizon.best_memory, horizon.consistent_memory])
def test_memories_forget_and_err_by_the_square_root_of_the_noise(memory):
    v, alpha = 1e-8, 0.9
    found, unit = memory(alpha, v), math.sqrt(v * (1 + alpha) / (1 - alpha))
    assert found.error == pytest.approx(unit, rel=1e-3)
    assert 1 - found.decay == pytest.approx(math.sqrt(v * (1 - alpha) / (1 + alpha)), rel=1e-3)
    assert found.asleep(2) == pytest.approx(found.error, rel=1e-3)


def test_cut_gradients_rest_between_one_step_and_the_best():
    memories = [horizon.truncated_memory(0.9, 0.01, k) for k in (1, 3, 10, 100, 3000)]
    assert memories[0] == pytest.approx(horizon.consistent_memory(0.9, 0.01), rel=1e-6)
    assert memories[-1] == pytest.approx(horizon.best_memory(0.9, 0.01), rel=1e-2)
    errors = [memory.error for memory in memories]
    assert errors == sorted(errors, reverse=True)
    with pytest.raises(ValueError, match="horizon of at least 1 step, got 0"):
        horizon.truncated_memory(0.9, 0.01, 0)


def test_cut_gradients_are_those_of_automatic_differentiation(generator):
    """At the point of rest the gradient of runs from its own law, started anew every k steps, vanishes."""
    alpha, v, k = 0.8, 0.05, 4
    a, g = (torch.tensor(x, requires_grad=True) for x in horizon.truncated_memory(alpha, v, k)[:2])
    x, r, n = torch.randn(200_000, generator=generator), torch.zeros(200_000), 200_000
    total = torch.zeros(())
    for t in range(200 + k):
        w, xi = torch.randn(2, n, generator=generator)
        new = alpha * x + math.sqrt(1 - alpha**2) * w
        if t < 200:
            r = (a.detach() * r + g.detach() * (new - x) + math.sqrt(v) * xi).detach()
        else:
            r = a * r + g * (new - x) + math.sqrt(v) * xi
            total = total + (r - new).square().mean() / 2
        x = new
    found = torch.autograd.grad(total, (a, g))
    assert max(abs(float(one)) for one in found) < 0.01
