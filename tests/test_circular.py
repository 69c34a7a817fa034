import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reactivation_core import circular

ANGLE = st.floats(-1e3, 1e3)
ANGLES = arrays(np.float64, st.integers(1, 20), elements=ANGLE)


def same(a, b):
    """Whether two angles are one, up to rounding and whole turns."""
    return torch.allclose(torch.polar(torch.ones_like(a), a), torch.polar(torch.ones_like(b), b), atol=1e-9)


def test_what_is_no_angle_stays_no_angle():
    assert circular.wrap(torch.tensor([math.nan, math.inf])).isnan().all()


def resultant(angles):
    return abs(np.exp(1j * angles).mean())


@given(st.floats(-1e3, 1e3, width=32), st.sampled_from([torch.float32, torch.float64]))
@example(math.pi, torch.float64)
@example(-math.pi, torch.float64)
@example(math.nextafter(-math.pi, -4), torch.float64)
@example(float(np.nextafter(np.float32(-math.pi), np.float32(-4))), torch.float32)
@example(1e-45, torch.float32)
def test_wrap_stays_in_the_half_open_interval(angle, dtype):
    wrapped = circular.wrap(torch.tensor(angle, dtype=dtype))
    pi = torch.tensor(math.pi, dtype=dtype)
    assert -pi <= wrapped < pi


@given(ANGLES, st.integers(-5, 5))
def test_wrap_keeps_the_angle_and_forgets_whole_turns(angles, turns):
    angles = torch.from_numpy(angles)
    assert same(circular.wrap(angles), angles)
    assert same(circular.wrap(angles + 2 * math.pi * turns), circular.wrap(angles))


@given(ANGLES)
def test_mean_is_scipys(angles):
    assume(resultant(angles) > 1e-3)
    expected = scipy.stats.circmean(angles, high=math.pi, low=-math.pi)
    assert same(circular.mean(torch.from_numpy(angles), 0), torch.tensor(expected, dtype=torch.float64))


@given(ANGLES, ANGLE)
def test_mean_turns_with_its_angles(angles, turn):
    assume(resultant(angles) > 1e-3)
    angles = torch.from_numpy(angles)
    assert same(circular.mean(angles + turn, 0), circular.mean(angles, 0) + turn)


def test_mean_is_taken_along_the_given_axis_and_on_the_circle():
    angles = torch.tensor([[math.pi - 0.1, -math.pi + 0.1], [0.2, 0.4]])
    torch.testing.assert_close(circular.mean(angles, 1), torch.tensor([-math.pi, 0.3]))
    assert circular.mean(angles, 0).shape == (2,)


@given(ANGLE, ANGLE, ANGLE)
def test_distance_is_the_shorter_arc(a, b, c):
    a, b, c = torch.tensor([a, b, c], dtype=torch.float64)
    arc = circular.distance(a, b)
    torch.testing.assert_close(arc, torch.acos(torch.cos(a - b)), atol=1e-6, rtol=0)
    torch.testing.assert_close(arc, circular.distance(b, a), atol=1e-9, rtol=0)
    assert arc <= circular.distance(a, c) + circular.distance(c, b) + 1e-9


def test_turns_go_the_shorter_way():
    bearings = torch.tensor([3.0, -3.0, -2.9, 3.1])
    assert circular.turns(bearings).tolist() == pytest.approx([2 * math.pi - 6, 0.1, 6.0 - 2 * math.pi], abs=1e-6)
