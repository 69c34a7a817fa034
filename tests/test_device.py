"""On another device, `--device`, the library computes what it computes on the CPU, and it makes tensors only there. The
first is trivial on the CPU, the second is seen on any machine."""

import copy

import pytest
import torch
from torch.overrides import TorchFunctionMode

from reactivation_core import dynamics, manifolds, phases, samplers, theory
from reactivation_core.protocols import agreement, optimum, spreading, upper_bound

# With `--device cuda`.
pytestmark = pytest.mark.gpu
every_kind = pytest.mark.parametrize(
    "tiny_experiment", ["position-noisy-unbiased", "position-gru-unbiased", "head-direction-unbiased"], indirect=True
)
every_task = pytest.mark.parametrize(
    "tiny_experiment", ["position-noisy-unbiased", "head-direction-unbiased"], indirect=True
)


@every_kind
def test_a_run_without_noise_is_the_same(tiny_ensemble, generator, device):
    start = phases.starts(tiny_ensemble, 5, generator)
    expected = phases.quiescent(tiny_ensemble, 20, 0.0, start, generator, record=("states", "outputs"))
    on = tiny_ensemble.to(device)
    found = phases.quiescent(on, 20, 0.0, start.to(device), torch.Generator(device), record=("states", "outputs"))
    assert found.states.device.type == device
    torch.testing.assert_close(found.states.cpu(), expected.states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.outputs.cpu(), expected.outputs, rtol=1e-4, atol=1e-5)


@every_kind
def test_a_waking_run_is_drawn_there(tiny_ensemble, device):
    on = tiny_ensemble.to(device)
    one, two = (phases.active(on, 5, 20, torch.Generator(device).manual_seed(1)) for _ in range(2))
    assert one.decoded.device.type == device and torch.equal(one.decoded, two.decoded)


@every_kind
def test_jacobians_and_fixed_points_are_the_same(tiny_ensemble, generator, device):
    one = tiny_ensemble[0]
    r = phases.starts(one, 4, generator)[0]
    expected = dynamics.jacobian(one, r), dynamics.newton(one, r, 2)
    on, r = one.to(device), r.to(device)
    for x, y in zip((dynamics.jacobian(on, r), dynamics.newton(on, r, 2)), expected, strict=True):
        torch.testing.assert_close(x.cpu(), y.cpu(), rtol=1e-3, atol=1e-4)


@every_task
def test_the_manifold_is_the_same(tiny_ensemble, generator, device):
    one = tiny_ensemble[0]
    r = phases.active(one, 20, 20, generator, record=["states"]).states[0].flatten(0, 1)
    expected, found = manifolds.fit(one, r), manifolds.fit(one.to(device), r.to(device))
    s = torch.rand(5, one.task.n_inputs, generator=generator)
    torch.testing.assert_close(found(s.to(device)).cpu(), expected(s), rtol=1e-2, atol=1e-3)


def test_densities_and_their_samplers_are_the_same(device):
    ring = theory.Circle(1.0, 0.01, concentration=2.0)
    r = ring.sample(50, torch.Generator().manual_seed(0))
    on = r.to(device)
    for x, y in ((ring.score(on), ring.score(r)), (ring.log_prob(on), ring.log_prob(r))):
        torch.testing.assert_close(x.cpu(), y)
    generator = torch.Generator(device).manual_seed(0)
    assert ring.sample(5, generator).device.type == device
    assert theory.langevin(ring, on, 0.01, 2.0, generator).isfinite().all()


def meta(thing):
    """A copy with all its tensors and modules on the device "meta", where there are shapes and no values."""
    moved = copy.copy(thing)
    for name, value in vars(thing).items():
        if isinstance(value, torch.Tensor):
            setattr(moved, name, value.to("meta"))
        elif isinstance(value, torch.nn.Module):
            setattr(moved, name, copy.deepcopy(value).to("meta"))
        elif isinstance(value, phases.Ensemble):
            setattr(moved, name, value.to("meta"))
    return moved


def empty(*shape, dtype=torch.float64):
    return torch.empty(shape, dtype=dtype, device="meta")


N, N_O = 8, 12
DENSITIES = {
    "Gaussian": theory.Gaussian(torch.ones(2), 0.1),
    "Mixture": theory.Mixture(torch.ones(5, 2), 0.1),
    "Circle": theory.Circle(1.0, 0.1, 2.0),
}


@pytest.mark.parametrize("density", DENSITIES.values(), ids=DENSITIES)
def test_a_density_makes_no_tensor_elsewhere(density):
    density, r = copy.deepcopy(density).to("meta"), empty(3, 4, 2)
    found = density.log_prob(r), density.score(r), theory.drift(density, r, 0.1)
    assert [(x.device.type, x.shape) for x in found] == [("meta", r.shape[:-1]), ("meta", r.shape), ("meta", r.shape)]


