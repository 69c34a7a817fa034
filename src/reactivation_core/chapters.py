r"""What every chapter does beside its subject: check its parameters, read ensembles, record what it measured.

A chapter run with its own parameters compares its measurements with `data/results`, and fails where they differ by
more than their tolerance; with other parameters there is nothing to compare. `reactivation run-chapters` runs it as
the reference, and then the measurements are written instead.
"""

import io
import json
import math
import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import numpy as np
from IPython.display import Markdown

from reactivation_core import claims, statistics, store
from reactivation_core.claims import Measurement, Results
from reactivation_core.phases import Ensemble

# Set by `reactivation run-chapters` to make a run the reference.
RECORD = "REACTIVATION_RECORD"


class Chapter:
    """One run of a chapter.

    Args:
        name: `part/chapter`, as in the table of contents.
        parameters: the values of the cell tagged `parameters`.

    Raises:
        ValueError: if a parameter is not a finite number >= 0, or one named `n_…` or `seed` not a whole one.
    """

    def __init__(self, name: str, **parameters: object):
        for key, value in parameters.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value >= 0):
                raise ValueError(f"expected a finite number >= 0 for the parameter {key}, got {value!r}")
            whole = key == "seed" or key.startswith("n_")
            if whole and (not isinstance(value, int) or (value < 1 and key != "seed")):
                raise ValueError(f"expected a whole number >= 1 for the parameter {key}, got {value!r}")
        self.name, self.parameters = name, parameters
        self.ensembles: dict[str, str] = {}
        self.measurements: dict[str, Measurement] = {}

    def ensemble(self, name: str) -> Ensemble:
        """Read an ensemble and remember which file it came from."""
        ensemble = store.load(name)
        self.ensembles[name] = ensemble.sha256
        return ensemble

    def measure(self, name: str, values: np.ndarray, unit: str = "", tolerance: float = 0.02) -> statistics.Interval:
        """Remember one value per network; returns their mean and 95 % interval.

        Raises:
            ValueError: for a value that is not finite.
        """
        values = np.asarray(values, dtype=float)
        if not np.isfinite(values).all():
            raise ValueError(f"expected finite values of {name}, got {values}")
        interval = statistics.interval(values)
        self.measurements[name] = Measurement(
            **{key: float(f"{value:.6g}") for key, value in interval._asdict().items()},
            values=[float(f"{value:.6g}") for value in values],
            unit=unit,
            tolerance=tolerance,
        )
        return interval

    def provenance(self) -> Markdown:
        """Which networks, parameters and day the chapter's figures are of."""
        ensembles = ", ".join(f"`{name}` ({digest[:12]})" for name, digest in self.ensembles.items())
        parameters = ", ".join(f"{name} = {value}" for name, value in self.parameters.items())
        return Markdown(f"Networks: {ensembles}. Parameters: {parameters}. Run on {date.today()}.")

    def publish(self, **arrays: np.ndarray) -> None:
        """Keep what the panels show in `CHAPTER.npz` beside the notebook, for download, if this is the reference."""
        if os.environ.get(RECORD):
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **{name: np.asarray(array, np.float32) for name, array in arrays.items()})
            store.write(Path(f"{Path(self.name).name}.npz"), buffer.getvalue())

    def table(self) -> Markdown:
        """The chapter's claims with what was measured, rounded; where a claim was measured with the released code's
        uniform noise too, that stands below it."""
        rows = [
            "| claim | source | test | measured | 95 % interval | verdict |",
            "|---|---|---|---|---|---|",
        ]
        for claim in self._claims():
            for suffix, about in (
                ("", f"{claim.statement} | {claim.source}"),
                (claims.UNIFORM, "— with uniform noise |"),
            ):
                if m := self.measurements.get(claim.metric + suffix):
                    rows.append(
                        f"| {about} | {claim.test} {claim.threshold:g} {m.unit}"
                        f" | {m.mean:.3g} | {m.low:.3g} to {m.high:.3g} | {claims.verdict(claim, m)} |"
                    )
        return Markdown("\n".join(rows))

    def beside(self, columns: Iterable[str], *rows: tuple[str | float | None, ...]) -> Markdown:
        """Measurements side by side, means with 95 % intervals. A row is a text, and for every column a measurement's
        name, a number from elsewhere, or None for an empty cell.

        Raises:
            KeyError: for a name that was not measured.
            ValueError: for a row of another length.
        """
        lines = [["", *columns]]
        lines.append(["---"] * len(lines[0]))
        for row in rows:
            if len(row) != len(lines[0]):
                raise ValueError(f"expected a row of {len(lines[0])} cells, got {row}")
            text, *cells = row
            lines.append([text, *map(self._cell, cells)])
        return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))

    def _cell(self, cell: str | float | None) -> str:
        if cell is None:
            return ""
        return str(self.measurements[cell]) if isinstance(cell, str) else f"{cell:.3g}"

    def finish(self) -> None:
        """Print the verdicts; write the measurements if this run is the reference, else compare them with it.

        Raises:
            AssertionError: naming each measurement, ensemble or name that differs from the reference.
        """
        for claim in self._claims():
            print(f"{claim.id}: {claims.verdict(claim, self.measurements[claim.metric])}")
        mine = Results(
            chapter=self.name, parameters=self.parameters, ensembles=self.ensembles, measurements=self.measurements
        )
        path = claims.results_path(self.name)
        if os.environ.get(RECORD):
            path.parent.mkdir(exist_ok=True)
            store.write(path, (json.dumps(mine.model_dump(), indent=1) + "\n").encode())
        reference = claims.results(self.name)
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

    def _claims(self) -> list[claims.Claim]:
        return [claim for claim in claims.load() if claim.chapter == self.name]


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
