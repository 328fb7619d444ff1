"""Mortality from a blood test; the years of enrolment are clients."""

from lepton_flwr.config import RunConfig
from lepton_flwr.data import rdata
from lepton_flwr.data.assemble import assemble
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.scenario import Scenario, Tabular
from lepton_flwr.data.schema import Category, Number, Schema

# Public bounds: people of 50 years or more, years of the study, several times the normal
# concentrations (mg/dL). `futime` and `chapter` tell the outcome; `flc.grp` is a decile of the
# study's own rows. None of the three is read.
SCHEMA = Schema(
    (
        Number("age", 50, 100),
        Category("sex", ("F", "M")),
        Number("sample.yr", 1995, 2003),
        Number("kappa", 0, 10, log1p=True, centred=False),
        Number("lambda", 0, 10, log1p=True, centred=False),
        Number("creatinine", 0, 5, log1p=True, centred=False, fill=1.0, indicator=True),
        Number("mgus", 0, 1, centred=False),
    )
)
TABLE = Tabular.of(SCHEMA, "death", ("0", "1"), lambda values: rdata.classes(values, (0, 1)))


def load(config: RunConfig) -> FederatedData:
    """Subjects as clients, natural ones by year of enrolment."""
    subjects = rdata.read("survival", "flchain")
    return assemble(
        config,
        TABLE.transform(subjects),
        TABLE.answers(subjects["death"]),
        keys=subjects["sample.yr"].astype(str).to_numpy(),
        clients=9,
        num_classes=2,
        feature_names=SCHEMA.feature_names,
    )


SCENARIO = Scenario(
    name="health",
    title="Mortality after a blood test",
    description=(
        "7,874 residents of Olmsted County with their serum free light chains (survival, "
        "flchain): did the person die by the last contact? A client is one year of enrolment."
    ),
    model="mlp",
    load=load,
    defaults={
        "data": {"min_rows": 40},
        "train": {
            "hidden_units": [],
            "learning_rate": 2.0,
            "local_steps": 10,
            "sampling_probability": 0.2,
        },
    },
    table=TABLE,
)
