"""The denoiser against the closed form of normal activity."""

import numpy as np
import pytest
import torch

from reactivation_core import theory
from reactivation_core.protocols.denoising import denoising, explained_by_tile, removable

SIGNAL, V = torch.tensor([2.0, 0.0], dtype=torch.float64), 0.5


def test_what_can_be_removed_of_normal_activity():
    # The step takes v²/(λ + v) of the noise v on each axis.
    assert removable(theory.Gaussian(SIGNAL, V)) == pytest.approx((0.5 / 2.5 + 1) / 2, rel=1e-6)


def test_old_noise_is_removed_and_fresh_noise_is_not(generator):
    density = theory.Gaussian(SIGNAL, V)

    def clean(n):
        return SIGNAL.sqrt() * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    found = denoising(density, clean, 3, 40_000, [100, 10_000], [0, 1, 2], generator)
    assert found.removed == pytest.approx(0.6, abs=0.01) and found.added == pytest.approx(0.6, abs=0.02)
    assert (found.regression[:, 0] > 5 * found.regression[:, 1]).all()
    assert (found.chance < 0.005).all()
    assert (found.loss < found.bound).all() and (found.bound.argmin(1) == 1).all()


def test_explained_by_tile_is_the_mean_square_of_the_means():
    tile, y = np.array([0, 0, 1, 1]), np.array([[1.0], [3.0], [-5.0], [5.0]])
    assert explained_by_tile(y, tile, np.array([True, True])) == pytest.approx(2.0)
    assert explained_by_tile(y, tile, np.array([False, True])) == 0
