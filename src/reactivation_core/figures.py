r"""Panels: arrays to Axes.

Waking is blue and quiescence red throughout; densities are magma, distances and bearings have perceptually even maps.
Every function draws one panel on the Axes it is given, labels it, and returns nothing.
"""

import itertools
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from numpy import ndarray

from reactivation_core.densities import KernelDensity
from reactivation_core.statistics import interval

COLOURS = {"active": "#2166ac", "quiescent": "#b2182b"}
NAMES = {"active": "awake", "quiescent": "asleep"}
COMPONENTS = ("PC 1 (awake)", "PC 2 (awake)")

# Where the colours of densities of decoded positions end, per m²; 1 / 2.2² = 0.21 is uniform.
DENSITY = {"unbiased": 0.6, "biased": 3.0}

STYLE = {
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.cmap": "magma",
    "savefig.facecolor": "white",
    "legend.frameon": False,
}


def panels(
    columns: int,
    height: float,
    rows: int = 1,
    polar: bool = False,
    titles: Iterable[str] = (),
    letters: Iterable[str] = "abcdef",
) -> tuple[Figure, ndarray]:
    """A figure 6 inches wide in the book's style, and its Axes `(rows, columns)`; those with a title have a letter."""
    plt.style.use(STYLE)
    projection = {"projection": "polar"} if polar else {}
    figure, axes = plt.subplots(rows, columns, figsize=(6, height), squeeze=False, subplot_kw=projection)
    for ax, title, name in zip(axes.flat, titles, letters or itertools.repeat(""), strict=False):
        letter(ax, name, title) if name else ax.set_title(title)
    return figure, axes


def legend_below(ax: Axes, columns: int, **style) -> None:
    """The legend of one panel, below all of its figure."""
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=columns, **style)


def letter(ax: Axes, name: str, text: str = "") -> None:
    """The panel's letter in the paper, and a title."""
    ax.set_title(f"$\\bf{{{name}}}$  {text}")


def stand_first(name: str, figure: Figure) -> None:
    """Show a figure at the top of its page, where `{glue:figure} name` stands, and not below the cell that draws it."""
    # A tool of the book, which those who only use the library need not have.
    from myst_nb import glue

    glue(name, figure, display=False)
    plt.close(figure)


def schematic(ax: Axes) -> None:
    """The task: change in, a noisy recurrent network, the state out; and what is switched off in quiescence."""
    ax.set(xlim=(0, 10), ylim=(0, 4.2), aspect="equal")
    ax.axis("off")
    ax.add_patch(Rectangle((0.1, 1.2), 1.9, 1.9, fill=False, lw=1.2))
    angle = np.linspace(0, 1, 60)
    path = np.stack((0.45 + 1.1 * angle, 1.7 + 0.75 * np.sin(2.6 * angle) + 0.12 * np.cos(11 * angle)))
    ax.plot(*path, color="0.4", lw=1.2)
    ax.plot(*path[:, -1], "o", color="k", ms=5)
    ax.text(1.05, 3.35, "environment $s(t)$", ha="center")
    ax.add_patch(Circle((5, 2.15), 1.25, fill=False, lw=1.2))
    turns = np.linspace(0, 2 * np.pi, 9)[:-1] + 0.2
    units = np.stack((5 + 0.8 * np.cos(turns), 2.15 + 0.8 * np.sin(turns)), 1)
    for i, j in ((0, 3), (3, 6), (6, 1), (1, 4), (4, 7), (7, 2), (2, 5), (5, 0)):
        ax.plot(*units[[i, j]].T, color="0.8", lw=0.8, zorder=1)
    ax.scatter(*units.T, s=26, c="white", edgecolors="k", zorder=2)
    ax.text(5, 3.55, "recurrent network $r(t)$", ha="center")
    cells = np.stack(np.meshgrid(np.linspace(8.1, 9.7, 5), np.linspace(1.35, 2.95, 5)), -1).reshape(-1, 2)
    # The bump sits in the sheet of cells where the animal is in the box.
    bump = (8.1, 1.35) + (path[:, -1] - (0.1, 1.2)) * 1.6 / 1.9
    activity = np.exp(-((cells - bump) ** 2).sum(1) / 0.3)
    ax.scatter(*cells.T, s=52, c=activity, cmap="Greys", vmin=-0.1, vmax=1.1, edgecolors="0.5", linewidths=0.5)
    ax.text(8.9, 3.35, "place cells $f(s)$", ha="center")

    def arrow(start, end, colour="k", **kwargs):
        ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=colour, lw=1.2, **kwargs))

    arrow((2.1, 2.15), (3.7, 2.15), COLOURS["active"])
    ax.text(2.9, 2.4, r"change $\Delta s$", ha="center", color=COLOURS["active"])
    arrow((6.35, 2.15), (7.9, 2.15))
    ax.text(7.1, 2.4, "$o = D r$", ha="center")
    arrow((4.05, 0.35), (4.6, 0.92), "0.45")
    ax.text(3.95, 0.18, r"noise $\sigma\,\eta$", ha="right", color="0.35")
    ax.text(2.9, 1.75, r"asleep: $0$", ha="center", color=COLOURS["quiescent"])
    ax.text(5.2, 0.18, r"asleep: $\sqrt{2}\,\sigma\,\eta$", ha="left", color=COLOURS["quiescent"])


