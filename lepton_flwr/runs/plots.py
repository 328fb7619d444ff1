"""The pictures of a run, readable at 800 pixels, in colours that the colour-blind can tell apart.

Figures are drawn without pyplot: no window, no global state, any thread.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lepton_flwr.runs.history import History, number
from lepton_flwr.runs.observer import RoundRecord
from lepton_flwr.runs.text import decimal, plain, size, spent

# Okabe and Ito's palette; the lightest, yellow, is left out.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7",
)  # fmt: skip
INK, MUTED, GRID, SHADE = "#1f2933", "#66737f", "#e4e8ec", "#eef0f2"
PHASE_COLORS = {
    "keys": PURPLE,
    "shares": ORANGE,
    "train": BLUE,
    "attest": VERMILION,
    "reveal": SKY,
    "aggregate": GREEN,
    "evaluate": "#9aa5b1",
}
_FAILURE_COLORS = (
    BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, MUTED, "#9aa5b1", "#7f5a00", INK,
)  # fmt: skip
DASHES = (0, (4, 3))
MANY_ROUNDS = 40

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#b8c1ca",
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "lines.markersize": 4.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.3,
    "legend.columnspacing": 1.3,
    "legend.borderaxespad": 0.2,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

Panel = Callable[[Any, History], None]


def draw(history: History) -> dict[str, bytes]:
    """Draw every picture of a run.

    Returns:
        PNG files by name (`metric`, `epsilon`, `loss`, `bytes`, `seconds`, `roc` where it is
        known, `failures` where there were some, and `overview` with four of them); empty for a run
        without a round.
    """
    if not history.records:
        return {}
    panels: dict[str, Panel] = {
        "metric": _metric,
        "epsilon": _epsilon,
        "loss": _loss,
        "bytes": _bytes,
        "seconds": _seconds,
    }
    if history.end.roc:
        panels["roc"] = _roc
    if history.failures:
        panels["failures"] = _failures
    pictures = {name: _png(history, [panel], (6.4, 3.6), 200) for name, panel in panels.items()}
    four = [_metric, _epsilon, _seconds, _bytes]
    return pictures | {"overview": _png(history, four, (10.0, 6.6), 160)}


def _png(history: History, panels: Sequence[Panel], inches: tuple[float, float], dpi: int) -> bytes:
    with styled(inches, dpi) as figure:
        side = 1 if len(panels) == 1 else 2
        for position, panel in enumerate(panels, start=1):
            panel(figure.add_subplot(side, side, position), history)
        png = io.BytesIO()
        figure.savefig(png, format="png")
    return png.getvalue()


@contextmanager
def styled(inches: tuple[float, float], dpi: int) -> Iterator[Any]:
    """An empty figure in the style of all pictures; draw and save it within."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with mpl.rc_context(_STYLE):
        figure = Figure(
            figsize=inches, dpi=dpi, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
        )
        FigureCanvasAgg(figure)
        yield figure


def _metric(axes: Any, history: History) -> None:
    drawn = [
        _line(axes, history, "auc", BLUE, f"AUC {decimal(history.last('auc'))}", marker="o"),
        _line(
            axes, history, "accuracy", VERMILION,
            f"accuracy {decimal(history.last('accuracy'))}", marker="s",
        ),
    ]  # fmt: skip
    if any(drawn):
        low, high = axes.get_ylim()
        axes.set_ylim(max(0.0, low - 0.02), min(1.01, high + 0.02))
    _finish(axes, history, "Accuracy and AUC on held-out rows", known=any(drawn))


def _loss(axes: Any, history: History) -> None:
    label = f"mean loss {decimal(history.last('loss'))}"
    known = _line(axes, history, "loss", BLUE, label, marker="o")
    _finish(axes, history, "Loss on held-out rows", known=known)


def _epsilon(axes: Any, history: History) -> None:
    known = False
    levels = (("record", BLUE, "o"), ("client", VERMILION, "s"))
    for (level, color, marker), limit in zip(levels, history.epsilon_limits, strict=True):
        column = f"epsilon_{level}"
        label = f"{level} {spent(history.last(column))}"
        if limit is not None:
            label += f" of {plain(limit)}"
        if _line(axes, history, column, color, label, marker=marker):
            known = True
            if limit is not None:
                axes.axhline(limit, color=color, linewidth=1.2, linestyle=DASHES)
    if known:
        axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
        if any(limit is not None for limit in history.epsilon_limits):
            axes.plot([], [], color=MUTED, linewidth=1.2, linestyle=DASHES, label="limit")
    off = history.epsilon_limits == (None, None)
    title = "Privacy spent (epsilon)"
    _finish(axes, history, title, known=known, unknown="no differential privacy" if off else "")


