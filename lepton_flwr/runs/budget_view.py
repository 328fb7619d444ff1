"""A ledger for people: tables, and epsilon over time against the limit."""

import io
import math
from datetime import datetime
from typing import Any

from rich.table import Table

from lepton_flwr.privacy.accounting import ACCOUNTANT
from lepton_flwr.privacy.events import SampledGaussian, Unit
from lepton_flwr.privacy.ledger import MOST, Ledger, Limit, spent_over_time
from lepton_flwr.runs.plots import BLUE, DASHES, GREEN, MUTED, ORANGE, PURPLE, VERMILION, styled
from lepton_flwr.runs.text import plain, spent

SHOWN = 20  # newest releases in the table


def tables(ledger: Ledger, delta: float, limit: float | None) -> list[Table]:
    """What was spent of each data set, and the newest releases."""
    entries = ledger.history()
    totals = Table(box=None, padding=(0, 2, 1, 0))
    for column in ("hides", "data", "releases", "epsilon", "delta", "left", "that is"):
        totals.add_column(column, no_wrap=True)
    for unit, dataset in scopes(ledger):
        epsilon = ledger.spent(unit, dataset, delta)
        count = sum((c.unit, c.dataset) == (unit, dataset) for e in entries for c in e.charges)
        left = more = ""
        if limit is not None:
            left = plain(max(limit - epsilon, 0.0))
            last = next(
                charge
                for entry in reversed(entries)
                for charge in entry.charges
                if (charge.unit, charge.dataset) == (unit, dataset)
            )
            count_left = ledger.remaining([last], {unit: (Limit(limit, delta),)})
            more = f"{count_left} like the last" if count_left < MOST else f"over {MOST}"
        totals.add_row(
            f"one {unit.value}", dataset[:8], str(count), spent(epsilon), f"{delta:g}", left, more
        )
    newest = Table(
        box=None,
        padding=(0, 2, 0, 0),
        caption=f"epsilon by {ACCOUNTANT}; what is reserved counts as spent",
        caption_justify="left",
    )
    for column in ("no", "time", "for", "released", "state"):
        newest.add_column(column, no_wrap=column in ("no", "time"))
    for entry in entries[-SHOWN:]:
        newest.add_row(
            str(entry.number),
            f"{datetime.fromtimestamp(entry.time).astimezone():%Y-%m-%d %H:%M}",
            entry.run,
            "\n".join(f"{c.unit.value}: {describe(c.event)}" for c in entry.charges),
            "committed" if entry.committed else "reserved",
        )
    return [totals, newest]


def scopes(ledger: Ledger) -> list[tuple[Unit, str]]:
    """The units and data sets that a ledger holds."""
    return list(dict.fromkeys((c.unit, c.dataset) for e in ledger.history() for c in e.charges))


def describe(event: Any) -> str:
    """A release in a few words."""
    if isinstance(event, SampledGaussian):
        sampled = f", q {event.sampling_probability:g}" if event.sampling_probability < 1 else ""
        times = f"{event.steps_per_round} x " if event.steps_per_round > 1 else ""
        return f"{times}Gaussian {event.noise_multiplier:.4g}{sampled}"
    values = ", ".join(f"{name} {value:.4g}" for name, value in vars(event).items())
    return f"{type(event).__name__} {values}".strip()


def draw(ledger: Ledger, delta: float, limit: float | None) -> bytes:
    """Epsilon over time of every data set, as a PNG file; unbounded ones are not drawn."""
    with styled((7.2, 4.0), 160) as figure:
        axes = figure.add_subplot()
        colors = [BLUE, VERMILION, GREEN, ORANGE, PURPLE]
        entries, drawn = ledger.history(), 0
        for number, (unit, dataset) in enumerate(scopes(ledger)):
            points = spent_over_time(entries, unit, dataset, delta)
            known = [(t, e) for t, e in points if math.isfinite(e)]
            if known:
                times = [datetime.fromtimestamp(t).astimezone() for t, _ in known]
                axes.step(
                    times,
                    [e for _, e in known],
                    where="post",
                    marker="o",
                    color=colors[number % len(colors)],
                    label=f"one {unit.value} ({dataset[:8]}): {spent(known[-1][1])}",
                )
                drawn += 1
        if limit is not None:
            axes.axhline(limit, color=MUTED, linestyle=DASHES, label=f"limit {plain(limit)}")
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"epsilon at delta {delta:g}")
        axes.set_title("Privacy spent over time")
        if drawn:
            axes.tick_params(axis="x", labelrotation=20)
        else:
            axes.set_xticks([])
            text = "nothing with a bound was released"
            axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes, color=MUTED)
        if drawn or limit is not None:
            axes.legend(loc="upper left", ncols=2 if drawn > 2 else 1)
            low, high = axes.get_ylim()
            axes.set_ylim(low, high * 1.25)
        png = io.BytesIO()
        figure.savefig(png, format="png")
    return png.getvalue()
