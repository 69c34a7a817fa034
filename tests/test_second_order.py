"""Adaptation and momentum: networks without them, closed forms, and what counts as forgotten."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from reactivation_core import experiments, phases
from reactivation_core.networks import NETWORKS, RNN, SecondOrder
from reactivation_core.protocols import forgetting, second_order, spreading

SMALL = {"task": {"n_cells": 32}, "n_units": 24}


@pytest.fixture(params=NETWORKS)
def ensemble(request, generator):
    experiment = experiments.get("position-noisy-unbiased").vary(network=request.param, **SMALL)
    return phases.untrained(experiment, 2, generator)


def ordered(ensemble, **order):
    return replace(ensemble, network=SecondOrder(ensemble.network, **order))


def test_without_either_activity_is_the_networks_bit_for_bit(ensemble):
    same = ordered(ensemble, b=0.0, friction=1.0)
    for run in (phases.active, phases.sleep):
        alone, moved = (
            run(e, 3, 40, torch.Generator().manual_seed(1), record=("states", "decoded")) for e in (ensemble, same)
        )
        assert torch.equal(alone.states, moved.states[..., :24])
        assert torch.equal(alone.decoded, moved.decoded)
    for order in ({"b": 0.1}, {"friction": 0.9}):
        moved = phases.sleep(ordered(ensemble, **order), 3, 40, torch.Generator().manual_seed(1), record=("states",))
        assert not torch.equal(alone.states, moved.states[..., :24])


def test_held_at_a_norm_too(ensemble):
    norm = np.array([1.0, 2.0], np.float32)
    runs = []
    for e in (ensemble, ordered(ensemble)):
        start = phases.starts(e, 3, torch.Generator().manual_seed(1))
        runs.append(forgetting.sleep(e, start, 40, 2.0, torch.Generator().manual_seed(2), norm))
    for alone, moved in zip(*runs, strict=True):
        np.testing.assert_array_equal(alone, moved)


def test_a_part_of_the_networks_runs_as_in_the_whole(ensemble):
    moved = ordered(ensemble, b=0.1, friction=0.5)
    whole = phases.sleep(moved, 3, 20, torch.Generator().manual_seed(1), record=("states",)).states
    part = phases.sleep(moved[1], 3, 20, torch.Generator().manual_seed(1), record=("states",)).states
    torch.testing.assert_close(part, whole[1:])


def silent(generator, W_rec=0.0):
    """Two networks of 16 units that only leak, or hold what is positive."""
    parameters = {name: torch.zeros(shape) for name, shape in RNN.shapes(2, 16, 4, 2).items()}
    parameters["W_rec"] += W_rec * torch.eye(16)
    experiment = experiments.get("position-noisy-unbiased").vary(task={"n_cells": 4}, n_units=16, sigma=1.0)
    return replace(phases.untrained(experiment, 2, generator), network=RNN(parameters, 0.1, 0.02))


@pytest.mark.parametrize("friction", [1.0, 0.5, 0.2])
def test_momentum_heats_a_leak_as_its_closed_form_says(generator, friction):
    moved = ordered(silent(generator), friction=friction)
    run = phases.quiescent(moved, 300, 1.0, torch.zeros(2, 400, 48), generator, ("states",), 100)
    found = float(run.states[:, :, 1:, :16].var())
    v, k = 0.02, 0.2
    expected = v * (2 - friction) / (friction * k * (2 * (2 - friction) - k))
    assert found == pytest.approx(expected, rel=0.03)


def test_momentum_speeds_up_diffusion_where_nothing_is_lost(generator):
    moved, start = ordered(silent(generator, 1.0), friction=0.5), torch.zeros(2, 400, 48)
    start[..., :16] = 100.0
    run = phases.quiescent(moved, 200, 1.0, start, generator, ("states",), 100).states[..., :16]
    grown = float(run[:, :, 1].var() - run[:, :, 0].var())
    assert grown == pytest.approx(100 * 0.02 / 0.5**2, rel=0.05)


@pytest.mark.parametrize(("b", "turns"), [(0.02, False), (0.05, True)])
def test_adaptation_makes_a_direction_without_loss_turn_from_its_threshold(generator, b, turns):
    moved, start = ordered(silent(generator, 1.0), b=b, tau_a=50.0), torch.full((2, 1, 48), 100.0)
    run = phases.quiescent(moved, 20, 0.0, start, generator, ("states",)).states
    A = np.array([[1, -0.2 * b], [1 / 50, 1 - 1 / 50]])
    expected = np.linalg.matrix_power(A, 20) @ [100, 100]
    np.testing.assert_allclose(run[0, 0, -1, [0, 32]], expected, rtol=1e-5)
    assert np.iscomplexobj(np.linalg.eigvals(A)) == turns == (4 * 0.2 * b * 50 > 1)


def test_growth_is_that_of_the_recursion():
    turning = np.array([0.95 * np.exp(0.3j), 0.5])
    assert second_order.growth(turning, 1.0) == pytest.approx(0.95)
    x = [0, 1.0 + 0j]
    for _ in range(400):
        x.append((turning[0] + 0.7) * x[-1] - 0.7 * x[-2])
    assert second_order.growth(turning, 0.3) == pytest.approx(abs(x[-1] / x[-2]), rel=1e-6)
    assert second_order.growth(turning, 0.3) > 1


def test_more_leak_is_a_shorter_time_constant(generator):
    network = RNN.initial(2, 6, 4, 2, 0.1, 0.02, generator)
    r, ds = torch.rand(2, 3, 6), torch.zeros(2, 3, 2)
    change, faster = network.step(r, ds, 0.0) - r, network.leaking(0.4).step(r, ds, 0.0) - r
    torch.testing.assert_close(faster, 2 * change)
    assert torch.equal(network.leaking(0.02 / 0.1).step(r, ds, 0.0), network.step(r, ds, 0.0))


def test_what_is_refused(generator):
    network = RNN.initial(2, 6, 4, 2, 0.1, 0.02, generator)
    for order in ({"b": -1.0}, {"tau_a": 0.5}, {"friction": 0.0}, {"friction": 1.1}):
        with pytest.raises(ValueError, match="expected b >= 0"):
            SecondOrder(network, **order)
    with pytest.raises(ValueError, match="expected an RNN or a GRU, got SecondOrder"):
        SecondOrder(SecondOrder(network))


def test_forgotten_asks_for_a_bump():
    memory, cosine = np.array([[0.9, 0.5, 0.2], [0.9, 0.5, 0.2]]), np.array([[0.95, 0.92, 0.7], [0.5, 0.5, 0.5]])
    found = second_order.Found(memory, cosine, *[memory] * 8)
    waking = forgetting.Waking([], memory, memory[:, 0], memory[:, 0], np.array([0.96, 0.96]))
    np.testing.assert_array_equal(second_order.forgotten(found, waking), [0.5, 1.0])


def test_a_slower_adaptation_forgets_later_and_a_fast_one_is_a_leak(generator):
    start = torch.full((2, 1, 48), 100.0)
    start[..., 32:] = 0
    left = {}
    for tau_a in (1.0, 50.0, 1e6):
        moved = ordered(silent(generator, 1.0), b=0.05, tau_a=tau_a)
        left[tau_a] = float(phases.quiescent(moved, 20, 0.0, start, generator, ("states",)).states[0, 0, -1, 0])
    # The share 0.2 b of activity is lost in a step, from the second on; or nothing yet.
    assert left[1.0] == pytest.approx(100 * 0.99**19, rel=0.01)
    assert left[1.0] < left[50.0] < left[1e6] == pytest.approx(100, rel=1e-3)


def test_examine_measures_every_network(generator):
    ensemble = phases.untrained(experiments.get("position-noisy-unbiased").vary(**SMALL), 2, generator)
    waking = forgetting.wake(ensemble, 10, 4, 20, generator)
    places = spreading.fit(ensemble, 20, 20, generator)
    rng = np.random.default_rng(0)
    found = second_order.examine(ensemble, places, waking, 3, 200, 2.0, generator, rng, friction=0.5)
    assert found.memory.shape == found.cosine.shape == (2, 5)
    assert all(np.isfinite(x).all() and len(x) == 2 for x in found)
    blind = second_order.examine(ensemble, None, waking, 3, 200, 2.0, generator, rng)
    assert np.isnan(blind.exponent).all() and np.isfinite(blind.kl_corner).all()
    heads = phases.untrained(experiments.get("head-direction-unbiased").vary(**SMALL), 2, generator)
    waking = forgetting.wake(heads, 10, 4, 20, generator)
    turned = second_order.examine(heads, None, waking, 3, 200, 2.0, generator, rng)
    assert all(np.isfinite(x).all() for x in turned[:6])
    assert all(np.isnan(x).all() for x in turned[6:])
    with pytest.raises(ValueError, match="multiple of 40 steps"):
        second_order.examine(ensemble, places, waking, 3, 210, 2.0, generator, rng)
