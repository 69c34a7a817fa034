"""The live network: its code in a browser against the library, and its page as a reader uses it."""

import base64
import importlib.util
import json
import math
import re
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from reactivation_core import densities, figures, phases
from reactivation_core.networks import NETWORKS
from reactivation_core.noise import LAWS
from reactivation_core.streams import stream
from reactivation_core.trajectories import Animal, Head

pytestmark = pytest.mark.slow

BOOK = Path(__file__).parents[1] / "book"
spec = importlib.util.spec_from_file_location("live", BOOK / "_ext" / "live.py")
live = importlib.util.module_from_spec(spec)
spec.loader.exec_module(live)

# How far sleep is from waking after 1 000 steps from the usual starts: the upper end on the page on forgetting.
FORGETTING = json.loads((BOOK.parent / "data/results/forgetting.json").read_text())
BOOK_KL = FORGETTING["measurements"]["kl_as_awake_1000"]["high"]

NAMES = [
    "position-noisy-unbiased",
    "position-noisy-unbiased-uniform",
    "position-noiseless-unbiased",
    "position-gru-unbiased",
    "head-direction-unbiased",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The live page without the theme, beside some of its networks."""
    folder = tmp_path_factory.mktemp("live")
    shutil.copytree(live.SOURCE, folder / "live")
    (html,) = re.findall(r"```\{raw\} html\n(.*?)```", (BOOK / "live.md").read_text(), re.DOTALL)
    (folder / "live.html").write_text(f"<!doctype html><html lang=en><title>live</title>{html}")
    (folder / "live" / "entries.js").write_text(live.entries())
    (folder / "live" / "kernel.js").write_text(live.kernel())
    for name in NAMES:
        (folder / "live" / f"{name}.js").write_text(live.script(name))
    return folder


@pytest.fixture(scope="module")
def engine(folder, browser):
    """A page that has only the engine and the networks, to call."""
    scripts = [*"kernel noise motion networks swarm".split(), *NAMES]
    (folder / "engine.html").write_text("".join(f'<script src="live/{name}.js"></script>' for name in scripts))
    page = browser.new_page()
    page.goto((folder / "engine.html").as_uri())
    return page


def numbers(tensor):
    return live.pack(tensor.numpy().reshape(-1))


@pytest.mark.parametrize("asleep", [False, True], ids=["awake", "asleep"])
@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_steps_are_those_of_the_library(engine, name, asleep):
    # Five runs: four multiplied together, and one by itself.
    B, T = 5, 100
    ensemble = live.as_written(live.network(name))
    batch = ensemble.task.sample(B, T, [stream(1)])
    record = ("states", "outputs", "decoded", "noise")
    if asleep:
        start = ensemble.network.encode(ensemble.task.cells.tuning(batch.s[:, :, 0]))
        phase = phases.quiescent(ensemble, T, math.sqrt(2), start, [stream(2)], record)
    else:
        phase = phases.active(ensemble, B, T, [stream(1)], record=record)
    states, decoded = engine.evaluate(
        """([name, s, ds, noise]) => {
            const { network, cells } = assemble(restore(REACTIVATION_WEIGHTS[name]));
            let r = network.encode(Float32Array.from(s.flatMap((state) => [...cells.tuning(state)])));
            const [all, changes, states, decoded] = [unpack(noise), ds && unpack(ds), [], []];
            for (let t = 0, T = all.length / r.length; t < T; t++) {
                const told = changes && changes.slice((t * changes.length) / T, ((t + 1) * changes.length) / T);
                r = network.step(r, told, all.slice(t * r.length, (t + 1) * r.length));
                states.push(r);
                decoded.push(cells.decode(network.readout(r)));
            }
            const bytes = states.flatMap((r) => [...new Uint8Array(r.buffer)].map((code) => String.fromCharCode(code)));
            return [btoa(bytes.join("")), decoded];
        }""",
        [
            name,
            batch.s[0, :, 0].tolist(),
            None if asleep else numbers(batch.ds[0].transpose(0, 1)),
            numbers(phase.noise[0].transpose(0, 1)),
        ],
    )
    states = torch.frombuffer(bytearray(base64.b64decode(states)), dtype=torch.float32)
    states = states.reshape(T, B, -1).transpose(0, 1)
    away = (states - phase.states[0]).norm(dim=-1) / phase.states[0].norm(dim=-1)
    assert away.max() < 1e-5
    decoded = torch.tensor(decoded).transpose(0, 1)
    top = phase.outputs[0].topk(4).values
    clear = top[..., 2] - top[..., 3] > 2e-5 * top[..., 0]
    assert clear.float().mean() > 0.95
    assert ensemble.task.error(decoded, phase.decoded[0])[clear].max() < 1e-5


def test_every_network_of_the_library_has_its_step_in_the_browser():
    assert {live.network(name).experiment.network for name in NAMES} == set(NETWORKS)


def test_gated_weights_in_one_byte_decode_the_same_places():
    whole = live.network("position-gru-unbiased")
    errors = []
    for ensemble in (whole, live.as_written(whole)):
        phase = phases.active(ensemble, 50, 100, [stream(1)])
        errors.append(ensemble.task.error(phase.decoded, phase.s).mean())
    assert abs(errors[1] - errors[0]) < 0.002


MOTIONS = {"plain": Animal(), "drift": Animal(drift=0.05), "rests": Animal(rests=5.0), "head": Head()}
MOTIONS["counter-clockwise"] = Head(counter_clockwise=True)


@pytest.mark.parametrize("motion", MOTIONS.values(), ids=MOTIONS)
def test_motion_is_that_of_the_library_with_the_same_draws(engine, motion):
    T = 400
    (s,) = motion(1, T, [stream(3)]).s[0].tolist()
    draws = stream(3)

    def draw(kind, n):
        return kind(n, generator=draws).tolist()

    if isinstance(motion, Head):
        uniform, normal = draw(torch.rand, 1), draw(torch.randn, T)
    else:
        begin, speeds, normal = draw(torch.rand, 3), draw(torch.rand, T + 1), draw(torch.randn, T + 1)
        # Rests are drawn last, and asked for after each speed.
        rests = draw(torch.rand, T + 2) if motion.rests else []
        uniform = begin + (rests[:1] + list(chain(*zip(speeds, rests[1:], strict=True))) if rests else speeds)
    found = engine.evaluate(
        """([kind, settings, uniform, normal, T]) => {
            const random = { uniform: () => uniform.shift(), normal: () => normal.shift() };
            const motion = new (kind === "Head" ? Head : Animal)(settings, random);
            const s = [motion.s];
            for (let t = 0; t < T; t++) motion.step(), s.push(motion.s);
            return s;
        }""",
        [type(motion).__name__, motion.model_dump(), uniform, normal, T],
    )
    away = np.abs(np.array(found) - s)
    assert np.minimum(away, 2 * math.pi - away).max() < 1e-4


@pytest.mark.parametrize("law", LAWS)
def test_noise_has_its_law(engine, law):
    sigma, dt = 0.3, 0.02
    draw = f"(seed) => [...drawNoise(20000, {json.dumps(law)}, {sigma}, {dt}, new Random(seed, 2))]"
    eta = np.array(engine.evaluate(draw, 7))
    scale = sigma * math.sqrt(dt)
    expected = {"gaussian": scipy.stats.norm(0, scale), "uniform": scipy.stats.uniform(0, scale)}[law]
    assert scipy.stats.kstest(eta, expected.cdf).pvalue > 0.01
    for lag in (1, 2, 512):
        assert abs(np.corrcoef(eta[lag:], eta[:-lag])[0, 1]) < 4 / math.sqrt(len(eta))
    assert (eta == engine.evaluate(draw, 7)).all()
    assert np.abs(np.corrcoef(eta, engine.evaluate(draw, 8))[0, 1]) < 4 / math.sqrt(len(eta))


def test_noise_in_some_directions_is_taken_out(engine):
    left = engine.evaluate("""() => {
        const directions = [[0.6, 0.8, 0], [0, 0, 1]].map((u) => Float64Array.from(u));
        return [...takeOut(Float32Array.of(1, 2, 3, 4, -3, 5), directions)];
    }""")
    np.testing.assert_allclose(left, [-0.32, 0.24, 0, 4, -3, 0], atol=1e-6)


@pytest.mark.parametrize("d", [2, 1])
def test_densities_and_divergences_are_those_of_the_library(engine, d):
    rng = np.random.default_rng(0)
    if d == 2:
        x, y = (rng.normal(m, 0.25, (2000, 2)).clip(-1, 1) for m in (0, 0.2))
        grid = figures.grid(1.25)
    else:
        x, y = (rng.vonmises(m, 2, (2000, 1)) for m in (3, 2.5))
        grid = np.linspace(-np.pi, np.pi, 100, endpoint=False)
    (p,), (q,) = densities.estimate(x[None]), densities.estimate(y[None])
    mine, kl = engine.evaluate(
        """([x, q]) => { const p = densityOf(x); return [[...p], divergence(p, unpack(q))] }""",
        [x.tolist(), live.pack(q(grid).ravel())],
    )
    assert np.abs(np.reshape(mine, p(grid).shape) - p(grid)).max() < 0.05 * p(grid).max()
    assert kl == pytest.approx(densities.kl_divergence(p, q, rng, 20000), rel=0.1)


@pytest.mark.parametrize("B", [1, 6, 200])
def test_products_are_right_with_the_kernel_and_without(engine, B):
    rng = np.random.default_rng(0)
    A, x = (rng.normal(size=size).astype("float32") for size in ((7, 512), (B, 512)))
    found = engine.evaluate(
        """([A, x]) => {
            const [running, of] = [kernel, () => [...product(unpack(A), unpack(x), 512)]];
            const fast = of();
            kernel = null;
            const plain = of();
            kernel = running;
            return [running !== null, fast, plain];
        }""",
        [live.pack(A), live.pack(x)],
    )
    assert found[0]
    for products in found[1:]:
        np.testing.assert_allclose(np.reshape(products, (B, 7)), x @ A.T, rtol=1e-4, atol=1e-4)


def test_two_hundred_sleepers_are_where_those_of_the_library_are(engine):
    """From the centre, and while they spread: there the density is the dynamics' and not that of the starts."""
    ensemble = live.as_written(live.network("position-noisy-unbiased"))
    centre = ensemble.network.encode(ensemble.task.cells.tuning(torch.zeros(1, 200, 2)))
    runs = [phases.quiescent(ensemble, 200, math.sqrt(2), centre, [stream(k)], every=5) for k in range(3)]
    divergences = engine.evaluate(
        """(library) => {
            const stored = restore(REACTIVATION_WEIGHTS["position-noisy-unbiased"]);
            const swarm = new Swarm(stored, Array(200).fill([0, 0]), 1);
            for (let look = 0; look < 40; look++) swarm.advance({ c: 2, law: "gaussian" });
            const states = (x) => Array.from({ length: x.length / 2 }, (_, i) => x.slice(2 * i, 2 * i + 2));
            const all = [swarm.looks.flat(), ...library.map((packed) => states(unpack(packed)))].map(densityOf);
            return all.map((p) => all.map((q) => divergence(p, q)));
        }""",
        [numbers(run.decoded) for run in runs],
    )
    mine, floor = np.array(divergences)[0, 1:], np.array(divergences)[1:, 1:]
    assert mine.mean() < floor.max()


def test_what_is_driven_finds_the_places_of_waking_from_one_corner(engine):
    kl, frozen = engine.evaluate("""() => {
        const stored = restore(REACTIVATION_WEIGHTS["position-noisy-unbiased"]);
        const swarm = new Swarm(stored, Array(24).fill([0.9, 0.9]), 1);
        for (let look = 0; look < 200; look++) swarm.advance({ c: 1, law: "gaussian", walk: "bounded" });
        return [swarm.report().kl, swarm.frozen.kl];
    }""")
    # Nearer than sleep from the starts of waking, after as many steps.
    assert kl < BOOK_KL < frozen


class Reader:
    """What a reader does on the page, and sees."""

    def __init__(self, browser, folder, address="", before="", **context):
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        # What the page finds done before it begins.
        self.page.add_init_script(before)
        self.problems, self.asked = [], []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.home = folder if isinstance(folder, str) else f"{folder.as_uri()}/"
        self.page.goto(f"{self.home}live.html{address}")
        self.until(r"Step \d+", "numbers")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert not self.problems
        assert all(url.startswith((self.home, "blob:", "data:")) for url in self.asked)
        self.context.close()

    def text(self, name):
        return self.page.locator(f"[data-is={name}]").text_content()

    def until(self, pattern, name="status", seconds=30):
        test = "([name, pattern]) => document.querySelector(`[data-is=${name}]`).textContent.match(pattern)"
        self.page.wait_for_function(test, arg=[name, pattern], timeout=1000 * seconds)

    def step(self, n=1):
        press = "n => { for (let i = 0; i < n; i++) document.querySelector('button[value=step]').click() }"
        self.page.evaluate(press, n)
        self.page.wait_for_timeout(100)

    def error(self):
        return float(re.search(r"off by ([\d.]+)", self.text("numbers"))[1])

    def place(self):
        return np.array([float(x) for x in re.search(r"\((.*?)\)", self.text("numbers"))[1].split(",")])


def test_a_reader_switches_off_the_input_and_what_the_network_says_goes_on(browser, folder):
    # Paused from the outset, so that how fast the machine is does not decide what is seen.
    with Reader(browser, folder, reduced_motion="reduce") as reader:
        reader.until("^Awake: told every movement")
        before = reader.place()
        reader.step(60)
        assert np.linalg.norm(reader.place() - before) > 0.1
        reader.page.click("input[name=input]")
        reader.until("^Asleep: the input is off, the noise has 2 times")
        assert "input=off" in reader.page.url
        places = []
        for _ in range(10):
            reader.step(20)
            places.append(reader.place())
        assert len({tuple(place) for place in places}) > 3
        # Without noise it comes to rest.
        reader.page.focus("input[name=c]")
        reader.page.keyboard.press("Home")
        reader.step(1000)
        reader.until("come to rest")
        away = reader.error()
        reader.page.click("button[value=anchor]")
        reader.page.wait_for_timeout(100)
        # Re-anchored, it is nearer to where the animal is.
        assert reader.error() < away


def test_a_reader_sends_many_to_sleep_and_has_the_address_of_what_is_seen(browser, folder):
    with Reader(browser, folder, "#start=corner&input=off&c=4&sleepers=10&seed=3") as reader:
        assert reader.page.input_value("select[name=start]") == "corner"
        reader.until("has 4 times")
        reader.page.check("input[name=swarm]")
        reader.until(r"^10 sleepers, step \d+0: KL to waking \d", "kl-text")
        assert "swarm=on" in reader.page.url
        reader.page.select_option("select[name=law]", "uniform")
        assert "law=uniform" in reader.page.url and "seed=3" in reader.page.url
        reader.page.select_option("select[name=network]", "head-direction-unbiased")
        reader.until(r"rad", "numbers")
        assert reader.page.input_value("input[name=c]") == "2"
        reader.page.click("button[value=kick-across]")


def test_a_reader_follows_a_link_and_sees_that_sleep_from_one_corner_does_not_find_waking(browser, folder, serve):
    address = "#input=off&start=corner&swarm=on&sleepers=10&speed=4"
    # From http as from disk.
    with serve(folder) as home, Reader(browser, home, address) as reader:
        reader.until(r"^10 sleepers, step 1\d\d\d", "kl-text", 60)
        kl, frozen = map(float, re.findall(r"([\d.]+) nats", reader.text("kl-text")))
    assert BOOK_KL < kl < frozen


def test_where_there_is_no_kernel_and_no_time_the_swarm_shrinks_and_says_so(browser, folder):
    before = """delete WebAssembly.Module;
        const post = Worker.prototype.postMessage;
        Worker.prototype.postMessage = function (data) { post.call(this, { ...data, patience: 0 }) }"""
    with Reader(browser, folder, "#input=off&swarm=on&sleepers=25", before) as reader:
        assert reader.page.evaluate("kernel") is None
        reader.until(r"^7 sleepers.*too slow for more: sleepers were taken out", "kl-text")


def test_with_uniform_noise_activity_does_not_fade(browser, folder):
    norms = []
    for name in ("position-noisy-unbiased", "position-noisy-unbiased-uniform"):
        with Reader(browser, folder, f"#network={name}&input=off", reduced_motion="reduce") as reader:
            reader.step(1000)
            norms.append(float(re.search(r"Norm ([\d.]+)", reader.text("numbers"))[1]))
    assert norms[0] < 0.8 < 0.9 < norms[1]


def test_the_same_address_shows_the_same_run(browser, folder):
    places = []
    for _ in range(2):
        with Reader(browser, folder, "#input=off&seed=5", reduced_motion="reduce") as reader:
            reader.step(50)
            places.append(reader.text("numbers"))
    assert places[0] == places[1] and places[0].startswith("Step 50.")


def test_keys_drive_the_animal_and_reduced_motion_starts_paused(browser, folder):
    with Reader(browser, folder, reduced_motion="reduce") as reader:
        reader.page.wait_for_timeout(300)
        assert reader.text("numbers").startswith("Step 0.")
        assert reader.text("status").endswith("Paused.")
        before = reader.place()
        reader.page.focus("canvas[data-is=arena]")
        reader.page.keyboard.down("ArrowLeft" if before[0] > 0 else "ArrowRight")
        reader.step(30)
        reader.page.keyboard.up("ArrowLeft")
        way = reader.place() - before
        assert 0.3 < abs(way[0]) < 0.9 and abs(way[1]) < 0.3
        reader.page.keyboard.press("Space")
        reader.until(r"Step (3[1-9]|[4-9]\d)", "numbers")


def test_it_is_used_by_touch_on_a_narrow_dark_screen(browser, folder):
    screen = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "color_scheme": "dark"}
    with Reader(browser, folder, **screen) as reader:
        reader.page.tap("input[name=input]")
        reader.until("^Asleep")
        assert reader.page.evaluate("document.scrollingElement.scrollWidth") <= 390
        reader.page.tap("canvas[data-is=arena]")
