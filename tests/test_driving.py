"""Surrogate displacements, and a classifier of laws that are known."""

import math

import numpy as np
import pytest
import torch

from reactivation_core import circular, experiments, phases
from reactivation_core.protocols import driving, motion, variations
from reactivation_core.trajectories import Recording


@pytest.fixture
def ideal(generator):
    """A network that reports where it is told to go."""
    base = experiments.get("position-noisy-unbiased")
    few = base.vary(task={"n_cells": 256}, n_units=256)
    return phases.ideal(few, 45, generator)


def test_a_free_walk_is_the_animals_in_the_open_and_a_bounded_one_stays(ideal, generator):
    free = driving.surrogate(ideal, "free", 400, 100, generator)
    msd = (free.cumsum(2)[0, :, [24, 74]]).square().sum(-1).mean(0).numpy()
    known = motion.animal_msd(ideal.task.motion)[np.isin(motion.LAGS, (25, 75))]
    assert msd == pytest.approx(known, rel=0.15)
    bounded = driving.surrogate(ideal, "bounded", 400, 1000, generator).cumsum(2)
    assert float(bounded.abs().max()) < ideal.task.motion.box + 0.1
    assert float(driving.surrogate(ideal, "none", 4, 10, generator).abs().max()) == 0
    with pytest.raises(ValueError, match="free"):
        driving.surrogate(ideal, "straight", 4, 10, generator)


def test_a_network_that_integrates_is_where_exact_integration_is(ideal, generator):
    start = ideal.network.encode(ideal.task.cells.tuning(torch.zeros(1, 20, 2)))
    found = driving.drive(ideal, start, "free", 20, 1.0, generator)
    assert found.path.shape == found.exact.shape == (1, 20, 5, 2)
    assert (found.path[:, :, 0] == found.exact[:, :, 0]).all()
    moved = np.linalg.norm(found.exact[0, :, -1] - found.exact[0, :, 0], axis=-1).mean()
    off = found.path[0, :, -1] - found.path[0, :, 0] - (found.exact[0, :, -1] - found.exact[0, :, 0])
    # The decoder errs by about a spacing of its 256 cells.
    assert np.linalg.norm(off, axis=-1).mean() < 0.15 < moved
    assert found.late.shape == (1, 20, 4, 256)


def test_integration_that_is_held_at_the_walls_is_exact_until_it_meets_one(ideal, generator):
    centre, corner = (torch.tensor(s).expand(1, 20, 2) for s in ([[0.0, 0.0]], [[1.05, 1.05]]))
    far, near = (
        driving.drive(ideal, ideal.network.encode(ideal.task.cells.tuning(s)), "free", n, 1.0, generator)
        for s, n in ((centre, 20), (corner, 60))
    )
    assert far.held == pytest.approx(far.exact, abs=1e-5)
    wall = ideal.task.motion.box / 2
    assert np.abs(near.held).max() == pytest.approx(wall) and np.abs(near.exact).max() > wall
    # Off a wall it moves by the whole of the next change: it does not wait until what it was refused is made good.
    back = np.abs(near.held[:, :, -1]) < wall - 1e-6
    assert (back & (np.abs(near.exact[:, :, -1] - near.held[:, :, -1]) > 1e-3)).any()


def test_bearings_are_driven_by_the_turns_of_another_head_and_meet_no_wall(generator):
    few = experiments.get("head-direction-unbiased").vary(task={"n_cells": 64}, n_units=64, sigma=0.03)
    ideal = phases.ideal(few, 200, generator)
    turns = driving.surrogate(ideal, "bounded", 200, 100, generator)
    assert float(turns.std()) == pytest.approx(few.task.motion.turning * few.dt, rel=0.02)
    start = ideal.network.encode(ideal.task.cells.tuning(torch.full((1, 50, 1), 3.0)))
    found = driving.drive(ideal, start, "bounded", 40, 1.0, generator)
    assert found.path.shape == found.exact.shape == (1, 50, 9, 1)
    assert found.exact == pytest.approx(found.held, abs=1e-5) and np.abs(found.exact).max() <= math.pi
    # Half of them have gone past ±π.
    assert 0.3 < (found.exact[0, :, -1] < 0).mean() < 0.8
    path, exact = (torch.from_numpy(x[0, :, -1]) for x in (found.path, found.exact))
    # A turn is half as long as a cell is wide, and the network's update is of first order.
    assert circular.distance(path, exact).mean() < 0.3 < 0.8 < circular.distance(path, torch.tensor(3.0)).mean()
    with pytest.raises(ValueError, match="expected Animal, got Head"):
        driving.surrogate(ideal, "free", 4, 10, generator)


def test_a_recorded_animal_runs_on_where_it_was_lost_for_a_while(tiny_ensemble, tmp_path, generator):
    times = np.concatenate((np.arange(0, 4, 0.02), np.arange(4.3, 8, 0.02)))
    np.savez(tmp_path / "mine.npz", t=times, pos=np.stack((0.1 * times, 0 * times), -1))
    recording = Recording(record=str(tmp_path / "mine.npz"), share=0.99)
    there = variations.on_motion(tiny_ensemble, recording)
    with pytest.raises(ValueError, match="300 steps on end"):
        there.task.sample(4, 300, generator)
    ds = driving.surrogate(there, "bounded", 4, 300, generator)
    known = torch.tensor([0.1 * 0.02, 0.0]).expand_as(ds)
    torch.testing.assert_close(ds, known, atol=1e-6, rtol=0)


def test_the_same_law_is_not_told_apart_and_another_is_as_far_as_it_can_be(generator):
    rng = np.random.default_rng(0)
    waking = rng.standard_normal((200, 20, 40)) * np.linspace(2, 0.5, 40)
    again = rng.standard_normal((200, 20, 40)) * np.linspace(2, 0.5, 40)
    assert driving.told_apart(again, waking) == pytest.approx(0.5, abs=0.05)
    shift = np.zeros(40)
    shift[0] = 4.0
    # Two standard deviations apart along the first component: Φ(2 / √2).
    ideal = 0.5 * (1 + math.erf(2 / math.sqrt(2) / math.sqrt(2)))
    assert driving.told_apart(again + shift, waking) == pytest.approx(ideal, abs=0.04)
    # One law spread as the other, of one mean, is told apart too.
    assert driving.told_apart(2 * again, waking) > 0.95
