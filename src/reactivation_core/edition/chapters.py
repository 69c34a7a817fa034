r"""What every chapter does beside its subject: check its parameters, read ensembles, record what it measured.

A chapter run with its own parameters compares its measurements with `data/results`, and fails where they differ by
more than their tolerance; with other parameters there is nothing to compare. `reactivation run-chapters` runs it as
the reference, and then the measurements are written instead.
"""

import ast
import functools
import itertools
import json
import math
import os
import string
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from IPython.display import Markdown

from reactivation_core import phases, statistics, store
from reactivation_core.edition import claims
from reactivation_core.edition.claims import Measurement, Results
from reactivation_core.experiments import Experiment
from reactivation_core.phases import Ensemble, Phase
from reactivation_core.statistics import Scale

BOOK = store.CHECKOUT / "book"

# Set by `reactivation run-chapters` to make a run the reference: the folder for what it records.
RECORD = "REACTIVATION_RECORD"


@dataclass(frozen=True)
class Condition:
    """One of the ensembles that a chapter compares; its measurements carry the condition's suffix."""

    chapter: "Chapter"
    suffix: str
    ensemble: Ensemble

    def wake(
        self,
        n_trajectories: int,
        n_steps: int,
        generator: torch.Generator,
        noise_scale: float = 1.0,
        record: Iterable[str] = ("decoded",),
        every: int = 1,
    ) -> Phase:
        """As `phases.active`."""
        return phases.active(self.ensemble, n_trajectories, n_steps, generator, noise_scale, record, every)

    def sleep(
        self,
        n_trajectories: int,
        n_steps: int,
        generator: torch.Generator,
        c: float = 2.0,
        record: Iterable[str] = ("decoded",),
        every: int = 1,
    ) -> Phase:
        """As `phases.sleep`."""
        return phases.sleep(self.ensemble, n_trajectories, n_steps, generator, c, record, every)

    def under(self, other: "Condition") -> "Condition":
        """These networks in another condition's noise, with its suffix."""
        ensemble = replace(self.ensemble, experiment=other.ensemble.experiment)
        return replace(other, ensemble=ensemble)

    def measure(
        self, name: str, values: np.ndarray, unit: str = "", tolerance: float = 0.02, scale: Scale | None = None
    ) -> Measurement:
        """As `Chapter.measure`, under the name with the condition's suffix."""
        return self.chapter.measure(name + self.suffix, values, unit, tolerance, scale)

    def publish(self, **arrays: np.ndarray | dict[str, np.ndarray]) -> None:
        """As `Chapter.publish`, under names with the condition's suffix."""
        self.chapter.publish(**{name + self.suffix: x for name, x in _flat(arrays).items()})


