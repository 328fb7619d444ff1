"""What devices' raw tables hold, as the server's folder or a file says it."""

from dataclasses import replace
from pathlib import Path

from lepton_flwr.config import RunConfig
from lepton_flwr.config_tables import read_toml
from lepton_flwr.data.table_spec import TableSpec
from lepton_flwr.data.wire import SCHEMA_FILE
from lepton_flwr.errors import ConfigError

SCENARIO = "csv"  # whose model and training runs on raw tables begin with


def schema_of(
    folder: Path, named: Path | None, scenario: str | None, config: Path | None
) -> TableSpec | None:
    """What the tables hold; None where the devices bring features.

    Args:
        folder: the server's.
        named: a file that says it.
        scenario: the scenario that was asked for.
        config: a file of settings; it may name scenario and table itself.

    Raises:
        ConfigError: the file cannot be read, or another scenario was asked for as well.
    """
    file = read_toml(config) if config is not None else {}
    wanted = scenario or file.get("scenario")
    if named is not None:
        if wanted not in (None, SCENARIO):
            raise ConfigError(f"--schema with scenario {wanted}: expected one of them")
        if "table" in file:
            raise ConfigError(f"--schema and [table] in {config}: expected one of them")
        return TableSpec.read(named)
    path = folder / SCHEMA_FILE
    features = "table" in file or file.get("model") or file.get("data", {}).get("path")
    if wanted not in (None, SCENARIO) or features or not path.exists():
        return None
    return TableSpec.read(path)


def with_table(config: RunConfig, spec: TableSpec) -> RunConfig:
    """A run on the devices' raw tables."""
    return replace(config, scenario=SCENARIO, table=spec.config)
