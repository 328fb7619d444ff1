"""`lepton federation init`."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors
from lepton_flwr.commands.keys import Name, NewFolder, NumNodes, Protect, ServerAddress


def init(
    folder: NewFolder,
    *,
    nodes: NumNodes,
    address: ServerAddress,
    name: Name = "federation",
    min_survivors: Annotated[
        int | None,
        typer.Option(help="Of the devices' policies. Default: over two thirds of the devices."),
    ] = None,
    max_record_epsilon: Annotated[
        float, typer.Option(help="Of the devices' policies: the most to spend per record, in all.")
    ] = 3.0,
    schema: Annotated[
        Path | None,
        typer.Option(help="What the devices' raw tables hold; goes into every folder."),
    ] = None,
    protect: Protect = False,
) -> None:
    """Make a folder for each device and one for the server, ready to be delivered.

    With --schema devices bring their tables as they are, data.csv, else features, data.npz.

    Example: lepton federation init clinics --nodes 10 --address fl.example.org:8000 --protect
    """
    with one_line_errors():
        from lepton_flwr.commands.passphrases import ask_new
        from lepton_flwr.crypto.address import Address
        from lepton_flwr.data.table_spec import TableSpec
        from lepton_flwr.deploy.folders import create
        from lepton_flwr.privacy.policy import PrivacyPolicy

        tables = None if schema is None else TableSpec.read(schema)
        where = Address.parse(address)
        spending = PrivacyPolicy(max_record_epsilon=max_record_epsilon)
        create(
            folder,
            nodes,
            where,
            name=name,
            passphrase=ask_new() if protect else None,
            min_survivors=min_survivors,
            spending=spending,
            schema=None if tables is None or schema is None else schema.read_bytes(),
        )
        rows = "data.npz" if schema is None else "data.csv"
        typer.echo(
            f"{folder}/server: to the server; lepton server run FOLDER\n"
            f"{folder}/devices: {nodes} folders, one to each device, with {rows} added; "
            "lepton device run FOLDER\n"
            f"{folder}/authority: stays here, off the server"
        )