def step(ax: Axes, phase: str, turn: float, c: float) -> None:
    r"""A step on a ring: noisy activity goes to $E[m \mid r]$, is carried on by `turn` (rad), and gets noise of
    `c` times the variance that was in it."""
    ax.set(xlim=(-1.02, 1.02), ylim=(0.3, 1.6), aspect="equal")
    ax.axis("off")
    arc, start = np.linspace(0, np.pi, 200), 1.57 + turn / 2
    ax.plot(np.cos(arc), np.sin(arc), color="0.75", lw=1)
    rng, sd = np.random.default_rng(3), 0.07
    place = start + sd * rng.normal(size=24)
    radius = 1 + sd * rng.normal(size=24)
    before = np.stack((radius * np.cos(place), radius * np.sin(place)))
    mean = np.stack((np.cos(place), np.sin(place)))
    ax.plot(*before, "o", color="0.55", ms=3)
    for tail, head in zip(before.T, mean.T, strict=True):
        ax.add_patch(FancyArrowPatch(tail, head, arrowstyle="-|>", mutation_scale=5, color="0.55", lw=0.6))
    ax.plot(*mean, "o", color="k", mfc="w", ms=3, mew=0.7)
    after = np.stack((np.cos(place - turn), np.sin(place - turn))) + sd * np.sqrt(c) * rng.normal(size=(2, 24))
    ax.plot(*after, "o", color=COLOURS[phase], ms=3)
    x, y = np.cos(start), np.sin(start)
    ax.text(1.28 * x, 1.28 * y, "$r$", ha="center", color="0.35")
    ax.text(0.76 * x, 0.76 * y, r"$E[m \mid r]$", ha="center", va="center")
    x, y = 1.28 * np.cos(start - turn), 1.28 * np.sin(start - turn)
    ax.text(x, y, "$r'$" if turn else r"     $\tilde r\,'$", ha="center" if turn else "left", color=COLOURS[phase])
    if turn:
        tail, head = ((0.6 * np.cos(at), 0.6 * np.sin(at)) for at in (start - 0.25, start - turn + 0.1))
        curved = {"connectionstyle": "arc3,rad=-0.2", "arrowstyle": "-|>", "mutation_scale": 10, "lw": 1}
        ax.add_patch(FancyArrowPatch(tail, head, **curved))
        ax.text(0.08, 0.45, r"$\Delta s$", ha="center")
    noise = r"$+\,\sqrt{v}\,\xi$" if c == 1 else rf"$+\,\sqrt{{{c:g}v}}\,\xi$"
    ax.text(-1.0, 1.5, ("waking: clean, move, " if turn else "sleep: clean, ") + noise, color=COLOURS[phase])


def band(
    ax: Axes,
    x: Real[ndarray, " n"],
    values: Float[ndarray, "S n"],
    colour: str,
    label: str | None = None,
    style: str = "-",
    alpha: float = 0.2,
) -> None:
    """A curve with its mean and 95 % interval over networks."""
    mean, low, high = zip(*(interval(column) for column in values.T), strict=True)
    ax.fill_between(x, low, high, color=colour, alpha=alpha, lw=0)
    ax.plot(x, mean, style, color=colour, label=label)


