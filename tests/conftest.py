"""Fixtures shared by the tests: small experiments and ensembles, made like the paper's."""

import csv
import importlib.util
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import hypothesis
import pytest
import torch

from reactivation_core import experiments
from reactivation_core.edition.execution import STATUS
from reactivation_core.phases import untrained

# A machine that is busy is no error.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where the tests that compare a device with the CPU compute")


def pytest_collection_modifyitems(items):
    """The longest first, so that no process is left alone with a long chapter at the end."""
    with STATUS.open() as file:
        seconds = {row["chapter"]: float(row["processor seconds"]) for row in csv.DictReader(file)}

    def length(item):
        chapter = "/".join(item.path.with_suffix("").parts[-2:])
        return seconds.get(chapter, 60.0 if item.get_closest_marker("slow") else 0.0)

    items.sort(key=length, reverse=True)


@pytest.fixture(scope="session")
def printed():
    """The script that prints the book."""
    path = Path(__file__).parents[1] / "book" / "printed.py"
    spec = importlib.util.spec_from_file_location("printed", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def browser(printed):
    if printed.CHROMIUM is None:
        pytest.skip("expected Chromium to look at the book, found none; on Debian: apt-get install chromium")
    with printed.sync_playwright() as playwright:
        browser = printed.launch(playwright)
        yield browser
        browser.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def serve():
    """Serve a folder over http, at an address."""

    @contextmanager
    def serving(folder):
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()

    return serving


@pytest.fixture
def device(request):
    return request.config.getoption("device")


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def tiny_experiment(request):
    """A small copy of an experiment; parametrise indirectly by its name, else the position task's."""
    experiment = experiments.get(getattr(request, "param", "position-noisy-unbiased"))
    return experiment.vary(task={"n_cells": 24}, n_units=16, n_steps=12, batch_size=10, n_batches=40)


@pytest.fixture
def tiny_ensemble(tiny_experiment, generator):
    """Three networks with initial weights, and a history as training would leave it."""
    ensemble = untrained(tiny_experiment, 3, generator)
    tests = torch.rand(3, 4, 3, generator=generator)
    return replace(ensemble, history=tests[..., :2], squared_error=tests[..., 2])
