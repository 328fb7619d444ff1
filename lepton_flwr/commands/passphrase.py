"""Where commands take passphrases from: the environment or the keyboard, never an argument."""

import os
import sys

import click
import typer

from lepton_flwr.errors import ConfigError

VARIABLE = "LEPTON_PASSPHRASE"
NEW_VARIABLE = "LEPTON_NEW_PASSPHRASE"


def read_passphrase(prompt: str, variable: str = VARIABLE, *, new: bool = False) -> str:
    """The passphrase in the environment's `variable`, or else typed without an echo.

    Args:
        prompt: what to ask for.
        variable: name of the variable.
        new: it will encrypt something, so it is typed twice.

    Raises:
        ConfigError: there is neither.
    """
    given = os.environ.get(variable)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise ConfigError(f"no passphrase: type it in a terminal, or set the variable {variable}")
    try:
        typed: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=new, err=True)
    except click.Abort:
        raise KeyboardInterrupt from None
    return typed
