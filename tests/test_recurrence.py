import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from reactivation_core.manifolds import Manifold
from reactivation_core.networks import Network
from reactivation_core.recurrence import RECURRENCES, ByHand, Readable, Recurrence, RNNRecurrence
from reactivation_core.tasks import Task, must_be
from reactivation_core.theory import Density
from reactivation_core.trajectories import Trajectories

KINDS = ["position-noisy-unbiased", "position-gru-unbiased", "head-direction-unbiased"]
# Readout goes in blocks of 10 steps: less than one, whole ones, and a remainder.
STEPS = [4, 20, 23]
B = 6

every_kind = pytest.mark.parametrize("tiny_experiment", KINDS, indirect=True)


@pytest.fixture
def problem(tiny_experiment, generator):
    """A task, three networks, and a batch with noise, of any number of steps and type."""

    def make(n_steps, dtype=torch.float64, n_trajectories=B):
        task, network = tiny_experiment.draw(3, generator)
        batch = task.sample(n_trajectories, n_steps, generator)
        eta = torch.randn(3, n_steps, n_trajectories, network.n_units, generator=generator)
        return task.to(dtype), network.to(dtype), Trajectories(*(x.to(dtype) for x in batch)), eta.to(dtype)

    return make


def readable(task, network, batch, eta, sigma, truncate=None, cost=0.0):
    """Loss, states and gradients by automatic differentiation of the readable loop."""
    r = network.encode(task.cells.tuning(batch.s[:, :, 0]))
    if truncate is None:
        states = network(r, batch.ds, sigma * eta.transpose(1, 2))
    else:
        states = []
        for t in range(batch.ds.shape[2]):
            r = network.step(r.detach() if t and t % truncate == 0 else r, batch.ds[:, :, t], sigma * eta[:, t])
            states.append(r)
        states = torch.stack(states, 2)
    loss = (network.readout(states) - task.cells.tuning(batch.s[:, :, 1:])).square().mean((1, 2, 3))
    loss = loss + cost * states.square().mean((1, 2, 3))
    names, values = zip(*network.named_parameters(), strict=True)
    return loss.detach(), states.detach(), dict(zip(names, torch.autograd.grad(loss.sum(), values), strict=True))


def by_hand(task, network, batch, eta, sigma, dtype, truncate=None, cost=0.0):
    """The same by the backward pass written by hand."""
    _, n_steps, n_trajectories, _ = eta.shape
    recurrence = RECURRENCES[type(network)](network, task, n_trajectories, n_steps, dtype, truncate, cost)
    recurrence.eta.copy_(eta)
    loss = recurrence(batch, sigma)
    states = recurrence.x[:, 1:, :, : network.n_units].transpose(1, 2)
    return loss, states, {name: value.grad.clone() for name, value in network.named_parameters()}


def differences(got, expected):
    """Relative to the size of what is expected: loss, states and the gradient of every parameter."""
    pairs = {"loss": (got[0], expected[0]), "states": (got[1], expected[1])}
    pairs |= {name: (got[2][name], gradient) for name, gradient in expected[2].items()}
    assert all(b.abs().max() > 0 for _, b in pairs.values())
    return {name: ((a - b).norm() / b.norm()).item() for name, (a, b) in pairs.items()}


@every_kind
@pytest.mark.parametrize("n_steps", STEPS)
@pytest.mark.parametrize("sigma", [0.0, 0.07, 0.7])
def test_gradients_are_those_of_the_readable_loop(problem, n_steps, sigma):
    case = problem(n_steps)
    assert max(differences(by_hand(*case, sigma, torch.float64), readable(*case, sigma)).values()) < 1e-12


@every_kind
@pytest.mark.parametrize("truncate", [1, 7, 10, 23, 40])
def test_cut_gradients_are_those_of_a_loop_that_forgets_where_its_activity_came_from(problem, truncate):
    case = problem(23)
    cut, whole = (by_hand(*case, 0.07, torch.float64, k) for k in (truncate, None))
    assert max(differences(cut, readable(*case, 0.07, truncate)).values()) < 1e-12
    same = [torch.equal(cut[2][name], gradient) for name, gradient in whole[2].items() if name != "D"]
    assert all(same) if truncate >= 23 else not any(same)
    assert torch.equal(cut[0], whole[0]) and torch.equal(cut[2]["D"], whole[2]["D"])


@every_kind
@pytest.mark.parametrize("truncate", [7, 40])
def test_gradients_are_cut_alike_without_a_pass_by_hand(problem, truncate):
    task, network, batch, eta = problem(23)
    recurrence = Readable(network, task, B, 23, torch.float64, truncate)
    recurrence.eta.copy_(eta)
    recurrence(batch, 0.07)
    _, _, expected = by_hand(task, network, batch, eta, 0.07, torch.float64, truncate)
    for name, value in network.named_parameters():
        torch.testing.assert_close(must_be(torch.Tensor, value.grad), expected[name], rtol=1e-10, atol=1e-14)


