"""Draw the pictures of the front page, which the README has too, from the trained networks, into `book/_static`."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from reactivation_core import figures, phases, store

STATIC = Path(__file__).parent / "_static"
N, AWAKE, ASLEEP, STRIDE, TAIL = 14, 100, 200, 2, 24


def main() -> None:
    plt.style.use(figures.STYLE)
    network = store.load("position-noisy-unbiased")[0]
    generator = torch.Generator().manual_seed(3)
    awake = phases.active(network, 200, AWAKE, generator, record=("states", "decoded"))
    asleep = phases.quiescent(
        network, ASLEEP, math.sqrt(2), awake.states[:, :, -1], generator
    )
    positions = torch.cat((awake.decoded, asleep.decoded), 2)[0].numpy()
    animation(positions[:N], awake.s[0, :N].numpy())
    discovery(network)


def discovery(network: phases.Ensemble) -> None:
    """Where waking, sleep from one corner and runs that never move end."""
    generator = torch.Generator().manual_seed(4)
    awake = phases.active(network, 300, AWAKE, generator)
    corner = torch.tensor([0.9, 0.9]).expand(1, 300, 2)
    start = network.network.encode(network.task.cells.tuning(corner))
    asleep = phases.quiescent(network, 1000, math.sqrt(2), start, generator, every=1000)
    ends = {
        "awake": (
            awake.decoded,
            figures.COLOURS["active"],
        ),
        "asleep, from one corner": (
            asleep.decoded,
            figures.COLOURS["quiescent"],
        ),
        "standing still": (awake.s[:, :, :1], "0.45"),
    }
    figure, axes = figures.panels(3, 2.5)
    for ax, (title, (positions, colour)) in zip(axes[0], ends.items(), strict=True):
        ax.plot(*positions[0, :, -1].numpy().T, ".", ms=3, color=colour)
        figures.plane(ax, 1.25)
        ax.add_patch(Rectangle((-1.1, -1.1), 2.2, 2.2, fill=False, ec="0.5", lw=0.8))
        ax.set_title(title)
        ax.label_outer()
    axes[0, 1].plot(0.9, 0.9, "k+", ms=11, mew=1.5)
    figure.savefig(STATIC / "discovery.png")


def animation(positions: np.ndarray, true: np.ndarray) -> None:
    """The same network awake, then with its input switched off; the last frame of each half makes the still."""
    figure, ax = plt.subplots(figsize=(4.2, 4.5), dpi=110)
    ax.add_patch(Rectangle((-1.1, -1.1), 2.2, 2.2, fill=False, ec="0.4", lw=1.2))
    ax.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal")
    ax.axis("off")
    tails = LineCollection([], lw=1.6)
    ax.add_collection(tails)
    rings = ax.plot([], [], "o", ms=8, mfc="none", mec="0.55", mew=1)[0]
    heads = ax.plot([], [], "o", ms=5)[0]
    title = ax.set_title(" ", fontsize=12, loc="center")

    def draw(t: int, tail: int = TAIL):
        phase = "active" if t < AWAKE else "quiescent"
        begin = max(t - tail, 0 if phase == "active" else AWAKE)
        segments = np.stack(
            (positions[:, begin:t], positions[:, begin + 1 : t + 1]), 2
        ).reshape(-1, 2, 2)
        alpha = (
            np.tile(np.linspace(0.05, 1, t - begin), len(positions))
            if t > begin
            else []
        )
        tails.set_segments(list(segments))
        tails.set_color([(*to_rgba(figures.COLOURS[phase])[:3], a) for a in alpha])
        heads.set_data(*positions[:, t].T)
        heads.set_color(figures.COLOURS[phase])
        rings.set_data(*(true[:, t].T if phase == "active" else ([], [])))
        title.set_text(
            "awake: told every movement"
            if phase == "active"
            else r"asleep: input off, noise $\times\sqrt{2}$"
        )
        title.set_color(figures.COLOURS[phase])

    path = STATIC / "reactivation.webp"
    FuncAnimation(figure, draw, range(0, AWAKE + ASLEEP, STRIDE)).save(
        path, _WebP(fps=15)
    )
    draw(AWAKE + 60, 60)
    figure.savefig(STATIC / "reactivation-still.png")
    plt.close(figure)


class _WebP(PillowWriter):
    def finish(self):
        frames = [frame.convert("RGB") for frame in self._frames]  # pyright: ignore[reportAttributeAccessIssue]
        options = {
            "duration": int(1000 / self.fps),
            "loop": 0,
            "quality": 60,
            "method": 4,
        }
        frames[0].save(self.outfile, save_all=True, append_images=frames[1:], **options)


if __name__ == "__main__":
    main()
