"""Measures of the overview where the answer is known."""

import math

import numpy as np
import pytest
import torch

from reactivation_core import experiments, phases
from reactivation_core.protocols import overview


@pytest.fixture
def ideal(generator):
    """An ideal network on the ring, in noise so small that it stays where it is."""
    task = {"n_cells": 128, "motion": {"turning": 2.0}}
    experiment = experiments.get("head-direction-unbiased").vary(
        task=task, n_units=128, sigma=1e-3, quiescent_noise=1.0
    )
    return phases.ideal(experiment, 400, generator)


def test_what_tracks_is_near_and_what_stays_remembers(ideal, generator):
    (error,) = overview.tracking(ideal, generator).values()
    # Of normal turns, the mean of the absolute sum of the first t.
    steps = np.sqrt(2 / math.pi * np.arange(1, ideal.experiment.n_steps + 1)).mean()
    assert error.null[0] == pytest.approx(ideal.task.motion.turning * ideal.task.motion.dt * steps, rel=0.15)
    assert error.values[0] < error.null[0] / 2 and error.unit == "rad"
    (memory,) = overview.memory(ideal, generator).values()
    assert memory.values[0] > 0.9 and abs(memory.null[0]) < 0.2


def test_the_pace_awake_is_that_of_the_head(ideal, generator):
    found = overview.pace(ideal, generator)
    turning = ideal.task.motion.turning * ideal.task.motion.dt * math.sqrt(overview.LAG)
    assert found["pace awake"].values[0] == pytest.approx(turning, rel=0.15)
    assert found["pace asleep"].values[0] < 0.2 * turning


def test_standing_still_has_the_waking_law(tiny_experiment, generator):
    # Without noise and drive, activity of this network only fades, and its direction stays.
    ensemble = phases.untrained(tiny_experiment.vary(tau=1e6, sigma=0.0), 2, generator)
    (found,) = overview.reactivation(ensemble, generator).values()
    assert found.values == pytest.approx(found.null, abs=0.1)


def test_phases_without_room_for_the_lag_are_refused(tiny_ensemble):
    short = phases.untrained(tiny_ensemble.experiment.vary(n_steps=10), 2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="more than 10 steps, got 10"):
        overview.pace(short, torch.Generator().manual_seed(0))
