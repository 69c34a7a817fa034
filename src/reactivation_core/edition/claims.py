r"""The paper's claims and our predictions beyond it, what was measured of them, and the verdicts.

`data/claims.toml` holds every claim with a test fixed before the measurement; `data/results/CHAPTER.json` holds what a
chapter measured. A verdict joins the two: *reproduced* if the whole interval over networks passes the test, *partly*
if only the mean does, *not reproduced* otherwise; of a prediction beyond the paper we say *holds*, *partly* and *does
not hold*.
"""

import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from reactivation_core.experiments import problems
from reactivation_core.statistics import Interval
from reactivation_core.store import ENSEMBLES
from reactivation_core.trajectories import Settings

CLAIMS = ENSEMBLES.parent / "claims.toml"
RESULTS = ENSEMBLES.parent / "results"

# A metric measured with the released code's uniform noise has this after its name.
UNIFORM = "_uniform"

Verdict = Literal["reproduced", "holds", "partly", "not reproduced", "does not hold", "not measured"]


class Claim(Settings):
    """A claim that can fail: of the paper, or a prediction beyond it."""

    id: str
    section: Literal["paper", "beyond"] = "paper"
    source: str
    statement: str
    chapter: str
    metric: str
    test: Literal["below", "above"]
    threshold: float
    reason: str

    def passes(self, value: float) -> bool:
        """Whether a value passes the test."""
        return value < self.threshold if self.test == "below" else value > self.threshold


class Measurement(Settings):
    """What a chapter measured: the mean over networks, its interval, the networks' values, and the tolerance with which
    another machine must find the mean again, as a share of the mean or, where it is near 0, of the half-width."""

    mean: float
    low: float
    high: float
    values: list[float]
    unit: str
    tolerance: float

    @property
    def within(self) -> float:
        """The tolerance in the measurement's unit."""
        return self.tolerance * max(abs(self.mean), (self.high - self.low) / 2)

    def __str__(self) -> str:
        return str(Interval(self.mean, self.low, self.high))


class Results(Settings):
    """All that a chapter measured, with what and how."""

    chapter: str
    parameters: dict[str, int | float]
    ensembles: dict[str, str]
    measurements: dict[str, Measurement]


def load() -> list[Claim]:
    """Read the claims of `data/claims.toml`.

    Raises:
        ValueError: naming what is missing, unknown or double.
    """
    try:
        claims = [Claim.model_validate(claim) for claim in tomllib.loads(CLAIMS.read_text())["claim"]]
    except ValidationError as error:
        raise ValueError(f"{CLAIMS}: {problems(error)}") from None
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise ValueError(f"{CLAIMS}: {error}") from None
    ids = [claim.id for claim in claims]
    double = sorted({name for name in ids if ids.count(name) > 1})
    if double:
        raise ValueError(f"{CLAIMS}: expected every id once, got several of {', '.join(double)}")
    return claims


def results_path(chapter: str) -> Path:
    """Where the measurements of `part/chapter` are kept."""
    return RESULTS / f"{Path(chapter).name}.json"


def results(chapter: str) -> Results | None:
    """What a chapter measured, or None if it has not been run.

    Raises:
        ValueError: if the file is malformed.
    """
    path = results_path(chapter)
    if not path.is_file():
        return None
    try:
        return Results.model_validate_json(path.read_text())
    except ValidationError as error:
        raise ValueError(f"{path}: {problems(error)}") from None


def record(name: str) -> dict[str, Any]:
    """What a benchmark measured, from `data/results/NAME.json`."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def verdict(claim: Claim, measurement: Measurement | None) -> Verdict:
    """Join a claim to its measurement."""
    if measurement is None:
        return "not measured"
    beyond = claim.section == "beyond"
    if not claim.passes(measurement.mean):
        return "does not hold" if beyond else "not reproduced"
    if not (claim.passes(measurement.low) and claim.passes(measurement.high)):
        return "partly"
    return "holds" if beyond else "reproduced"


def scorecard() -> list[dict[str, Any]]:
    """Every claim with its value, 95 % interval and verdict for the paper's noise, and in `uniform` for that of the
    released code, None where that was not measured."""
    found = {}
    entries = []
    for claim in load():
        if claim.chapter not in found:
            found[claim.chapter] = results(claim.chapter)
        chapter = found[claim.chapter]
        measured = chapter.measurements if chapter else {}
        uniform = measured.get(claim.metric + UNIFORM)
        entries.append(
            claim.model_dump(exclude={"metric", "reason"})
            | _standing(claim, measured.get(claim.metric))
            | {"uniform": _standing(claim, uniform) if uniform else None}
        )
    return entries


def _standing(claim: Claim, measurement: Measurement | None) -> dict[str, Any]:
    value, interval, unit = None, None, ""
    if measurement:
        value, interval, unit = measurement.mean, [measurement.low, measurement.high], measurement.unit
    return {"value": value, "interval": interval, "unit": unit, "verdict": verdict(claim, measurement)}


def summary(entries: list[dict[str, Any]]) -> str:
    """How many claims have which verdict, in one line."""
    parts = []
    for section, what in (("paper", "claims"), ("beyond", "predictions beyond the paper")):
        counts = Counter(entry["verdict"] for entry in entries if entry["section"] == section)
        if counts:
            verdicts = [f"{counts[name]} {name}" for name in get_args(Verdict) if counts[name]]
            parts.append(f"{counts.total()} {what}: {', '.join(verdicts)}")
    return "; ".join(parts)
