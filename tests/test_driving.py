"""Surrogate displacements, and a classifier of laws that are known."""

import math

import numpy as np
import pytest
import torch

from reactivation_core import experiments, phases
from reactivation_core.protocols import driving, motion


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
