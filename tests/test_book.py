"""The book's folder and the repository's root, as someone finds them who has just cloned it."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["_toc.yml", "_config.yml"])
def test_the_root_has_the_books_contents_and_settings(name):
    assert (ROOT / name).read_text() == (ROOT / "book" / name).read_text()


def test_the_version_to_cite_is_that_of_the_library():
    # As the release workflow compares them with the tag.
    of = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == of
    deposit = json.loads((ROOT / ".zenodo.json").read_text())
    assert deposit["title"] == citation["title"]
    assert [author["name"] for author in deposit["creators"]] == [author["name"] for author in citation["authors"]]


def test_no_file_is_a_symbolic_link():
    # Without support for them, as on Windows, git would write a file that holds a path.
    files = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert files.stdout and not [line for line in files.stdout.splitlines() if line.startswith("120000")]


def test_a_build_of_the_root_says_what_to_build(tmp_path):
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "--path-output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode
    assert "expected the book's own folder: jupyter-book build book/" in done.stderr
    assert "Traceback" not in done.stderr