class Chapter:
    """One run of a chapter.

    Args:
        name: `part/chapter`, as in the table of contents.
        namespace: the notebook's `globals()` after its imports, which holds the values of the cell tagged `parameters`.

    Raises:
        ValueError: if a parameter is not a finite number >= 0, or one named `n_…` or `seed` not a whole one, or the
            namespace holds a number that is no parameter, as a misspelt one would be.
    """

    def __init__(self, name: str, namespace: dict[str, object]):
        names = parameter_names(BOOK / f"{name}.ipynb")
        given = {key: value for key, value in namespace.items() if type(value) in (int, float)}
        unknown = [key for key in given if key not in names and not key.startswith("_")]
        if unknown:
            raise ValueError(f"expected parameters among {', '.join(names)}, got {', '.join(unknown)}")
        self.name = name
        self.parameters: dict[str, int | float] = {}
        for key in names:
            value = namespace[key]
            if isinstance(value, bool) or not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise ValueError(f"expected a finite number >= 0 for the parameter {key}, got {value!r}")
            whole = key == "seed" or key.startswith("n_")
            if whole and (not isinstance(value, int) or (value < 1 and key != "seed")):
                raise ValueError(f"expected a whole number >= 1 for the parameter {key}, got {value!r}")
            self.parameters[key] = value
        self.ensembles: dict[str, str] = {}
        self.measurements: dict[str, Measurement] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self._loaded: dict[str, Ensemble] = {}
        self._scales: dict[str, Scale] = {
            claim.metric + law: claim.scale
            for claim in claims.load()
            if claim.chapter == name
            for law in ("", *claims.LAWS.values())
        }

    def generator(self, offset: int = 0) -> torch.Generator:
        """Random numbers from the parameter `seed`, plus an offset."""
        return torch.Generator().manual_seed(int(self.parameters["seed"]) + offset)

    def ensemble(self, name: str) -> Ensemble:
        """Read an ensemble and remember which file it came from."""
        if name not in self._loaded:
            self._loaded[name] = store.load(name)
            self.ensembles[name] = self._loaded[name].sha256
        return self._loaded[name]

    def conditions(self, pattern: str, **options: Iterable[str]) -> dict:
        """Ensembles by name: `"position-noisy-{bias}{law}"` with `bias=("unbiased", "biased"), law=("", "-uniform")`
        has the keys `("unbiased", "")`, …; with one option a key is its value. A suffix, as `_unbiased_uniform`,
        has the order of the pattern."""
        found = {}
        for values in itertools.product(*options.values()):
            chosen = dict(zip(options, values, strict=True))
            named = (chosen[field].strip("-") for _, field, _, _ in string.Formatter().parse(pattern) if field)
            suffix = "".join(f"_{value}" for value in named if value)
            ensemble = self.ensemble(pattern.format(**chosen))
            found[values if len(options) > 1 else values[0]] = Condition(self, suffix, ensemble)
        return found

    def measure(
        self, name: str, values: np.ndarray, unit: str = "", tolerance: float = 0.02, scale: Scale | None = None
    ) -> Measurement:
        """Remember one value per network; returns their mean and 95 % interval, on the scale of `statistics.interval`:
        where none is given, that of the claim which the measurement is for.

        Raises:
            ValueError: for a value that is not finite, or a name that was measured before.
        """
        values = np.asarray(values, dtype=float)
        if not np.isfinite(values).all():
            raise ValueError(f"expected finite values of {name}, got {values}")
        if name in self.measurements:
            raise ValueError(f"expected a name for each measurement, got {name} twice")
        interval = statistics.interval(values, scale or self._scales.get(name, "linear"))
        self.measurements[name] = Measurement(
            **{key: float(f"{value:.6g}") for key, value in interval._asdict().items()},
            values=[float(f"{value:.6g}") for value in values],
            unit=unit,
            tolerance=tolerance,
        )
        return self.measurements[name]

    def provenance(self) -> Markdown:
        """Which networks, parameters and day the chapter's figures are of."""
        ensembles = ", ".join(f"`{name}` ({digest[:12]})" for name, digest in self.ensembles.items())
        parameters = ", ".join(f"{name} = {value}" for name, value in self.parameters.items())
        return Markdown(f"Networks: {ensembles}. Parameters: {parameters}. Run on {date.today()}.")

    def publish(self, **arrays: np.ndarray | dict[str, np.ndarray]) -> None:
        """Remember what the panels show; `finish` keeps it in `CHAPTER.npz` beside the notebook, for download, if this
        is the reference. `density={"active": x}` is named `density_active`."""
        self.arrays |= {name: np.asarray(x, np.float32) for name, x in _flat(arrays).items()}

    def table(self) -> Markdown:
        """The chapter's claims with what was measured, rounded, and their nulls; where a claim was measured in networks
        trained otherwise too, that stands below it.

        Raises:
            ValueError: naming a claim that was not measured.
        """
        rows = []
        for claim, laws in self._standings():
            for law, found in laws.items():
                about = (claim.statement, claim.source + ", post hoc" * claim.post_hoc)
                if law:
                    about = (f"— {claims.TITLES[law]}", "")
                test = f"{claim.test} {claim.threshold:g} {found['unit']}".strip()
                limits = "{:.3g} to {:.3g}".format(*found["interval"])
                null = found["null"]["value"] if found["null"] else None
                rows.append((*about, test, found["value"], limits, null, found["verdict"]))
        return table(("claim", "source", "test", "measured", "95 % interval", "null", "verdict"), *rows)

    def beside(self, columns: Iterable[str], *rows: tuple[str | float | None, ...]) -> Markdown:
        """Measurements side by side, means with 95 % intervals. A row is a text, and for every column a measurement's
        name, a number from elsewhere, or None for an empty cell.

        Raises:
            KeyError: for a name that was not measured.
        """
        named = [
            (text, *(self.measurements[cell] if isinstance(cell, str) else cell for cell in cells))
            for text, *cells in rows
        ]
        return table(("", *columns), *named)

    def compare(self, columns: dict[str, str], rows: dict[str, str]) -> Markdown:
        """`beside` for measurements whose names have two parts: titles of columns by the suffix, texts of rows and
        their names."""
        return self.beside(
            columns.values(), *((text, *(name + suffix for suffix in columns)) for text, name in rows.items())
        )

    def finish(self) -> None:
        """Print the verdicts; write the measurements if this run is the reference, else compare them with it.

        Raises:
            ValueError: naming a claim that was not measured.
            AssertionError: naming each measurement, ensemble or name that differs from the reference.
        """
        for claim, laws in self._standings():
            print(f"{claim.id}: {laws['']['verdict']}")
        mine = Results(
            chapter=self.name, parameters=self.parameters, ensembles=self.ensembles, measurements=self.measurements
        )
        path = claims.results_path(self.name)
        folder = os.environ.get(RECORD)
        if folder:
            (Path(folder) / path.name).write_text(json.dumps(mine.model_dump(), indent=1) + "\n")
            if self.arrays:
                np.savez_compressed(Path(folder) / f"{path.stem}.npz", **self.arrays)  # pyright: ignore[reportArgumentType]
        reference = mine if folder else claims.results(self.name)
        if reference is None:
            raise AssertionError(
                f"no reference {path}: make it with `reactivation run-chapters {Path(self.name).name}`"
            )
        if mine.parameters != reference.parameters:
            print("Other parameters than the reference: not compared with it.")
            return
        differences = _differences(mine, reference)
        if differences:
            raise AssertionError(f"differs from {path}: " + "; ".join(differences))
        print(f"{len(self.measurements)} measurements agree with {path.name}.")

    def _standings(self) -> list[tuple[claims.Claim, dict[str, dict[str, Any]]]]:
        record = claims.Record({self.name: self.measurements})
        found = []
        for claim in claims.load():
            if claim.chapter != self.name:
                continue
            if claim.metric not in self.measurements:
                raise ValueError(f"expected a measurement of {claim.metric} for the claim {claim.id}, got none")
            laws = {"": "", **claims.LAWS}
            measured = {law: end for law, end in laws.items() if claim.metric + end in self.measurements}
            found.append((claim, {law: claims.standing(claim, record, end) for law, end in measured.items()}))
        return found


