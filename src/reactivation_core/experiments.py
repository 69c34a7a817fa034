r"""The paper's conditions, by name: Tables A.1 and A.2, and every choice between the paper and its released code.

`EXPERIMENTS` maps names to frozen, validated settings. A variation is a copy: `experiment.vary(sigma=0.0)`.

Source: Krishna et al. (2024), Tables A.1 and A.2; where the paper is silent or at odds with its figures, the released
code.
"""

import difflib
import itertools
import math
from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from reactivation_core.cells import HeadDirectionCells, PlaceCells
from reactivation_core.networks import NETWORKS, Network
from reactivation_core.tasks import HeadDirectionTask, PositionTask, Task
from reactivation_core.trajectories import Animal, Head, Recording, Settings


def _motion(motion: object) -> str:
    recorded = "record" in motion if isinstance(motion, dict) else isinstance(motion, Recording)
    return "recording" if recorded else "animal"


class PositionSettings(Settings):
    """The position task, Eq. (20) and Table A.1."""

    kind: Literal["position"] = "position"
    motion: Annotated[
        Annotated[Animal, Tag("animal")] | Annotated[Recording, Tag("recording")], Discriminator(_motion)
    ] = Animal()
    n_cells: int = Field(default=512, ge=3, description="place cells N_o")
    width: float = Field(default=0.2, gt=0, description="width σ_SP of the place cells, m")
    normalise: bool = Field(default=True, description="divide the place cells' activities by their sum")

    def draw(self, n_networks: int, generator: torch.Generator) -> PositionTask:
        """The task with place cells drawn uniformly in the box, anew for each network."""
        unit = torch.rand(n_networks, self.n_cells, 2, generator=generator, device=generator.device)
        return self.restore(n_networks, (unit - 0.5) * self.motion.box)

    def restore(self, n_networks: int, centres: Tensor) -> PositionTask:
        """The task with the given centres `(S, N_o, 2)`."""
        return PositionTask(n_networks, self.motion, PlaceCells(centres, self.width, self.normalise))


class HeadDirectionSettings(Settings):
    """The head-direction task, Eq. (21) and Table A.2."""

    kind: Literal["head-direction"] = "head-direction"
    motion: Head = Head()
    n_cells: int = Field(default=512, ge=3, description="head-direction cells N_o")
    width: float = Field(default=math.pi / 6, gt=0, description="width σ_HD of the head-direction cells, rad")
    peak: bool = Field(default=True, description="scale the head-direction cells to a peak of 1")

    def draw(self, n_networks: int, generator: torch.Generator) -> HeadDirectionTask:
        r"""The task with bearings evenly spaced in $[-\pi, \pi)$, none twice."""
        # On every device those of the CPU.
        angles = torch.arange(self.n_cells, device="cpu") * (2 * math.pi / self.n_cells) - math.pi
        return self.restore(n_networks, angles.to(generator.device))

    def restore(self, n_networks: int, angles: Tensor) -> HeadDirectionTask:
        """The task with the given preferred bearings `(N_o,)`."""
        return HeadDirectionTask(n_networks, self.motion, HeadDirectionCells(angles, self.width, self.peak))


def _known(network: str) -> str:
    if network not in NETWORKS:
        known = " or ".join(map(repr, NETWORKS))
        raise PydanticCustomError("network", "Input should be {known}", {"known": known})
    return network


