"""Whatever the reader's machine has set or lacks, the same comes out, or one line says why not."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from reactivation_core import cli, store, training

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-c", "from reactivation_core import cli; cli.main()"]


def outcome(command, cwd=ROOT, **environment):
    """Run a program in a changed environment, in which None stands for no such variable."""
    environment = {name: value for name, value in (os.environ | environment).items() if value is not None}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8")


@pytest.mark.slow
def test_a_users_settings_change_no_page(tmp_path):
    """Those of IPython would show the value of every statement, those of Matplotlib a warning that no folder is."""
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("import matplotlib.pyplot as plt\n1\n2", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=1)]
    notebook.cells = [cell]
    nbformat.write(notebook, tmp_path / "page.ipynb")
    shutil.copy(ROOT / "book" / "conftest.py", tmp_path)
    profile = tmp_path / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_config.py").write_text("c.InteractiveShell.ast_node_interactivity = 'all'")
    done = outcome(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "-p", "no:cacheprovider", tmp_path],
        cwd=tmp_path,
        IPYTHONDIR=str(profile.parent),
        MPLCONFIGDIR="/dev/null/matplotlib",
        PYTHONPATH=str(ROOT / "src"),
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", ["scorecard", "list"])
def test_an_ascii_locale_breaks_nothing(command):
    done = outcome([*PROGRAM, command], PYTHONUTF8="0", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING=None)
    assert done.returncode == 0, done.stderr
    assert done.stdout == outcome([*PROGRAM, command]).stdout


@pytest.mark.slow
def test_a_cuda_toolkit_without_a_card_is_not_spoken_of():
    # PyTorch does, on stderr, where this module is imported: on every page.
    done = outcome(
        [sys.executable, "-c", "import sys, reactivation_core.cli; print('torch.utils.cpp_extension' in sys.modules)"]
    )
    assert done.stdout == "False\n", done.stderr


def test_an_ensemble_is_stored_without_git(tiny_ensemble, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    _, header = store.restore(store.save(tiny_ensemble, tmp_path))
    assert header["commit"] == "unknown"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with a copy of a module that names its commit; runs git in it."""
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))

    def git(*arguments):
        names = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = outcome(["git", *names, *arguments], tmp_path, GIT_DIR=None)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    (tmp_path / "other.txt").write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    source = tmp_path / "library" / "store.py"
    source.parent.mkdir()
    shutil.copy(store.__file__, source)
    monkeypatch.setattr(store, "__file__", str(source))
    return git, tmp_path


def test_the_commit_is_that_of_this_source_or_unknown(project):
    git, folder = project
    # In a repository of another project, which does not track it.
    assert store.commit() == "unknown"
    git("add", ".")
    git("commit", "-m", "two")
    commit = git("rev-parse", "--short=12", "HEAD")
    assert store.commit() == commit
    # It is not of this source.
    (folder / "other.txt").write_text("2")
    assert store.commit() == commit
    (folder / "library" / "store.py").write_text("")
    assert store.commit() == f"{commit}-dirty"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of a copy of this library that lies in no repository, as a wheel is installed."""
    folder = tmp_path_factory.mktemp("site-packages")
    shutil.copytree(ROOT / "src" / "reactivation_core", folder / "reactivation_core")
    return str(folder)


@pytest.mark.slow
def test_an_installed_library_finds_the_data(installed, tmp_path):
    (tmp_path / "data").symlink_to(ROOT / "data")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    for cwd, variable in ((below, None), ("/", str(ROOT / "data"))):
        done = outcome([*PROGRAM, "scorecard"], cwd, PYTHONPATH=installed, REACTIVATION_DATA=variable)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_installed_library_without_the_data_says_what_to_do(installed, tmp_path):
    done = outcome([*PROGRAM, "scorecard"], tmp_path, PYTHONPATH=installed, REACTIVATION_DATA=None)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "work in a checkout of the repository, or set REACTIVATION_DATA to its folder `data`" in done.stderr
    assert not list(tmp_path.iterdir())


def test_no_button_opens_a_page_where_the_library_is_not(monkeypatch):
    # Binder makes the environment of requirements.txt; its own Python may be older or newer than what that holds for.
    buttons = yaml.safe_load((ROOT / "book" / "_config.yml").read_text())["launch_buttons"]
    assert set(buttons) == {"notebook_interface", "binderhub_url"}
    assert (ROOT / "runtime.txt").read_text() in {f"python-3.{minor}\n" for minor in (11, 12, 13)}


def test_the_memory_of_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: 1 / 0)
    training.keep_freed_memory()


def test_a_lock_that_is_held_is_not_removed_on_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    removed = []
    monkeypatch.setattr(os, "unlink", removed.append)
    with store.lock(tmp_path / "file"):
        pass
    assert not removed


def test_the_faster_precision_is_measured(monkeypatch):
    seconds = training.seconds("cpu")
    assert seconds.keys() == training.PRECISIONS.keys() and min(seconds.values()) > 0
    for bfloat16, faster in ((0.5, "bfloat16"), (2.0, "float32")):
        monkeypatch.setattr(training, "seconds", lambda device, of=bfloat16: {"float32": 1.0, "bfloat16": of})
        assert cli.Train(precision="auto")._precision("cpu") == faster


def test_slow_products_are_said(monkeypatch, capsys):
    monkeypatch.setattr(training, "seconds", lambda device: {"float32": 1.0, "bfloat16": 14.0})
    assert cli.Train(precision="bfloat16")._precision("cpu") == "bfloat16"
    assert capsys.readouterr().err == "products in bfloat16 take 14.0 times as long as in float32 here\n"
