"""Motions that are stationary, and that are not."""

import numpy as np
import pytest
import torch

from reactivation_core.protocols.stationarity import stationarity
from reactivation_core.trajectories import Animal, Trajectories


class Drawn(Animal):
    """Independent positions, normal with a standard deviation that grows over the first ten steps, or does not."""

    grows: bool = False

    def __call__(self, n_trajectories, n_steps, generators):
        shape = n_trajectories, n_steps + 1, 2
        s = 0.2 * torch.stack([torch.randn(shape, generator=stream) for stream in generators])
        if self.grows:
            s[:, :, :10] /= 2
        return Trajectories(s, s.diff(dim=2))


def compare(motion):
    return stationarity(motion, [1, 10, 20], 3, 4000, torch.Generator().manual_seed(0), np.random.default_rng(0))


def test_a_stationary_motion_is_at_the_floor():
    found = compare(Drawn())
    assert np.abs(found.largest).max() < 0.02 and np.abs(found.late - found.floor).max() < 0.02
    assert (found.grouped < 0.005).all()


def test_a_narrow_start_is_found():
    """The first step is normal with half the width: of a pool with 9 of 20 such steps, by quadrature."""
    found = compare(Drawn(grows=True))
    r = np.linspace(1e-6, 1.2, 20_000)
    narrow, wide = (r / w**2 * np.exp(-((r / w) ** 2) / 2) for w in (0.1, 0.2))
    pool = 9 / 20 * narrow + 11 / 20 * wide
    exact = np.trapezoid(narrow * np.log(narrow / pool), r)
    assert found.steps[:, 0].mean() == pytest.approx(exact, rel=0.15)
    assert (found.late < 0.2 * found.steps[:, 0]).all()
    assert (found.grouped < exact).all()


def test_the_share_near_a_wall_is_counted():
    class Uniform(Animal):
        def __call__(self, n_trajectories, n_steps, generators):
            shape = n_trajectories, n_steps + 1, 2
            s = 2.2 * torch.stack([torch.rand(shape, generator=stream) for stream in generators]) - 1.1
            return Trajectories(s, s.diff(dim=2))

    assert compare(Uniform()).near == pytest.approx(1 - (2.0 / 2.2) ** 2, abs=0.02)
