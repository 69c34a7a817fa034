"""What keeps an ideal network by its ring, what tangent steps lose, and what walls tell."""

import math

import pytest
import torch

from reactivation_core import experiments, phases, theory
from reactivation_core.protocols.tracking import Walls, circle_error, distances, turn_variance


def test_distances_with_and_without_the_denoiser(generator):
    experiment = experiments.get("head-direction-unbiased")
    task = {"n_cells": 32, "motion": {"turning": 2.0}}
    ensemble = phases.ideal(experiment.vary(task=task, n_units=32, sigma=0.3), 256, generator)
    v, n_steps = ensemble.network.density.v, 30
    found = distances(ensemble, 300, n_steps, generator)
    assert found.with_denoiser.shape == found.without.shape == found.shortfall.shape == (300, n_steps)
    kept, lost, short = (x[:, -1].mean().item() for x in found)
    assert kept == pytest.approx(v * (31 + n_steps), rel=0.1)
    assert lost == pytest.approx(v * 32 * n_steps + short, rel=0.1)


def test_on_a_circle_turns_err_by_noise_alone_and_tangents_fall_short(generator):
    ring, sd = theory.Circle(1.0, 4e-4), 0.3
    turns = sd * torch.randn(3000, 40, generator=generator, dtype=torch.float64)
    error = {tangent: circle_error(ring, turns, tangent, generator)[:, -1].mean().item() for tangent in (False, True)}
    short = (turns - turns.atan()).square().mean().item()
    assert error[False] == pytest.approx(40 * ring.v, rel=0.1)
    assert error[True] == pytest.approx(40 * (ring.v + short), rel=0.1) and short > ring.v


def test_walls_say_where_a_displacement_is_likely(generator):
    motion, side = experiments.get("position-noisy-unbiased").task.motion, 101
    walls = Walls(motion, side, 2000, generator)
    assert walls.share.sum(0) == pytest.approx(1)
    likely = walls(torch.tensor([[[0.04, 0.0], [-0.04, 0.0], [0.0, 0.0]]])).reshape(3, side, side)
    # A large step to the right is unlikely where it is stopped, and as likely as to the left in the middle.
    assert likely[0, -1, 50] < 0.5 * likely[0, 50, 50]
    assert likely[0].flip(0) == pytest.approx(likely[1], rel=1e-2)
    assert likely[2, 50, 50] > likely[0, 50, 50]


def test_a_finite_turn_falls_short_by_what_is_predicted(generator):
    experiment = experiments.get("head-direction-unbiased")
    task = {"n_cells": 32, "motion": {"turning": 2.0}}
    head = phases.ideal(experiment.vary(task=task, n_units=32, sigma=0.5), 256, generator)
    network, turning = head.network, 0.3
    turns = turning * torch.linspace(-5, 5, 401, dtype=torch.float64)
    start = network.density.points[128:129].expand(401, -1)
    reached = network.bearing(network.step(start, turns[:, None], 0.0))
    weights = (-(turns / turning).square() / 2).softmax(0)
    taken = float(weights @ (turns - reached).square())
    assert turn_variance(network, turning) == pytest.approx(taken, rel=0.03)
    fine = torch.arange(4096, dtype=torch.float64)[:, None] * (2 * math.pi / 4096) - math.pi
    network = theory.IdealNetwork(head.task.cells.tuning, fine, network.D[0], 0.01)
    ratio = turn_variance(network, 0.06) / turn_variance(network, 0.03)
    assert math.log2(ratio) == pytest.approx(6, abs=0.2)
