"""Motions on which errors are known."""

import numpy as np
import pytest

from reactivation_core.protocols import recordings, variations
from reactivation_core.trajectories import Animal, Recorded


def straight(speed):
    times = np.arange(0, 4, 0.02)
    return Recorded(times, np.stack((speed * (times - 2), 0 * times), -1))


def test_reporting_the_start_is_wrong_by_the_way(tiny_ensemble, generator):
    found = recordings.track(variations.on_motion(tiny_ensemble, straight(0.5)), 10, 20, generator)
    assert found.speed == pytest.approx(0.5, rel=1e-4)
    # The first of the recorded states comes after a step.
    assert found.staying == pytest.approx(0.5 * 0.02 * np.arange(20).mean(), rel=1e-4)
    away = np.linalg.norm(found.decoded - found.s, axis=-1).mean(-1)
    assert found.error == pytest.approx(away, rel=1e-5)


def test_networks_and_cells_are_the_same_on_another_motion(tiny_ensemble):
    other = variations.on_motion(tiny_ensemble, Animal(speed=0.1))
    assert other.network is tiny_ensemble.network and other.task.cells is tiny_ensemble.task.cells
    assert other.task.motion.speed == 0.1 and len(other) == 3


def test_errors_are_averaged_in_classes_of_speed():
    values, speed = np.array([[1.0, 3.0, 5.0, 7.0]]), np.array([[0.1, 0.2, 0.6, 2.0]])
    found = recordings.by_speed(values, speed, np.array([0, 0.5, 1, 1.5]), 1)
    np.testing.assert_array_equal(found, [[2, 5, np.nan]])
    found = recordings.by_speed(values, speed, np.array([0, 0.5, 1, 1.5]), 2)
    np.testing.assert_array_equal(found, [[2, np.nan, np.nan]])
