"""The library's modules import one way only, and check types and shapes under test."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import jaxtyping
import pytest
import torch

from reactivation_core import cells

ROOT = Path(__file__).parents[1]
PROTOCOLS = """denoising sampling tracking agreement spreading directions attractors rings motion spaces upper_bound
    pseudoinverse integration stationarity correction optimum update sustaining rotation decoding refinement resolution
    variations forgetting second_order overview diffusion driving temperature gating exchange currents recordings
    horizon conditions""".split()
PACKAGES = {"protocols": PROTOCOLS, "edition": ["claims", "chapters", "execution"]}
ORDER = """circular streams noise networks theory samplers densities statistics cells trajectories tasks recurrence
    experiments phases manifolds dynamics protocols store training cluster figures edition cli""".split()
# With the modules of packages in place.
FLAT = [f"{name}/{of}" if of else name for name in ORDER for of in PACKAGES.get(name, [""])]
SOURCE = ROOT / "src" / "reactivation_core"
MODULES = {path.relative_to(SOURCE).with_suffix("").as_posix(): path for path in sorted(SOURCE.rglob("*.py"))}


def imported(source: str) -> set[str]:
    """The library's modules that a source imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "expected absolute imports"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".")[1:] for name in names if name.startswith("reactivation_core.")]
    return {"/".join(part[:2]) if part[0] in PACKAGES else part[0] for part in parts}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_earlier_ones(module):
    earlier = set() if module.endswith("__init__") else set(FLAT[: FLAT.index(module)])
    assert imported(MODULES[module].read_text()) <= earlier


def test_the_walk_sees_every_form_of_import():
    source = (
        "import reactivation_core.a\nfrom reactivation_core import b, c\ndef f():\n from reactivation_core.d import e"
    )
    assert imported(source) == {"a", "b", "c", "d"}
    source = "from reactivation_core.edition.claims import f\nfrom reactivation_core.edition import chapters"
    assert imported(source) == {"edition/claims", "edition/chapters"}


def test_the_api_reference_has_every_module_in_this_order():
    listed = re.findall(r"autodoc2-object} reactivation_core\.([\w.]+)", (ROOT / "book" / "api.md").read_text())
    assert [name.replace(".", "/") for name in listed] == FLAT
    assert set(FLAT) == {module for module in MODULES if not module.endswith("__init__")}


def test_what_is_imported_is_declared_and_what_is_declared_imported():
    names = set()
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    names -= {*sys.stdlib_module_names, "reactivation_core"}
    # The core of pydantic is pinned by it, dask is optional, and the last comes with the book's tools.
    names -= {"pydantic_core", "distributed", "myst_nb"}
    providers = packages_distributions()
    imported = {providers[name][0].lower() for name in names}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # Notebooks run in a kernel.
    declared = {re.match(r"[\w-]+", line).group() for line in project["dependencies"]} - {"ipykernel"}
    assert imported == declared


def test_shapes_are_checked_under_test():
    with pytest.raises(jaxtyping.TypeCheckError):
        cells.PlaceCells(torch.zeros(1, 4, 3))
