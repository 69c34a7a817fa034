"""Time the book's live page in a browser: steps, many sleepers, frames; and the size of what it loads.

Given a built book, opens its page from disk in Chromium, without a graphics processor. Frames are measured in a window
of several seconds, asleep, beside the largest swarm, and once more with the page's own thread slowed down sixfold.
Writes `data/results/live.json`, which the book's page on cost shows.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import tyro
from playwright.sync_api import Page, sync_playwright
from training import RESULTS, machine

BOOK = Path(__file__).parents[1] / "book" / "_build" / "html"
NAMES = ("position-noisy-unbiased", "position-gru-unbiased", "head-direction-unbiased")
SECONDS = 4

# Milliseconds of a step with its decoding of one network, and of a step of 200, read out every fifth.
STEPS = """async (name) => {
    const stored = await load(name);
    // A browser's clock is coarse: several steps are timed together.
    const rounds = (B, n, together = 1) => {
        const random = new Random(1, 1);
        const swarm = new Swarm(stored, Array.from({ length: B }, () => motionOf(stored, random).s), 1);
        const run = () => swarm.advance({ c: 2, law: "gaussian" });
        let best = Infinity;
        for (let i = 0; i < n; i++) {
            const begin = performance.now();
            for (let k = 0; k < together; k++) run();
            best = Math.min(best, (performance.now() - begin) / (5 * together));
        }
        return best;
    };
    const found = { one: rounds(1, 60, 4), many: rounds(200, 15) };
    const running = kernel;
    kernel = null;
    Object.assign(found, { one_plain: rounds(1, 20, 4), many_plain: rounds(200, 3) });
    kernel = running;
    return found;
}"""
# Milliseconds between frames, and the middle time that one's own work takes.
FRAMES = """(seconds) => new Promise((resolve) => {
    const [seen, work, of] = [[], [], Bench.prototype.frame];
    Bench.prototype.frame = function (now) {
        const begin = performance.now();
        of.call(this, now);
        work.push(performance.now() - begin);
    };
    const frame = (now) => {
        seen.push(now);
        if (now - seen[0] < 1000 * seconds) requestAnimationFrame(frame);
        else {
            Bench.prototype.frame = of;
            const sorted = (x) => x.sort((a, b) => a - b);
            resolve([sorted(seen.slice(1).map((t, i) => t - seen[i])), sorted(work)]);
        }
    };
    requestAnimationFrame(frame);
})"""


def frames(page: Page) -> dict[str, float]:
    """The middle of a frame's own work, and the middle, the 99th percentile and the longest time between two, in ms."""
    between, work = page.evaluate(FRAMES, SECONDS)
    return {
        "work": work[len(work) // 2],
        "median": between[len(between) // 2],
        "p99": between[int(0.99 * len(between))],
        "longest": between[-1],
    }


def main(book: tyro.conf.Positional[Path] = BOOK) -> None:
    """Measure the live page.

    Args:
        book: the folder of the built book.
    """
    if not (book / "live.html").is_file():
        sys.exit(f"live: expected a built book with a live.html, got {book}")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    files = {path.name: path.stat().st_size for path in sorted((book / "live").iterdir())}
    found: dict[str, Any] = machine() | {"kilobytes": {name: round(size / 1000, 1) for name, size in files.items()}}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(reduced_motion="reduce")
        page.goto(f"{book.resolve().as_uri()}/live.html")
        found |= {"browser": browser.version, "milliseconds": {name: page.evaluate(STEPS, name) for name in NAMES}}
        page.close()
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.goto(f"{book.resolve().as_uri()}/live.html#input=off&swarm=on&sleepers=200")
        page.wait_for_function("document.querySelector('[data-is=kl-text]').textContent.includes('step ')")
        page.wait_for_timeout(3000)
        found["frames"] = {"asleep": frames(page)}
        text = page.locator("[data-is=kl-text]").text_content() or ""
        found["sleepers"] = int(text.split()[0])
        devtools = page.context.new_cdp_session(page)
        devtools.send("Emulation.setCPUThrottlingRate", {"rate": 6})
        found["frames"]["slowed"] = frames(page)
        browser.close()
    print(json.dumps(found, indent=1))
    (RESULTS / "live.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
