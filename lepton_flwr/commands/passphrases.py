"""Passphrases: from a prompt or the environment, never from an argument, which others can see."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lepton_flwr.crypto.errors import PassphraseError
from lepton_flwr.crypto.private_keys import ENVIRONMENT_VARIABLE, is_protected
from lepton_flwr.crypto.recipients import DecryptionKey

if TYPE_CHECKING:
    from lepton_flwr.runs.artifacts import GetKey

NEW_VARIABLE = "LEPTON_NEW_PASSPHRASE"


def ask_new(variable: str = ENVIRONMENT_VARIABLE) -> str:
    """A new passphrase: from the environment, or asked for twice.

    Raises:
        PassphraseError: there is neither the variable nor a terminal.
    """
    return _ask("New passphrase", variable, twice=True)


def ask(what: str) -> str:
    """The passphrase of `what`: from the environment, or asked for.

    Raises:
        PassphraseError: there is neither the variable nor a terminal.
    """
    return _ask(f"Passphrase of {what}", ENVIRONMENT_VARIABLE, twice=False)


def ask_for(key: Path) -> str | None:
    """The passphrase of a key: None for one without, else from the environment or asked for.

    Raises:
        PassphraseError: there is neither the variable nor a terminal.
        KeyFileError: the key cannot be read or is open to other users.
    """
    return ask(key.name) if is_protected(key) else None


def decryption_key(path: Path) -> DecryptionKey:
    """The decryption key in a file, whose passphrase is asked for if it has one.

    Raises:
        PassphraseError: it has one, and there is neither the variable nor a terminal.
        KeyFileError: the file is missing, malformed or open to other users.
        EnvelopeError: the passphrase is another, or the file is damaged.
    """
    locked = DecryptionKey.needs_passphrase(path)
    return DecryptionKey.load(path, ask(path.name) if locked else None)


def getter(path: Path | None) -> "GetKey | None":
    """What gives the decryption key in a file when it is needed; None without a file."""
    return partial(decryption_key, path) if path is not None else None


def _ask(prompt: str, variable: str, *, twice: bool) -> str:
    if found := os.environ.get(variable):
        return found
    if not sys.stdin.isatty():
        raise PassphraseError(
            f"a passphrase is needed and there is no terminal to ask at: set {variable}"
        )
    return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=twice, err=True))
