"""`lepton app`: which code runs, and who vouches for it."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors

app = typer.Typer(rich_markup_mode="rich")


@app.command()
def digest() -> None:
    """Show the digest of this code, which a device's policy can name among its `apps`.

    Example: lepton app digest
    """
    with one_line_errors():
        from lepton_flwr.code import code_digest

        typer.echo(code_digest().hex())


@app.command()
def sign(
    folder: Annotated[Path, typer.Argument(help="Folder with the signer's identity.pem and .crt.")],
    out: Annotated[Path, typer.Option(help="Signature file to write.")] = Path("app.sig"),
) -> None:
    """Sign this code; devices that name the signer among their `app_signers` then let it run.

    Example: lepton app sign signer --out app.sig
    """
    with one_line_errors():
        from lepton_flwr._files import write_atomic
        from lepton_flwr.code import code_digest, signed_message
        from lepton_flwr.crypto.identity import Identity

        signer = Identity.load(folder)
        write_atomic(out, signer.sign(signed_message(code_digest())))
        typer.echo(f"{out}: signed by {signer.public_key.hex()}")


@app.callback()
def _code() -> None:
    """Which code runs, and who vouches for it.

    Example: lepton app digest
    """