class Experiment(Settings):
    """All that determines a trained ensemble, apart from the seed."""

    name: str
    task: Annotated[PositionSettings | HeadDirectionSettings, Field(discriminator="kind")]
    network: Annotated[str, AfterValidator(_known)] = "rnn"
    n_units: int = Field(default=512, ge=1, description="units N_r")
    tau: float = Field(default=0.1, gt=0, validate_default=True, description="time constant τ of a unit, s")
    sigma: float = Field(default=0.01 / math.sqrt(0.02), ge=0, description="noise σ; σ sqrt(dt) per step")
    noise: Literal["gaussian", "uniform"] = Field(default="gaussian", description="law of the noise")
    n_steps: int = Field(default=100, ge=1, description="steps of a waking trajectory")
    n_quiescent_steps: int = Field(default=200, ge=1, description="steps of a quiescent trajectory")
    quiescent_noise: float = Field(default=math.sqrt(2), ge=0, description="factor on σ in quiescence")
    batch_size: int = Field(default=200, ge=1, description="trajectories per batch")
    n_batches: int = Field(default=2500, ge=1, description="training batches")
    learning_rate: float = Field(default=1e-3, gt=0, description="learning rate of Adam")
    truncate: int | None = Field(default=None, ge=1, description="steps after which gradients are cut; None: never")
    cost: float = Field(default=0.0, ge=0, description="weight of the mean square of units in the training loss")

    @field_validator("tau")
    @classmethod
    def _stable(cls, tau: float, info) -> float:
        if "task" in info.data and tau < info.data["task"].motion.dt:
            dt = info.data["task"].motion.dt
            raise PydanticCustomError("tau", "Input should be at least the time step, {dt}", {"dt": dt})
        return tau

    @property
    def dt(self) -> float:
        """Time step, s."""
        return self.task.motion.dt

    def vary(self, **changes) -> "Experiment":
        """A validated copy with some settings changed; of settings within settings, as `task={"n_cells": 64}`, those
        named.

        Raises:
            ValueError: naming the setting that is unknown or out of range.
        """
        return parse(_merge(self.model_dump(), changes))

    def draw(self, n_networks: int, generator: torch.Generator) -> tuple[Task, Network]:
        """A task and untrained networks."""
        if n_networks < 1:
            raise ValueError(f"expected at least one network, got {n_networks}")
        task = self.task.draw(n_networks, generator)
        network = NETWORKS[self.network].initial(
            n_networks, self.n_units, self.task.n_cells, task.n_inputs, self.tau, self.dt, generator
        )
        return task, network


def change(experiment: Experiment, changes: Iterable[str]) -> Experiment:
    """A copy with settings changed as texts say, `sigma=0.1` or `task.motion.speed=0.2`; `none` is None.

    Raises:
        ValueError: naming the setting that is unknown, with those near it, or whose value is out of range.
    """
    known = _leaves(experiment)
    for text in changes:
        path, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"expected SETTING=VALUE, got {text!r}")
        if path not in known:
            raise ValueError(f"unknown setting {path!r}: {hint(path, known)}")
        *parents, name = path.split(".")
        nested = {name: None if value == "none" else value}
        for parent in reversed(parents):
            nested = {parent: nested}
        experiment = experiment.vary(**nested)
    return experiment


def differences(one: Experiment, other: Experiment) -> int:
    """How many settings of two experiments differ, their names aside."""
    a, b = _leaves(one), _leaves(other)
    return sum(a.get(path) != b.get(path) for path in a | b)


def _leaves(experiment: Experiment) -> dict[str, object]:
    """Settings by their paths, as `task.motion.speed`; all but the name."""

    def within(settings: dict, of: str) -> dict[str, object]:
        found = {}
        for name, value in settings.items():
            found |= within(value, f"{of}{name}.") if isinstance(value, dict) else {of + name: value}
        return found

    return within(experiment.model_dump(exclude={"name"}), "")


def _merge(settings: dict, changes: dict) -> dict:
    both = (name for name, value in changes.items() if isinstance(value, dict) and isinstance(settings.get(name), dict))
    return settings | changes | {name: _merge(settings[name], changes[name]) for name in both}


def parse(settings: dict | str) -> Experiment:
    """Settings from a dictionary or JSON.

    Raises:
        ValueError: one line naming each setting that is unknown, missing or out of range, and what came.
    """
    try:
        if isinstance(settings, str):
            return Experiment.model_validate_json(settings)
        return Experiment.model_validate(settings)
    except ValidationError as error:
        raise ValueError(f"invalid experiment settings: {problems(error)}") from None


def problems(error: ValidationError) -> str:
    """What is wrong with each field, in one line."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r:.80}" for e in error.errors())


def get(name: str) -> Experiment:
    """An experiment by name.

    Raises:
        ValueError: for an unknown name, with the nearest known ones.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment {name!r}: {hint(name, EXPERIMENTS)}")
    return EXPERIMENTS[name]


