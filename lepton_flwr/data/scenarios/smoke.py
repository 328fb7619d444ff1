"""Breast cancer from cell nuclei: the quick one."""

from lepton_flwr.config import RunConfig
from lepton_flwr.data import rdata
from lepton_flwr.data.assemble import assemble
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.scenario import Scenario, Tabular
from lepton_flwr.data.schema import Number, Schema
from lepton_flwr.errors import DataError

# Round bounds for nuclei under the microscope (micrometres and ratios), after the ranges that the
# data set's published description prints: mean, standard error and worst value of each.
_BOUNDS = {
    "radius": ((5, 30), (0, 2), (5, 40)),
    "texture": ((5, 40), (0, 4), (10, 50)),
    "perimeter": ((40, 200), (0, 15), (50, 250)),
    "area": ((100, 2500), (0, 300), (100, 4000)),
    "smoothness": ((0.05, 0.2), (0, 0.02), (0.05, 0.25)),
    "compactness": ((0, 0.4), (0, 0.1), (0, 1)),
    "concavity": ((0, 0.5), (0, 0.2), (0, 1)),
    "concave points": ((0, 0.2), (0, 0.05), (0, 0.3)),
    "symmetry": ((0.1, 0.3), (0, 0.06), (0.1, 0.6)),
    "fractal dimension": ((0.05, 0.1), (0, 0.02), (0.05, 0.2)),
}
SCHEMA = Schema(
    tuple(
        Number(pattern.format(name), low, high, log1p=name == "area")
        for i, pattern in enumerate(("mean {}", "{} error", "worst {}"))
        for name, (low, high) in ((name, three[i]) for name, three in _BOUNDS.items())
    )
)
# In scikit-learn's own table, 0 is malignant.
TABLE = Tabular.of(SCHEMA, "target", ("1", "0"), lambda values: rdata.classes(values, (1, 0)))


def load(config: RunConfig) -> FederatedData:
    """Samples as clients; there are no natural ones."""
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError as error:
        raise DataError(
            f"{error.name} is not installed: pip install 'lepton-flwr[simulation]'"
        ) from None
    samples = load_breast_cancer(as_frame=True)
    return assemble(
        config,
        TABLE.transform(samples.data),
        TABLE.answers(samples.target),
        keys=None,
        clients=5,
        num_classes=2,
        feature_names=SCHEMA.feature_names,
    )


SCENARIO = Scenario(
    name="smoke",
    title="Breast cancer, quick",
    description=(
        "569 tumours with measurements of their cell nuclei (scikit-learn, breast cancer "
        "Wisconsin): is the tumour malignant? Five clients with uneven shares of both answers."
    ),
    model="mlp",
    load=load,
    defaults={
        "rounds": 3,
        "data": {"partition": "dirichlet", "alpha": 1.0, "min_rows": 30},
        "train": {
            "hidden_units": [],
            "learning_rate": 1.0,
            "local_steps": 10,
            "sampling_probability": 0.1,
        },
    },
    table=TABLE,
)
