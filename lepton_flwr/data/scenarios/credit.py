"""Loans that went bad; kinds of housing are clients."""

from typing import Any

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.data import rdata
from lepton_flwr.data.assemble import assemble
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.scenario import Scenario, Tabular
from lepton_flwr.data.schema import Category, Number, Schema, numbers

# Public bounds: terms of consumer loans, ages of borrowers, round limits of money (in the data's
# thousands of pesetas).
SCHEMA = Schema(
    (
        Number("Seniority", 0, 30, centred=False),
        Category("Home", ("ignore", "other", "owner", "parents", "priv", "rent")),
        Number("Time", 0, 72),
        Number("Age", 18, 80),
        Category("Marital", ("divorced", "married", "separated", "single", "widow")),
        Category("Records", ("yes",), plain=("no",)),
        Category("Job", ("fixed", "freelance", "others", "partime")),
        Number("Expenses", 0, 200),
        Number("Income", 0, 1000, log1p=True, fill=100, indicator=True),
        Number("Assets", 0, 500_000, log1p=True, centred=False, fill=0, indicator=True),
        Number("Debt", 0, 50_000, log1p=True, centred=False, fill=0, indicator=True),
        Number("Amount", 0, 5000),
        Number("Price", 0, 12_000),
        Number("loan_to_price", 0, 1.5),
    )
)
STATUS = ("good", "bad")


def features(loans: Any, unseen: str = "other") -> np.ndarray:
    """The schema's features, with how much of the price was lent."""
    table = {name: loans[name] for name in _COLUMNS}
    with np.errstate(divide="ignore", invalid="ignore"):
        table["loan_to_price"] = numbers("Amount", loans["Amount"]) / numbers(
            "Price", loans["Price"]
        )
    return SCHEMA.transform(table, unseen=unseen)


_COLUMNS = tuple(c.column for c in SCHEMA.columns if c.column != "loan_to_price")
TABLE = Tabular(_COLUMNS, features, "Status", STATUS, lambda values: rdata.classes(values, STATUS))


def load(config: RunConfig) -> FederatedData:
    """Loans as clients, natural ones by the borrower's housing."""
    loans = rdata.read("modeldata", "credit_data")
    return assemble(
        config,
        TABLE.transform(loans),
        TABLE.answers(loans["Status"]),
        keys=loans["Home"].fillna("").to_numpy(),
        clients=5,
        num_classes=2,
        feature_names=SCHEMA.feature_names,
    )


SCENARIO = Scenario(
    name="credit",
    title="Bad loans",
    description=(
        "4,454 consumer loans (modeldata, credit_data): did the loan go bad? "
        "A client is one kind of housing of the borrowers."
    ),
    model="mlp",
    load=load,
    defaults={
        "train": {
            "hidden_units": [],
            "learning_rate": 2.0,
            "local_steps": 20,
            "sampling_probability": 0.2,
        }
    },
    table=TABLE,
)
