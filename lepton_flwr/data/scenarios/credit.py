"""Loans that went bad; kinds of housing are clients."""

from lepton_flwr.config import RunConfig
from lepton_flwr.data import rdata
from lepton_flwr.data.assemble import assemble
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.scenario import Scenario
from lepton_flwr.data.schema import Category, Number, Schema

# Public bounds: terms of consumer loans, ages of borrowers, round limits of money (in the data's
# thousands of pesetas).
SCHEMA = Schema(
    (
        Number("Seniority", 0, 30, centred=False),
        Category("Home", ("ignore", "other", "owner", "parents", "priv", "rent")),
        Number("Time", 0, 72),
        Number("Age", 18, 80),
        Category("Marital", ("divorced", "married", "separated", "single", "widow")),
        Category("Records", ("yes",)),
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


def load(config: RunConfig) -> FederatedData:
    """Loans as clients, natural ones by the borrower's housing."""
    loans = rdata.read("modeldata", "credit_data")
    loans["loan_to_price"] = loans["Amount"] / loans["Price"]
    return assemble(
        config,
        SCHEMA.transform(loans),
        rdata.classes(loans["Status"], ("good", "bad")),
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
)