def hint(word: str, known: Iterable[str]) -> str:
    """The known words that are near an unknown one, as a question; all if none is near."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.4)
    return f"did you mean {', '.join(near)}?" if near else f"expected one of {', '.join(known)}"


def _all() -> dict[str, Experiment]:
    # The drift that gathers the animal around the centre (Fig. 2) is 0.05 of the way per step.
    motions = {"unbiased": Animal(), "biased": Animal(drift=0.05)}
    turns = {"unbiased": Head(), "biased": Head(counter_clockwise=True)}
    experiments = []
    for bias, motion in motions.items():
        noisy = Experiment(name=f"position-noisy-{bias}", task=PositionSettings(motion=motion))
        noiseless = noisy.vary(name=f"position-noiseless-{bias}", sigma=0.0)
        # The text as written, but for the starts, which stay in the box.
        text = {"motion": {"speed": 0.2}, "normalise": False}
        experiments += [
            noisy,
            noiseless,
            noisy.vary(name=f"position-gru-{bias}", network="gru", quiescent_noise=1.0),
            noisy.vary(name=f"{noisy.name}-uniform", noise="uniform"),
            noisy.vary(name=f"{noisy.name}-text", task=text),
            noiseless.vary(name=f"{noiseless.name}-text", task=text),
        ]
    experiments.append(
        Experiment(name="position-noisy-unbiased-rests", task=PositionSettings(motion=Animal(rests=25.0)))
    )
    # A rat at the pace of the task's animal, in a box of the task's size.
    rat = Recording(record="sargolini", centre=(0.5, 0.5), scale=2.2, gap=0.035, every=4, symmetries=True)
    experiments.append(Experiment(name="position-noisy-unbiased-rats", task=PositionSettings(motion=rat)))
    # Of six noises and costs with which networks track, what brought sleep nearest to the law of waking.
    aside = Animal(drift=0.05, home=(-0.4, -0.4))
    for bias, motion in {**motions, "offcentre": aside}.items():
        loud = {"sigma": 0.03 / math.sqrt(0.02), "cost": 0.002, "task": PositionSettings(motion=motion)}
        experiments.append(Experiment(name=f"position-noisy-{bias}-costly", **loud))
    # Where the paper's text differs from its released code, and the book follows the code.
    noisy = experiments[0]
    for suffix, change in (("slow", {"motion": {"speed": 0.2}}), ("unnormalised", {"normalise": False})):
        experiments.append(noisy.vary(name=f"{noisy.name}-{suffix}", task=change))
    for bias, motion in turns.items():
        heading = Experiment(
            name=f"head-direction-{bias}",
            task=HeadDirectionSettings(motion=motion),
            n_units=128,
            tau=0.04,
            sigma=0.1 / math.sqrt(0.02),
            n_batches=20000,
        )
        experiments += [heading, heading.vary(name=f"{heading.name}-uniform", noise="uniform")]
        if bias == "unbiased":
            experiments += _rings(heading)
    return {experiment.name: experiment for experiment in experiments}


def _rings(heading: Experiment) -> list[Experiment]:
    """Small networks with loud noise, a cost of activity, an uneven law of bearings and rests, and the same but for
    what their names say."""
    ring = heading.vary(
        name="ring",
        task={"n_cells": 128, "motion": {"rests": 25.0, "concentration": 1.0}},
        n_units=48,
        sigma=0.3 / math.sqrt(0.02),
        cost=0.002,
        batch_size=50,
        n_batches=4000,
    )
    changes = {
        "even": {"task": {"motion": {"concentration": 0.0}}},
        "two": {"task": {"motion": {"peaks": 2}}},
        "moving": {"task": {"motion": {"rests": None}}},
        # That of Table A.2.
        "quiet": {"sigma": heading.sigma},
        "free": {"cost": 0.0},
        # Half as many trajectories, twice as many steps in a batch.
        "long": {"n_steps": 400, "batch_size": 25},
    }
    factorial = itertools.product(*(((), (name,)) for name in ("moving", "quiet", "free")))
    experiments = []
    for names in (*(sum(each, ()) for each in factorial), ("even",), ("two",), ("long",), ("moving", "long")):
        experiment = ring.vary(name="-".join(("ring", *names)))
        for name in names:
            experiment = experiment.vary(**changes[name])
        experiments.append(experiment)
    return experiments


EXPERIMENTS: dict[str, Experiment] = _all()
# Of full size: without small ones, and those of one difference between the paper's text and its released code.
MAIN = tuple(
    name for name in EXPERIMENTS if not name.startswith("ring") and not name.endswith(("-slow", "-unnormalised"))
)
