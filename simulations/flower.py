"""Flower's commands on a SuperLink: running an app to its end."""

import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from lepton_flwr.errors import FederationError
from simulations.processes import Processes

_COMPLETED = "finished:completed"
_POLL_SECONDS = 0.1


class Flower:
    """Runs Flower's commands.

    Args:
        processes: where to start them.
        home: Flower's folder, whose `config.toml` holds the connection.
        connection: of the SuperLink.
    """

    def __init__(self, processes: Processes, home: Path, connection: str) -> None:
        self._processes = processes
        self._home = home
        self._connection = connection

    def run(
        self,
        app: Path,
        run_config: Mapping[str, Any],
        console: TextIO,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        """Run an app to its end and copy its log to `console`.

        Args:
            app: the folder of a Flower app.
            run_config: what overrides the app's own configuration; flat.
            console: where the app's log goes.
            watch: called while it runs; what it raises ends the wait.

        Raises:
            FederationError: the app fails or is stopped, or the SuperLink does not answer.
        """
        import tomli_w

        name = "run"
        with tempfile.TemporaryDirectory(prefix="lepton-run-") as folder:
            overrides = Path(folder) / "run-config.toml"
            overrides.write_text(tomli_w.dumps(dict(run_config)), encoding="utf-8")
            self._start(
                name, "run", str(app), self._connection, "--stream", "--run-config", str(overrides)
            )
            with self._processes.log(name).open(encoding="utf-8", errors="replace") as log:
                while True:
                    ended = self._processes.ended(name)  # before reading: nothing is missed
                    _copy(log, console)
                    if ended:
                        break
                    watch()
                    time.sleep(_POLL_SECONDS)
        self._processes.finish(name)
        self._check_completed()

    def stop(self) -> None:
        """Stop the run that `run` has started, if it did; the SuperLink would go on with it.

        Raises:
            FederationError: the SuperLink does not answer, or the run has ended.
        """
        if (run_id := self._run_id()) is not None:
            self._start("stop", "stop", run_id, self._connection)
            self._processes.finish("stop")

    def _run_id(self) -> str | None:
        try:
            found = re.search(r"Successfully started run (\d+)", self._processes.output("run"))
        except OSError:  # it has printed nothing yet
            return None
        return found[1] if found else None

    def _check_completed(self) -> None:
        run_id = self._run_id()
        if run_id is None:
            raise self._processes.failure("run")
        self._start("status", "ls", self._connection, "--run-id", run_id, "--format", "json")
        text = self._processes.finish("status")
        try:
            run = json.loads(text[text.index("{") :])["runs"][0]
            status, details = run["status"], run["status-details"]
        except (ValueError, KeyError, IndexError):
            raise FederationError(f"cannot tell how the run ended: {text.strip()!r}") from None
        if status != _COMPLETED:
            reason = " ".join(str(details or "").split())
            raise FederationError(
                f"the run ended as {status}{f' ({reason})' if reason else ''}, expected "
                f"{_COMPLETED}: see {self._processes.log('run')}"
            )

    def _start(self, name: str, *arguments: str) -> None:
        self._processes.start(name, ["flwr", *arguments], {"FLWR_HOME": str(self._home)})


def _copy(source: TextIO, target: TextIO) -> None:
    while text := source.read(1 << 16):
        target.write(text)
        target.flush()
