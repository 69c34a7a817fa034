"""The input's part of the update, of a network whose gates are known."""

import pytest
import torch

from reactivation_core.protocols.update import gates, share, update


@pytest.fixture
def pairs(tiny_ensemble, generator):
    s = 2 * torch.rand(3, 5, 2, generator=generator) - 1
    return s, torch.rand(3, 5, 16, generator=generator), 0.1 * torch.randn(3, 4, 2, generator=generator)


def test_pairs_are_those_of_the_network(tiny_ensemble, pairs):
    s, r, ds = pairs
    found = update(tiny_ensemble, *pairs)
    one = tiny_ensemble.network.step(r[:, 2:3], ds[:, 1:2], 0.0) - tiny_ensemble.network.step(
        r[:, 2:3], torch.zeros(3, 1, 2), 0.0
    )
    torch.testing.assert_close(found.dr2[:, 2, 1], one[:, 0].detach())
    h, tuning = 1e-2, tiny_ensemble.task.cells.tuning
    change = (tuning(s + h * ds[:, 1:2]) - tuning(s - h * ds[:, 1:2])) / (2 * h)
    torch.testing.assert_close(found.asked[:, :, 1], change, rtol=0, atol=1e-3)


def test_with_gates_that_the_input_does_not_turn_the_update_is_odd(tiny_ensemble, pairs):
    s, r, ds = pairs
    with torch.no_grad():
        tiny_ensemble.network.W_rec.abs_()
    found = update(tiny_ensemble, s, r + 10, ds)
    torch.testing.assert_close(found.even, torch.zeros_like(found.even), rtol=0, atol=1e-5)
    before, after = gates(tiny_ensemble.network, r + 10, ds)
    assert before.all() and after.all()
    assert share(found.even, found.dr2) == pytest.approx(0, abs=1e-5)


def test_with_gates_that_open_one_way_the_update_is_half_even(tiny_ensemble, pairs):
    """Units at rest pass an input of one sign only: of ReLU(x) the even part is |x|/2, the odd x/2."""
    s, r, ds = pairs
    found = update(tiny_ensemble, s, 0 * r, ds)
    assert (found.even.square().sum((1, 2, 3)) / found.dr2.square().sum((1, 2, 3))) == pytest.approx(0.5, abs=0.15)
    both = found.dr2.square() + found.mirrored.square()
    torch.testing.assert_close(2 * found.even.square() + 2 * (found.dr2 - found.even).square(), both)
    before, after = gates(tiny_ensemble.network, 0 * r, ds)
    assert not before.any() and torch.equal(after, found.dr2 > 0)
