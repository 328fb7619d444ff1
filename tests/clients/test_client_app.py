"""The ClientApp as a device starts it."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lepton_flwr.device import FOLDER_KEY
from lepton_flwr.errors import PolicyError
from lepton_flwr.provision import provision
from lepton_flwr.secagg.floors import ClientFloors


class Rows:
    records = b""

    def save(self, path):
        path.write_bytes(b"rows")


def test_importing_the_app_loads_nothing_heavy():
    heavy = ("tensorflow", "keras", "pandas", "ray", "sklearn", "matplotlib", "dp_accounting")
    code = (
        "import sys, clients.client_app; "
        f"sys.exit(', '.join(name for name in {heavy} if name in sys.modules) or 0)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_its_floors_are_those_of_the_devices_policy(tmp_path):
    from clients.client_app import participant

    (folder,) = provision(tmp_path / "devices", [Rows()], min_survivors=4)
    context = SimpleNamespace(node_config={FOLDER_KEY: str(folder)}, run_id=1)
    assert participant(context).floors == ClientFloors(min_survivors=4)
    policy = folder / "policy.toml"
    policy.write_text("min_survivors = 5\n[secagg]\nmin_clients = 9\nsparse = false\n")
    assert participant(context).floors == ClientFloors(5, min_clients=9, sparse=False)
    # A policy that cannot be read as it was meant closes the device.
    policy.write_text("min_survivors = 5\n[secagg]\nsparce = false\n")
    with pytest.raises(PolicyError):
        participant(context)
