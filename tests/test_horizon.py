"""Memories and networks made for one step and for many: cases whose answer is known."""

import math

import numpy as np
import pytest
import torch

from reactivation_core import phases, theory
from reactivation_core.networks import RNN
from reactivation_core.phases import Ensemble
from reactivation_core.protocols import horizon


@pytest.mark.parametrize("make", [theory.first_order_memory, theory.consistent_memory, theory.best_memory])
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
