"""`lepton federation init`."""

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
    protect: Protect = False,
) -> None:
    """Make a folder for each device and one for the server, ready to be delivered.

    Example: lepton federation init clinics --nodes 10 --address fl.example.org:8000 --protect
    """
    with one_line_errors():
        from lepton_flwr.commands.passphrases import ask_new
        from lepton_flwr.crypto.address import Address
        from lepton_flwr.deploy.folders import create
        from lepton_flwr.privacy.policy import PrivacyPolicy

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
        )
        typer.echo(
            f"{folder}/server: to the server; lepton server run FOLDER\n"
            f"{folder}/devices: {nodes} folders, one to each device, with data.npz added; "
            "lepton device run FOLDER\n"
            f"{folder}/authority: stays here, off the server"
        )
