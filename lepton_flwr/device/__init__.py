"""A device: its folder, its policy, and where a Flower node finds them."""

from lepton_flwr.device.device import (
    DATA_FILE,
    DATA_KEY_FILE,
    RECORDS_FILE,
    SEALED_FILE,
    SEALED_TABLE_FILE,
    TABLE_FILE,
    WHOLE,
    Device,
)
from lepton_flwr.device.folders import (
    FOLDER_KEY,
    PARTITION_KEY,
    check_private,
    check_trusted,
    find,
    node_folder,
    simulated_root,
)
from lepton_flwr.device.policy import ACTIONS, OTHER_ACTIONS, POLICY_FILE, Policy

__all__ = [
    "ACTIONS",
    "DATA_FILE",
    "DATA_KEY_FILE",
    "FOLDER_KEY",
    "OTHER_ACTIONS",
    "PARTITION_KEY",
    "POLICY_FILE",
    "RECORDS_FILE",
    "SEALED_FILE",
    "SEALED_TABLE_FILE",
    "TABLE_FILE",
    "WHOLE",
    "Device",
    "Policy",
    "check_private",
    "check_trusted",
    "find",
    "node_folder",
    "simulated_root",
]
