"""What a server sends to devices that bring raw tables, beside the work; importing it is light."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lepton_flwr.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lepton_flwr.data.preprocessing import Preprocessor
    from lepton_flwr.data.table_spec import TableSpec

SCHEMA_FILE = "schema.toml"  # of a device
TABLE, QUESTION, PREPROCESSOR = "table", "question", "preprocessor"
MAX_SPEC = 2**22  # letters


def spec_fields(spec: "TableSpec") -> dict[str, str]:
    """What a message says of the tables that it is for."""
    return {TABLE: json.dumps(spec.to_plain())}


def spec_of(config: Mapping[str, Any]) -> "TableSpec":
    """The tables that a message is for.

    Raises:
        ConfigError: it says nothing, or nothing that makes sense.
    """
    from lepton_flwr.data.table_spec import TableSpec

    text = config.get(TABLE)
    try:
        plain = json.loads(text) if isinstance(text, str) and len(text) <= MAX_SPEC else None
    except (ValueError, RecursionError):
        plain = None
    if not isinstance(plain, dict):
        raise ConfigError(f"{TABLE}: expected what the run's tables hold, as JSON")
    return TableSpec.from_plain(plain)


def preprocessor_of(config: Mapping[str, Any]) -> "Preprocessor":
    """The statistics that a message brings.

    Raises:
        DataError: they are damaged, or none.
    """
    from lepton_flwr.data.preprocessing import Preprocessor

    text = config.get(PREPROCESSOR)
    if not isinstance(text, str):
        raise DataError(f"{PREPROCESSOR}: expected text")
    return Preprocessor.from_json(text)
