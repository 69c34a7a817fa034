import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reactivation_core.streams import stream
from reactivation_core.trajectories import Animal, Head, Recorded

RAYLEIGH = 0.26 * math.pi * 0.02
TURN = 11.52 * 0.02
MOTIONS = [Animal(), Animal(drift=0.05), Head(), Head(counter_clockwise=True), Animal(rests=25.0), Head(rests=25.0)]


def draw(motion, n_networks=1, n_trajectories=50, n_steps=100, seed=0):
    """States and changes of all networks' trajectories, as NumPy arrays."""
    batch = motion(n_trajectories, n_steps, [stream(seed, i) for i in range(n_networks)])
    return (part.double().numpy() for part in batch)


def wrapped(angle):
    return np.angle(np.exp(1j * angle))


def follows(sample, law):
    return scipy.stats.kstest(np.ravel(sample), law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("motion", MOTIONS)
def test_changes_are_differences_of_states(motion):
    s, ds = draw(motion, n_networks=2)
    assert s.shape == (2, 50, 101, ds.shape[-1]) and ds.shape[:3] == (2, 50, 100)
    difference = np.diff(s, axis=2)
    np.testing.assert_allclose(ds, wrapped(difference) if isinstance(motion, Head) else difference, atol=1e-5)


@pytest.mark.parametrize("motion", MOTIONS)
def test_draws_come_from_the_generator_alone(motion):
    state = torch.get_rng_state()
    first, again, other = (motion(3, 4, [stream(seed, 0), stream(seed, 1)]).s for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len(first.flatten(0, 1).unique(dim=0)) == 6
    assert torch.equal(state, torch.get_rng_state())


@given(st.floats(0.5, 5), st.floats(0, 0.2), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_animal_stays_in_the_box(box, drift, seed):
    s, _ = draw(Animal(box=box, drift=drift), n_trajectories=20, seed=seed)
    # A step that begins outside the border region may end beyond the wall; no step in 1e9 is longer than 7 scales. In
    # a corner an animal beyond one wall does not see the other until it is farther beyond that.
    assert np.abs(s).max() < box / 2 + 2 * (7 * RAYLEIGH - 0.03)


def test_the_animal_starts_anywhere_in_the_box():
    s, _ = draw(Animal(speed=1e-9), n_trajectories=5000, n_steps=1)
    assert follows(s[..., 0, :], scipy.stats.uniform(-1.1, 2.2))


def test_away_from_walls_speed_is_rayleigh_and_heading_turns_normally():
    _, ds = draw(Animal(box=1e3), n_trajectories=200)
    step, heading = np.hypot(*ds.T).T, np.arctan2(ds[..., 1], ds[..., 0])
    turns = wrapped(np.diff(heading))
    assert follows(heading[..., 0], scipy.stats.uniform(-math.pi, 2 * math.pi))
    assert follows(step, scipy.stats.rayleigh(scale=RAYLEIGH))
    assert abs(np.corrcoef(step[..., :-1].ravel(), step[..., 1:].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(turns[..., :-1].ravel(), turns[..., 1:].ravel())[0, 1]) < 0.03
    assert follows(turns, scipy.stats.norm(0, TURN))


def test_at_a_wall_the_animal_slows_down_and_runs_along_it():
    # As it leaves by the corners it is refused as a setting.
    animal = Animal.model_construct(box=1.0, turning=0.0)
    s, ds = draw(animal, n_trajectories=600)
    s, ds, after = s[:, :, :-2].reshape(-1, 2), ds[:, :, :-1].reshape(-1, 2), ds[:, :, 1:].reshape(-1, 2)
    length = np.linalg.norm(ds, axis=-1)
    # The nearest wall is across the first axis.
    order = np.argsort(-np.abs(s), -1)
    s, ds, after = (np.take_along_axis(x, order, -1) for x in (s, ds, after))
    direction, next_direction = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (ds, after))
    inwards = animal.box / 2 - np.abs(s[:, 0])
    towards = direction[:, 0] * np.sign(s[:, 0])
    blocked = (inwards < animal.border) & (towards > 0)
    # Without turning, a step shows its heading; rounding blurs short steps, and what is decided close to a threshold.
    clear = (np.minimum(length, np.linalg.norm(after, axis=-1)) > 1e-3) & (np.abs(towards) > 1e-2)
    clear &= (np.abs(np.abs(s[:, 0]) - np.abs(s[:, 1])) > 1e-6) & (np.abs(inwards - animal.border) > 1e-6)

    turned, free = clear & blocked, clear & ~blocked
    assert turned.sum() > 500 and free.sum() > 5000
    np.testing.assert_allclose(next_direction[free], direction[free], atol=2e-3)
    np.testing.assert_allclose(next_direction[turned, 0], 0, atol=2e-3)
    slanting = turned & (np.abs(direction[:, 1]) > 1e-2)
    assert (np.sign(next_direction[slanting, 1]) == np.sign(direction[slanting, 1])).all()
    # Beyond the shortest step kept, the square of a Rayleigh speed is exponential.
    for chosen, scale in ((turned, animal.slowing * RAYLEIGH), (free, RAYLEIGH)):
        assert follows((length[chosen] ** 2 - 1e-6) / (2 * scale**2), scipy.stats.expon())


def test_the_drift_carries_the_animal_to_the_centre():
    s, _ = draw(Animal(speed=1e-9, drift=0.05), n_steps=60)
    steps = np.arange(61)[:, None]
    np.testing.assert_allclose(s, s[:, :, :1] * 0.95**steps, atol=1e-6)
    unbiased, biased = (
        np.linalg.norm(next(draw(a))[:, :, 50:], axis=-1).mean() for a in (Animal(), Animal(drift=0.05))
    )
    assert biased < unbiased / 2


def test_the_head_starts_anywhere_and_turns_normally():
    s, ds = draw(Head(), n_trajectories=300)
    assert follows(s[:, :, 0], scipy.stats.uniform(-math.pi, 2 * math.pi))
    assert follows(ds, scipy.stats.norm(0, TURN))
    assert -math.pi <= s.min() and s.max() < math.pi


def test_a_biased_head_turns_counter_clockwise():
    _, ds = draw(Head(counter_clockwise=True), n_trajectories=300)
    assert ds.min() >= 0
    assert follows(ds, scipy.stats.halfnorm(0, TURN))


def test_the_spread_after_a_time_is_that_of_the_angular_velocity():
    for dt in (0.02, 0.01):
        _, ds = draw(Head(dt=dt), n_trajectories=2000, n_steps=10)
        assert follows(ds.sum(2), scipy.stats.norm(0, 11.52 * dt * math.sqrt(10)))


@pytest.mark.parametrize("motion", [Animal(rests=5.0), Head(rests=5.0)])
def test_rests_take_half_of_the_time_and_have_geometric_lengths(motion):
    _, ds = draw(motion, n_trajectories=400, n_steps=200)
    still = (ds == 0).all(-1)[0]
    assert still.mean() == pytest.approx(0.5, abs=0.01)
    assert (still[:, 1:] != still[:, :-1]).mean() == pytest.approx(1 / 5, abs=0.01)
    # A stay that is under way lasts as long again, whatever its age.
    stayed = still[:, 1:-1] & still[:, :-2]
    assert still[:, 2:][stayed].mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_generator_each_draws_networks_that_do_not_depend_on_each_other(motion):
    both = motion(7, 20, [stream(3), stream(4)])
    for i, seed in enumerate((3, 4)):
        for joint, alone in zip(both, motion(7, 20, [stream(seed)]), strict=True):
            assert torch.equal(joint[i], alone[0])


def test_an_animal_without_rests_moves_at_every_step():
    _, ds = draw(Animal(), n_trajectories=20)
    assert (np.linalg.norm(ds, axis=-1) > 0).all()


def test_a_record_is_followed_at_the_steps_of_the_network():
    # A circle of a metre in ten seconds, sampled unevenly.
    times = np.sort(np.random.default_rng(0).uniform(0, 20, 4000))
    circle = np.stack((np.cos(2 * np.pi * times / 10), np.sin(2 * np.pi * times / 10)), -1)
    s, ds = draw(Recorded(times, circle), n_networks=2)
    np.testing.assert_allclose(np.linalg.norm(s, axis=-1), 1, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(ds, axis=-1).mean(), 2 * np.pi * 0.02 / 10, rtol=0.01)
    assert len(np.unique(s[:, :, 0, 0])) > 90


@pytest.mark.parametrize(
    ("times", "positions", "message"),
    [
        (np.arange(3.0), np.zeros((2, 3)), r"times \(n,\) and positions \(n, 2\), got \(3,\) and \(2, 3\)"),
        (np.arange(3.0), np.zeros((3, 3)), r"got \(3,\) and \(3, 3\)"),
        (np.zeros(3), np.zeros((3, 2)), "times that increase"),
        (np.arange(3.0), np.full((3, 2), 3.0), "within 1.1 m of the centre, got 3.0"),
        (np.arange(3.0), np.full((3, 2), np.nan), "within 1.1 m of the centre, got nan"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_record_that_cannot_be_followed_is_refused(times, positions, message):
    with pytest.raises(ValueError, match=message):
        Recorded(times, positions)


def test_a_record_shorter_than_a_trajectory_is_refused():
    with pytest.raises(ValueError, match="a record of more than 100 steps, got 50"):
        draw(Recorded(np.array([0.0, 1.0]), np.zeros((2, 2))))
