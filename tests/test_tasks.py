import math

import numpy as np
import pytest
import torch
from scipy.special import ive

from reactivation_core import experiments
from reactivation_core.experiments import HeadDirectionSettings, PositionSettings

KINDS = ["position-noisy-unbiased", "head-direction-unbiased"]


@pytest.fixture
def task(tiny_experiment, generator):
    return tiny_experiment.task.draw(3, generator)


@pytest.mark.parametrize("tiny_experiment", KINDS, indirect=True)
def test_a_sample_has_one_state_more_than_changes(task, generator):
    batch = task.sample(4, 5, generator)
    d = task.n_inputs
    assert batch.s.shape == (3, 4, 6, d) and batch.ds.shape == (3, 4, 5, d)


@pytest.mark.parametrize("tiny_experiment", KINDS, indirect=True)
@pytest.mark.parametrize("index", [0, -1, np.int64(1), torch.tensor(2)], ids=repr)
def test_an_index_is_the_task_of_one_network(task, generator, index):
    assert task[index].n_networks == 1 == task[index].sample(1, 1, generator).s.shape[0]
    for cells in zip(task[index].cells.buffers(), task[2:][0].cells.buffers(), strict=True):
        assert torch.equal(*cells) == (index in (-1, 2) or task.n_inputs == 1)
    with pytest.raises(IndexError):
        task[3]


@pytest.mark.parametrize("tiny_experiment", KINDS, indirect=True)
@pytest.mark.parametrize("index", [slice(1, 2), slice(0, 2), slice(None)])
def test_a_slice_is_the_task_of_its_networks(task, generator, index):
    batch, part = task.sample(4, 5, generator), task[index]
    assert type(part) is type(task) and part.motion == task.motion
    assert part.n_networks == len(range(3)[index]) == part.sample(1, 1, generator).s.shape[0]
    f, o = task.cells.tuning(batch.s), torch.rand(3, 4, 6, 24, generator=generator)
    torch.testing.assert_close(part.cells.tuning(batch.s[index]), f[index])
    torch.testing.assert_close(part.cells.decode(o[index]), task.cells.decode(o)[index])


@pytest.mark.parametrize("option, settings", [("normalise", PositionSettings), ("peak", HeadDirectionSettings)])
def test_a_slice_keeps_the_options_of_its_cells(option, settings, generator):
    cells = settings(n_cells=5, width=0.3, **{option: False}).draw(2, generator)[1:].cells
    assert cells.width == 0.3 and getattr(cells, option) is False


def test_errors_are_distances_and_arcs(generator):
    position, head = (experiments.get(name).task.draw(1, generator) for name in KINDS)
    torch.testing.assert_close(position.error(torch.tensor([[3.0, 0]]), torch.tensor([[0.0, 4]])), torch.tensor([5.0]))
    across = head.error(torch.tensor([[math.pi - 0.1]]), torch.tensor([[-math.pi + 0.2]]))
    torch.testing.assert_close(across, torch.tensor([0.3]))


@pytest.mark.parametrize("size, message", [((0, 5), "n_trajectories >= 1, got 0"), ((5, -1), "n_steps >= 1, got -1")])
def test_an_empty_sample_is_refused(task, generator, size, message):
    with pytest.raises(ValueError, match=message):
        task.sample(*size, generator)


def test_place_cells_fill_the_box_anew_for_each_network(generator):
    centres = PositionSettings(n_cells=1000).draw(2, generator).cells.centres
    assert centres.abs().max() <= 1.1 and centres.abs().amax((1, 2)).min() > 1.09
    torch.testing.assert_close(centres.std(1), torch.full((2, 2), 2.2 / math.sqrt(12)), rtol=0.05, atol=0)
    assert not torch.equal(centres[0], centres[1])


@pytest.mark.parametrize("n", [3, 4, 512])
def test_head_direction_cells_are_evenly_spaced_and_none_is_double(n, generator):
    angles = HeadDirectionSettings(n_cells=n).draw(1, generator).cells.angles.double()
    assert angles[0] == pytest.approx(-math.pi) and len(angles) == n
    torch.testing.assert_close(
        torch.cat((angles, angles[:1] + 2 * math.pi)).diff(),
        torch.full((n,), 2 * math.pi / n, dtype=torch.float64),
        atol=1e-6,
        rtol=0,
    )


def test_the_floor_of_the_decoder_and_the_loss_of_silence(generator):
    """A quarter of the cells' spacing, and what Bessel functions say of the mean square of von Mises curves."""
    task = HeadDirectionSettings().draw(2, generator)
    s = 2 * math.pi * torch.rand(2, 2000, 1, generator=generator)
    floor, kappa = task.floor(s), 1 / task.cells.width**2
    assert floor.shape == (2, 2000)
    torch.testing.assert_close(floor.mean(1), torch.full((2,), 2 * math.pi / 512 / 4), rtol=0.05, atol=0)
    torch.testing.assert_close(task.silence(s), torch.full((2,), float(ive(0, 2 * kappa))), rtol=0.05, atol=0)
