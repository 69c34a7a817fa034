import importlib.util
import math
import sys

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reactivation_core import trajectories
from reactivation_core.streams import stream
from reactivation_core.trajectories import RECORDINGS, Animal, Head, Recorded, Recording, read

RAYLEIGH = 0.26 * math.pi * 0.02
TURN = 11.52 * 0.02
PEAK, PEAKS = Head(concentration=1.0), Head(concentration=1.0, peaks=2, rests=25.0)
MOTIONS = [Animal(), Animal(drift=0.05), Head(), Head(counter_clockwise=True), Animal(rests=25.0), Head(rests=25.0)]
MOTIONS += [PEAK, PEAKS]


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


@pytest.mark.parametrize("home", [(0.0, 0.0), (-0.4, 0.3)])
def test_the_drift_carries_the_animal_home(home):
    s, _ = draw(Animal(speed=1e-9, drift=0.05, home=home), n_steps=60)
    steps = np.arange(61)[:, None]
    np.testing.assert_allclose(s, home + (s[:, :, :1] - home) * 0.95**steps, atol=1e-6)


def test_a_drift_gathers_the_animal():
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


def angles(head):
    """The law of bearings of a head, n times them."""
    return scipy.stats.vonmises(head.concentration)


@pytest.mark.parametrize("head", [PEAK, PEAKS], ids=["one peak", "two peaks"])
def test_bearings_keep_their_uneven_law(head):
    s, ds = draw(head, n_trajectories=4000)
    for t in (0, 100):
        assert follows(wrapped(head.peaks * s[0, :, t]), angles(head))
    # As many at either of two peaks.
    assert np.abs(np.sign(np.cos(s[..., 0, 0])).mean()) < 4 / np.sqrt(4000) or head.peaks == 1
    free, _ = draw(Head(), n_trajectories=4000)
    assert not follows(wrapped(head.peaks * free[0, :, 100]), angles(head))


def test_an_uneven_law_is_kept_from_one_bearing_by_the_drift():
    # Turns that pull the wrong way, or not, would end elsewhere.
    s, ds = draw(Head(concentration=1.0), n_trajectories=4000, n_steps=300)
    moved = wrapped(s[..., 1:, 0] - s[..., :-1, 0])
    slope = np.polyfit(np.sin(s[..., :-1, 0]).ravel(), moved.ravel(), 1)[0]
    assert slope == pytest.approx(-(TURN**2) / 2, rel=0.05)
    assert follows(s[0, :, -1], angles(PEAK))


def test_the_density_of_bearings_is_that_of_their_law():
    grid = torch.linspace(-math.pi, math.pi, 101, dtype=torch.float64)
    np.testing.assert_allclose(PEAK.density(grid), angles(PEAK).pdf(grid.numpy()))
    assert Head().density(grid).numpy() == pytest.approx(1 / (2 * math.pi))


@pytest.mark.parametrize(
    "settings", [{"counter_clockwise": True}, {"peaks": 5}, {"turning": 40.0}], ids=["one way", "peaks", "turning"]
)
def test_an_uneven_law_that_turns_would_not_keep_is_refused(settings):
    with pytest.raises(ValueError, match="concentration"):
        Head(concentration=1.0, **settings)


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


def line(times, gap=()):
    """A path along which the first coordinate is the time, without the samples within a gap."""
    kept = times[~((times > gap[0]) & (times < gap[1]))] if gap else times
    return kept, np.stack((kept, np.zeros_like(kept)), -1)


def test_a_window_lies_between_gaps():
    times, positions = line(np.arange(-1, 1.001, 0.02), (0.1, 0.5))
    s, ds = draw(Recorded(times, positions), n_trajectories=500, n_steps=10)
    np.testing.assert_allclose(ds[..., 0], 0.02, atol=1e-6)
    # All of what lies between is used: from -1 to 0.1, and from 0.5 to 1.
    starts = s[0, :, 0, 0]
    assert [starts[starts < 0.3].min(), starts[starts < 0.3].max()] == pytest.approx([-1, -0.1], abs=0.03)
    assert [starts[starts > 0.3].min(), starts.max()] == pytest.approx([0.5, 0.8], abs=0.03)
    across, _ = draw(Recorded(times, positions, gap=0.5), n_trajectories=500, n_steps=10)
    assert ((across > 0.2) & (across < 0.4)).any() and not ((s > 0.2) & (s < 0.4)).any()


def test_every_so_many_steps_make_the_animal_faster():
    _, ds = draw(Recorded(*line(np.arange(-1, 1, 0.02)), every=4), n_steps=5)
    np.testing.assert_allclose(ds[..., 0], 0.08, atol=1e-6)


