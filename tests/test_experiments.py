import itertools
import math
import re
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from reactivation_core import experiments
from reactivation_core.experiments import EXPERIMENTS, Experiment
from reactivation_core.networks import GRU, RNN
from reactivation_core.trajectories import Animal

BIASES = ("unbiased", "biased")
FACTORS = list(itertools.product(("", "-moving"), ("", "-quiet"), ("", "-free")))
RINGS = [
    *("".join(("ring", *names)) for names in FACTORS),
    *(f"ring-{name}" for name in ("even", "two", "long", "moving-long")),
]


def test_names_are_the_papers_conditions_and_variations():
    assert set(EXPERIMENTS) == {
        *(f"position-noisy-unbiased-{variant}" for variant in ("slow", "unnormalised")),
        *(f"position-{kind}-{bias}" for kind in ("noisy", "noiseless", "gru") for bias in BIASES),
        *(f"head-direction-{bias}" for bias in BIASES),
        *(f"position-{kind}-{bias}-text" for kind in ("noisy", "noiseless") for bias in BIASES),
        *(f"position-noisy-unbiased-{motion}" for motion in ("rats", "rests")),
        *(f"position-noisy-{bias}-costly" for bias in (*BIASES, "offcentre")),
        *(f"{kind}-{bias}-uniform" for kind in ("position-noisy", "head-direction") for bias in BIASES),
        *RINGS,
    }
    assert all(experiment.name == name for name, experiment in EXPERIMENTS.items())


@pytest.mark.parametrize("name", sorted(set(EXPERIMENTS) - set(RINGS)))
def test_settings_are_those_of_tables_a1_and_a2(name):
    experiment, position = experiments.get(name), name.startswith("position")
    task, motion = experiment.task, experiment.task.motion
    noise_per_step = experiment.sigma * math.sqrt(experiment.dt)
    assert experiment.n_units == (512 if position else 128) and task.n_cells == 512
    assert experiment.tau == (0.1 if position else 0.04) and experiment.dt == 0.02
    costly = name.endswith("costly")
    expected = 0.0 if "noiseless" in name else 0.03 if costly else 0.01 if position else 0.1
    assert experiment.cost == (0.002 if costly else 0)
    assert noise_per_step == pytest.approx(expected)
    assert (experiment.n_steps, experiment.n_quiescent_steps) == (100, 200)
    assert (experiment.batch_size, experiment.n_batches) == (200, 2500 if position else 20000)
    assert experiment.learning_rate == 1e-3
    assert experiment.network == ("gru" if "gru" in name else "rnn")
    assert experiment.quiescent_noise == (1 if "gru" in name else pytest.approx(math.sqrt(2)))
    assert experiment.noise == ("uniform" if name.endswith("uniform") else "gaussian")
    if name.endswith("rats"):
        assert (motion.record, motion.box, motion.every, motion.symmetries) == ("sargolini", 2.2, 4, True)
        return
    assert motion.turning == 11.52
    biased = "unbiased" not in name
    if position:
        assert (task.width, task.normalise) == (0.2, not name.endswith(("unnormalised", "text")))
        assert (motion.box, motion.border, motion.slowing, motion.drift) == (2.2, 0.03, 0.25, 0.05 if biased else 0)
        assert motion.home == ((-0.4, -0.4) if "offcentre" in name else (0, 0))
        assert motion.speed == pytest.approx(0.2 if name.endswith(("slow", "text")) else 0.26 * math.pi)
        assert motion.rests == (25 if name.endswith("rests") else None)
    else:
        assert (task.width, task.peak, motion.counter_clockwise) == (math.pi / 6, True, biased)


@pytest.mark.parametrize("name", RINGS)
def test_rings_differ_by_what_their_names_say(name):
    experiment = experiments.get(name)
    words, motion = set(name.split("-")[1:]), experiment.task.motion
    assert experiment.sigma * math.sqrt(experiment.dt) == pytest.approx(0.1 if "quiet" in words else 0.3)
    assert experiment.cost == (0 if "free" in words else 0.002)
    assert motion.rests == (None if "moving" in words else 25)
    assert (motion.peaks, motion.concentration) == (2 if "two" in words else 1, 0 if "even" in words else 1)
    assert experiment.n_steps == (400 if "long" in words else 100)
    assert (experiment.n_units, experiment.n_batches, experiment.tau) == (48, 4000, 0.04)


@pytest.mark.parametrize(
    "name, cls, inputs, preferred",
    [
        ("position-noisy-unbiased", RNN, 2, (2, 512, 2)),
        ("position-gru-biased", GRU, 2, (2, 512, 2)),
        ("head-direction-unbiased", RNN, 1, (512,)),
    ],
)
def test_an_experiment_draws_its_task_and_networks(name, cls, inputs, preferred, generator):
    experiment = experiments.get(name)
    task, network = experiment.draw(2, generator)
    assert type(network) is cls and (network.tau, network.dt) == (experiment.tau, 0.02)
    assert (network.n_networks, network.n_units, network.n_cells) == (2, experiment.n_units, 512)
    assert next(iter(task.cells.buffers())).shape == preferred and task.n_networks == 2
    assert task.n_inputs == inputs and task.motion == experiment.task.motion


@pytest.mark.parametrize("n", [0, -1])
def test_no_networks_are_refused(tiny_experiment, generator, n):
    with pytest.raises(ValueError, match=f"expected at least one network, got {n}"):
        tiny_experiment.draw(n, generator)


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "position-noisy-unbaised",
            "unknown experiment 'position-noisy-unbaised': did you mean position-noisy-unbiased",
        ),
        ("head-direction", "did you mean head-direction-biased, head-direction-unbiased"),
        ("???", f"expected one of {', '.join(EXPERIMENTS)}"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, message):
    with pytest.raises(ValueError) as error:
        experiments.get(name)
    assert message in str(error.value)


