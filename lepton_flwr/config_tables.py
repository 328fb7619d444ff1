"""From tables, files and the command line to dataclasses of settings, and back."""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lepton_flwr.errors import ConfigError


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: it cannot be read or is not TOML; the message names the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Turn `dp.record.epsilon=2` texts into a nested table; values are TOML, or else text.

    Raises:
        ConfigError: no `=`, or an empty key.
    """
    table: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not all(key.strip().split(".")):
            raise ConfigError(f"--set {text!r}: expected key=value, as in dp.record.epsilon=2")
        try:
            parsed = tomllib.loads(f"value = {value.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value.strip()
        merge(table, nest({key.strip(): parsed}))
    return table


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys (Flower's run config) into nested tables."""
    table: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.replace("-", "_").split(".")
        inner = table
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{key}: {parent} is a value and a table at once")
        inner[last] = value
    return table


def merge(into: dict[str, Any], table: Mapping[str, Any]) -> None:
    """Lay a nested table over another one, key by key."""
    for key, value in table.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        elif isinstance(value, Mapping):
            into[key] = {}
            merge(into[key], value)
        else:
            into[key] = value


def build(cls: type, table: Mapping[str, Any], prefix: str) -> object:
    """Build a dataclass of dataclasses from nested tables.

    Args:
        cls: the dataclass.
        table: its fields' values.
        prefix: what stands before a key in errors, as `dp.record.`.

    Raises:
        ConfigError: an unknown key (with the nearest known one), or a wrong type.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {prefix}{near[0]}?" if near else "known: " + ", ".join(fields)
            raise ConfigError(f"unknown setting {prefix}{key}: {hint}")
        values[key] = _convert(hints[key], value, prefix + key)
    required = [f.name for f in fields.values() if not _has_default(f)]
    if missing := [name for name in required if name not in values]:
        raise ConfigError(f"{prefix}{missing[0]}: expected it")
    return cls(**values)


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _convert(hint: Any, value: Any, name: str) -> Any:
    for kind in _alternatives(hint):
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{name}={value!r}: expected a table, as in {name}.key=value")
            return build(typing.cast(type, kind), value, name + ".")
    kinds = [typing.get_origin(kind) or kind for kind in _alternatives(hint)]
    if float in kinds and type(value) is int:
        return float(value)
    if tuple in kinds and isinstance(value, list):
        return tuple(value)
    for kind in kinds:
        if isinstance(value, kind) and (kind is bool) == isinstance(value, bool):
            return value
    wanted = " or ".join(kind.__name__ for kind in kinds if kind is not types.NoneType)
    raise ConfigError(f"{name}={value!r}: expected {wanted}")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def plain(value: Any) -> Any:
    """Nested dataclasses as tables of what TOML can hold, without unset values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {key: plain(item) for key, item in items if item is not None}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value
