"""Walks, and the response of a linear filter to them."""

import numpy as np
import pytest
import torch

from reactivation_core.protocols import sustaining


@pytest.fixture
def ds(generator):
    return torch.randn(3, 4, 50, 2, generator=generator)


def test_walks_lead_where_they_should(ds):
    walks = sustaining.walks(ds)
    assert {name: walk.shape for name, walk in walks.items()} == dict.fromkeys(walks, (3, 4, 100, 2))
    path = {name: walk.cumsum(2) for name, walk in walks.items()}
    back = -ds.flip(2).cumsum(2)
    torch.testing.assert_close(path["back"][:, :, :50], back)
    for name, n in {"1": 1, "10": 10, "25": 25}.items():
        torch.testing.assert_close(path[name][:, :, n - 1], back[:, :, n - 1])
        assert path[name][:, :, 2 * n - 1 :: 2 * n].abs().max() < 1e-4
    # The same places in the same order, in twice the time.
    torch.testing.assert_close(path["25_slow"][:, :, 1::2], path["25"][:, :, :50], rtol=0, atol=1e-4)
    torch.testing.assert_close(2 * walks["25_half"], walks["25_double"] / 2)
    torch.testing.assert_close((walks["turned"] * walks["back"]).sum(-1), torch.zeros(3, 4, 100))
    assert not walks["none"].any()


def test_activity_without_input_falls_by_the_leak(tiny_ensemble):
    with torch.no_grad():
        tiny_ensemble.network.W_rec.zero_()
    r = torch.rand(3, 4, 16)
    norms = sustaining.norms(tiny_ensemble, r, torch.zeros(3, 4, 5, 2))
    torch.testing.assert_close(norms[:, :, 4], r.norm(dim=-1) * 0.8**5)


def test_responses_at_right_angles_add_in_quadrature():
    left, response = np.array([3.0, 0.0]), np.array([0.0, 4.0])
    sizes = [np.linalg.norm(left + h * response) for h in (0, 0.5, 1, 2)]
    for h, size in zip((0.5, 2), (sizes[1], sizes[3]), strict=True):
        assert sustaining.in_quadrature(np.array([sizes[0]]), np.array([sizes[2]]), h) == pytest.approx(size)
