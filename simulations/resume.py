"""Starts the app on a SuperLink again, to go on with a run."""

import contextlib
import subprocess
import tempfile
from pathlib import Path

from lepton_flwr.errors import ConfigError, FederationError
from lepton_flwr.runs.checkpoint import Checkpoints
from simulations.app_bundle import assemble
from simulations.loopback import environment
from strategies.server_app import RESUME, ROSTER, SIMULATED


def start_again(run: Path, connection: str = "", roster: Path | None = None) -> None:
    """Run the app to its end on the SuperLink of a Flower connection.

    The checkpoint is checked before anything is started, and by the server again.

    Args:
        run: the run's folder; the SuperLink's machine must have it at the same place.
        connection: of Flower's `config.toml`; empty is its default.
        roster: the authority's certificate; None is where it was when the run began.

    Raises:
        CheckpointError: the run cannot go on.
        ConfigError: it ran on simulated devices.
        FederationError: Flower could not start or finish it.
    """
    with contextlib.closing(Checkpoints.reopen(run)) as checkpoints:
        if ROSTER not in checkpoints.settings:
            raise ConfigError(
                f"{run}: a run of simulated devices: go on with `lepton simulate --resume`"
            )
    values: dict[str, object] = {SIMULATED: False, RESUME: str(run.resolve())}
    if roster is not None:
        values[ROSTER] = str(roster.resolve())
    with tempfile.TemporaryDirectory(prefix="lepton-resume-") as name:
        import tomli_w

        temporary = Path(name).resolve()
        overrides = temporary / "run-config.toml"
        overrides.write_text(tomli_w.dumps(values), encoding="utf-8")
        where = [connection] if connection else []
        try:
            done = subprocess.run(
                ["flwr", "run", str(assemble(temporary)), *where, "--stream",
                 "--run-config", str(overrides)],
                env=environment(),
                check=False,
            )  # fmt: skip
        except OSError as error:
            raise FederationError(f"cannot start flwr: {error.strerror}") from None
    if done.returncode:
        raise FederationError(
            f"flwr run ended with code {done.returncode}: expected a SuperLink that answers and "
            "whose run finishes; see its output"
        )
