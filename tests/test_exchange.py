"""Input in the place of noise: cases in which the condition holds, and cases that miss it."""

import math

import numpy as np
import pytest
import torch

from reactivation_core import phases, theory
from reactivation_core.networks import RNN
from reactivation_core.phases import Ensemble
from reactivation_core.protocols import exchange, tracking


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_excess_is_that_of_white_noise_and_of_one_direction():
    still, v = normal(4000, 10, 6), 0.04
    white = math.sqrt(2 * v) * normal(4000, 10, 6, seed=1)
    assert exchange.excess(still + white, still, v) == pytest.approx(2, abs=0.5)
    one = white * torch.eye(6)[0]
    found = exchange.excess(still + one, still, v)
    assert found[0] == pytest.approx(2, abs=0.5) and found[1:] == pytest.approx(0, abs=0.5)
    # Input that takes variance away.
    assert exchange.excess(0.5 * still, still, 1.0) == pytest.approx(-0.75, abs=0.1)


def test_distances_are_in_standard_deviations_whatever_the_direction():
    x, turn = normal(20_000, 3) * torch.tensor([1.0, 0.1, 0.01]), torch.linalg.qr(normal(3, 3, seed=1)).Q
    scale = exchange.Scale(x @ turn)
    other = normal(20_000, 3, seed=2) * torch.tensor([1.0, 0.1, 0.01])
    assert scale.apart(x @ turn, other @ turn) < 0.03
    wider = other * torch.tensor([1.0, 1.0, math.sqrt(2)])
    expected = (math.sqrt(2) - 1) * math.sqrt(2 / math.pi) / 3
    assert scale.apart(wider @ turn, x @ turn) == pytest.approx(expected, rel=0.15)


def animal(n_still, n_steps=120, variance=1.0, v=0.1, correlation=0.9):
    """Changes of an Ornstein-Uhlenbeck animal in 3 dimensions, and the step of Eq. (18) with more units than these."""
    x, noise = [normal(4, 1500, 3, seed=3)], normal(n_steps, 4, 1500, 3, seed=4)
    for w in noise:
        x.append(correlation * x[-1] + math.sqrt(variance * (1 - correlation**2)) * w)
    density = theory.Gaussian(torch.tensor([variance] * 3 + [0.0] * n_still), v)

    def step(r, dx):
        m = r + theory.drift(density, r, v)
        return m if dx is None else m + torch.nn.functional.pad(dx, (0, n_still))

    start = torch.nn.functional.pad(x[0][0], (0, n_still))
    c = theory.waking_multiplier(variance, v, correlation)
    return step, start, torch.stack(x, 2).diff(dim=2), v, c


@pytest.mark.parametrize("n_still, keeps", [(0, True), (3, False)])
def test_an_ornstein_uhlenbeck_animal_is_kept_unless_a_unit_stands_still(n_still, keeps, generator):
    step, start, changes, v, c = animal(n_still)
    found = exchange.keeping(step, start, changes, v, c, 40, generator)
    assert (found.over_floor.mean() < 2) == keeps
    # Another multiplier does not keep it.
    assert exchange.keeping(step, start, changes, v, 2 * c, 40, generator).over_floor.mean() > 2


@pytest.mark.parametrize("tangent", [False, True])
def test_a_ring_is_kept_by_turns_and_not_by_tangents(tangent, generator):
    ring, turns = theory.Circle(1.0, 0.01), 0.5 * normal(4, 3000, 60, 1)
    angle = 2 * math.pi * torch.rand(3000, generator=generator, dtype=torch.float64)

    def step(r, ds):
        m = r + theory.drift(ring, r, ring.v)
        return m if ds is None else tracking.turned(m, ds[..., 0], tangent)

    start = torch.stack((angle.cos(), angle.sin()), -1)
    found = exchange.keeping(step, start, turns, ring.v, 1.0, 30, generator)
    assert (found.over_floor.mean() > 2) == tangent


@pytest.fixture
def adding(tiny_experiment):
    """Networks of which some units add up their input by a leak, and others are not moved."""
    experiment = tiny_experiment.vary(sigma=0.05)
    ensemble = phases.untrained(experiment, 2, torch.Generator().manual_seed(0))
    parts = {name: torch.zeros_like(x) for name, x in ensemble.network.named_parameters()}
    parts["D"] = parts["D"] + 0.1
    # Each displacement moves two units, one by its positive part and one by its negative.
    parts["W_in"][:, :4] = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    return Ensemble(experiment, ensemble.task, RNN(parts, experiment.tau, experiment.dt))


def test_steps_have_the_input_of_their_time(adding):
    found = exchange.steps(adding, 8, [3, 7], torch.Generator().manual_seed(1))
    assert found.moved.shape == (2, 8, 2, 16)
    gain = adding.network.dt / adding.network.tau
    run = phases.active(adding, 8, 8, torch.Generator().manual_seed(1), record=("states",))
    for i, t in enumerate((3, 7)):
        ds = run.s[:, :, t] - run.s[:, :, t - 1]
        moved = (found.moved - found.still)[:, :, i]
        torch.testing.assert_close(moved[..., 0] - moved[..., 1], gain * ds[..., 0])
        torch.testing.assert_close(found.still[:, :, i], (1 - gain) * run.states[:, :, t - 1])
    torch.testing.assert_close(found.shuffled - found.still, (found.moved - found.still).roll(1, 1))


def test_examine_finds_what_the_input_adds_and_units_that_it_does_not_move(adding):
    found = exchange.examine(adding, 240, range(5, 45, 4), (1.0, 2.0), torch.Generator().manual_seed(2))
    v, gain, speed = 0.05**2 * 0.02, 0.2, adding.task.motion.speed * 0.02
    # The positive part of N(0, speed²), which a unit adds to a leak; input of the past is correlated with it.
    least = gain**2 * speed**2 * (0.5 - 1 / (2 * math.pi)) / v
    assert (found.excess[:, 0] > 0.7 * least).all() and (np.median(found.excess, 1) < 0.05).all()
    assert found.shuffled.shape == (2, 16) and (np.abs(np.median(found.shuffled, 1)) < 0.05).all()
    assert (found.over_floor[:, 0] < found.over_floor[:, 1]).all()


def test_networks_without_noise_are_refused(tiny_experiment):
    silent = phases.untrained(tiny_experiment.vary(sigma=0.0), 1, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="noise sigma > 0"):
        exchange.examine(silent, 6, [3], (1.0,), torch.Generator())
