"""Who buys a caravan policy; customer segments are clients."""

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.data import rdata
from lepton_flwr.data.assemble import assemble
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.scenario import Scenario, Tabular
from lepton_flwr.data.schema import Category, Number, Schema

_SHARES = """
    MGODRK MGODPR MGODOV MGODGE MRELGE MRELSA MRELOV MFALLEEN MFGEKIND MFWEKIND MOPLHOOG MOPLMIDD
    MOPLLAAG MBERHOOG MBERZELF MBERBOER MBERMIDD MBERARBG MBERARBO MSKA MSKB1 MSKB2 MSKC MSKD
    MHHUUR MHKOOP MAUT1 MAUT2 MAUT0 MZFONDS MZPART MINKM30 MINK3045 MINK4575 MINK7512 MINK123M
    MINKGEM MKOOPKLA
"""
_POLICIES = """
    WAPART WABEDR WALAND PERSAUT BESAUT MOTSCO VRAAUT AANHANG TRACTOR WERKT BROM LEVEN PERSONG
    GEZONG WAOREG BRAND ZEILPL PLEZIER FIETS INBOED BYSTAND
"""

# The codebook's bounds: classes 0 to 9 for shares of a postcode area and for premiums (P), counts
# of policies (A) of which more than four count as four. MOSTYPE only refines MOSHOOFD.
SCHEMA = Schema(
    (
        Category("MOSHOOFD", tuple(range(1, 11))),
        Number("MAANTHUI", 1, 10, centred=False),
        Number("MGEMOMV", 1, 6, centred=False),
        Number("MGEMLEEF", 1, 6, centred=False),
        *(Number(name, 0, 9, centred=False) for name in _SHARES.split()),
        *(Number(f"P{name}", 0, 9, centred=False) for name in _POLICIES.split()),
        *(Number(f"A{name}", 0, 4, centred=False) for name in _POLICIES.split()),
    )
)
TABLE = Tabular.of(
    SCHEMA, "Purchase", ("No", "Yes"), lambda values: rdata.classes(values, ("No", "Yes"))
)


def load(config: RunConfig) -> FederatedData:
    """Customers as clients, natural ones by customer main type."""
    customers = rdata.read("ISLR", "Caravan")
    return assemble(
        config,
        TABLE.transform(customers),
        TABLE.answers(customers["Purchase"]),
        keys=np.char.zfill(customers["MOSHOOFD"].to_numpy().astype(str), 2),
        clients=10,
        num_classes=2,
        feature_names=SCHEMA.feature_names,
    )


SCENARIO = Scenario(
    name="ads",
    title="Buyers of a caravan policy",
    description=(
        "5,822 customers of an insurer (ISLR, Caravan): does the customer hold a caravan policy? "
        "A client is one of ten main customer types."
    ),
    model="mlp",
    load=load,
    # One buyer in seventeen: all rows in few steps give the noise the least weight.
    defaults={
        "rounds": 40,
        "train": {
            "hidden_units": [],
            "learning_rate": 6.0,
            "local_steps": 1,
            "sampling_probability": 1.0,
        },
        "dp": {"record": {"l2_norm_clip": 2.0}},
    },
    table=TABLE,
)
