"""`lepton keys`: the authority of a federation, its devices' certificates, TLS and node keys."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors

if TYPE_CHECKING:
    from lepton_flwr.crypto.keyring import Keyring

app = typer.Typer(rich_markup_mode="rich")

Folder = Annotated[Path, typer.Argument(help="The federation's folder, as `keys init` made it.")]
NewFolder = Annotated[Path, typer.Argument(help="A new folder; stays with the authority.")]
DeviceNames = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Devices.")]
NumNodes = Annotated[int, typer.Option("--nodes", help="Number of devices.", min=1)]
ServerAddress = Annotated[
    str, typer.Option(metavar="HOST:PORT", help="Where devices reach the server.")
]
Name = Annotated[str, typer.Option(help="The federation's name.")]
Protect = Annotated[
    bool,
    typer.Option(
        "--protect",
        help="Put the authority's keys behind a passphrase: asked for, or LEPTON_PASSPHRASE.",
    ),
]


@app.command()
def init(
    folder: NewFolder,
    *,
    nodes: NumNodes,
    address: ServerAddress,
    name: Name = "federation",
    protect: Protect = False,
) -> None:
    """Make all keys of a federation: authority, devices, TLS and node authentication.

    `lepton federation init` makes the same and all else that devices and server need.

    Example: lepton keys init clinics --nodes 10 --address fl.example.org:8000 --protect
    """
    with one_line_errors():
        from lepton_flwr.commands.passphrases import ask_new
        from lepton_flwr.crypto.address import Address
        from lepton_flwr.crypto.keyring import Keyring

        where = Address.parse(address)
        passphrase = ask_new() if protect else None
        Keyring.create(folder, nodes, where, name=name, passphrase=passphrase)
        typer.echo(
            f"{folder}: keys of {nodes} devices and of the server at {where}; {folder}/authority "
            "stays here, off the server"
        )


@app.command()
def issue(
    folder: Folder, name: Annotated[str, typer.Argument(help="The new device's name.")]
) -> None:
    """Make the keys of one more device.

    Example: lepton keys issue clinics device-011
    """
    with one_line_errors():
        from lepton_flwr.commands.passphrases import ask_for
        from lepton_flwr.crypto.keyring import Keyring
        from lepton_flwr.deploy.folders import add_device

        made = add_device(folder, name, ask_for(Keyring(folder).key_file))
        typer.echo(f"{made}: deliver it to the device; {folder}/server/nodes to the server")


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Folder of a federation, a device or a server.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
) -> None:
    """Show certificates and revocation lists: serial, fingerprint, end, days left, revoked.

    Example: lepton keys show clinics
    """
    with one_line_errors():
        from lepton_flwr.crypto.inventory import inventory

        entries = inventory(folder)
        if as_json:
            import json

            rows = [{**vars(one), "not_after": one.not_after.isoformat()} for one in entries]
            typer.echo(json.dumps(rows, indent=2))
            return
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("name", "what", "serial", "SHA-256", "not after", "days left", "state"):
            right = column == "days left"
            table.add_column(column, justify="right" if right else "left", no_wrap=not right)
        for one in entries:
            table.add_row(
                one.name,
                one.kind,
                one.serial[:10],
                one.sha256[:10],
                f"{one.not_after:%Y-%m-%d}",
                str(one.days_left),
                one.state,
                style=None if one.state == "valid" else "red",
            )
        Console().print(table)


@app.command()
def revoke(folder: Folder, names: DeviceNames = None) -> None:
    """Revoke devices, and sign a new revocation list; without names, renew the list.

    The new list works at a device as soon as its `revoked.crl` is there.

    Example: lepton keys revoke clinics device-003
    """
    with one_line_errors():
        _opened(folder).revoke(names or ())
        typer.echo(
            f"{folder}: new revoked.crl for the server and every device that stays; "
            f"revoked now: {', '.join(names or ()) or 'nobody else'}"
        )


@app.command()
def rotate(
    folder: Folder,
    names: DeviceNames = None,
    *,
    server: Annotated[
        bool, typer.Option("--server", help="A new TLS key and certificate of the server.")
    ] = False,
    authority: Annotated[
        bool, typer.Option("--authority", help="A new authority beside the former one.")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Stop trusting the former authority.")
    ] = False,
) -> None:
    """Make new keys: of devices, whose former ones are revoked, of the server or the authority.

    Example: lepton keys rotate clinics device-003
    """
    with one_line_errors():
        from lepton_flwr.errors import ConfigError

        if sum([bool(names), server, authority, finish]) != 1:
            raise ConfigError(
                "rotate: expected either names of devices, --server, --authority or --finish"
            )
        ring = _opened(folder)
        if server:
            ring.rotate_server()
            typer.echo(f"{folder}/server: new server.key and server.pem; restart the server")
        elif authority:
            ring.rotate_authority()
            typer.echo(
                f"{folder}: deliver revoked.crl, then roster.pem to the server and all devices; "
                "when all have them, identity.crt; at last run rotate --finish"
            )
        elif finish:
            ring.drop_authority()
            typer.echo(
                f"{folder}: deliver revoked.crl and roster.pem to the server and all devices"
            )
        for name in names or ():
            made = ring.rotate_device(name)
            typer.echo(f"{made}: deliver it to the device; revoked.crl to all others")


@app.command()
def protect(
    key: Annotated[Path, typer.Argument(help="Folder of a device, or the file of a key.")],
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Take the passphrase off.")] = False,
) -> None:
    """Put a key behind a passphrase, or change it: asked for, or LEPTON_NEW_PASSPHRASE.

    A device whose key is protected needs LEPTON_PASSPHRASE in its environment.

    Example: lepton keys protect device-003
    """
    with one_line_errors():
        from lepton_flwr.commands.passphrases import NEW_VARIABLE, ask_for, ask_new
        from lepton_flwr.crypto import private_keys
        from lepton_flwr.crypto.identity import KEY_FILE

        path = key / KEY_FILE if key.is_dir() else key
        old = ask_for(path)
        private_keys.protect(path, old, None if remove else ask_new(NEW_VARIABLE))
        typer.echo(f"{path}: {'without' if remove else 'behind'} a passphrase")


def _opened(folder: Path) -> "Keyring":
    from lepton_flwr.commands.passphrases import ask_for
    from lepton_flwr.crypto.keyring import Keyring

    ring = Keyring(folder)
    return Keyring(folder, ask_for(ring.key_file))


@app.callback()
def _keys() -> None:
    """Who may take part: the authority, certificates, revocation, TLS and node keys.

    Example: lepton keys init clinics --nodes 10 --address fl.example.org:8000
    """
