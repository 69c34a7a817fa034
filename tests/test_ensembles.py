"""The trained ensembles in `data`: whole, and as good as their files say."""

import json

import pytest

from reactivation_core import experiments, store, training

pytestmark = pytest.mark.slow

STORED = sorted(path.stem for path in store.ENSEMBLES.glob("*.safetensors"))


def test_every_file_is_whole():
    assert STORED
    assert store.verify() == {f"{name}.safetensors": None for name in STORED}


@pytest.mark.parametrize("name", STORED)
def test_the_stored_networks_have_the_test_metrics_of_their_history(name):
    """Catches altered weights, and a step, noise, task or decoding other than in training."""
    ensemble = store.load(name)
    if name in experiments.EXPERIMENTS:
        assert ensemble.experiment == experiments.get(name)
        # Of a variation one network is enough to see the size of what it changes; of small ones there are many kinds.
        sizes = {"ring-moving": 8} | dict.fromkeys((n for n in STORED if n.endswith(("slow", "unnormalised"))), 1)
        assert len(ensemble) == sizes.get(name, 3 if name.startswith("ring") or "offcentre" in name else 5)
    loss, error, squared_error = training.test(ensemble)
    # A CUDA device draws another test batch of 200 trajectories.
    _, header = store.unpack(store.read(store.ENSEMBLES / f"{name}.safetensors"))
    times = 20 if header.get("device") == "cuda" else 1
    assert loss.tolist() == pytest.approx(ensemble.history[:, -1, 0].tolist(), rel=0.01 * times)
    assert error.tolist() == pytest.approx(ensemble.history[:, -1, 1].tolist(), rel=0.01 * times)
    assert squared_error.tolist() == pytest.approx(ensemble.squared_error[:, -1].tolist(), rel=0.02 * times)


def test_the_file_of_losses_holds_those_of_the_stored_ensembles():
    """It is what a machine without the ensembles compares with."""
    losses = json.loads((store.ENSEMBLES.parent / "results" / "losses.json").read_text())
    assert losses == {name: pytest.approx(store.load(name).history[:, -1, 0].tolist(), rel=1e-3) for name in STORED}


def test_position_networks_have_learned():
    """An output of zero has a loss of 5.2e-5."""
    assert (store.load("position-noisy-unbiased").history[:, -1, 0] < 1e-5).all()
