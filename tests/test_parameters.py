"""Parameters of the pages: what may be changed, what is refused, and that a page runs with what it allows."""

import ast
import json
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from reactivation_core import store
from reactivation_core.edition import chapters, claims, execution
from reactivation_core.edition.chapters import BOOK, BOUNDS, Chapter

PAGES = [path.relative_to(BOOK).with_suffix("").as_posix() for path in execution.notebooks().values()]
SIZES = {"n_trajectories": 5, "n_steps_awake": 10, "n_steps_asleep": 10}


def loaded(page: str, injected: str = "", **changed):
    """Run a page's cells as far as the statement that checks its parameters, with others in place of its own."""
    namespace = {"In": [""]}
    for cell in json.loads((BOOK / f"{page}.ipynb").read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        namespace["In"].append(source)
        for statement in ast.parse(source).body:
            exec(ast.unparse(statement), namespace)
            if "globals()" in ast.unparse(statement):
                return
        if "parameters" in cell["metadata"].get("tags", ()):
            namespace |= changed
            namespace["In"] += ["# Parameters\n" + injected] if injected else []
            exec(injected, namespace)
    raise AssertionError(f"{page} does not check its parameters")


def sizes(page: str) -> dict:
    found = chapters.bounds(BOOK / f"{page}.ipynb")
    return {key: (own, rules) for key, (own, rules) in found.items() if type(own) is int and key != "seed"}


def fitted(page: str, start: int) -> dict[str, int]:
    """Sizes raised from `start` until a page allows all of them."""
    values, changes = dict.fromkeys(sizes(page), start), True
    while changes:
        changes = False
        for key, (_, rules) in sizes(page).items():
            for sign, bound in rules:
                limit = eval(bound, {}, values)
                if not BOUNDS[sign](values[key], limit):
                    values[key], changes = limit if sign == "<=" else values[key] + 1, True
    return values


def broken(page: str):
    """A name and a value for each bound of a page, just beyond it."""
    known = chapters.bounds(BOOK / f"{page}.ipynb")
    own = {key: value for key, (value, _) in known.items()}
    for key, (value, rules) in known.items():
        for sign, bound in rules:
            limit = eval(bound, {}, own)
            yield key, {">=": limit - 1, "<=": limit + 1, "<": limit}.get(sign, value + 1)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_with_its_own_values_and_the_smallest_and_refuses_smaller_ones(page):
    loaded(page)
    loaded(page, **fitted(page, 1))
    for key, value in broken(page):
        with pytest.raises(ValueError, match=rf"^expected [^\n]*\b{key}\b[^\n]*, got [-.\w]+$"):
            loaded(page, **{key: value})


@pytest.mark.parametrize("page", PAGES)
def test_a_page_refuses_what_is_no_size_and_a_name_it_does_not_have(page):
    for key, (own, _) in chapters.bounds(BOOK / f"{page}.ipynb").items():
        for value in [None, True, [3], float("nan"), 3.5 if isinstance(own, int | str) else "3.5"]:
            with pytest.raises(ValueError, match=f"^expected a [a-z ]+ for the parameter {key}, got "):
                loaded(page, **{key: value})
    for value in ("5", "'five'", "[5]", "None", "True"):
        with pytest.raises(ValueError, match=r"^expected parameters among [^\n]*, got n_stpes$"):
            loaded(page, f"n_stpes = {value}\n")


def test_a_page_of_several_ensembles_says_which_it_needs():
    with pytest.raises(ValueError, match="got ensemble; this page is about position-gru-unbiased, position-noisy-un"):
        loaded("beyond/gated", "ensemble = 'position-gru-biased'\n")


def run(page: str, folder: Path, **parameters) -> str:
    """All that a page prints."""
    path, output = BOOK / f"{page}.ipynb", folder / "out.ipynb"
    before = claims.results_path(page).read_bytes()
    with execution.unconfigured():
        papermill.execute_notebook(path, output, parameters, cwd=path.parent, progress_bar=False, kernel_name="python3")
    assert claims.results_path(page).read_bytes() == before
    cells = nbformat.read(output, as_version=4).cells
    return "".join(out.get("text", "") for cell in cells if cell.cell_type == "code" for out in cell.outputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "tiny_experiment", "stored"),
    [
        ("results/figure_1", "position-noisy-biased", "position-gru-unbiased"),
        ("results/figure_3", "head-direction-biased", "head-direction-biased"),
    ],
    indirect=["tiny_experiment"],
)
def test_a_page_runs_on_another_ensemble_and_on_a_file(page, stored, tiny_experiment, tiny_ensemble, tmp_path):
    own = store.save(tiny_ensemble, tmp_path)
    for ensemble in (stored, str(own)):
        printed = run(page, tmp_path, ensemble=ensemble, **SIZES)
        assert f"Networks of {ensemble}, not those of the text" in printed
        assert re.search(rf"\d+ measurements of {re.escape(ensemble)}: not compared, and not stored", printed)


@pytest.mark.parametrize(
    ("ensemble", "message"),
    [
        ("head-direction-biased", "expected an ensemble of the position task, as position-noisy-unbiased, got head-di"),
        ("position-noisy-unbaised", "did you mean position-noisy-unbiased"),
        ("nowhere/mine.safetensors", "no ensemble at nowhere/mine.safetensors"),
        ("position-noisy-unbiased-slow", "expected at least 2 networks"),
    ],
)
def test_an_ensemble_that_a_page_cannot_use_is_refused(ensemble, message):
    chapter = Chapter("results/figure_1", {"seed": 0, "n_trajectories": 9, "n_steps_awake": 10, "n_steps_asleep": 10}
                      | {"ensemble": ensemble})  # fmt: skip
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        chapter.conditions("position-noisy-unbiased{law}", ensemble, law=("", "-uniform"))


@pytest.mark.slow
def test_papermill_stops_at_a_misspelt_parameter_and_says_so(tmp_path):
    command = [sys.executable, "-m", "papermill", BOOK / "theory" / "setup.ipynb", tmp_path / "out.ipynb"]
    done = subprocess.run([*command, "-k", "python3", "-p", "n_chians", "50"], capture_output=True, text=True)
    assert done.returncode
    assert done.stderr.strip().splitlines()[-1] == (
        "ValueError: expected parameters among seed, n_repeats, n_chains, n_relaxations, got n_chians"
    )


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("start", [1, 7, 11, 26])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_with_small_sizes_and_another_seed(page, start, tmp_path):
    own = chapters.bounds(BOOK / f"{page}.ipynb")
    run(page, tmp_path, **fitted(page, start), **({"seed": start} if "seed" in own else {}))


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "seed" in chapters.bounds(BOOK / f"{page}.ipynb")])
def test_a_page_runs_with_another_seed(page, tmp_path):
    run(page, tmp_path, seed=1)


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "ensemble" in chapters.bounds(BOOK / f"{page}.ipynb")])
def test_a_page_runs_on_every_other_ensemble_of_its_task(page, tmp_path):
    own, _ = chapters.bounds(BOOK / f"{page}.ipynb")["ensemble"]
    for path in sorted(store.ENSEMBLES.glob(own.split("-")[0] + "*.safetensors")):
        ensemble, refused = store.load(path), nullcontext()
        of = ensemble.experiment
        if page == "theory/assumptions" and (of.network != "rnn" or not of.sigma or not of.task.normalise):
            needed = "expected (RNN, got|networks trained with noise, got|.*normalised place cells)"
            refused = pytest.raises(PapermillExecutionError, match=needed)
        if len(ensemble) > 1:
            with refused:
                run(page, tmp_path, ensemble=path.stem, **fitted(page, 11))