@every_kind
@pytest.mark.parametrize("cost", [0.002, 3.0])
def test_a_cost_of_activity_is_in_loss_and_gradients(problem, cost):
    case = problem(23)
    expected = readable(*case, 0.7, cost=cost)
    assert max(differences(by_hand(*case, 0.7, torch.float64, cost=cost), expected).values()) < 1e-12
    assert differences(by_hand(*case, 0.7, torch.float64), expected)["encoder"] > 1e-4


def test_a_cost_is_in_the_gradients_without_a_pass_by_hand(problem):
    task, network, batch, eta = problem(23)
    recurrence = Readable(network, task, B, 23, torch.float64, None, 3.0)
    recurrence.eta.copy_(eta)
    recurrence(batch, 0.07)
    _, _, expected = by_hand(task, network, batch, eta, 0.07, torch.float64, cost=3.0)
    for name, value in network.named_parameters():
        torch.testing.assert_close(must_be(torch.Tensor, value.grad), expected[name], rtol=1e-10, atol=1e-14)


def test_the_comparison_sees_a_way_back_without_the_leak(problem, monkeypatch):
    backward = RNNRecurrence.backward_step

    def without_leak(self, t, delta):
        leak = (1 - self.alpha) * delta
        backward(self, t, delta)
        delta -= leak

    monkeypatch.setattr(RNNRecurrence, "backward_step", without_leak)
    case = problem(23)
    assert max(differences(by_hand(*case, 0.07, torch.float64), readable(*case, 0.07)).values()) > 0.1


@every_kind
def test_gradients_pass_gradcheck(problem):
    task, network, batch, eta = problem(11, n_trajectories=2)
    names, values = zip(*network.named_parameters(), strict=True)

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *values):
            varied = type(network)(dict(zip(names, values, strict=True)), network.tau, network.dt)
            loss, _, gradients = by_hand(task, varied, batch, eta, 0.1, torch.float64)
            ctx.gradients = [gradients[name] for name in names]
            return loss

        @staticmethod
        def backward(ctx, scale):
            return tuple(gradient * scale[:, None, None] for gradient in ctx.gradients)

    assert torch.autograd.gradcheck(Loss.apply, values, fast_mode=True)


def test_a_network_without_a_pass_by_hand_takes_no_memory_for_one(tiny_experiment, generator):
    task, network = tiny_experiment.draw(3, generator)
    held = {}
    for kind in (Readable, RNNRecurrence):
        tensors = [value for value in vars(kind(network, task, B, 23)).values() if isinstance(value, torch.Tensor)]
        held[kind] = sum(tensor.nbytes for tensor in tensors)
    # The noise alone.
    assert held[Readable] == 3 * 23 * B * 16 * 4 < held[RNNRecurrence] / 2


@pytest.mark.parametrize("kind", [Network, Task, Density, Manifold, Recurrence, ByHand], ids=lambda kind: kind.__name__)
def test_what_a_subclass_must_have_is_asked_for_when_it_is_made(kind):
    class Lacking(kind):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Lacking()


@every_kind
def test_float32_is_equal_to_the_readable_loop_to_1e_5(problem):
    case = problem(100, torch.float32, 20)
    assert max(differences(by_hand(*case, 0.07, torch.float32), readable(*case, 0.07)).values()) < 1e-5


@every_kind
def test_bfloat16_is_close(problem):
    case = problem(100, torch.float32, 20)
    found = differences(by_hand(*case, 0.07, torch.bfloat16), readable(*case, 0.07))
    # Rounding to 8 bits is off by 0.2 % on average and by 0.4 % at most; it adds up over the steps of a gradient.
    assert max(found.values()) < 2e-2, found
    assert found["states"] < 4e-3


@every_kind
def test_networks_train_beside_one_another_as_alone(problem):
    task, network, batch, eta = problem(23)
    together = by_hand(task, network, batch, eta, 0.07, torch.float64)
    for i in range(3):
        one = slice(i, i + 1)
        alone = by_hand(task[one], network[one], Trajectories(*(x[one] for x in batch)), eta[one], 0.07, torch.float64)
        expected = together[0][one], together[1][one], {name: g[one] for name, g in together[2].items()}
        assert max(differences(alone, expected).values()) < 1e-12


@every_kind
def test_a_second_batch_owes_nothing_to_the_first(problem):
    task, network, batch, eta = problem(23)
    recurrence = RECURRENCES[type(network)](network, task, B, 23, torch.float64)
    results = []
    for turned in (False, True, False):
        recurrence.eta.copy_(-eta if turned else eta)
        loss = recurrence(Trajectories(*(x.flip(1) for x in batch)) if turned else batch, 0.07)
        results.append([loss, *(p.grad.clone() for p in network.parameters())])
    first, other, again = results
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@every_kind
def test_a_batch_neither_reads_a_value_nor_copies_one_from_the_host(problem):
    # Neither can be captured in a CUDA graph.
    task, network, batch, _ = problem(23)
    recurrence = RECURRENCES[type(network)](network, task, B, 23, torch.float64)
    called = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            called.add(function.overloadpacket)
            return function(*args, **(kwargs or {}))

    with Record():
        recurrence(batch, 0.07)
    assert torch.ops.aten.bmm in called
    assert not called & {torch.ops.aten._local_scalar_dense, torch.ops.aten.lift_fresh}