def _bytes(axes: Any, history: History) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    rounds = [record.round for record in history.records]
    width = _bar_width(len(rounds)) / 2
    for way, color, side in (("up", BLUE, -0.5), ("down", ORANGE, 0.5)):
        values = [getattr(record, f"bytes_{way}") for record in history.records]
        label = f"{way}, {size(sum(values))} in all"
        if len(rounds) <= MANY_ROUNDS:
            places = [r + side * width for r in rounds]
            axes.bar(places, values, width=width, color=color, label=label)
        else:
            axes.plot(rounds, values, color=color, label=label)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value) if value else "0"))
    _finish(axes, history, "Bytes per client and round")


def _seconds(axes: Any, history: History) -> None:
    rounds = [record.round for record in history.records]
    phases = history.phases
    values = [[r.seconds.get(phase, 0.0) for r in history.records] for phase in phases]
    colors = [PHASE_COLORS.get(phase, INK) for phase in phases]
    if len(rounds) > MANY_ROUNDS and phases:
        axes.stackplot(rounds, values, colors=colors, labels=phases, linewidth=0)
    else:
        base = [0.0] * len(rounds)
        width = _bar_width(len(rounds))
        for phase, row, color in zip(phases, values, colors, strict=True):
            axes.bar(rounds, row, width=width, bottom=base, color=color, label=phase)
            base = [below + value for below, value in zip(base, row, strict=True)]
    _finish(axes, history, "Seconds per round, by phase", known=bool(phases))


def _failures(axes: Any, history: History) -> None:
    from matplotlib.ticker import MaxNLocator

    rounds = [record.round for record in history.records]
    base, width = [0] * len(rounds), _bar_width(len(rounds))
    for failure, color in zip(history.failures, _FAILURE_COLORS, strict=False):
        row = [record.failures.get(failure, 0) for record in history.records]
        label = f"{failure.words} {sum(row)}"
        axes.bar(rounds, row, width=width, bottom=base, color=color, label=label)
        base = [below + value for below, value in zip(base, row, strict=True)]
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, history, "Clients lost per round, by class")


def _bar_width(num_rounds: int) -> float:
    return 0.8 * min(1.0, num_rounds / 4)


def _roc(axes: Any, history: History) -> None:
    false_positive, true_positive = zip(*(history.end.roc or [(0.0, 0.0)]), strict=True)
    axes.plot([0, 1], [0, 1], color="#b8c1ca", linewidth=1.2, linestyle=DASHES)
    axes.plot(false_positive, true_positive, color=BLUE)
    axes.fill_between(false_positive, true_positive, color=BLUE, alpha=0.08, linewidth=0)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_title(f"ROC curve, AUC {decimal(history.last('auc'))}", pad=10)


def _line(axes: Any, history: History, column: str, color: str, label: str, *, marker: str) -> bool:
    """Draw the known values of a column; False if there are none."""
    points = [(r.round, _value(r, column)) for r in history.records]
    known = [(x, y) for x, y in points if y is not None]
    if not known:
        return False
    few = len(known) <= MANY_ROUNDS
    axes.plot(*zip(*known, strict=True), color=color, label=label, marker=marker if few else "")
    return True


def _value(record: RoundRecord, column: str) -> float | None:
    return number(getattr(record, column))


def _finish(
    axes: Any, history: History, title: str, *, known: bool = True, unknown: str = ""
) -> None:
    """Add what the pictures over rounds share: title, legend, round axis, skipped rounds."""
    from matplotlib.ticker import MaxNLocator

    first, last = history.records[0].round, history.records[-1].round
    margin = max(0.6, 0.012 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.set_xlabel("round")
    if not known:
        axes.text(0.5, 0.5, unknown or "not measured", transform=axes.transAxes, ha="center",
                  va="center", color=MUTED, fontsize=11)  # fmt: skip
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_title(title, pad=10)
        return
    handles, labels = axes.get_legend_handles_labels()
    bands = [
        axes.axvspan(skipped - 0.5, skipped + 0.5, color=SHADE, linewidth=0, zorder=0)
        for skipped in history.skipped
    ]
    if bands:
        handles, labels = [*handles, bands[0]], [*labels, "skipped"]
    columns = 4
    legend = axes.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns
    )
    legend.set_in_layout(False)
    axes.set_title(title, pad=10 + 15 * -(-len(labels) // columns))
