"""How paths move, where closed forms tell."""

import numpy as np
import pytest
import torch

from reactivation_core import streams
from reactivation_core.protocols import motion
from reactivation_core.trajectories import Animal

SAMPLERS = {"fast": (100, 0.0), "slow": (1000, 0.0), "turning": (100, 0.04)}


@pytest.fixture
def paths(generator):
    drawn = {name: motion.sampler(0.25, *of, (5, 100), 100, generator).numpy() for name, of in SAMPLERS.items()}
    return drawn | {"animal": Animal(box=1000.0)(100, 100, streams.spawn(generator, range(5))).s[:, :, 1:].numpy()}


def test_displacements_are_those_of_the_closed_forms(paths):
    expected = {name: motion.sampler_msd(0.25, *of) for name, of in SAMPLERS.items()}
    expected["animal"] = motion.animal_msd(Animal())
    for name, x in paths.items():
        found = motion.motion(x)
        assert found.msd.mean(0) == pytest.approx(expected[name], rel=0.15), name
        slope = motion.exponent(expected[name])
        assert found.exponent.mean() == pytest.approx(slope, abs=0.05), name
        assert found.increment_exponent.mean() == pytest.approx(slope, abs=0.1), name
        assert found.pace.mean() == pytest.approx(expected[name][motion.LAGS == 10][0] ** 0.5, rel=0.1), name


def test_correlations_are_those_of_the_closed_forms(paths):
    found = motion.motion(paths["fast"])
    assert found.correlation.mean(0) == pytest.approx(np.exp(-motion.LAGS / 100), abs=0.1)
    assert found.direction.mean() == pytest.approx(0, abs=0.05)
    # A heading that persists.
    assert motion.motion(paths["animal"]).direction.mean() > 0.4


def test_currents_are_found_where_the_sampler_turns(paths):
    rng = np.random.default_rng(0)
    found = {name: motion.moves(paths[name], 25, 2.2, 5, 20, rng) for name in SAMPLERS}
    assert found["turning"].unbalanced.mean() > 0.3
    assert found["turning"].one_way.mean() > 0.3
    for name in ("fast", "slow"):
        assert abs(found[name].unbalanced.mean()) < 0.05
    assert found["fast"].shares.sum((1, 2)) == pytest.approx(np.ones(5))


def test_paths_of_every_fifth_step_move_alike(paths):
    every, fifth = motion.motion(paths["fast"]), motion.motion(paths["fast"][:, :, 4::5], 5)
    assert motion.lags(5).tolist() == [5, 10, 15, 20, 25, 35, 50, 75]
    assert fifth.msd == pytest.approx(every.msd[:, motion.LAGS % 5 == 0], rel=0.1)
    for name in ("exponent", "increment_exponent", "pace", "direction"):
        assert getattr(fifth, name) == pytest.approx(getattr(every, name), abs=0.1), name


def test_a_walk_on_a_circle_moves_as_one_in_the_plane(generator):
    turns = torch.randn(2, 200, 100, 1, generator=generator).numpy()
    found = motion.motion(turns.cumsum(2))
    assert found.exponent.mean() == pytest.approx(1, abs=0.05)
    assert found.msd.mean(0) == pytest.approx(motion.LAGS, rel=0.1)
