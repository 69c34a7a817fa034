"""Routes of a gated network: six units tell whether they add up, one unit at rest whether copies spread as known."""

import numpy as np
import pytest
import torch

from reactivation_core import dynamics, experiments, phases
from reactivation_core.protocols import gating

BASE = experiments.get("position-gru-unbiased")
HELD = {"nothing": "", **gating.HELD}


def routes(network, r):
    """The four routes at a state of one network; their sum is the Jacobian of the step."""
    z, g = (gate[0, 0] for gate in gating.gates(network, r[None, None]))
    W_r, W_g, W_z = network.W_r[0], network.W_g[0], network.W_z[0]
    alpha, h = network.dt / network.tau, (W_r @ (g * r)).tanh()
    pace = alpha * (1 - z)
    gain = (pace * (1 - h**2))[:, None]
    return {
        "leak": torch.diag(1 - pace),
        "candidate": gain * W_r * g,
        "g": gain * (W_r * (r * g * (1 - g))) @ W_g,
        "z": (alpha * (r - h) * z * (1 - z))[:, None] * W_z,
    }


@pytest.mark.parametrize("held", HELD.values())
def test_the_routes_add_up_to_the_jacobian_and_without_held_gates_to_what_is_left(held, generator):
    network = BASE.vary(n_units=6).draw(1, generator)[1].double()
    r = torch.randn(6, generator=generator, dtype=torch.float64)

    def step(x):
        x = x[None, None]
        return network.step(x, x.new_zeros(1, 1, 2), 0.0, gating.hold(network, held, r[None, None], x))[0, 0]

    with torch.no_grad():
        expected = sum(route for name, route in routes(network, r).items() if name not in held)
    assert torch.allclose(torch.func.jacrev(step)(r), expected, atol=1e-12)


@pytest.fixture(scope="module")
def unit():
    """One unit whose weights make the route of the reset gate matter, and its state at rest."""
    weights = {"W_r": 1.8, "W_g": 1.0, "W_z": 0.5}
    one = BASE.vary(n_units=1, sigma=BASE.sigma / 10)
    task, network = one.draw(1, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, _ in network.named_parameters():
            getattr(network, name).fill_(weights.get(name, 0.0))
    ensemble = phases.Ensemble(one, task, network)
    return ensemble, dynamics.flow(ensemble, torch.ones(1, 1), 2000)[-1]


@pytest.mark.parametrize("held", HELD.values())
def test_copies_of_one_unit_at_rest_have_the_known_variance(held, unit):
    ensemble, rest = unit
    network, one, r = ensemble.network, ensemble.experiment, float(rest)
    z, g = (float(gate.detach()) for gate in gating.gates(network, rest[None]))
    reset = 0 if "g" in held else r * g * (1 - g)
    a = 1 - one.dt / one.tau * (1 - z) * (1 - (1 - r**2) * 1.8 * (g + reset))
    noisy = gating.copies(
        ensemble,
        rest.expand(301, 1, 1),
        5000,
        torch.Generator().manual_seed(1),
        lambda r, clean: gating.hold(network, held, clean, r),
    )[-1]
    variance = float((noisy - rest).square().mean())
    # Of 5 000 copies the variance has a standard error of 2 %.
    assert variance * (1 - a**2) / (one.sigma**2 * one.dt) == pytest.approx(1, abs=0.1)


def test_a_unit_that_only_leaks_keeps_what_its_pace_lets_it(unit):
    ensemble, rest = unit
    z = float(gating.gates(ensemble.network, rest[None])[0].detach())
    keep = 1 - BASE.dt / BASE.tau * (1 - z)
    states = rest.expand(1, 500, 1)
    kept = gating.kept_by_leak(ensemble.network, states, torch.ones(1))
    t = np.arange(500)
    assert kept == pytest.approx(((1 - keep ** (2 * (t + 1))) / (1 - keep**2)).mean(), rel=1e-4)


def test_an_averaged_gate_is_the_same_in_all_units(generator):
    network = BASE.vary(n_units=6).draw(1, generator)[1]
    r = torch.randn(1, 3, 6, generator=generator)
    z, g = gating.level(network, r)
    own_z, own_g = gating.gates(network, r)
    assert torch.allclose(z, own_z.mean(-1, keepdim=True).expand(1, 3, 6))
    assert torch.equal(g, own_g)
