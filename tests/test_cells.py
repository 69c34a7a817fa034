import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from reactivation_core import circular
from reactivation_core.cells import HeadDirectionCells, PlaceCells

S, CELLS, BOX = 2, 60, 2.2


def in_the_box(generator, *shape):
    return (torch.rand(*shape, 2, generator=generator, dtype=torch.float64) - 0.5) * BOX


@pytest.fixture
def centres(generator):
    return in_the_box(generator, S, CELLS)


@pytest.fixture
def positions(generator):
    return in_the_box(generator, S, 7, 5)


def distances(s, centres):
    """From every position to every centre of the same network."""
    return np.linalg.norm(s.numpy()[..., None, :] - centres.numpy()[:, None, None], axis=-1)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("width", [0.2, 0.05])
@pytest.mark.parametrize("dtype, rtol", [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_place_cells_are_equation_20(centres, positions, normalise, width, dtype, rtol):
    f = np.exp(-(distances(positions, centres) ** 2) / (2 * width**2))
    if normalise:
        f /= f.sum(-1, keepdims=True)
    got = PlaceCells(centres.to(dtype), width, normalise).tuning(positions.to(dtype))
    np.testing.assert_allclose(got, f, rtol=rtol, atol=1e-30)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("box", [2.2, 20.0, 200.0])
def test_place_cells_are_as_exact_in_a_large_box(generator, normalise, box):
    centres = ((torch.rand(S, CELLS, 2, generator=generator) - 0.5) * box).float()
    positions = centres + 0.2 * torch.randn(S, CELLS, 2, generator=generator)
    expected = PlaceCells(centres.double(), 0.2, normalise).tuning(positions.double())
    got = PlaceCells(centres, 0.2, normalise).tuning(positions)
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-7)


def test_place_cells_are_normalised_with_width_20_cm_by_default(centres, positions):
    cells = PlaceCells(centres)
    assert cells.width == 0.2 and cells.normalise
    torch.testing.assert_close(cells.tuning(positions).sum(-1), torch.ones(S, 7, 5, dtype=torch.float64))


@pytest.mark.parametrize("k", [1, 3, CELLS])
def test_position_is_the_mean_of_the_nearest_centres(centres, positions, k):
    cells = PlaceCells(centres)
    decoded = cells.decode(cells.tuning(positions), k)
    order = np.argsort(distances(positions, centres), -1)[..., :k]
    expected = np.stack([centres[i].numpy()[order[i]].mean(-2) for i in range(S)])
    np.testing.assert_allclose(decoded, expected, atol=1e-12)
    # Each of the centres is at most as far as the k-th nearest, and so is their mean.
    farthest = np.sort(distances(positions, centres), -1)[..., k - 1]
    assert (np.linalg.norm(decoded - positions, axis=-1) <= farthest + 1e-12).all()


def test_decoding_uses_the_three_most_active_cells_of_each_network():
    centres = torch.tensor([[[0.0, 0], [0, 3], [3, 0], [9, 9]], [[5.0, 5], [5, 8], [8, 5], [9, 9]]])
    o = torch.tensor([3.0, 2.0, 1.0, 0.0]).expand(2, 1, 4)
    torch.testing.assert_close(PlaceCells(centres).decode(o), torch.tensor([[[1.0, 1.0]], [[6.0, 6.0]]]))


def evenly(n):
    return torch.arange(n) * (2 * math.pi / n) - math.pi


@pytest.mark.parametrize("peak", [False, True])
@pytest.mark.parametrize("width", [math.pi / 6, 0.05])
@pytest.mark.parametrize("dtype, rtol", [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_head_direction_cells_are_equation_21(generator, peak, width, dtype, rtol):
    s = (torch.rand(S, 7, 5, 1, generator=generator, dtype=torch.float64) * 2 - 1) * math.pi
    angles = evenly(CELLS)
    got = HeadDirectionCells(angles.to(dtype), width, peak).tuning(s.to(dtype))
    expected = scipy.stats.vonmises.pdf(s.numpy() - angles.numpy(), 1 / width**2)
    if peak:
        expected = expected / scipy.stats.vonmises.pdf(0, 1 / width**2)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=1e-30)


@pytest.mark.parametrize("peak", [False, True])
@pytest.mark.parametrize("width", [3.0, math.pi / 6, 0.05])
@pytest.mark.parametrize("dtype, rtol", [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_tuning_curves_are_sums_of_harmonics(generator, peak, width, dtype, rtol):
    s = ((torch.rand(S, 7, 5, 1, generator=generator, dtype=torch.float64) * 2 - 1) * math.pi).to(dtype)
    cells = HeadDirectionCells(evenly(CELLS).to(dtype), width, peak)
    f = cells.tuning(s)
    torch.testing.assert_close(cells.harmonics(s) @ cells.loadings(), f, rtol=0, atol=rtol * f.max().item())


@pytest.mark.parametrize("width", [math.pi / 6, 0.02])
def test_a_normalised_head_direction_cell_integrates_to_one(width):
    n = 20_000
    s = torch.arange(n, dtype=torch.float64)[None, :, None] * (2 * math.pi / n)
    cells = HeadDirectionCells(torch.tensor([0.3], dtype=torch.float64), width, peak=False)
    assert cells.tuning(s).sum().item() * 2 * math.pi / n == pytest.approx(1, abs=1e-9)


@given(st.floats(-math.pi, math.pi))
def test_bearing_is_decoded_to_half_the_spacing_of_the_cells(s):
    cells = HeadDirectionCells(evenly(512).double())
    s = torch.full((1, 1, 1), s, dtype=torch.float64)
    decoded = cells.decode(cells.tuning(s))
    assert circular.distance(decoded, s).item() <= math.pi / 512 + 1e-6
    assert -math.pi <= decoded.item() < math.pi


@pytest.mark.parametrize("k", [-1, 0, CELLS + 1])
def test_decoding_from_no_or_too_many_cells_is_refused(centres, k):
    for cells in (PlaceCells(centres), HeadDirectionCells(evenly(CELLS))):
        with pytest.raises(ValueError, match=rf"expected 1 <= k <= {CELLS} cells to decode from, got k = {k}"):
            cells.decode(torch.zeros(S, 1, CELLS), k)
