"""Run the chapters with a claim of the paper again with another seed, and list the verdicts that change.

An interval is over networks; what the draws of a run add to it is in it only as far as networks have draws of their
own. Here all draws are others: of waking and sleep, of starts and estimators. The networks are the same. Writes
`data/results/draws.json`, from which the scorecard says how many verdicts hang on the draws.
"""

import json
import os
import tempfile
from pathlib import Path

import papermill
from training import RESULTS, machine

from reactivation_core.edition import chapters, claims, execution

SEED = 1


def main() -> None:
    known, everything, rows = claims.Record(), claims.load(), {}
    for page in sorted({claim.chapter for claim in everything if claim.section == "paper"}):
        again = claims.Record({page: measured(page)})
        for claim in everything:
            for law in ("", *claims.LAWS.values()):
                if claim.chapter == page and claim.metric + law in again[page]:
                    pair = [claims.standing(claim, record, law) for record in (known, again)]
                    rows[claim.id + law] = [[found["value"], found["verdict"]] for found in pair]
                    if pair[0]["verdict"] != pair[1]["verdict"]:
                        print(f"{claim.id + law}: {rows[claim.id + law]}", flush=True)
    path = RESULTS / "draws.json"
    path.write_text(json.dumps(machine() | {"seed": SEED, "rows": rows}, indent=1) + "\n")
    print(f"{len(rows)} rows, written to {path}")


def measured(page: str) -> dict[str, claims.Measurement]:
    """What a chapter measures with another seed."""
    path = chapters.BOOK / f"{page}.ipynb"
    with tempfile.TemporaryDirectory() as folder, execution.unconfigured():
        os.environ[chapters.RECORD] = folder
        output = Path(folder) / path.name
        papermill.execute_notebook(path, output, {"seed": SEED}, cwd=path.parent, kernel_name="python3")
        found = output.with_suffix(".json").read_text(encoding="utf-8")
    return claims.Results.model_validate_json(found).measurements


if __name__ == "__main__":
    main()
