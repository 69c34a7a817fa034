r"""The paper's claims and our predictions beyond it, what was measured of them, and the verdicts.

`data/claims.toml` holds every claim with a test; `data/results/CHAPTER.json` holds what a chapter measured. A verdict
joins the two by the 95 % interval over networks alone: *reproduced* if all of it passes the test, *not reproduced* if
all of it fails, *undecided* if it straddles the bound; of a prediction beyond the paper we say *holds* and *does not
hold*. Where the control that the claim names, its null, does as the claim does, the test cannot tell the two apart, and
the verdict is *uninformative*.
"""

import json
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from pydantic import ValidationError

from reactivation_core import statistics
from reactivation_core.experiments import problems
from reactivation_core.statistics import Interval
from reactivation_core.store import ENSEMBLES
from reactivation_core.trajectories import Settings

CLAIMS = ENSEMBLES.parent / "claims.toml"
RESULTS = ENSEMBLES.parent / "results"

# What a metric measured in networks trained otherwise has after its name.
LAWS = {"uniform": "_uniform", "text": "_text"}
TITLES = {"uniform": "with uniform noise", "text": "with the text as written"}

Verdict = Literal[
    "reproduced", "holds", "undecided", "not reproduced", "does not hold", "uninformative", "not measured"
]


class Null(Settings):
    """The control that a claim must be told from.

    It should fail the claim's test, or pass it where `should` is "pass", as that of an ideal network would. `metric` is
    the claim's measured on it, in the chapter of the claim where no other is named; `value` is what it is known to
    give. With neither, `what` says why it has no number.
    """

    what: str
    metric: str | None = None
    chapter: str | None = None
    value: float | None = None
    should: Literal["fail", "pass"] = "fail"


class Claim(Settings):
    """A claim that can fail: of the paper, or a prediction beyond it."""

    id: str
    section: Literal["paper", "beyond"] = "paper"
    source: str
    statement: str
    chapter: str
    metric: str
    scale: statistics.Scale = "linear"
    test: Literal["below", "above"]
    threshold: float
    reason: str
    post_hoc: bool = False
    null: Null | None = None

    def passes(self, low: float, high: float) -> bool | None:
        """Whether all from `low` to `high` passes the test, or all of it fails; None if it straddles the threshold."""
        ends = {x < self.threshold if self.test == "below" else x > self.threshold for x in (low, high)}
        return ends.pop() if len(ends) == 1 else None


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


class Record(dict):
    """Measurements by chapter and name, read from the results where a chapter is first asked for."""

    def __missing__(self, chapter: str) -> dict[str, Measurement]:
        found = results(chapter)
        self[chapter] = found.measurements if found else {}
        return self[chapter]


def load() -> list[Claim]:
    """Read the claims of `data/claims.toml`.

    Raises:
        ValueError: naming what is missing, unknown or double.
    """
    try:
        claims = [Claim.model_validate(claim) for claim in tomllib.loads(CLAIMS.read_text(encoding="utf-8"))["claim"]]
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
        return Results.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ValueError(f"{path}: {problems(error)}") from None


def record(name: str) -> dict[str, Any]:
    """What a benchmark measured, from `data/results/NAME.json`."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def verdict(claim: Claim, passed: bool | None, control: bool | None = None) -> Verdict:
    """The verdict on a claim that passed its test, failed it, or neither, as its null did."""
    if passed is None:
        return "undecided"
    if claim.null and control is passed and passed is not (claim.null.should == "pass"):
        return "uninformative"
    if claim.section == "beyond":
        return "holds" if passed else "does not hold"
    return "reproduced" if passed else "not reproduced"


def standing(claim: Claim, record: Mapping[str, dict], law: str = "") -> dict[str, Any]:
    """What is known of a claim, of networks trained as `law` says: value, 95 % interval, values of the networks, null,
    and verdict. A null that was not measured of such networks is that of the paper's noise."""
    null, outcome = None, None
    if claim.null:
        there = record[claim.null.chapter or claim.chapter]
        of_null = there.get(f"{claim.null.metric}{law}", there.get(claim.null.metric))
        null = {"what": claim.null.what, "should": claim.null.should, **_numbers(claim, of_null)}
        if claim.null.value is not None:
            null |= {"value": claim.null.value, "interval": [claim.null.value] * 2}
        outcome = claim.passes(*null["interval"]) if null["interval"] else None
        null["passes"] = outcome
    measurement = record[claim.chapter].get(claim.metric + law)
    found = _numbers(claim, measurement)
    known = verdict(claim, claim.passes(*found["interval"]), outcome) if measurement else "not measured"
    return {**found, "null": null, "verdict": known}


def _numbers(claim: Claim, measurement: Measurement | None) -> dict[str, Any]:
    if measurement is None:
        return {"value": None, "interval": None, "unit": "", "values": None}
    values = np.array(measurement.values)
    # With other parameters or networks an estimate may be where the quantity itself cannot.
    scale = claim.scale if statistics.fits(values, claim.scale) else "linear"
    mean, low, high = (float(f"{x:.6g}") for x in statistics.interval(values, scale))
    return {"value": mean, "interval": [low, high], "unit": measurement.unit, "values": measurement.values}


def scorecard() -> list[dict[str, Any]]:
    """Every claim with its standing for the paper's noise, and in `uniform` and `text` for the released code's noise
    and for networks trained as the text is written, None where that was not measured."""
    record = Record()
    entries = []
    for claim in load():
        laws = {
            name: standing(claim, record, law) if claim.metric + law in record[claim.chapter] else None
            for name, law in LAWS.items()
        }
        entries.append(claim.model_dump(exclude={"metric", "null"}) | standing(claim, record) | laws)
    return entries


def summary(entries: list[dict[str, Any]]) -> str:
    """How many claims have which verdict, in one line."""
    parts, plural = [], {"holds": "hold", "does not hold": "do not hold"}
    for section, what in (("paper", "claims"), ("beyond", "predictions beyond the paper")):
        counts = Counter(entry["verdict"] for entry in entries if entry["section"] == section)
        if counts:
            verdicts = [f"{counts[name]} {plural.get(name, name)}" for name in get_args(Verdict) if counts[name]]
            parts.append(f"{counts.total()} {what}: {', '.join(verdicts)}")
    return "; ".join(parts)


def limits(entries: list[dict[str, Any]]) -> str:
    """What a tally cannot say: how many would pass by chance, what other draws do, and whose networks these are."""
    rows = sum(row["value"] is not None for entry in entries for row in (entry, *map(entry.get, LAWS)) if row)
    again = [{verdict for _, verdict in pair} for pair in record("draws")["rows"].values()]
    changed = [pair for pair in again if len(pair) == 2]
    turned = sum(not pair & {"undecided", "uninformative"} for pair in changed)
    return (
        f"If every true mean lay just beyond its bound, 1 row in 40 would pass by chance: {rows / 40:.0f} of {rows}, a"
        " law of noise each. Rows share networks, so that chance passes come together. Intervals are over"
        f" networks. With another seed, on the pages of the paper's claims, {len(changed)} of {len(again)} rows have"
        f" another verdict, {turned} of them the opposite one. The networks are of our own"
        " training, mostly five of a kind, and the paper's authors were not consulted."
    )
