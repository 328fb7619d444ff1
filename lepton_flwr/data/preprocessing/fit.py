"""Fitting a preprocessor from questions alone: the side that never sees a table."""

import os
from collections.abc import Callable, Sequence

import numpy as np

from lepton_flwr.data.preprocessing import searches
from lepton_flwr.data.preprocessing.columns import NUMBER, Table, TableSchema, num_rows
from lepton_flwr.data.preprocessing.in_process import Charge, InProcess
from lepton_flwr.data.preprocessing.preprocessor import (
    FittedCategory,
    FittedNumber,
    Preprocessor,
)
from lepton_flwr.data.preprocessing.questions import (
    MAX_ROWS,
    SALT_BYTES,
    Hashes,
    Moments,
    Part,
    Question,
    Rows,
)
from lepton_flwr.data.preprocessing.searches import Options, Reply, Search
from lepton_flwr.errors import DataError

Ask = Callable[[Question], tuple[list[int], int]]


def by_bounds(schema: TableSchema) -> Preprocessor | None:
    """Scaling by public bounds alone, which knows nothing of the records and asks nobody.

    Returns:
        None if a column has none.
    """
    columns = []
    for column in schema.columns:
        if column.low is None or column.high is None:
            return None
        low, high = float(column.low), float(column.high)
        middle = (low + high) / 2
        columns.append(FittedNumber(column.name, middle, (high - low) / 2, middle, low, high))
    return Preprocessor(tuple(columns), salt=bytes(SALT_BYTES))


def num_releases(schema: TableSchema, options: Options | None = None) -> int:
    """How many questions a private fit asks at most: each is one Gaussian release."""
    numbers = schema.of_kind(NUMBER)
    if not all(column.bounded for column in numbers):
        return 3
    return 2 if numbers and (options or Options()).impute == "median" else 1


def fit_tables(
    tables: Sequence[Table],
    schema: TableSchema,
    *,
    noise_multiplier: float = 0.0,
    options: Options | None = None,
    charge: Charge | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Preprocessor:
    """Fit a preprocessor to the tables of participants that live in this process.

    Args:
        tables: one for each participant, as `schema.read` returns them; two or more.
        schema: names and kinds of the columns: public.
        noise_multiplier: of each of at most `num_releases(schema, options)` releases; 0 is exact.
        options: what is fitted.
        charge: see `InProcess`.
        progress: see `InProcess`.

    **Guarantee**: that of `Preprocessor`; beside it, nothing leaves a participant but masked
    answers, each charged first.

    Raises:
        DataError: fewer than two participants, too many records, no column that can be used.
        PrivacyError: a ledger refuses the charge; nothing of the release was drawn.
    """
    most = max(map(num_rows, tables), default=1)
    return fit(
        InProcess(tables, charge, progress),
        schema,
        noise_multiplier=noise_multiplier,
        options=options,
        most_rows=1 << max(most - 1, 1).bit_length(),
    )


def fit(
    ask: Ask,
    schema: TableSchema,
    *,
    noise_multiplier: float = 0.0,
    options: Options | None = None,
    most_rows: int = MAX_ROWS,
    salt: bytes | None = None,
) -> Preprocessor:
    """Fit a preprocessor by asking participants, wherever they are.

    All columns are searched side by side, so that one question serves them all.

    Args:
        ask: gives the sums of the participants' answers, in units of 1 / grid, and how many
            participants are in them.
        schema: names and kinds of the columns: public.
        noise_multiplier: of each release; 0 is exact.
        options: what is fitted.
        most_rows: no participant has more records; public.
        salt: of the categories' hashes, 16 public bytes; None draws them.

    Raises:
        DataError: no column can be used.
    """
    options = options or Options()
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    private = noise_multiplier > 0
    running: dict[str, Search] = {
        column.name: searches.number(column, options, private)
        if column.kind == NUMBER
        else searches.category(column, options, private, salt)
        for column in schema.columns
    }
    fitted: dict[str, FittedNumber | FittedCategory | None] = {}
    parts: dict[str, Part] = {name: next(search) for name, search in running.items()}
    releases = 0
    while parts:
        replies = _ask(ask, parts, noise_multiplier, most_rows)
        releases += 1
        asked, parts = parts, {}
        for name in asked:
            try:
                parts[name] = running[name].send(replies[name])
            except StopIteration as found:
                fitted[name] = found.value
    names = [column.name for column in schema.columns]
    columns = tuple(one for one in (fitted[name] for name in names) if one is not None)
    if not columns:
        raise DataError(
            "no column holds enough records beside the noise: expected more records, fewer "
            "participants, a larger epsilon or share of it for statistics, or public bounds"
        )
    return Preprocessor(
        columns,
        salt,
        noise_multiplier=noise_multiplier,
        releases=releases,
        dropped=tuple(name for name in names if fitted[name] is None),
        order=tuple(names),
    )


def _ask(
    ask: Ask, parts: dict[str, Part], noise_multiplier: float, most_rows: int
) -> dict[str, Reply]:
    """One question for all columns."""
    counted = any(isinstance(part, Moments | Hashes) for part in parts.values())
    asked: tuple[Part, ...] = (*([Rows()] if counted else []), *parts.values())
    question = Question(asked, noise_multiplier, most_rows)
    sums, participants = ask(question)
    totals = question.split([total / question.grid for total in sums])
    rows = float(totals.pop(0)[0]) if counted else 0.0
    stddev = question.stddev * np.sqrt(participants)
    return {
        name: Reply(values, rows, float(stddev)) for name, values in zip(parts, totals, strict=True)
    }