def on_curve(
    ax: Axes,
    x: Real[ndarray, " n"],
    values: Float[ndarray, "S n"],
    expected: tuple[Real[ndarray, " m"], Real[ndarray, " m"]],
    colour: str | None = None,
    marker: str = "o",
    label: str | None = None,
) -> None:
    """Means over networks with their 95 % intervals, on the curve that is predicted of them."""
    (line,) = ax.plot(*expected, lw=1, color=colour)
    mean, low, high = np.transpose([interval(column) for column in values.T])
    bars = (mean - low, high - mean)
    ax.errorbar(x, mean, bars, fmt=marker, ms=4, lw=1, color=line.get_color(), label=label)


def sweep(
    ax: Axes,
    multipliers: Real[ndarray, " c"],
    values: Float[ndarray, "S c"],
    paper: float,
    colour: str = COLOURS["quiescent"],
    label: str | None = None,
) -> None:
    """A measure at every multiplier of the noise's variance above 0: networks thin, their mean thick; a dashed line at
    the multiplier that the paper has."""
    heated = multipliers > 0
    ax.plot(multipliers[heated], values[:, heated].T, color=colour, lw=0.6, alpha=0.6)
    ax.plot(multipliers[heated], values[:, heated].mean(0), color=colour, lw=1.8, label=label)
    ax.axvline(paper, color="k", lw=0.8, ls="--")
    ax.set_xscale("log", base=2)
    ax.set_xticks([0.5, 2, 8], ["½", "2", "8"])
    ax.minorticks_off()
    ax.set(xlabel="multiplier $c$")


def training_curve(
    ax: Axes, batches: Real[ndarray, " tests"], values: Float[ndarray, "S tests"], style: str = "-", label: str = ""
) -> None:
    """A test metric along training: mean and ± 1 s.d. over networks."""
    mean, sd = values.mean(0), values.std(0, ddof=1)
    ax.fill_between(batches, mean - sd, mean + sd, color="k", alpha=0.2, lw=0)
    ax.plot(batches, mean, style, color="k", lw=1.2, label=label)
    ax.set(xlabel="training batches", xlim=(0, batches[-1]))


def explained_variance(ax: Axes, curves: dict[str, Float[ndarray, "S N_r"]]) -> None:
    """Explained variance against the number of components, to 40, per phase: mean and ± 1 s.d. over networks."""
    n_components = min(40, *(values.shape[1] for values in curves.values()))
    components = np.arange(1, n_components + 1)
    for (phase, values), style in zip(curves.items(), ("-", "--"), strict=True):
        mean, sd = values.mean(0)[:n_components], values.std(0, ddof=1)[:n_components]
        ax.fill_between(components, mean - sd, mean + sd, color=COLOURS[phase], alpha=0.25, lw=0)
        ax.plot(components, mean, style, color=COLOURS[phase], label=NAMES[phase], lw=1.4)
    ax.set(xlabel="principal components", ylabel="explained variance", ylim=(0, 1.02), xlim=(1, n_components))
    ax.legend(loc="lower right")


def trajectories(ax: Axes, positions: Float[ndarray, "B T 2"], phase: str, box: float = 2.2) -> None:
    """Decoded trajectories in the box; a circle at each start, a triangle at each end."""
    for path in positions:
        ax.plot(*path.T, color=COLOURS[phase], lw=0.7, alpha=0.7)
    ax.plot(*positions[:, 0].T, "o", ms=3.2, mfc="white", mec="k", mew=0.7, ls="none", zorder=3)
    ax.plot(*positions[:, -1].T, "^", ms=3.4, mfc="k", mec="k", mew=0.5, ls="none", zorder=3)
    ax.add_patch(Rectangle((-box / 2, -box / 2), box, box, fill=False, ec="0.5", lw=0.8))
    plane(ax, 1.25 * box / 2.2)


def positions(awake: Float[ndarray, "B awake 2"], asleep: Float[ndarray, "B asleep 2"], box: float) -> Figure:
    """Decoded positions of one network, awake and asleep: some trajectories, Figs. 1d and 1e, and the density of all,
    Figs. 1h and 1i, with colours to three times the even one."""
    figure, axes = panels(2, 5.6, rows=2, titles=NAMES.values(), letters="")
    limit = 1.25 * box / 2.2
    for column, phase, x, shown in zip(axes.T, COLOURS, (awake, asleep), (25, 50), strict=True):
        trajectories(column[0], x[:shown], phase, box)
        density(column[1], KernelDensity(x.reshape(-1, 2))(grid(limit)), limit, 3 / box**2, "per m²")
        plane(column[1], limit)
    return figure


