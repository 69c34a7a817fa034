"""The library's modules import one way only, and check types and shapes under test."""

import ast
import re
from pathlib import Path

import jaxtyping
import pytest
import torch

from reactivation_core import cells

ROOT = Path(__file__).parents[1]
ORDER = """circular noise theory statistics cells trajectories tasks networks recurrence experiments phases
    dynamics mechanism store training cluster claims figures chapters execution cli""".split()
MODULES = sorted((ROOT / "src" / "reactivation_core").rglob("*.py"))


def imported(source: str) -> set[str]:
    """The library's modules that a source imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "expected absolute imports"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("reactivation_core.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_only_earlier_ones(path):
    earlier = set() if path.stem == "__init__" else set(ORDER[: ORDER.index(path.stem)])
    assert imported(path.read_text()) <= earlier


def test_the_walk_sees_every_form_of_import():
    source = (
        "import reactivation_core.a\nfrom reactivation_core import b, c\ndef f():\n from reactivation_core.d import e"
    )
    assert imported(source) == {"a", "b", "c", "d"}


def test_the_api_reference_has_every_module_in_this_order():
    listed = re.findall(r"autodoc2-object} reactivation_core\.(\w+)", (ROOT / "book" / "api.md").read_text())
    assert listed == [name for name in ORDER if name in {path.stem for path in MODULES}]


def test_shapes_are_checked_under_test():
    with pytest.raises(jaxtyping.TypeCheckError):
        cells.PlaceCells(torch.zeros(1, 4, 3))
