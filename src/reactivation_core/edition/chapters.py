r"""What every chapter does beside its subject: check its parameters, read ensembles, record what it measured.

A chapter run with its own parameters compares its measurements with `data/results`, and fails where they differ by
more than their tolerance; with other parameters, or another ensemble, there is nothing to compare. `reactivation
run-chapters` runs it as the reference, and then the measurements are written instead.
"""

import ast
import functools
import itertools
import json
import math
import operator
import os
import re
import string
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from IPython.display import Markdown

from reactivation_core import experiments, phases, statistics, store
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

    def wake(self, *arguments: Any, **options: Any) -> Phase:
        """`phases.active` of these networks."""
        return phases.active(self.ensemble, *arguments, **options)

    def sleep(self, *arguments: Any, **options: Any) -> Phase:
        """`phases.sleep` of these networks."""
        return phases.sleep(self.ensemble, *arguments, **options)

    def under(self, other: "Condition") -> "Condition":
        """These networks in another condition's noise, with its suffix."""
        ensemble = replace(self.ensemble, experiment=other.ensemble.experiment)
        return replace(other, ensemble=ensemble)

    def measure(self, name: str, *arguments: Any, **options: Any) -> Measurement:
        """`Chapter.measure`, under the name with the condition's suffix."""
        return self.chapter.measure(name + self.suffix, *arguments, **options)

    def measure_each(self, name: str, *arguments: Any, **options: Any) -> None:
        """`Chapter.measure_each`, under names with the condition's suffix."""
        self.chapter.measure_each(name + self.suffix, *arguments, **options)

    def publish(self, **arrays: np.ndarray | dict[str, np.ndarray]) -> None:
        """As `Chapter.publish`, under names with the condition's suffix."""
        self.chapter.publish(**{name + self.suffix: x for name, x in _flat(arrays).items()})


