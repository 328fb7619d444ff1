"""A run as one HTML page that needs nothing else: no script, no font, no address."""

import base64
from collections.abc import Mapping
from typing import Any

from lepton_flwr.failures import Failure
from lepton_flwr.runs.history import History
from lepton_flwr.runs.observer import RoundRecord
from lepton_flwr.runs.report_template import REPORT
from lepton_flwr.runs.text import UNKNOWN, decimal, duration, one_line, plain, size, spent

_CAPTIONS = {
    "metric": "Accuracy and area under the ROC curve on the held-out rows of all clients together.",
    "epsilon": "Privacy spent so far, with the limit of the run as a dashed line.",
    "loss": "Mean loss on the held-out rows of all clients together.",
    "roc": "ROC curve of the last evaluation.",
    "bytes": "What one client sends and receives in a round, mean over the participants.",
    "seconds": "Where the time of a round goes.",
    "failures": "Clients that the secure sums of a round lost, by class of failure.",
}
_FILES = {
    "events.jsonl": "what happened, an event a line; <code>lepton watch</code> shows it",
    "metrics.csv": "a row per round",
    "summary.json": "the run in plain values",
    "config.toml": "the configuration",
    "events": "TensorBoard events",
    "plots": "the pictures",
}
_STATUS = {
    "finished": "finished",
    "interrupted": "was interrupted",
    "failed": "failed",
    "budget": "was stopped by its privacy budget",
}


def render(history: History, pictures: Mapping[str, bytes], config_text: str) -> str:
    """Render the page; every text is escaped.

    Args:
        history: the run.
        pictures: PNG files by name, as `lepton_flwr.runs.plots.draw` returns them.
        config_text: the configuration as TOML.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"report.html": REPORT}),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    images = [
        (name, caption, base64.b64encode(pictures[name]).decode("ascii"))
        for name, caption in _CAPTIONS.items()
        if name in pictures
    ]
    return environment.get_template("report.html").render(
        scenario=history.start.config.scenario,
        title=history.start.scenario_title,
        status=history.end.reason,
        story=story(history),
        tiles=_tiles(history),
        guarantee=history.start.guarantee,
        images=images,
        rounds=[_row(record) for record in history.records],
        failures=[
            (failure.words, failure.value, count, _last_lost(history, failure))
            for failure, count in history.failures.items()
        ],
        files=_FILES,
        config=config_text,
    )


def story(history: History) -> str:
    """What happened, in one paragraph."""
    start, done, planned = history.start, len(history.records), history.start.config.rounds
    told = [
        f"{start.clients} clients trained one model of {start.num_parameters:,} weights together; "
        f"the run {_STATUS.get(history.end.reason, history.end.reason)} after {done} of {planned} "
        f"{'round' if planned == 1 else 'rounds'} and {duration(history.seconds)}."
    ]
    skipped = history.skipped
    if skipped:
        numbers = ", ".join(map(str, skipped))
        told.append(
            f"{'Round' if len(skipped) == 1 else 'Rounds'} {numbers} released no sum: the model "
            "stayed as it was."
        )
    reached = [
        f"{name} {decimal(value)}"
        for name, column in (("AUC", "auc"), ("accuracy", "accuracy"))
        if (value := history.last(column)) is not None
    ]
    if reached:
        told.append(f"On held-out rows the model reaches {' and '.join(reached)}.")
    budget = [
        f"epsilon {spent(value)} per {level}"
        for level in ("record", "client")
        if (value := history.last(f"epsilon_{level}")) is not None
    ]
    if budget:
        told.append(
            f"The released models cost {' and '.join(budget)} at delta {history.end.delta:g}."
        )
    elif start.private_inputs:
        told.append("The rows were made private before training; what is promised says how.")
    elif history.epsilon_limits == (None, None):
        told.append(
            "Differential privacy was off: secure aggregation alone does not bound what the model "
            "tells about one record or one client."
        )
    return " ".join(told)


def _tiles(history: History) -> list[tuple[str, str, str]]:
    """Label, value and footnote of each tile."""
    summary = history.summary()
    limits = history.epsilon_limits
    survivors = summary["survivors_min"]
    notes = [
        "" if limit is None else f"of {plain(limit)}, delta {history.end.delta:g}"
        for limit in limits
    ]
    tiles = [
        ("AUC", decimal(summary["auc"]), "held-out rows"),
        ("Accuracy", decimal(summary["accuracy"]), "held-out rows"),
        ("Loss", decimal(summary["loss"]), "held-out rows"),
        ("Epsilon per record", spent(summary["epsilon_record"]), notes[0] or "off"),
        ("Epsilon per client", spent(summary["epsilon_client"]), notes[1] or "off"),
        (
            "Fewest in a sum",
            UNKNOWN if survivors is None else str(survivors),
            f"of {summary['clients']} clients",
        ),
        ("Rounds", str(summary["rounds"]), _skipped_note(history)),
        ("Sent per client", size(summary["bytes_up_per_client"]), "whole run"),
        ("Received per client", size(summary["bytes_down_per_client"]), "whole run"),
        ("Time", duration(summary["seconds"]), "wall clock"),
    ]
    if summary["saturated"]:
        tiles.append(("Saturated", f"{summary['saturated']:,}", "coordinates cut to the bound"))
    return tiles


def _last_lost(history: History, failure: Failure) -> int:
    """The newest round that lost a client to a failure."""
    return max(record.round for record in history.records if record.failures.get(failure))


def _skipped_note(history: History) -> str:
    planned = f"of {history.start.config.rounds}"
    return f"{planned}, {len(history.skipped)} skipped" if history.skipped else planned


def _row(record: RoundRecord) -> dict[str, Any]:
    return {
        "skipped": record.status != "ok",
        "reason": one_line(record.reason) or record.status,
        "cells": [
            str(record.round),
            decimal(record.auc),
            decimal(record.accuracy),
            decimal(record.loss),
            spent(record.epsilon_record),
            spent(record.epsilon_client),
            f"{record.survivors} of {record.participants}",
            str(sum(record.failures.values())),
            size(record.bytes_up),
            size(record.bytes_down),
            duration(sum(record.seconds.values())),
        ],
    }
