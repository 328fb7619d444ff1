"""Errors of commands: one line on standard error, and an exit code that says of which kind."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click
import typer

from lepton_flwr.errors import LeptonError
from lepton_flwr.runs.text import one_line


@contextmanager
def one_line_errors(debug: bool = False) -> Iterator[None]:
    """End the command with one line and a code instead of a traceback."""
    try:
        yield
    except (click.exceptions.Exit, click.ClickException):
        raise
    except KeyboardInterrupt as interrupt:
        folder = getattr(interrupt, "folder", None)
        kept = f"; the finished rounds are in {folder}" if folder is not None else ""
        print(f"interrupted{kept}", file=sys.stderr)
        raise typer.Exit(130) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, LeptonError):
            say(str(error))
            raise typer.Exit(error.exit_code) from None
        hint = "" if debug else " (--debug shows where)"
        say(f"unexpected {type(error).__name__}: {error}{hint}")
        raise typer.Exit(1) from None


def say(message: str) -> None:
    """Print an error as one line, whatever it quotes."""
    print(f"error: {one_line(message)}", file=sys.stderr)


def tell(message: str) -> None:
    """Print what a running device or server says, as one line of standard error."""
    print(one_line(message), file=sys.stderr, flush=True)