class Chapter:
    """One run of a chapter.

    Args:
        name: `part/chapter`, as in the table of contents.
        namespace: the notebook's `globals()` after its imports, which holds the values of the cell tagged `parameters`.

    Raises:
        ValueError: what `parameters` says.
    """

    def __init__(self, name: str, namespace: dict[str, Any]):
        self.name = name
        self.parameters: dict[str, int | float] = parameters(name, namespace)
        self.another: str | None = None
        self.reference = claims.results(name)
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

    @property
    def canonical(self) -> bool:
        """Whether this run has the parameters and the ensemble of the reference; True where there is none yet."""
        return not self.another and (self.reference is None or self.reference.parameters == self.parameters)

    def check(self, what: str, *holds: object) -> None:
        """Print what was found, if all of it holds. What depends on draws may fail to with other parameters than the
        reference's, and then that is printed.

        Raises:
            AssertionError: if it does not hold in the canonical run.
        """
        if all(holds):
            print(what)
        elif self.canonical:
            raise AssertionError(f"does not hold: {what}")
        else:
            print(f"does not hold with these parameters: {what}")

    def ensemble(self, name: str, instead: str | None = None) -> Ensemble:
        """Read an ensemble, or another one `instead`, by its name or the path of its file, and remember which file it
        came from.

        Raises:
            ValueError: if the other one has another task, or a single network, which gives no interval.
        """
        if instead in (None, name):
            instead, read = name, name
        else:
            read = store.find(instead)
        if instead not in self._loaded:
            self._loaded[instead] = store.load(read)
            self.ensembles[instead] = self._loaded[instead].sha256
        ensemble = self._loaded[instead]
        if instead != name:
            expected, got = experiments.get(name).task.kind, ensemble.experiment.task.kind
            if got != expected:
                got = f"{instead}, of the {got} task"
                raise ValueError(f"expected an ensemble of the {expected} task, as {name}, got {got}")
            if len(ensemble) < 2:
                raise ValueError(f"expected at least 2 networks, as intervals are over them, got 1 in {instead}")
            self.another = instead
            print(f"Networks of {instead}, not those of the text: compared with no reference, and nothing is stored.")
        return ensemble

    def conditions(self, pattern: str, instead: str | None = None, **options: Iterable[str]) -> dict:
        """Ensembles by name: `"position-noisy-{bias}{law}"` with `bias=("unbiased", "biased"), law=("", "-uniform")`
        has the keys `("unbiased", "")`, …; with one option a key is its value. A suffix, as `_unbiased_uniform`,
        has the order of the pattern. Another ensemble `instead` of the first is the only one, under the key of the one
        that has most of its settings."""
        places = [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]
        first, other = pattern.format(**places[0]), None
        if instead not in (None, first):
            other = self.ensemble(first, instead)
            settings = (experiments.get(pattern.format(**place)) for place in places)
            differing = [experiments.differences(of, other.experiment) for of in settings]
            places = [places[differing.index(min(differing))]]
        found = {}
        for place in places:
            named = (place[field].strip("-") for _, field, _, _ in string.Formatter().parse(pattern) if field)
            suffix = "".join(f"_{value}" for value in named if value)
            ensemble = self.ensemble(pattern.format(**place)) if other is None else other
            values = tuple(place.values())
            found[values[0] if len(values) == 1 else values] = Condition(self, suffix, ensemble)
        return found

    def named(self, names: dict[str, str]) -> dict[str, Condition]:
        """Ensembles by the suffix of their measurements."""
        return {suffix: Condition(self, suffix, self.ensemble(name)) for suffix, name in names.items()}

    def measure(
        self, name: str, values: np.ndarray, unit: str = "", tolerance: float = 0.02, scale: Scale | None = None
    ) -> Measurement:
        """Remember one value per network; returns their mean and 95 % interval, on the scale of `statistics.interval`:
        where none is given, that of the claim which the measurement is for. With other parameters or networks than the
        reference's a value may be where the scale has no place, and then it is linear.

        Raises:
            ValueError: for a value that is not finite, or a name that was measured before.
        """
        values = np.asarray(values, dtype=float)
        if not np.isfinite(values).all():
            raise ValueError(f"expected finite values of {name}, got {values}")
        if name in self.measurements:
            raise ValueError(f"expected a name for each measurement, got {name} twice")
        scale = scale or self._scales.get(name, "linear")
        if not (self.canonical or statistics.fits(values, scale)):
            scale = "linear"
        interval = statistics.interval(values, scale)
        self.measurements[name] = Measurement(
            **{key: float(f"{value:.6g}") for key, value in interval._asdict().items()},
            values=[float(f"{value:.6g}") for value in values],
            unit=unit,
            tolerance=tolerance,
        )
        return self.measurements[name]

    def measure_each(
        self,
        name: str,
        values: dict[str, np.ndarray],
        unit: str = "",
        tolerance: float = 0.02,
        scale: Scale | None = None,
    ) -> None:
        """`measure` for each of several, `{}` in the name standing for its key."""
        for key, x in values.items():
            self.measure(name.format(key), x, unit, tolerance, scale)

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
            ValueError: naming a claim that was not measured in the canonical run.
        """
        rows = []
        for claim, laws in self._standings():
            about = (claim.statement, claim.source + ", post hoc" * claim.post_hoc)
            for law, found in laws.items():
                if law:
                    about = (f"{about[0]} — {claims.TITLES[law]}".strip(), about[1])
                test = f"{claim.test} {claim.threshold:g} {found['unit']}".strip()
                limits = "{:.3g} to {:.3g}".format(*found["interval"])
                null = found["null"]["value"] if found["null"] else None
                rows.append((*about, test, found["value"], limits, null, found["verdict"]))
                about = ("", "")
        return table(("claim", "source", "test", "measured", "95 % interval", "null", "verdict"), *rows)

    def beside(self, columns: Iterable[str], *rows: tuple[str | float | None, ...]) -> Markdown:
        """Measurements side by side, means with 95 % intervals. A row is a text, and for every column a measurement's
        name, a number from elsewhere, or None for an empty cell.

        Raises:
            KeyError: for a name that was not measured. With other parameters or another ensemble its cell is empty.
        """
        look = self.measurements.__getitem__ if self.canonical else self.measurements.get
        named = [(text, *(look(cell) if isinstance(cell, str) else cell for cell in cells)) for text, *cells in rows]
        return table(("", *columns), *named)

    def compare(self, columns: dict[str, str], rows: dict[str, str]) -> Markdown:
        """`beside` for measurements whose names have two parts: titles of columns by the suffix, and `rows`."""
        return self.beside(columns.values(), *self.rows(columns, rows))

    def rows(self, suffixes: Iterable[str], names: dict[str, str]) -> list[tuple[str | None, ...]]:
        """Rows of `beside`, names by their text, whose suffix stands at their end, or for `{}`. What was measured of
        some columns only leaves the cells of the others empty."""
        found = []
        for text, name in names.items():
            whole = [(name if "{}" in name else name + "{}").format(suffix) for suffix in suffixes]
            known = [key if key in self.measurements else None for key in whole]
            found.append((text, *(known if any(known) else whole)))
        return found

    def finish(self) -> None:
        """Print the verdicts; write the measurements if this run is the reference, else compare them with it.

        Raises:
            ValueError: naming a claim that was not measured in the canonical run.
            AssertionError: naming each measurement, ensemble or name that differs from the reference.
        """
        if self.another:
            print(f"{len(self.measurements)} measurements of {self.another}: not compared, and not stored.")
            return
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
        reference = mine if folder else self.reference
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
        mine = {self.name: self.measurements}
        # What other chapters measured is of other networks.
        record = defaultdict(dict, mine) if self.another else claims.Record(mine)
        found = []
        for claim in claims.load():
            if claim.chapter != self.name:
                continue
            laws = {"": "", **claims.LAWS}
            measured = {law: end for law, end in laws.items() if claim.metric + end in self.measurements}
            # Another ensemble may be in the place of one that was trained otherwise.
            if not measured or "" not in measured and not self.another:
                # What is claimed of step 1000, say, was not measured in fewer.
                if not self.canonical:
                    continue
                raise ValueError(f"expected a measurement of {claim.metric} for the claim {claim.id}, got none")
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


BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
    "a multiple of": lambda value, of: value % of == 0,
}


def parameters(name: str, namespace: dict[str, Any]) -> dict[str, int | float]:
    """The numbers among a chapter's parameters, once all of them are checked.

    Args:
        name: `part/chapter`.
        namespace: the notebook's `globals()`.

    Raises:
        ValueError: for a parameter that is not of the kind of the notebook's own value, or is out of its `bounds`; or
            if a cell that was run before, as papermill's, sets another name, as a misspelt one.
    """
    known, found = bounds(BOOK / f"{name}.ipynb"), {}
    unknown = [key for key in _set_before(namespace) if key not in known]
    if unknown:
        got = ", ".join(unknown)
        raise ValueError(f"expected parameters among {', '.join(known)}, got {got}{_needs(name, unknown)}")
    for key, (own, _) in known.items():
        value = namespace.get(key)
        kind, what = {int: (int, "a whole number"), float: (int | float, "a finite number"), str: (str, "a text")}[
            type(own)
        ]
        if not isinstance(value, kind) or isinstance(value, bool) or value != value or value in (math.inf, -math.inf):
            raise ValueError(f"expected {what} for the parameter {key}, got {value!r:.80}")
        if not isinstance(value, str):
            found[key] = value
    for key, value in found.items():
        for sign, bound in known[key][1]:
            limit = eval(bound, {}, found)
            if not BOUNDS[sign](value, limit):
                of = "" if bound == str(limit) else f" = {limit}"
                raise ValueError(f"expected {key} {sign} {bound}{of}, got {value}")
    return found


def bounds(notebook: Path) -> dict[str, tuple[Any, list[tuple[str, str]]]]:
    """What the cell tagged `parameters` of a notebook assigns, and the bounds in the comments beside it, as
    `n_steps = 1000  # >= 2 * n_window, a multiple of 10`. Without, whole numbers are to be at least 1, the seed and
    others at least 0.

    Raises:
        ValueError: if the notebook has no such cell.
    """
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            lines, found = "".join(cell["source"]).splitlines(), {}
            for node in ast.parse("\n".join(lines)).body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    key, own = node.targets[0].id, ast.literal_eval(node.value)
                    comment = lines[node.lineno - 1][node.end_col_offset :]
                    rules = re.findall(rf"({'|'.join(BOUNDS)}) ([\w *+]+)", comment)
                    if key == "seed":
                        rules = [(">=", "0"), ("<", "2**32")]
                    elif not isinstance(own, str) and ">=" not in dict(rules):
                        rules = [(">=", "1" if isinstance(own, int) else "0"), *rules]
                    found[key] = own, rules
            return found
    raise ValueError(f"expected a cell tagged `parameters` in {notebook}, got none")


def _set_before(namespace: dict[str, Any]) -> list[str]:
    """The names that the cells assign which were run just before this one and do nothing else."""
    names = []
    for source in reversed(namespace.get("In", [])[:-1]):
        try:
            cell = ast.parse(source).body
        except SyntaxError:
            break
        if not cell or not all(isinstance(node, ast.Assign) for node in cell):
            break
        nodes = (node for of in cell for node in ast.walk(of))
        names += [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return names


def _needs(name: str, unknown: list[str]) -> str:
    """Which ensembles a chapter needs that has no parameter for another one."""
    stored = claims.results(name)
    if "ensemble" not in unknown or not stored or not stored.ensembles:
        return ""
    return f"; this page is about {', '.join(stored.ensembles)} together"


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
