"""Preprocessing by federated statistics: any table becomes features, and nobody pools the rows.

`TableSchema` says what the columns are, `fit_tables` (or `fit`, over any transport) asks the
participants for sums, and the `Preprocessor` that comes out travels with the model.
"""

from lepton_flwr.data.preprocessing.columns import (
    CATEGORY,
    NUMBER,
    Column,
    TableSchema,
    distinct_rows,
    take,
)
from lepton_flwr.data.preprocessing.fit import fit, fit_tables, num_releases
from lepton_flwr.data.preprocessing.preprocessor import PREPROCESSOR_FILE, Preprocessor
from lepton_flwr.data.preprocessing.searches import Options

__all__ = [
    "CATEGORY",
    "NUMBER",
    "PREPROCESSOR_FILE",
    "Column",
    "Options",
    "Preprocessor",
    "TableSchema",
    "distinct_rows",
    "fit",
    "fit_tables",
    "num_releases",
    "take",
]
