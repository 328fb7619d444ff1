"""`lepton federation status`."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors


def status(
    folder: Annotated[Path, typer.Argument(help="Folder of a server, a device or a federation.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show who is there: devices, when they were last seen, versions, restarts and errors.

    Example: lepton federation status clinics/server
    """
    with one_line_errors():
        import json

        from lepton_flwr.deploy.overview import overview

        rows = overview(folder)
        if as_json:
            typer.echo(json.dumps([vars(row) for row in rows], indent=2))
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        from lepton_flwr.runs.text import one_line

        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("name", "state", "last seen", "version", "restarts", "last error"):
            table.add_column(column, no_wrap=column != "last error", overflow="fold")
        for row in rows:
            cells = (row.name, row.state, row.seen, row.version, str(row.restarts), row.last_error)
            table.add_row(*(Text(one_line(cell)) for cell in cells))
        Console().print(table)
