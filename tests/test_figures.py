"""Every panel against its picture in `baseline`; `pytest --mpl-generate-path=tests/baseline tests/test_figures.py`
draws them anew."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from reactivation_core import figures

mpl.use("agg")

picture = pytest.mark.mpl_image_compare(style="default", tolerance=1, savefig_kwargs={"dpi": 70})


@pytest.fixture
def walk():
    return np.cumsum(np.random.default_rng(0).normal(scale=0.05, size=(6, 40, 2)), axis=1)


@picture
def test_schematic():
    figure, axes = figures.panels(1, 2.7)
    figures.schematic(axes[0, 0])
    figures.letter(axes[0, 0], "a", "task")
    return figure


def test_a_figure_that_stands_first_is_kept_by_its_name_and_not_shown(monkeypatch):
    kept = []
    monkeypatch.setattr("myst_nb.glue", lambda *given, display: kept.append((*given, display)))
    figure, _ = figures.panels(1, 2)
    figures.stand_first("fig-a", figure)
    assert kept == [("fig-a", figure, False)] and not plt.fignum_exists(figure.number)


def test_panels_with_titles_have_letters():
    _, axes = figures.panels(3, 2, titles=("one", "two"))
    assert [ax.get_title("left") for ax in axes[0]] == [r"$\bf{a}$  one", r"$\bf{b}$  two", ""]
    _, axes = figures.panels(2, 2, titles=("one", "two"), letters="")
    assert [ax.get_title("left") for ax in axes[0]] == ["one", "two"]


@picture
def test_ends():
    figure, axes = figures.panels(1, 3.4)
    start = figures.grid(1.0)[::25, ::25].reshape(-1, 2)
    figures.ends(axes[0, 0], start, 0.5 * start)
    axes[0, 0].plot([], [], label="nothing")
    figures.legend_below(axes[0, 0], 1)
    return figure


@picture
def test_on_curve():
    figure, axes = figures.panels(1, 2.5)
    x, line = np.arange(1.0, 5), np.linspace(0.5, 5)
    values = x**2 * (1 + 0.1 * np.random.default_rng(0).normal(size=(5, 4)))
    figures.on_curve(axes[0, 0], x, values, (line, line**2), label="measured")
    return figure


@picture
def test_training_curve():
    figure, axes = figures.panels(2, 2.5)
    values = np.exp(-np.arange(10) / 3) * np.array([[1.0], [1.2], [0.7]])
    figures.training_curve(axes[0, 0], np.arange(10), values, label="loss")
    figures.training_curve(axes[0, 1], np.arange(10), values, "--")
    return figure


@picture
def test_explained_variance():
    figure, axes = figures.panels(1, 3)
    curve = 1 - np.exp(-np.arange(1, 51) / np.array([[8.0], [9.0], [7.0]]))
    figures.explained_variance(axes[0, 0], {"active": curve, "quiescent": curve**1.3})
    return figure


@picture
def test_trajectories(walk):
    figure, axes = figures.panels(2, 3)
    for ax, phase in zip(axes[0], figures.COLOURS, strict=True):
        figures.trajectories(ax, walk, phase)
    return figure


@picture
def test_trajectories_by_bias(walk):
    figures.trajectories_by_bias({bias: dict.fromkeys(figures.NAMES, walk) for bias in figures.DENSITY})
    return plt.gcf()


@picture
def test_densities_by_bias():
    values = np.exp(-((figures.grid(1.25) - (0.5, 0)) ** 2).sum(-1) * 4)
    figures.densities_by_bias({bias: dict.fromkeys(figures.NAMES, values) for bias in figures.DENSITY})
    return plt.gcf()


def test_densities_without_an_end_share_the_largest_and_trajectories_have_the_box_they_are_given(walk):
    low = np.zeros((100, 100))
    figures.density_panels({"a": low, "b": low + 7}, 2, 2, None, limit=0.5)
    assert [image.get_clim() for ax in plt.gcf().axes for image in ax.images] == [(0, 7), (0, 7)]
    assert [ax.get_xlim() for ax in plt.gcf().axes if ax.images] == [(-0.5, 0.5)] * 2
    figures.trajectory_panels({"a": ("active", walk)}, 1, 2, box=1.1)
    assert plt.gca().patches[0].get_bbox().bounds == pytest.approx((-0.55, -0.55, 1.1, 1.1))
    plt.close("all")


@picture
def test_component_panels(walk):
    points = walk.reshape(-1, 2)
    both = {"active": points, "quiescent": points / 2}
    of = {phase: np.linalg.norm(x, axis=1) for phase, x in both.items()}
    figures.component_panels(both, of, "distance (m)", "viridis", (0, 1), letters="fg")
    return plt.gcf()


@picture
def test_density():
    figure, axes = figures.panels(1, 3)
    values = np.exp(-((figures.grid(1.25) - (0.5, 0)) ** 2).sum(-1) * 4)
    figures.density(axes[0, 0], values, 1.25, 1.0, "per m²")
    figures.plane(axes[0, 0], 1.25)
    return figure


@picture
def test_divergences():
    figure, axes = figures.panels(1, 3)
    values = np.array([[0.05, 0.4, 3.2], [7.5, 11.0, 0.2]])
    figures.divergences(axes[0, 0], values, ["U", "B"], ["Uσ", "Bσ", "Rσ"])
    return figure


@picture
def test_boxes():
    figure, axes = figures.panels(1, 3)
    groups = {str(i): np.random.default_rng(i).gamma(1 + i, size=200) for i in range(3)}
    figures.boxes(axes[0, 0], groups, list(figures.COLOURS.values()) + ["0.5"], "variance (m²)", 0.1, 4.0)
    return figure


@picture
def test_bearings():
    figure, axes = figures.panels(1, 3, polar=True)
    figures.bearings(axes[0, 0], np.random.default_rng(0).vonmises(1.0, 1.0, 5000), "active")
    return figure


@picture
def test_velocities():
    figure, axes = figures.panels(1, 3)
    figures.velocities(axes[0, 0], np.random.default_rng(0).normal(0.1, 0.2, 5000), "quiescent")
    return figure
