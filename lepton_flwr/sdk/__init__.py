"""`LeptonClient`: federated, private learning from one table in ten lines."""

from lepton_flwr.sdk.client import LeptonClient
from lepton_flwr.sdk.errors import LabelError, OrderError, UnseenCategoryError
from lepton_flwr.sdk.guarantee import Guarantee
from lepton_flwr.sdk.labels import TextLabels
from lepton_flwr.sdk.model import ModelEnvelope

__all__ = [
    "Guarantee",
    "LabelError",
    "LeptonClient",
    "ModelEnvelope",
    "OrderError",
    "TextLabels",
    "UnseenCategoryError",
]
