"""Passphrases: from a prompt or the environment, never from an argument, which others can see."""

import os
import sys
from pathlib import Path

import typer

from lepton_flwr.crypto.private_keys import ENVIRONMENT_VARIABLE, PassphraseError, is_protected

NEW_VARIABLE = "LEPTON_NEW_PASSPHRASE"


def ask_new(variable: str = ENVIRONMENT_VARIABLE) -> str:
    """A new passphrase: from the environment, or asked for twice.

    Raises:
        PassphraseError: there is neither the variable nor a terminal.
    """
    if found := os.environ.get(variable):
        return found
    _check_terminal(variable)
    return str(typer.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True))


def ask_for(key: Path) -> str | None:
    """The passphrase of a key: None for one without, else from the environment or asked for.

    Raises:
        PassphraseError: there is neither the variable nor a terminal.
        KeyFileError: the key cannot be read or is open to other users.
    """
    if not is_protected(key):
        return None
    if found := os.environ.get(ENVIRONMENT_VARIABLE):
        return found
    _check_terminal(ENVIRONMENT_VARIABLE)
    return str(typer.prompt(f"Passphrase of {key.name}", hide_input=True, err=True))


def _check_terminal(variable: str) -> None:
    if not sys.stdin.isatty():
        raise PassphraseError(
            f"a passphrase is needed and there is no terminal to ask at: set {variable}"
        )
