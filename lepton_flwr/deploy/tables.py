"""What devices' raw tables hold, as the server's folder or a file says it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lepton_flwr.config import RunConfig
from lepton_flwr.config_tables import parse_assignments, read_toml
from lepton_flwr.data.table_spec import TableSpec
from lepton_flwr.data.wire import SCHEMA_FILE
from lepton_flwr.errors import ConfigError

SCENARIO = "csv"  # whose model and training runs on raw tables begin with


def schema_of(
    folder: Path,
    named: Path | None,
    scenario: str | None,
    config: Path | None,
    assignments: Sequence[str] = (),
) -> TableSpec | None:
    """What the tables hold; None where the devices bring features.

    Args:
        folder: the server's.
        named: a file that says it.
        scenario: the scenario that was asked for.
        config: a file of settings; it may name scenario and table itself.
        assignments: texts such as `scenario=health`, which may as well, and come before both.

    Raises:
        ConfigError: the file cannot be read, or another scenario was asked for as well.
    """
    file = read_toml(config) if config is not None else {}
    assigned = parse_assignments(assignments)
    wanted = assigned.get("scenario") or scenario or file.get("scenario")
    if named is not None:
        if wanted not in (None, SCENARIO):
            raise ConfigError(f"--schema with scenario {wanted}: expected one of them")
        for place, settings in ((f"[table] in {config}", file), ("--set table", assigned)):
            if "table" in settings:
                raise ConfigError(f"--schema and {place}: expected one of them")
        return TableSpec.read(named)
    path = folder / SCHEMA_FILE
    told = _tells(file) or _tells(assigned)
    if wanted not in (None, SCENARIO) or told or not path.exists():
        return None
    return TableSpec.read(path)


def _tells(settings: Mapping[str, Any]) -> bool:
    """Whether settings say themselves what is trained on."""
    return "table" in settings or bool(settings.get("model") or _path(settings.get("data")))


def _path(data: Any) -> Any:
    return data.get("path") if isinstance(data, Mapping) else None


def with_table(config: RunConfig, spec: TableSpec) -> RunConfig:
    """A run on the devices' raw tables."""
    return replace(config, scenario=SCENARIO, table=spec.config)