def turned(awake: Float[ndarray, " n"], asleep: Float[ndarray, " m"], letters: str = "") -> Figure:
    """Decoded bearings of one network, awake and asleep, Figs. 3a and 3b, on one scale."""
    figure, axes = panels(2, 3.2, polar=True, titles=NAMES.values(), letters=letters)
    for ax, phase, x in zip(axes[0], COLOURS, (awake, asleep), strict=True):
        bearings(ax, x, phase)
    top = max(ax.get_ylim()[1] for ax in axes[0])
    for ax in axes[0]:
        ax.set_ylim(0, top)
    return figure


def trajectory_panels(
    shown: dict[str, tuple[str, Float[ndarray, "B T 2"]]],
    columns: int,
    height: float,
    letters: str = "",
    box: float = 2.2,
) -> None:
    """A panel of `trajectories` for each title: the phase and decoded positions."""
    _, axes = panels(columns, height, -(-len(shown) // columns), titles=shown, letters=letters)
    for ax, (phase, positions) in zip(axes.flat, shown.values(), strict=True):
        trajectories(ax, positions, phase, box)


def trajectories_by_bias(positions: dict[str, dict[str, Float[ndarray, "B T 2"]]]) -> None:
    """Some decoded trajectories awake and asleep, a row for each bias; panels a to d."""
    shown = {
        f"{bias}, {NAMES[phase]}": (phase, of[phase][:n])
        for bias, of in positions.items()
        for phase, n in (("active", 25), ("quiescent", 50))
    }
    trajectory_panels(shown, 2, 6.2, "abcd")


def densities_by_bias(maps: dict[str, dict[str, Float[ndarray, "n n"]]]) -> None:
    """Densities of decoded positions awake and asleep, a row for each bias with its colours; panels e to h."""
    shown = {f"{bias}, {NAMES[phase]}": of[phase] for bias, of in maps.items() for phase in NAMES}
    density_panels(shown, 2, 5.2, [DENSITY[bias] for bias in maps for _ in NAMES], "efgh")


def component_panels(
    scores: dict[str, Float[ndarray, "n 2"]],
    colour: dict[str, Float[ndarray, " n"]],
    label: str,
    cmap: str,
    limits: tuple,
    titles: dict[str, str] = NAMES,
    letters: str = "",
) -> None:
    """Activity in each phase on the first two waking components, on one scale, coloured by what it stands for; a cross
    at the mean of waking."""
    _, axes = panels(len(scores), 2.8, titles=[titles[phase] for phase in scores], letters=letters)
    limit = component_limit(*scores.values())
    for ax, phase in zip(axes[0], scores, strict=True):
        look = {"s": 1.5, "cmap": cmap, "vmin": limits[0], "vmax": limits[1], "lw": 0, "rasterized": True}
        dots = ax.scatter(*scores[phase].T, c=colour[phase], **look)
        ax.figure.colorbar(dots, ax=ax, label=label, shrink=0.75)
        ax.plot(0, 0, "+", color="k", ms=8)
        plane(ax, limit, COMPONENTS)


def component_limit(*scores: Float[ndarray, "n 2"]) -> float:
    """Half the side of a square about the mean of waking activity that holds all scores."""
    return 1.05 * max(np.abs(x).max() for x in scores)


def grid(limit: float) -> Float[ndarray, "100 100 2"]:
    """Points of a grid over the square within ± `limit`."""
    axis = np.linspace(-limit, limit, 100)
    return np.stack(np.meshgrid(axis, axis), -1)


def density(ax: Axes, values: Float[ndarray, "n n"], limit: float, vmax: float, unit: str) -> None:
    """A density on `grid(limit)`, with a colour bar from 0 to `vmax`."""
    image = ax.imshow(values, origin="lower", extent=(-limit, limit, -limit, limit), vmin=0, vmax=vmax)
    ax.figure.colorbar(image, ax=ax, label=unit, shrink=0.75)


def density_panels(
    shown: dict[str, Float[ndarray, "n n"]],
    columns: int,
    height: float,
    vmax: float | Sequence[float] | None,
    letters: str = "",
    limit: float = 1.25,
    unit: str = "per m²",
    labels: tuple[str, str] = ("x (m)", "y (m)"),
) -> None:
    """A map of a density on `grid(limit)` for each title, colours to `vmax`, of all or of each; None: the largest."""
    _, axes = panels(columns, height, -(-len(shown) // columns), titles=shown, letters=letters)
    if vmax is None:
        vmax = max(float(values.max()) for values in shown.values())
    for ax, values, end in zip(axes.flat, shown.values(), np.broadcast_to(vmax, len(shown)), strict=True):
        density(ax, values, limit, end, unit)
        plane(ax, limit, labels)


def plane(ax: Axes, limit: float, labels: tuple[str, str] = ("x (m)", "y (m)")) -> None:
    """Equal axes within ± `limit`; the paper draws positions within ± 1.25 m."""
    ax.set(xlabel=labels[0], ylabel=labels[1], xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    ax.locator_params(nbins=3)


def ends(ax: Axes, start: Float[ndarray, "n 2"], end: Float[ndarray, "n 2"]) -> None:
    """Positions at first and at last, with lines between the two."""
    ax.plot(*np.stack((start, end), 1).transpose(2, 1, 0), color="0.75", lw=0.6)
    ax.plot(*start.T, ".", color="0.6", ms=3)
    ax.plot(*end.T, "o", color=COLOURS["quiescent"], ms=4)
    plane(ax, 1.25)


def divergences(ax: Axes, values: Float[ndarray, "rows columns"], rows: list[str], columns: list[str]) -> None:
    """A matrix of divergences in nats, written into its fields, with a colour bar to 10 nats."""
    image = ax.imshow(values, cmap="viridis_r", vmin=0, vmax=10)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(values):
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", color="w" if value > 5 else "k", fontsize=9)
    ax.figure.colorbar(image, ax=ax, label="nats", shrink=0.75)


def boxes(
    ax: Axes, groups: dict[str, Float[ndarray, " n"]], colours: list[str], label: str, floor: float, paper: float
) -> None:
    """Box plots: median, quartiles, and whiskers to the last point within 1.5 times their distance; mean as a dot.

    On a logarithmic axis from `floor`, where what lies below it is drawn; dashed, the end of the paper's axis.
    """
    drawn = ax.boxplot(
        [np.maximum(values, floor) for values in groups.values()],
        tick_labels=list(groups),
        patch_artist=True,
        showmeans=True,
        widths=0.6,
        medianprops={"color": "k"},
        meanprops={"marker": "o", "markerfacecolor": "w", "markeredgecolor": "k", "markersize": 4},
        flierprops={"marker": ".", "markersize": 2, "markeredgecolor": "0.6"},
    )
    for patch, colour in zip(drawn["boxes"], colours, strict=True):
        patch.set(facecolor=colour, alpha=0.6)
    ax.axhline(paper, color="k", lw=0.8, ls="--")
    ax.set(ylabel=label, yscale="log", ylim=(floor / 1.5, None))


def bearings(ax: Axes, angles: Float[ndarray, " n"], phase: str) -> None:
    """Histogram of bearings on polar Axes; the area of a bar is its share, and the circle the uniform density."""
    n_bins = 36
    counts, edges = np.histogram(angles, np.linspace(-np.pi, np.pi, n_bins + 1))
    share = counts / counts.mean()
    ax.bar(edges[:-1], np.sqrt(share), 2 * np.pi / n_bins, align="edge", color=COLOURS[phase], alpha=0.7)
    ax.plot(np.linspace(0, 2 * np.pi, 100), np.ones(100), color="k", lw=0.8)
    ax.set_yticks([])
    ax.set_xticks(np.pi / 2 * np.arange(4), ["0", "π/2", "π", "−π/2"])


def velocities(ax: Axes, turns: Float[ndarray, " n"], phase: str) -> None:
    """Histogram of the angular velocity per step, with a line at 0, and a dashed one at the mean, which is written.

    Turns of decoded bearings are multiples of a third of the spacing of 512 cells. A bin is three spacings wide, with 0
    in the middle of one, so that no turn lies on an edge and every bin holds as many values.
    """
    limit, width = np.pi / 4, 6 * np.pi / 512
    n = int(np.ceil(limit / width - 0.5))
    ax.hist(turns, list(width * (np.arange(-n, n + 2) - 0.5)), density=True, color=COLOURS[phase], alpha=0.7)
    ax.axvline(0, color="k", lw=0.8)
    ax.axvline(turns.mean(), color="k", lw=1, ls="--")
    ax.text(0.03, 0.97, f"mean\n{turns.mean():.4f}", transform=ax.transAxes, va="top", fontsize=8)
    ax.set(xlabel="angular velocity (rad/step)", yticks=[], xlim=(-limit, limit))
