"""What a run is: frozen, checked dataclasses, one table of the configuration in each file.

`RunConfig.build` layers tables over the scenario's defaults and refuses unknown keys.
"""

from lepton_flwr.config.data import COLUMN_KINDS, IMPUTE, PARTITIONS, DataConfig
from lepton_flwr.config.model import ModelConfig
from lepton_flwr.config.output import ObserveConfig, OutputConfig
from lepton_flwr.config.privacy import ENGINES, ClientDPConfig, DPConfig, RecordDPConfig
from lepton_flwr.config.run import RunConfig
from lepton_flwr.config.secagg import SecAggConfig
from lepton_flwr.config.table import TableConfig
from lepton_flwr.config.train import OPTIMIZERS, STRATEGIES, TrainConfig

__all__ = [
    "COLUMN_KINDS",
    "ENGINES",
    "IMPUTE",
    "OPTIMIZERS",
    "PARTITIONS",
    "STRATEGIES",
    "ClientDPConfig",
    "DPConfig",
    "DataConfig",
    "ModelConfig",
    "ObserveConfig",
    "OutputConfig",
    "RecordDPConfig",
    "RunConfig",
    "SecAggConfig",
    "TableConfig",
    "TrainConfig",
]
