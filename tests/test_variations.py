"""Variations whose effect is known."""

import numpy as np
import pytest
import torch

from reactivation_core.protocols import variations
from reactivation_core.trajectories import Animal


def test_an_animal_that_hardly_moves_leaves_nothing_to_report(tiny_ensemble, generator):
    still = variations.on_motion(tiny_ensemble, Animal(speed=1e-6))
    assert torch.equal(still.task.cells.centres, tiny_ensemble.task.cells.centres)
    found = variations.staying(still.task, 20, 30, generator)
    assert found.error.max() < 1e-4 and found.tiles == pytest.approx(np.full(3, 1 / 121), rel=0.2)


def test_staying_is_wrong_by_the_way_the_animal_made(tiny_ensemble, generator):
    """One step of a Rayleigh speed: its mean is the scale times the root of half pi."""
    found = variations.staying(tiny_ensemble.task, 4000, 1, generator)
    motion = tiny_ensemble.task.motion
    assert found.error == pytest.approx(np.full(3, motion.speed * motion.dt * np.sqrt(np.pi / 2)), rel=0.1)


def test_the_summary_of_networks_that_only_leak(tiny_ensemble, generator):
    for name, value in tiny_ensemble.network.named_parameters():
        if name.startswith("W"):
            torch.nn.init.zeros_(value)
    found = variations.summary(tiny_ensemble, 30, 5, 60, generator, np.random.default_rng(0))
    # Noise of twice the variance in a leak of 0.2 per step.
    v = 2 * (tiny_ensemble.experiment.sigma**2 * tiny_ensemble.experiment.dt) / (1 - 0.8**2)
    assert found.norm_asleep == pytest.approx(np.full(3, np.sqrt(16 * v)), rel=0.1)
    assert (found.kl > 0).all() and ((0 < found.leaps) & (found.leaps < 1)).all()
    assert found.loss.shape == found.error.shape == found.norm_awake.shape == (3,)
