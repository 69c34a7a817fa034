"""The decoder where the answer is known."""

import math

import numpy as np
import pytest
import torch

from reactivation_core.cells import HeadDirectionCells, PlaceCells
from reactivation_core.experiments import HeadDirectionSettings, PositionSettings
from reactivation_core.protocols import decoding


@pytest.fixture
def head(generator):
    return HeadDirectionSettings().draw(2, generator).cells.double()


@pytest.fixture
def bearings(generator):
    return (2 * torch.rand(2, 400, 1, generator=generator, dtype=torch.float64) - 1) * math.pi


def test_of_perfect_outputs_three_cells_find_the_nearest_and_all_cells_the_bearing(head, bearings, generator):
    errors = decoding.bearing_errors(head, bearings, np.array([0.0]), generator)
    assert errors.most_active == pytest.approx(np.full((2, 1), 2 * math.pi / 512 / 4), rel=0.1)
    # The cells' angles are rounded to float32.
    assert errors.population_vector.max() < 1e-6


def test_the_population_vector_errs_as_its_closed_form_has_it(head, bearings, generator):
    sizes = np.array([1e-4, 1e-2, 0.3])
    errors = decoding.bearing_errors(head, bearings, sizes, generator)
    assert errors.population_vector.mean(0) == pytest.approx(decoding.population_vector_error(head, sizes), rel=0.1)
    assert (errors.most_active > errors.population_vector).all()


def test_angles_must_not_be_averaged_as_numbers(head):
    """Near the seam the mean of three angles as numbers points the other way."""
    bearing = torch.full((1, 1, 1), math.pi, dtype=torch.float64)
    best = head.tuning(bearing).topk(3).indices
    assert abs(head.angles[best].mean().item()) < 0.4 * math.pi
    assert abs(abs(head.decode(head.tuning(bearing)).item()) - math.pi) < 1e-6


def test_the_released_codes_angles_hold_one_cell_twice(head, bearings):
    doubled = HeadDirectionCells(torch.linspace(-math.pi, math.pi, 512, dtype=torch.float64))
    alike = [torch.allclose(f[..., 0], f[..., -1]) for f in (of.tuning(bearings) for of in (doubled, head))]
    assert alike == [True, False]


def test_steps_of_one_cells_grain_leave_it_or_leap(generator):
    """Two far-off clusters of three cells each: a step within reach of one decodes to nothing, a longer one to all."""
    corner = torch.tensor([[0.01, 0.0], [-0.01, 0.0], [0.0, 0.01]])
    cells = PlaceCells(torch.cat((corner, corner + torch.tensor([1.0, 0.0])))[None])
    s, east = torch.zeros(1, 4, 2), torch.zeros(1, 4)
    ratio = decoding.step_ratio(cells, s, np.array([0.1, 0.4, 0.6, 1.0]), east)
    assert ratio[0, 0] == pytest.approx([0, 0, 1 / 0.6, 1], abs=1e-6)


def test_an_animal_at_rest_does_not_move_but_for_noise(generator):
    cells = PositionSettings().draw(2, generator).cells
    s = torch.zeros(2, 200, 2)
    jitter = decoding.jitter(cells, s, np.array([0.0, 0.01, 0.1]), generator)
    assert (jitter[:, 0] == 0).all() and (np.diff(jitter) > 0).all()


def test_leaps_take_from_the_mean_turn(generator):
    s = torch.full((2, 400, 1), 0.1).cumsum(1)[:, None].expand(2, 50, 400, 1)
    found = decoding.turn_with_leaps(s, 0.1, generator)
    assert found == pytest.approx(np.full(2, 0.1 * 0.9**2), abs=0.015)
    assert decoding.turn_with_leaps(s, 0.0, generator) == pytest.approx(np.full(2, 0.1), abs=1e-5)
