"""`lepton encrypt`, `decrypt`, `rewrap`, `inspect` and `encryption-key`: encryption at rest."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors

if TYPE_CHECKING:
    from lepton_flwr.crypto.stanza import Opener, Sealer

SUFFIX = ".lepton"

Key = Annotated[Path | None, typer.Option(help="Decryption key of one of its recipients.")]
OpenPassphrase = Annotated[
    bool,
    typer.Option(
        "--passphrase", help="Open it by a passphrase: typed, or of the variable LEPTON_PASSPHRASE."
    ),
]
To = Annotated[
    list[Path] | None,
    typer.Option("--to", help="Public key of one who shall open it; may be repeated."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what exists.")]
Purpose = Annotated[str, typer.Option(help="What the data is for; it opens for this only.")]

app = typer.Typer(rich_markup_mode="rich")


def encrypt(
    file: Annotated[Path, typer.Argument(help="File to encrypt; it stays as it is.")],
    *,
    to: To = None,
    passphrase: Annotated[
        bool,
        typer.Option(
            "--passphrase",
            help="A passphrase shall open it: typed twice, or of the variable LEPTON_PASSPHRASE.",
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Default: FILE.lepton.")] = None,
    force: Force = False,
    purpose: Purpose = "lepton/file/v1",
) -> None:
    """Encrypt a file for people or devices, of whom each can open it alone.

    Example: lepton encrypt customers.csv --to alice.key.pub --to bob.key.pub
    """
    with one_line_errors():
        from lepton_flwr.crypto.encrypted_file import encrypt_file

        target = file.with_name(file.name + SUFFIX) if out is None else out
        recipients = _recipients(to, passphrase, "--passphrase")
        with _bar("encrypting") as progress:
            sha256 = encrypt_file(
                file, target, recipients,
                purpose=purpose, overwrite=force, digest=True, progress=progress,
            )  # fmt: skip
        typer.echo(f"{target}: encrypted for {len(recipients)}")
        typer.echo(f"SHA-256 of the plaintext: {sha256}")


def decrypt(
    file: Annotated[Path, typer.Argument(help="File that `lepton encrypt` wrote.")],
    *,
    key: Key = None,
    passphrase: OpenPassphrase = False,
    out: Annotated[Path | None, typer.Option(help="Default: FILE without .lepton.")] = None,
    force: Force = False,
    sha256: Annotated[
        str | None, typer.Option(help="SHA-256 that the plaintext must have, in hexadecimal.")
    ] = None,
    purpose: Purpose = "lepton/file/v1",
) -> None:
    """Decrypt a file; the plaintext appears, for its owner only, once all of it is verified.

    Example: lepton decrypt customers.csv.lepton --key alice.key
    """
    with one_line_errors():
        from lepton_flwr.crypto.encrypted_file import decrypt_file
        from lepton_flwr.errors import ConfigError

        if out is None and file.suffix != SUFFIX:
            raise ConfigError(f"{file}: expected a name that ends in {SUFFIX}, or --out")
        target = file.with_suffix("") if out is None else out
        opener = _opener(key, passphrase)
        with _bar("decrypting") as progress:
            found = decrypt_file(
                file, target, opener,
                purpose=purpose, overwrite=force, digest=True, sha256=sha256, progress=progress,
            )  # fmt: skip
        typer.echo(f"{target}: decrypted, all of it verified")
        typer.echo(f"SHA-256 of the plaintext: {found}")


def rewrap(
    files: Annotated[list[Path], typer.Argument(help="Files that `lepton encrypt` wrote.")],
    *,
    key: Key = None,
    passphrase: OpenPassphrase = False,
    to: To = None,
    new_passphrase: Annotated[
        bool,
        typer.Option(
            "--new-passphrase",
            help="A passphrase shall open it: typed twice, or of LEPTON_NEW_PASSPHRASE.",
        ),
    ] = False,
) -> None:
    """Change who can open files, without encrypting their data again.

    Those named take the place of all that they had. Who kept a copy of a former file can still
    open that copy.

    Example: lepton rewrap customers.csv.lepton --key old.key --to new.key.pub
    """
    with one_line_errors():
        from lepton_flwr.commands.passphrases import NEW_VARIABLE
        from lepton_flwr.crypto.encrypted_file import rewrap_file

        opener = _opener(key, passphrase)
        recipients = _recipients(to, new_passphrase, "--new-passphrase", NEW_VARIABLE)
        for file in files:
            with _bar("rewrapping") as progress:
                rewrap_file(file, opener, recipients, progress=progress)
            typer.echo(f"{file}: encrypted for {len(recipients)}, in place of those before")


def inspect(
    file: Annotated[Path, typer.Argument(help="File that `lepton encrypt` wrote.")],
) -> None:
    """Show what an encrypted file says of itself: version, sizes, recipients.

    Nobody has proved it: only decrypting does.

    Example: lepton inspect customers.csv.lepton
    """
    with one_line_errors():
        from lepton_flwr.crypto import encrypted_file

        found = encrypted_file.inspect(file)
        rows = [
            ("format", f"version {found.version}"),
            ("purpose", ascii(found.purpose)[1:-1]),
            ("plaintext", f"{found.plaintext_bytes:,} bytes"),
            ("file", f"{found.file_bytes:,} bytes, {found.header_bytes:,} of header"),
            ("chunks", f"{found.chunk_bytes:,} bytes each"),
        ]
        for one in found.recipients:
            name = "" if one.fingerprint is None else f" {one.fingerprint}"
            rows.append(("recipient", f"{one.suite}{name}"))
        for name, value in rows:
            typer.echo(f"{name:<12}{value}")


@app.command()
def new(
    out: Annotated[
        Path, typer.Argument(help="File of the private key; OUT.pub is the public one.")
    ],
    *,
    suite: Annotated[
        str, typer.Option(help="x25519, x25519-mlkem768 (against quantum computers), or rsa-3072.")
    ] = "x25519",
    passphrase: Annotated[
        bool,
        typer.Option(
            "--passphrase",
            help="Encrypt the private key: typed twice, or of the variable LEPTON_PASSPHRASE.",
        ),
    ] = False,
) -> None:
    """Make a key pair: OUT, for its owner only, and OUT.pub, for those who encrypt.

    Example: lepton encryption-key new alice.key
    """
    with one_line_errors():
        from lepton_flwr.commands.passphrases import ask_new
        from lepton_flwr.crypto.files import KeyFileError
        from lepton_flwr.crypto.recipients import DecryptionKey

        public = out.with_name(out.name + ".pub")
        if public.exists():
            raise KeyFileError(f"{public}: exists; choose another name")
        secret = ask_new() if passphrase else None
        made = DecryptionKey.generate(suite)
        made.save(out, secret)
        made.recipient.save(public)
        typer.echo(f"{out}: keep it secret")
        typer.echo(f"{public}: {made.suite}, fingerprint {made.recipient.fingerprint}")


@app.command()
def show(
    public: Annotated[Path, typer.Argument(help="Public key: OUT.pub of `new`.")],
) -> None:
    """Show the fingerprint of a public key, which people compare before they encrypt for it.

    Example: lepton encryption-key show alice.key.pub
    """
    with one_line_errors():
        from lepton_flwr.crypto.recipients import Recipient

        recipient = Recipient.load(public)
        typer.echo(f"{recipient.suite} {recipient.fingerprint}")


@app.callback()
def _encryption_key() -> None:
    """Key pairs of those for whom data is encrypted.

    Example: lepton encryption-key new alice.key
    """


def _recipients(
    to: list[Path] | None, passphrase: bool, option: str, variable: str = "LEPTON_PASSPHRASE"
) -> list["Sealer"]:
    from lepton_flwr.commands.passphrases import ask_new
    from lepton_flwr.crypto.passphrase import Passphrase
    from lepton_flwr.crypto.recipients import Recipient
    from lepton_flwr.errors import ConfigError

    recipients: list[Sealer] = [Recipient.load(path) for path in to or ()]
    if passphrase:
        recipients.append(Passphrase(ask_new(variable)))
    if not recipients:
        raise ConfigError(f"nobody to encrypt for: expected --to PUBLIC_KEY or {option}")
    return recipients


def _opener(key: Path | None, passphrase: bool) -> "Opener":
    from lepton_flwr.commands.passphrases import ask, decryption_key
    from lepton_flwr.crypto.passphrase import Passphrase
    from lepton_flwr.errors import ConfigError

    if (key is None) != passphrase:
        raise ConfigError("expected either --key or --passphrase, to open it with")
    return Passphrase(ask("the file")) if key is None else decryption_key(key)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(
        *columns,
        TransferSpeedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