def test_settings_are_frozen():
    experiment = experiments.get("position-noisy-unbiased")
    with pytest.raises(ValidationError, match="frozen"):
        experiment.sigma = 0.0
    varied = experiment.vary(sigma=0.0)
    assert varied.sigma == 0 and experiment.sigma > 0
    assert varied.vary(sigma=experiment.sigma) == experiment


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_survive_json(name):
    assert experiments.parse(EXPERIMENTS[name].model_dump_json()) == EXPERIMENTS[name]


ANIMAL = {"kind": "position", "motion": {"dt": 0.02}}


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"sigma": -0.1}, "sigma: .* greater than or equal to 0, got -0.1"),
        ({"sigma": math.nan}, "sigma: .* finite number, got nan"),
        ({"sigma": math.inf}, "sigma: .* finite number, got inf"),
        ({"sigma": "much"}, "sigma: .* got 'much'"),
        ({"quiescent_noise": -1.0}, "quiescent_noise"),
        ({"n_units": 0}, "n_units: .* greater than or equal to 1, got 0"),
        ({"n_units": 1.5}, "n_units"),
        ({"tau": 0.0}, "tau: .* greater than 0"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"n_batches": 0}, "n_batches"),
        ({"network": "lstm"}, "network: .*'rnn' or 'gru', got 'lstm'"),
        ({"noise": "cauchy"}, "noise: .*'gaussian' or 'uniform'"),
        ({"sigma": {"n_cells": 4}}, "sigma: .* valid number"),
        ({"sgima": 0.1}, "sgima: Extra inputs are not permitted"),
        ({"task": {"kind": "smell"}}, "task: .*'position', 'head-direction'"),
        ({"task": ANIMAL | {"n_cells": 2}}, "task.position.n_cells"),
        ({"task": ANIMAL | {"motion": {"dt": 0}}}, "task.position.motion.animal.dt"),
        ({"task": ANIMAL | {"motion": {"drift": 1}}}, "task.position.motion.animal.drift"),
        ({"sigma": -1, "tau": -1}, "tau: .*; sigma: "),
        ({"tau": 0.001}, "tau: .*at least the time step, 0.02, got 0.001"),
        ({"task": {"motion": {"dt": 0.5, "speed": 0.05}}}, "tau: .*at least the time step, 0.5, got 0.1"),
        ({"task": {"motion": {"border": 5.0}}}, "task.*border: .*less than half of the box, 1.1, got 5.0"),
        ({"task": {"motion": {"box": 0.05}}}, "task.*border: .*less than half of the box, 0.025, got 0.03"),
        # With these an animal leaves the box.
        ({"task": {"motion": {"turning": 0}}}, "task.*turning: .*greater than or equal to 1, got 0"),
        ({"task": {"motion": {"home": (0.0, -1.2)}}}, "task.*home: .*within 1.1 of the centre"),
        ({"task": {"motion": {"dt": 0.1}}}, "task.*border: .*at least speed times dt, 0.0817, got 0.03"),
    ],
)
def test_bad_settings_are_named_in_one_line(changes, named):
    with pytest.raises(ValueError, match=f"^invalid experiment settings: {named}") as error:
        experiments.get("position-noisy-unbiased").vary(**changes)
    assert "\n" not in str(error.value)


def test_a_default_is_held_against_the_settings_that_are_given():
    with pytest.raises(ValidationError, match="border\n.*less than half of the box, 0.025"):
        Animal(box=0.05)
    slow = experiments.PositionSettings(motion=Animal(dt=0.2, speed=0.1))
    with pytest.raises(ValidationError, match="tau\n.*at least the time step, 0.2"):
        Experiment(name="slow", task=slow)


def test_settings_within_settings_vary_by_name():
    experiment = experiments.get("head-direction-biased")
    varied = experiment.vary(task={"n_cells": 64, "motion": {"dt": 0.01}})
    assert (varied.task.n_cells, varied.dt) == (64, 0.01)
    assert varied.task.motion.counter_clockwise and varied.vary(task=experiment.task.model_dump()) == experiment


def test_settings_that_differ_are_counted():
    noisy = experiments.get("position-noisy-unbiased")
    for other, count in (
        ("position-noisy-unbiased", 0),
        ("position-noiseless-biased", 2),
        ("position-noisy-biased", 1),
    ):
        assert experiments.differences(noisy, experiments.get(other)) == count
    # What one of two motions has, and the other does not, is a difference.
    assert experiments.differences(noisy, experiments.get("position-noisy-unbiased-rats")) > 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "x"}', "null"])
def test_what_is_no_settings_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match="^invalid experiment settings: .+") as error:
        experiments.parse(text)
    assert "\n" not in str(error.value)


def test_no_copy_of_settings_goes_unchecked():
    # As pydantic makes it.
    sources = Path(experiments.__file__).parent.rglob("*.py")
    assert not [path.name for path in sources if re.search("model_(copy|construct)", path.read_text())]


def test_names_are_required():
    with pytest.raises(ValidationError):
        Experiment(task=experiments.PositionSettings())


def test_networks_of_an_ensemble_have_place_cells_of_their_own(tiny_experiment, generator):
    task, _ = tiny_experiment.draw(2, generator)
    assert not torch.equal(*task.cells.centres)
