"""What a run leaves behind: one folder, complete after every round."""

import csv
import io
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from lepton_flwr._files import output_errors, write_atomic
from lepton_flwr.config import RunConfig
from lepton_flwr.runs import events, plots, report
from lepton_flwr.runs.artifacts import has_model, recipients_of, write_model
from lepton_flwr.runs.average import SecondHalf
from lepton_flwr.runs.checkpoint import Checkpoint
from lepton_flwr.runs.history import History, rows
from lepton_flwr.runs.observer import RoundRecord, RunEnd, RunStart

SaveModel = Callable[[Sequence[np.ndarray], Path], None]


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C during a run whose finished rounds are in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder


class RunFolder:
    """Writes `config.toml`, `metrics.csv`, `model.keras`, `summary.json`, plots and report.

    Every file is replaced as a whole, `metrics.csv` and `model.keras` after each round: a run that
    is killed, or whose disk fills, leaves the rounds it finished. If the configuration names
    recipients, `model.keras.lepton` takes the place of `model.keras`: an envelope for them.

    Args:
        config: the resolved configuration; `lepton simulate --config` repeats the run from it.
        out: folder that holds the runs; None is `runs`.
        folder: a folder that `new_folder` made, instead of a new one below `out`.
        resumed: the checkpoint from which the run in `folder` goes on; its files stay.
        save_model: writes weights (float arrays in the model's order) as a `.keras` file.

    Attributes:
        path: the folder, `<time>-<scenario>`, not there before.

    Raises:
        OutputError: the folder cannot be made or written; nothing is left of it.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        save_model: SaveModel,
        out: Path | None = None,
        folder: Path | None = None,
        resumed: Checkpoint | None = None,
    ) -> None:
        self._recipients = recipients_of(config)
        self.path = folder or new_folder(out, config.scenario)
        self._save_model = save_model
        self._resumed = resumed
        self._start: RunStart | None = None
        self._average = SecondHalf(config.rounds) if config.train.average else None
        self._records: list[RoundRecord] = list(resumed.records) if resumed else []
        self._began = time.monotonic() - (resumed.seconds if resumed else 0.0)
        if resumed:
            return
        try:
            self._write_config(config)
        except BaseException:
            self.discard_unused()
            raise

    def run_started(self, start: RunStart) -> None:
        """Write the configuration as the server resolved it; bring a resumed run's files in line.

        A server that was ended may have left a row or a model more, or less, than its checkpoint.
        """
        self._start = start
        if self._resumed is None:
            self._write_config(start.config)
        elif self._records:
            self._write_metrics(self._records)
            self._write_model(self._resumed.weights)

    def waiting(
        self, round: int, phase: str, done: int, total: int, nodes: Sequence[str] = ()
    ) -> None:
        """Progress within a round leaves nothing behind."""

    def noted(self, round: int, event: str, values: Mapping[str, Any]) -> None:
        """As `waiting`."""

    def round_finished(self, record: RoundRecord, weights: Sequence[np.ndarray]) -> None:
        """Add a row to `metrics.csv` and replace the model.

        Raises:
            OutputError: no space, or no permission; the former files are intact.
        """
        self._write_metrics([*self._records, record])
        self._records.append(record)
        if self._average is not None:
            self._average.add(record, weights)
            weights = self._average.mean() if self._average.learnt else weights
        if record.status == "ok" or not has_model(self.path):
            self._write_model(weights)

    def run_ended(self, end: RunEnd) -> None:
        """Write the summary, the plots, the report and TensorBoard's events.

        A run that ended before it started leaves no folder.

        Raises:
            OutputError: no space, or no permission.
        """
        if self._start is None:
            self.discard_unused()
            return
        seconds = time.monotonic() - self._began
        history = History(self._start, tuple(self._records), end, seconds)
        summary = json.dumps(history.summary(), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomic(self.path / "summary.json", f"{summary}\n".encode())
        pictures = plots.draw(history)
        with output_errors(self.path / "plots"):
            (self.path / "plots").mkdir(exist_ok=True)
        for name, png in pictures.items():
            write_atomic(self.path / "plots" / f"{name}.png", png)
        html = report.render(history, pictures, self._config_text(self._start.config))
        write_atomic(self.path / "report.html", html.encode())
        events.write(self.path / "events", self._records)

    def _write_metrics(self, records: Sequence[RoundRecord]) -> None:
        columns, table = rows(records)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        write_atomic(self.path / "metrics.csv", text.getvalue().encode())

    def _write_model(self, weights: Sequence[np.ndarray]) -> None:
        write_model(self.path, lambda path: self._save_model(weights, path), self._recipients)

    def _write_config(self, config: RunConfig) -> None:
        write_atomic(self.path / "config.toml", self._config_text(config).encode())

    @staticmethod
    def _config_text(config: RunConfig) -> str:
        return tomli_w.dumps(config.to_dict())

    def discard_unused(self) -> None:
        """Remove what the constructor made, if no run started; another's file stays."""
        if self._start is not None or self._resumed is not None:
            return
        (self.path / "config.toml").unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()


def new_folder(out: Path | None, scenario: str) -> Path:
    """Make the folder of a run, `<time>-<scenario>`, below `out` (None is `runs`).

    Raises:
        OutputError: it cannot be made.
    """
    out = Path("runs") if out is None else out
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", scenario).strip("-") or "run"
    stem = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{name}"
    attempt = 1
    while True:
        path = out / (stem if attempt == 1 else f"{stem}-{attempt}")
        with output_errors(path):
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:
                if not os.path.lexists(path):  # something else is in the way, as a dead link
                    raise
                attempt += 1