def test_windows_are_put_through_the_symmetries_of_the_square():
    times = 0.02 * np.arange(3)
    path = np.array([[0.1, 0.2], [0.4, 0.3], [0.5, 1.0]])
    s, ds = draw(Recorded(times, path, symmetries=True), n_trajectories=4000, n_steps=2)
    np.testing.assert_allclose(ds, np.diff(s, axis=2), atol=1e-6)
    images = [turned * np.array([x, y]) for turned in (path, path[:, ::-1]) for x in (-1, 1) for y in (-1, 1)]
    shares = [np.isclose(s[0], image, atol=1e-6).all((1, 2)).mean() for image in images]
    np.testing.assert_allclose(shares, 1 / 8, atol=0.02)


@pytest.fixture
def recording(tmp_path):
    """A file of a path of which the first coordinate is the time, in decimetres from a corner."""
    times = np.arange(0, 20, 0.02)
    np.savez(tmp_path / "mine.npz", t=times, pos=np.stack((times, 10 + 0 * times), -1))
    return Recording(record=str(tmp_path / "mine.npz"), centre=(10.0, 10.0), scale=0.1, share=0.75)


def test_training_and_tests_have_each_their_part_of_the_time(recording):
    held_out = Recording(**recording.model_dump() | {"held_out": True})
    parts = [next(draw(motion, n_trajectories=2000))[..., 0] for motion in (recording, held_out)]
    # The path goes from -1 to 1; a window is of 0.2.
    assert [(x.min(), x.max()) for x in parts] == [pytest.approx(of, abs=0.01) for of in ((-1, 0.5), (0.5, 1))]
    assert parts[0].max() < 0.5 <= parts[1].min() + 1e-6


def test_windows_that_do_not_overlap_are_counted_run_by_run(recording):
    # Of 15 s: seven of 100 steps, as a sample comes before the first step.
    assert recording.recorded().apart(100) == 7
    times = np.concatenate((np.arange(101), 200 + np.arange(50), 300 + np.arange(201))) * 0.02
    recorded = Recorded(times, np.zeros((len(times), 2)))
    assert [recorded.apart(n) for n in (100, 49, 201)] == [1 + 0 + 2, 2 + 1 + 4, 0]
    assert Recorded(times, np.zeros((len(times), 2)), every=2).apart(100) == 1


def test_a_recording_has_the_path_of_its_arrays(recording):
    s, ds = draw(recording, n_networks=2)
    assert s.shape == (2, 50, 101, 2) and np.abs(s[..., 1]).max() == 0
    np.testing.assert_allclose(ds[..., 0], 0.002, atol=1e-6)


def test_a_recording_is_read_once_and_again_when_its_file_is_written_again(recording, monkeypatch):
    reads = []
    monkeypatch.setattr(trajectories, "read", lambda record: reads.append(record) or read(record))
    for _ in range(3):
        draw(recording)
    assert len(reads) == 1
    times, positions = read(recording.record)
    np.savez(recording.record, t=times, pos=positions[:, :1])
    with pytest.raises(ValueError, match="expected times"):
        draw(recording)


def test_the_recordings_of_ratinabox_are_read_without_it():
    (times, positions), (_, room) = map(read, RECORDINGS)
    assert times.shape == (29800,) and positions.min() > 0 and positions.max() < 1
    # The room is 3.5 m x 2.5 m, and the head may be beyond its walls.
    assert room.shape == (219670, 2) and room.max(0) == pytest.approx([3.5, 2.5], abs=0.05)
    assert "ratinabox" not in sys.modules


def test_a_recording_that_is_not_there_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="expected an .npz file at missing.npz, got none"):
        draw(Recording(record="missing.npz"))
    np.savez(tmp_path / "other.npz", times=np.zeros(3))
    with pytest.raises(ValueError, match="expected the arrays t and pos in .*other.npz, got times"):
        draw(Recording(record=str(tmp_path / "other.npz")))
    np.savez(tmp_path / "wrong.npz", t=np.arange(3.0), pos=np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"times \(n,\), n > 1, and positions \(n, 2\), got \(3,\) and \(2, 2\)"):
        draw(Recording(record=str(tmp_path / "wrong.npz")))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="the package ratinabox for the recording 'tanni': pip install ratinabox"):
        draw(Recording(record="tanni"))


@pytest.mark.parametrize(
    ("times", "positions", "message"),
    [
        (np.arange(3.0), np.zeros((2, 3)), r"positions \(n, 2\), got \(3,\) and \(2, 3\)"),
        (np.zeros(0), np.zeros((0, 2)), r"n > 1, and positions \(n, 2\), got \(0,\)"),
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
    with pytest.raises(ValueError, match="a record with 100 steps on end, got 50 at most"):
        draw(Recorded(np.array([0.0, 1.0]), np.zeros((2, 2)), gap=1.0))
    with pytest.raises(ValueError, match="a record with 100 steps on end, got 0 at most"):
        draw(Recorded(np.array([0.0, 1.0]), np.zeros((2, 2))))
