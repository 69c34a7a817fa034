"""Write the live page's networks, and the code that runs them, beside the pages of the book.

Of each entry one network is written, `live/NAME.js`, a classic script that a page loads when it is chosen: modules and
`fetch` fail where a book is opened from disk. It holds weights, settings, and what the page compares sleep with: mean,
two components and norm of waking activity, and the density of waking positions or bearings.
"""

import base64
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from sphinx.application import Sphinx
from sphinx.util import logging
from wasmtime import wat2wasm

from reactivation_core import densities, experiments, figures, phases, store
from reactivation_core.phases import Ensemble
from reactivation_core.statistics import principal_components
from reactivation_core.streams import stream

# What the page offers: an ensemble, or the experiment of an untrained one, and what the page calls it.
ENTRIES = {
    "position-noisy-unbiased": "Position: trained with noise",
    "position-noiseless-unbiased": "Position: trained without noise",
    "position-noisy-unbiased-uniform": "Position: trained with uniform noise",
    "position-noisy-biased": "Position: trained with noise, biased to the centre",
    "position-noisy-unbiased-rests": "Position: trained with noise, on an animal that rests",
    "position-gru-unbiased": "Position: gated, trained with noise",
    "untrained": "Position: untrained",
    "head-direction-unbiased": "Head direction: trained with noise",
    "head-direction-unbiased-uniform": "Head direction: trained with uniform noise",
    "head-direction-biased": "Head direction: counter-clockwise turns only",
}
SOURCE = Path(__file__).parents[1] / "live"
# Bytes of one script, in base64.
LIMIT = 2_200_000


def network(name: str) -> Ensemble:
    """The network of an entry: the first of its ensemble, as in the figures."""
    if name == "untrained":
        return phases.untrained(
            experiments.get("position-noisy-unbiased"), 1, stream(0)
        )
    return store.load(name)[0]


def quantise(value: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers as stored; and, of whole ones, the scale of each row."""
    if dtype != "int8":
        return value.astype(dtype), None
    scale = (np.abs(value).max(1) / 127).astype("float32")
    return np.round(value / scale[:, None]).astype("int8"), scale


def precision(ensemble: Ensemble) -> str:
    """Gated networks have too many weights for two bytes each."""
    return "int8" if ensemble.experiment.network == "gru" else "float16"


def as_written(ensemble: Ensemble) -> Ensemble:
    """The network that a browser runs: with its weights rounded as they are stored."""
    rounded = {}
    for name, value in ensemble.network.named_parameters():
        stored, scale = quantise(value.detach()[0].numpy(), precision(ensemble))
        numbers = stored.astype("float32")
        rounded[name] = torch.from_numpy(
            numbers if scale is None else numbers * scale[:, None]
        )[None]
    experiment = ensemble.experiment
    return Ensemble(
        experiment,
        ensemble.task,
        type(ensemble.network)(rounded, experiment.tau, experiment.dt),
    )


def pack(value: np.ndarray, dtype: str = "float32") -> dict:
    """An array as JSON can hold it."""
    stored, scale = quantise(value, dtype)
    packed = {"dtype": dtype, "data": base64.b64encode(stored.tobytes()).decode()}
    return packed if scale is None else packed | {"scale": pack(scale)}


def waking(ensemble: Ensemble) -> dict:
    """What sleep is compared with: 200 runs of 100 steps, as in Fig. 1."""
    phase = phases.active(
        ensemble, 200, 100, stream(0), record=("states", "decoded"), every=5
    )
    r = phase.states[0].flatten(0, 1).numpy()
    plane = principal_components(r, 2)
    (density,) = densities.estimate(phase.decoded.numpy())
    if phase.decoded.shape[-1] == 2:
        grid = figures.grid(1.25)
    else:
        grid = np.linspace(-np.pi, np.pi, 100, endpoint=False)
    error = ensemble.task.error(phase.decoded, phase.s)
    return {
        "mean": pack(plane.mean_),
        "components": pack(plane.components_),  # pyright: ignore[reportArgumentType]
        "cloud": pack(plane.transform(r)[::4]),
        "norm": float(np.linalg.norm(r, axis=1).mean()),
        "error": float(error.mean()),
        "density": pack(density(grid)),
    }


def record(name: str) -> dict:
    """All that a page needs of an entry."""
    ensemble = as_written(network(name))
    experiment, task = ensemble.experiment, ensemble.task
    cells = experiment.task.model_dump(exclude={"motion", "kind", "n_cells"})
    noisy = experiments.get("position-noisy-unbiased")
    parameters = {
        key: pack(value.detach()[0].numpy(), precision(ensemble))
        for key, value in ensemble.network.named_parameters()
    }
    preferred = next(task.cells.buffers()).numpy().reshape(-1)
    bias = "biased" if getattr(experiment.task.motion, "drift", 0) else "unbiased"
    return {
        "kind": experiment.task.kind,
        "network": experiment.network,
        "n_units": experiment.n_units,
        "tau": experiment.tau,
        "dt": experiment.dt,
        "sigma": experiment.sigma,
        # Where training had no noise, that of the other networks can be switched on asleep.
        "sigma_asleep": experiment.sigma or noisy.sigma,
        "c": round(experiment.quiescent_noise**2, 6) if experiment.sigma else 0,
        "law": experiment.noise,
        "n_steps": experiment.n_steps,
        "motion": experiment.task.motion.model_dump(),
        "cells": cells,
        "vmax": figures.DENSITY[bias],
        "parameters": parameters,
        "preferred": pack(preferred),
        "waking": waking(ensemble),
    }


def entries() -> str:
    """The script that lists what a page offers."""
    return f"window.REACTIVATION_ENTRIES = {json.dumps(ENTRIES)};\n"


def kernel() -> str:
    """The script that holds the product of `product.wat`, assembled."""
    code = base64.b64encode(wat2wasm((SOURCE / "product.wat").read_text())).decode()
    return f'window.REACTIVATION_KERNEL = "{code}";\n'


def script(name: str) -> str:
    """The script of an entry."""
    here = json.dumps(name)
    return f"(window.REACTIVATION_WEIGHTS ??= {{}})[{here}] = {json.dumps(record(name))};\n"


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write what is not there yet, or was made of other networks or by other code."""
    if exception or app.builder.name != "html":
        return
    folder = Path(app.outdir) / "live"
    shutil.copytree(SOURCE, folder, dirs_exist_ok=True)
    (folder / "entries.js").write_text(entries())
    (folder / "kernel.js").write_text(kernel())
    sums = (store.ENSEMBLES / store.SUMS).read_bytes() + Path(__file__).read_bytes()
    key = f"// {hashlib.sha256(sums).hexdigest()}\n"
    for name in ENTRIES:
        path = folder / f"{name}.js"
        if path.is_file() and path.read_text().startswith(key):
            continue
        content = key + script(name)
        if len(content) > LIMIT:
            logging.getLogger(__name__).warning(
                "expected at most %d bytes in %s, got %d", LIMIT, path, len(content)
            )
        path.write_text(content)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