def _flat(arrays: dict) -> dict[str, np.ndarray]:
    found = {}
    for name, of in arrays.items():
        found |= {f"{name}_{key}": x for key, x in of.items()} if isinstance(of, dict) else {name: of}
    return found


def table(columns: Iterable[str], *rows: Iterable[str | float | Measurement | None]) -> Markdown:
    """A table: numbers to three digits, measurements as mean and interval, None as an empty cell.

    Raises:
        ValueError: for a row of another length.
    """
    columns = list(columns)
    lines = [columns, ["---"] * len(columns)]
    for row in map(list, rows):
        if len(row) != len(columns):
            raise ValueError(f"expected a row of {len(columns)} cells, got {row}")
        lines.append(["" if x is None else f"{x:.3g}" if isinstance(x, int | float) else str(x) for x in row])
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))


def settings(experiment: Experiment, paper: dict[str, str]) -> Markdown:
    """The paper's settings beside those that an experiment holds, by name: `tau`, or `task.motion.speed`."""
    rows = []
    for path, value in paper.items():
        *parents, name = path.split(".")
        of = functools.reduce(getattr, parents, experiment)
        here = getattr(of, name)
        if isinstance(here, bool):
            here = "yes" if here else "no"
        elif isinstance(here, int):
            here = f"{here:,}".replace(",", " ")
        elif isinstance(here, float):
            here = f"{here:.4g}"
        rows.append((type(of).model_fields[name].description, value, here))
    return table(("setting", "paper", "here"), *rows)


def parameter_names(notebook: Path) -> list[str]:
    """The names that the cell tagged `parameters` of a notebook assigns, in its order.

    Raises:
        ValueError: if the notebook has no such cell.
    """
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            assigned = [node for node in ast.parse("".join(cell["source"])).body if isinstance(node, ast.Assign)]
            return [target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)]
    raise ValueError(f"expected a cell tagged `parameters` in {notebook}, got none")


def _differences(mine: Results, reference: Results) -> list[str]:
    found = []
    for name in sorted(mine.ensembles.keys() | reference.ensembles.keys()):
        got, expected = (of.ensembles.get(name, "none")[:12] for of in (mine, reference))
        if got != expected:
            found.append(f"expected {name} to be file {expected}, got {got}")
    names = mine.measurements.keys() ^ reference.measurements.keys()
    found += [f"{name} is measured in only one of the two" for name in sorted(names)]
    for name in mine.measurements.keys() & reference.measurements.keys():
        got, expected = mine.measurements[name].mean, reference.measurements[name]
        if not abs(got - expected.mean) <= expected.within:
            found.append(f"expected {name} = {expected.mean:.6g} within {expected.within:.2g}, got {got:.6g}")
    return found