def test_samplers_make_no_tensor_elsewhere():
    density, r, angles = copy.deepcopy(DENSITIES["Mixture"]).to("meta"), empty(7, 2), empty(3)
    steps = [sampler(density, 0.1, r) for sampler in (samplers.langevin, samplers.repaired, samplers.metropolis)]
    steps.append(samplers.posterior(density, r))
    q = samplers.settled(steps[0])
    found = [*steps, q, samplers.law(density, r), samplers.path(steps[0], q, 3), samplers.divergence(q, q)]
    found += [samplers.weak_error(steps[0], q, r[:, 0]), samplers.places(q, r, angles)]
    assert {x.device.type for x in found} == {"meta"}


def test_a_grid_and_its_samplers_are_the_same(device):
    points = torch.eye(2, dtype=torch.float64)
    r, on = samplers.around(points, 0.2, 1.0), samplers.around(points.to(device), 0.2, 1.0)
    torch.testing.assert_close(on.cpu(), r)
    expected = samplers.repaired(theory.Mixture(points, 0.1), 0.1, r)
    found = samplers.repaired(theory.Mixture(points.to(device), 0.1), 0.1, on)
    torch.testing.assert_close(samplers.settled(found).cpu(), samplers.settled(expected))
    assert samplers.forgetting(found) == pytest.approx(samplers.forgetting(expected))


def test_theory_makes_no_tensor_elsewhere():
    D, n, K = empty(N_O, N), 5, 3
    found = [
        theory.minimum_norm(D, empty(n, N_O)),
        optimum.readout_floor(D[None], 0.1),
        *upper_bound.bounds(D, *[empty(n, N_O)] * 3, *[empty(n, N)] * 3, empty(K, n, N)),
    ]
    head = theory.IdealNetwork(lambda s: s.cos() * empty(N_O), empty(7, 1), D, 0.1)
    r = empty(1, n, N)
    found += [head.encode(empty(1, n, N_O)), head.readout(r), head.bearing(r), head.spread()]
    assert {x.device.type for x in found} == {"meta"}


@every_kind
def test_dynamics_make_no_tensor_elsewhere(tiny_ensemble):
    one, r = tiny_ensemble[0].to("meta"), empty(5, 16, dtype=torch.float32)
    A, path = dynamics.jacobian(one, r), dynamics.flow(one, r, 3)
    found = [
        A,
        path,
        dynamics.step(one, r),
        dynamics.slow_directions(dynamics.moduli(A), 50),
        dynamics.newton(one, r, 2),
        spreading.linear_variance(one, path, r[None], 0.1),
    ]
    assert {x.device.type for x in found} == {"meta"}


@every_task
def test_manifolds_make_no_tensor_elsewhere(tiny_ensemble, generator):
    one = tiny_ensemble[0]
    r = phases.active(one, 5, 10, generator, record=["states"]).states[0].flatten(0, 1)
    manifold = meta(manifolds.fit(one, r))
    r, s = r.to("meta"), empty(len(r), one.task.n_inputs, dtype=torch.float32)
    tangents = manifold.tangents(s)
    basis = manifolds.orthonormal(tangents)
    found = [manifold(s), tangents, manifold.place(r), manifold.ray(r), manifold.gradient(r), basis]
    found += [manifold.difference(s, s), manifolds.dual(tangents), manifolds.along(basis, r)]
    assert {x.device.type for x in found} == {"meta"}


class Placed(TorchFunctionMode):
    """Where values are needed: refuses to make a tensor without being told where."""

    MAKE = [getattr(torch, name) for name in "arange empty eye full linspace ones rand randn tensor zeros".split()]

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert function not in self.MAKE or "device" in (kwargs or {}), f"{function.__name__} without a device"
        return function(*args, **(kwargs or {}))


@every_task
def test_a_fit_makes_no_tensor_elsewhere(tiny_experiment, generator):
    with Placed():
        one = phases.untrained(tiny_experiment, 1, generator)
        r = phases.active(one, 5, 10, generator, record=["states"]).states[0].flatten(0, 1)
        manifold = manifolds.fit(one, r)
        if isinstance(manifold, manifolds.Plane):
            agreement.score_along(manifold, lambda s: 1 + s[:, 0] ** 2, manifold.place(r))
    with Placed(), pytest.raises(AssertionError, match="zeros without a device"):
        torch.zeros(3)


@every_task
def test_draws_grids_and_ideal_networks_make_no_tensor_elsewhere(tiny_experiment, generator):
    with Placed():
        assert len(samplers.around(DENSITIES["Mixture"].points, 0.2, 1.0))
        for density in DENSITIES.values():
            assert theory.langevin(density, density.sample(5, generator), 0.1, 2.0, generator).isfinite().all()
        assert len(phases.ideal(tiny_experiment.vary(n_units=24), 9, generator)) == 1
