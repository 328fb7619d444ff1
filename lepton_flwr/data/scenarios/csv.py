"""A user's own table, of numbers and categories."""

import csv
import dataclasses
import difflib
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.data.assemble import assemble
from lepton_flwr.data.csv_rows import column_names
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.preprocessing.columns import CATEGORY, Column, TableSchema
from lepton_flwr.data.preprocessing.fit import by_bounds
from lepton_flwr.data.scenario import Scenario
from lepton_flwr.data.tables import FederatedTables, assemble_tables
from lepton_flwr.errors import ConfigError, DataError

MAX_CLASSES = 100
_MISSING = ["", "NA", "N/A", "nan", "NaN", "null", "NULL", "None"]


def read(path: Path, text: Iterable[str]) -> Any:
    """Read a CSV file with a header, as a pandas DataFrame.

    Args:
        path: the file, UTF-8.
        text: columns whose values may be text; in the others, usual words for a missing value
            are read as one.

    Raises:
        DataError: the file is missing, is no CSV, has no rows, or has unnamed or equal columns.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise DataError(
            f"{error.name} is not installed: pip install 'lepton-flwr[simulation]'"
        ) from None
    names = header(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                names=names,
                skiprows=1,
                index_col=False,
                encoding="utf-8-sig",
                keep_default_na=False,
                na_values={name: _MISSING for name in names if name not in set(text)},
                low_memory=False,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError):
        raise DataError(
            f"{path}: rows of different lengths, or no UTF-8 text; expected {len(names)} values, "
            "separated by commas, in every row"
        ) from None
    if table.empty:
        raise DataError(f"{path}: a header and no rows")
    return table


def header(path: Path) -> list[str]:
    """The column names of a CSV file.

    Raises:
        DataError: the file is missing, is no text, or has unnamed or equal columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return column_names(csv.reader(file), str(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{path}: no CSV file in UTF-8") from None


def load(config: RunConfig) -> FederatedData | FederatedTables:
    """The table's rows as clients: one for each value of `data.by`, else by `data.partition`.

    Every column except the label, `data.by` and those that `data.kinds` ignores is a feature. If
    all have a range in `data.ranges`, each is clipped to it and scaled to [-1, 1], which needs no
    statistic. Otherwise they are tables, to be preprocessed by federated statistics; a range that
    is given is public and not asked for. Label values become classes in sorted order: their list
    is public, as are the columns' names and kinds.

    Raises:
        ConfigError: a setting names no column, or a column lacks a public range that client-level
            privacy needs.
        DataError: an infinite value, a label that is no class; with ranges for all columns also
            text or a missing value.
    """
    data = config.data
    if not data.path:
        raise ConfigError('scenario csv reads a file: set data.path = "FILE.csv"')
    path = Path(data.path)
    names = header(path)
    label = _column("data.label", data.label, names) if data.label else names[-1]
    by = _column("data.by", data.by, names) if data.by else ""
    if by == label:
        raise ConfigError(f"data.by={by!r}: is the label too; expected two different columns")
    for name in data.kinds:
        _column("data.kinds", name, [name for name in names if name not in (label, by)])
    ignored = {name for name, kind in data.kinds.items() if kind == "ignore"}
    features = [name for name in names if name not in (label, by, *ignored)]
    if not features:
        raise DataError(f"{path}: no feature column beside {label!r}")
    for name in data.ranges:
        _column("data.ranges", name, features)
    if config.dp.client.enabled:
        _require_ranges(features, config)

    table = read(path, {label, by})
    classes, texts = _classes(label, table[label])
    keys = _keys(by, table[by]) if by else None
    if by:
        config = dataclasses.replace(config, data=dataclasses.replace(data, partition="natural"))
    if set(features) == set(data.ranges):
        for name in features:
            _check_number(name, table[name])
    schema = _schema(table[features], config)
    public = by_bounds(schema)
    if public is not None:
        made = assemble(
            config,
            public.transform(table),
            classes,
            keys=keys,
            clients=5,
            num_classes=len(texts),
            feature_names=public.feature_names,
        )
        return dataclasses.replace(made, preprocessor=public, label=label, classes=texts)
    tables = assemble_tables(
        config,
        schema.read(table),
        classes,
        schema=schema,
        keys=keys,
        clients=5,
        num_classes=len(texts),
    )
    return dataclasses.replace(tables, label=label, classes=texts)


def _schema(table: Any, config: RunConfig) -> TableSchema:
    """Names and kinds: those of the settings, and those of the file for the rest."""
    kinds, ranges = config.data.kinds, config.data.ranges
    columns = []
    for column in TableSchema.infer(table).columns:
        kind = kinds.get(column.name, column.kind)
        if column.name in ranges and kind == CATEGORY:
            raise DataError(f"column {column.name!r} holds text: expected numbers in its range")
        low, high = ranges.get(column.name, (None, None))
        columns.append(Column(column.name, kind, low, high))
    return TableSchema(tuple(columns))


def _column(setting: str, name: str, known: list[str]) -> str:
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else "columns: " + ", ".join(known[:20])
        raise ConfigError(f"{setting}={name!r}: no such column; {hint}")
    return name


def _require_ranges(features: list[str], config: RunConfig) -> None:
    bare = [name for name in features if name not in config.data.ranges]
    if bare:
        others = f" (and {len(bare) - 1} more)" if len(bare) > 1 else ""
        raise ConfigError(
            f"column {bare[0]!r}{others} has no public range, which client-level privacy needs: "
            f'add under [data.ranges] the line "{bare[0]}" = [LOW, HIGH], '
            "from what is known without looking at the data"
        )


def _check_number(name: str, values: Any) -> None:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if not (is_numeric_dtype(values) or is_bool_dtype(values)):
        raise DataError(
            f"column {name!r} holds text: expected numbers in its range; give it none, or name it "
            "as data.by if its values are the clients"
        )
    numbers = values.to_numpy(dtype=np.float64)
    if np.isnan(numbers).any():
        raise DataError(
            f"column {name!r} has missing values: give it no range, and statistics fill them"
        )
    if np.isinf(numbers).any():
        raise DataError(f"column {name!r} has infinite values: expected finite numbers")


def _classes(label: str, values: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    if values.isna().any() or (values.astype(str).str.strip() == "").any():
        raise DataError(f"label column {label!r} has missing values: remove those rows")
    names, classes = np.unique(values.to_numpy(), return_inverse=True)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(
            f"label column {label!r} has {len(names)} different values: expected 2 to "
            f"{MAX_CLASSES} classes; data.label names the label column"
        )
    texts = tuple(map(class_text, names.tolist()))
    if len(set(texts)) != len(texts):
        raise DataError(f"label column {label!r}: two values that read alike; make them differ")
    return classes.astype(np.int32), texts


def class_text(value: Any) -> str:
    """How a label's value is written: 1 and 1.0 alike."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value).strip()


def _keys(by: str, values: Any) -> np.ndarray:
    keys = values.astype(str).str.strip().to_numpy()
    if values.isna().any() or (keys == "").any():
        raise DataError(f"column {by!r} has missing values: every row needs its client")
    return np.asarray(keys, dtype=str)


SCENARIO = Scenario(
    name="csv",
    title="A CSV file",
    description=(
        "A CSV file (--csv, or data.path) with one label column (--label, else the last); columns "
        "of numbers and of categories, also with missing values. "
        "A client is one value of the column of --by, or else a random part of the rows."
    ),
    model="mlp",
    load=load,
    defaults={
        "data": {"partition": "iid"},
        "train": {
            "optimizer": "adam",
            "learning_rate": 0.01,
            "local_steps": 20,
            "sampling_probability": 0.1,
        },
    },
)
