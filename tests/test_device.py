"""On a CUDA device the library computes what it computes on a CPU."""

import pytest
import torch

from reactivation_core import dynamics, phases, theory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
every_kind = pytest.mark.parametrize(
    "tiny_experiment", ["position-noisy-unbiased", "position-gru-unbiased", "head-direction-unbiased"], indirect=True
)


@every_kind
def test_a_run_without_noise_is_the_same(tiny_ensemble, generator):
    start = phases.starts(tiny_ensemble, 5, generator)
    expected = phases.quiescent(tiny_ensemble, 20, 0.0, start, generator, record=("states", "outputs"))
    on = tiny_ensemble.to("cuda")
    found = phases.quiescent(on, 20, 0.0, start.cuda(), torch.Generator("cuda"), record=("states", "outputs"))
    assert found.states.is_cuda
    torch.testing.assert_close(found.states.cpu(), expected.states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.outputs.cpu(), expected.outputs, rtol=1e-4, atol=1e-5)


@every_kind
def test_a_waking_run_is_drawn_there(tiny_ensemble):
    on = tiny_ensemble.to("cuda")
    one, two = (phases.active(on, 5, 20, torch.Generator("cuda").manual_seed(1)) for _ in range(2))
    assert one.decoded.is_cuda and torch.equal(one.decoded, two.decoded)


@every_kind
def test_jacobians_and_fixed_points_are_the_same(tiny_ensemble, generator):
    one = tiny_ensemble[0]
    r = phases.starts(one, 4, generator)[0]
    expected = dynamics.jacobian(one, r), dynamics.newton(one, r, 2)
    on = one.to("cuda")
    for x, y in zip((dynamics.jacobian(on, r.cuda()), dynamics.newton(on, r.cuda(), 2)), expected, strict=True):
        torch.testing.assert_close(x.cpu(), y.cpu(), rtol=1e-3, atol=1e-4)


def test_densities_and_their_samplers_are_the_same():
    ring = theory.Circle(1.0, 0.01, concentration=2.0)
    r = ring.sample(50, torch.Generator().manual_seed(0))
    for x, y in ((ring.score(r.cuda()), ring.score(r)), (ring.log_prob(r.cuda()), ring.log_prob(r))):
        torch.testing.assert_close(x.cpu(), y)
    generator = torch.Generator("cuda").manual_seed(0)
    assert ring.sample(5, generator).is_cuda
    assert theory.langevin(ring, r.cuda(), 0.01, 2.0, generator).isfinite().all()
