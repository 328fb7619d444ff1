"""A real federation on this machine: one SuperLink, N SuperNodes, TLS, node authentication."""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.identity import ROSTER_FILE
from lepton_flwr.device import FOLDER_KEY, PARTITION_KEY
from lepton_flwr.errors import FederationError
from lepton_flwr.provision import provision
from simulations.loopback import Federation, NodeConfig, environment
from simulations.processes import Processes, termination_as_exit


def up(
    config: RunConfig,
    nodes: int,
    out: Path | None = None,
    debug: bool = False,
    console: TextIO | None = None,
    *,
    ledgers: Path | None = None,
    app: Callable[[Path], Path] | None = None,
    run_config: Mapping[str, Any] | None = None,
) -> Path:
    """Run a scenario on a real federation on this machine.

    Args:
        config: the run; its scenario's data becomes one device folder for each node.
        nodes: number of SuperNodes.
        out: folder that holds the runs; None is `runs`.
        debug: let Flower log everything.
        console: where the log goes; None is standard output.
        ledgers: folder of the ledgers of server and devices; None is within the run's folder.
        app: makes the app's folder in an existing one; None is `simulations.app_bundle.assemble`.
        run_config: what that app's configuration needs beside.

    Returns:
        The run's folder, with the output of every process in `logs`.

    Raises:
        FederationError: a process could not be started or ended early, or the run failed.
        ConfigError: the configuration does not fit the scenario or the number of nodes.
        OutputError: the run's folder cannot be made.
    """
    import tomli_w

    from lepton_flwr.runs.folder import new_folder
    from simulations.app_bundle import assemble
    from strategies.preparation import DEVICES, prepare, spending_policy
    from strategies.server_app import LEDGERS

    run_folder = new_folder(out, config.scenario).resolve()
    kept = (ledgers or run_folder / LEDGERS).resolve()
    made = prepare(replace(config, clients=nodes), run_folder, kept)
    config, data = made.config, made.data
    if len(data.clients) != nodes:
        with contextlib.suppress(OSError):  # empty, unless statistics were charged
            run_folder.rmdir()
        raise FederationError(
            f"scenario {config.scenario} has {len(data.clients)} clients: expected {nodes}, "
            "one for each node"
        )
    with tempfile.TemporaryDirectory(prefix="lepton-") as name:
        temporary = Path(name).resolve()
        devices = provision(
            temporary / "devices",
            data.clients,
            min_survivors=config.secagg.min_survivors,
            spending=spending_policy(config),
            ledgers=kept / DEVICES,
        )
        config_file = temporary / "config.toml"
        config_file.write_text(tomli_w.dumps(config.to_dict()), encoding="utf-8")
        launch(
            (app or assemble)(temporary),
            [
                {FOLDER_KEY: str(folder), PARTITION_KEY: number, "num-partitions": nodes}
                for number, folder in enumerate(devices)
            ],
            {
                "scenario": config.scenario,
                "rounds": config.rounds,
                "config-file": str(config_file),
                "out": str(run_folder),
                "ledger": str(ledgers.resolve()) if ledgers is not None else "",
                "roster": str(devices[0] / ROSTER_FILE),
                "simulated": False,
                "population": data.population.hex(),
                **(run_config or {}),
            },
            run_folder / "logs",
            debug=debug,
            console=console,
        )
    return run_folder


def launch(
    app: Path,
    node_configs: Sequence[NodeConfig],
    run_config: Mapping[str, Any],
    logs: Path,
    *,
    debug: bool = False,
    console: TextIO | None = None,
) -> None:
    """Run any Flower app on a federation that exists only for it.

    Every process, and every process that those start, has ended when this returns or raises,
    Ctrl-C and SIGTERM included.

    Args:
        app: the folder of a Flower app.
        node_configs: the node configuration of each SuperNode.
        run_config: what overrides the app's own configuration; flat.
        logs: folder for the output of every process; made if missing.
        debug: let Flower log everything.
        console: where the app's log goes; None is standard output.

    Raises:
        FederationError: a process could not be started or ended early, or the run failed.
    """
    console = sys.stdout if console is None else console
    logs.mkdir(parents=True, exist_ok=True)
    with (
        termination_as_exit(),
        tempfile.TemporaryDirectory(prefix="lepton-federation-") as folder,
        Processes(logs, environment(debug)) as processes,
    ):
        federation = Federation(processes, Path(folder))
        print("starting the SuperLink", file=console, flush=True)
        federation.start_superlink()
        print(f"registering {len(node_configs)} nodes", file=console, flush=True)
        federation.register(range(len(node_configs)))
        for number, node_config in enumerate(node_configs):
            federation.start_node(number, node_config)
        federation.wait_for_nodes()
        print(f"{len(node_configs)} nodes have joined", file=console, flush=True)
        federation.run(app, run_config, console)
