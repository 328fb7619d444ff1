"""Making the folders of a federation: keys by `Keyring`, and all else that is needed to run."""

from functools import partial
from pathlib import Path

from lepton_flwr import _validate as check
from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.files import write_private
from lepton_flwr.crypto.keyring import Keyring
from lepton_flwr.crypto.members import DEVICES, SERVER
from lepton_flwr.data.wire import SCHEMA_FILE
from lepton_flwr.deploy import files
from lepton_flwr.deploy.settings import DEVICE_FILE, SERVER_FILE, DeviceSettings, ServerSettings
from lepton_flwr.device import POLICY_FILE, Policy
from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy.policy import PrivacyPolicy


def default_floor(nodes: int) -> int:
    """The fewest survivors of a new policy: over two thirds of the devices, at least 2."""
    return max(2, 2 * nodes // 3 + 1)


def create(
    folder: Path,
    nodes: int,
    address: Address,
    *,
    name: str = "federation",
    passphrase: str | None = None,
    min_survivors: int | None = None,
    spending: PrivacyPolicy | None = None,
    schema: bytes | None = None,
) -> Keyring:
    """Make a federation's folder: authority, server and devices, ready to be delivered.

    Args:
        folder: a new folder; it appears with all its contents or not at all.
        nodes: number of devices.
        address: where devices reach the server.
        name: the federation's name.
        passphrase: protects the authority's keys.
        min_survivors: what every device's policy says; None is `default_floor`.
        spending: likewise, of what its data may be spent on; None limits epsilon per record to 3.
        schema: a `schema.toml`, what the devices' raw tables hold; None where they have features.

    Raises:
        ConfigError: a number or name is out of its range.
        PassphraseError: the passphrase is too short.
        OutputError: the folder exists or cannot be written.
    """
    check.integer("nodes", nodes, at_least=1)
    floor = default_floor(nodes) if min_survivors is None else min_survivors
    if min_survivors is not None and floor > nodes:
        raise ConfigError(f"min_survivors={floor}: expected at most the {nodes} devices")
    Policy(floor)
    text = files.policy(floor, spending or PrivacyPolicy(max_record_epsilon=3.0))
    return Keyring.create(
        folder,
        nodes,
        address,
        name=name,
        passphrase=passphrase,
        complete=partial(_complete, address, text, schema),
    )


def add_device(folder: Path, name: str, passphrase: str | None = None) -> Path:
    """Make the folder of one more device, with the policy that `create` gave to all.

    Raises:
        ConfigError: the name is none or taken.
        PassphraseError: the authority's passphrase is missing or wrong.
        OutputError: the folder exists or cannot be written.
    """
    ring = Keyring(folder, passphrase)
    template = folder / POLICY_FILE
    if not template.exists():  # a federation of `lepton keys init`, which wants keys alone
        return ring.issue(name)
    text, address = template.read_text(encoding="utf-8"), ring.register.address
    path = folder / SCHEMA_FILE
    schema = path.read_bytes() if path.exists() else None
    return ring.issue(name, lambda made: _complete_device(made, name, address, text, schema))


def _complete(address: Address, policy: str, schema: bytes | None, folder: Path) -> None:
    if schema is not None:
        write_private(folder / SCHEMA_FILE, schema)
    server = folder / SERVER
    write_private(server / SERVER_FILE, ServerSettings.of_address(address).to_toml().encode())
    _write_common(server, "server", "server")
    write_private(folder / POLICY_FILE, policy.encode())
    if schema is not None:
        write_private(server / SCHEMA_FILE, schema)
    for device in sorted((folder / DEVICES).iterdir()):
        _complete_device(device, device.name, address, policy, schema)


def _complete_device(
    folder: Path, name: str, address: Address, policy: str, schema: bytes | None
) -> None:
    if schema is not None:
        write_private(folder / SCHEMA_FILE, schema)
    write_private(folder / DEVICE_FILE, DeviceSettings(name, address).to_toml().encode())
    write_private(folder / POLICY_FILE, policy.encode())
    _write_common(folder, "device", name)


def _write_common(folder: Path, role: str, name: str) -> None:
    write_private(folder / files.UNIT_FILE, files.unit(role, name).encode())
    write_private(folder / files.ENVIRONMENT_FILE, files.environment(role).encode())
    write_private(folder / files.START_FILE, files.start_script(role).encode())
    (folder / files.START_FILE).chmod(0o700)
