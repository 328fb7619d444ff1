"""`lepton budget`: plan what to spend, and see what was spent."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors

app = typer.Typer(rich_markup_mode="rich")

Delta = Annotated[float, typer.Option(help="Chance that epsilon does not cover.")]
LedgerFile = Annotated[Path, typer.Argument(help="A ledger: ledger.db of a device, server.db.")]


@app.callback()
def _budget() -> None:
    """The privacy budget: what a plan costs, and what ledgers hold.

    Example: lepton budget plan --records 60000 --batch 256 --epochs 15 --epsilon 2
    """


@app.command()
def plan(
    *,
    records: Annotated[int, typer.Option(help="Records of one data set.")],
    batch: Annotated[float, typer.Option(help="Expected records in a batch.")],
    epochs: Annotated[float, typer.Option(help="Passes over the data, in all.")],
    epsilon: Annotated[
        float | None, typer.Option(help="Most to spend: the noise for it is computed.")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Noise multiplier: the epsilon of it is computed.")
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="Default: a tenth of 1/records, at most 1e-5.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds that the steps are spread over.")] = 1,
    replace_one: Annotated[
        bool, typer.Option("--replace-one", help="Hide the replacement of a record as well.")
    ] = False,
) -> None:
    """Compute the noise for an epsilon, or the epsilon of a noise, for DP-SGD.

    Example: lepton budget plan --records 60000 --batch 256 --epochs 15 --epsilon 2
    """
    with one_line_errors():
        from rich.console import Console
        from rich.table import Table

        from lepton_flwr.privacy.plan import make_plan

        table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        made = make_plan(
            records, batch, epochs, epsilon=epsilon, noise_multiplier=noise, delta=delta,
            rounds=rounds, replace_one=replace_one,
        )  # fmt: skip
        for name, value in made.rows():
            table.add_row(name, value)
        console = Console()
        console.print(table)
        console.print(made.sentence(), highlight=False)


@app.command()
def show(
    ledger: LedgerFile,
    limit: Annotated[
        float | None, typer.Option(help="Epsilon to draw as the limit and count against.")
    ] = None,
    delta: Delta = 1e-5,
    plot: Annotated[
        Path | None, typer.Option(help="PNG to draw. Default: beside where you are, budget.png.")
    ] = None,
) -> None:
    """Show what a ledger holds: a table, and a plot of epsilon over time against the limit.

    Example: lepton budget show device-7/ledger.db --limit 3
    """
    with one_line_errors():
        from rich.console import Console

        from lepton_flwr._files import write_atomic
        from lepton_flwr.runs.budget_view import draw, tables

        with _opened(ledger) as book:
            console = Console()
            for table in tables(book, delta, limit):
                console.print(table)
            target = Path("budget.png") if plot is None else plot
            write_atomic(target, draw(book, delta, limit))
            console.print(f"plot: {target}", markup=False, soft_wrap=True)


@app.command()
def export(
    ledger: LedgerFile,
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: standard output.")
    ] = None,
    delta: Delta = 1e-5,
) -> None:
    """Write all that a ledger holds as JSON.

    Example: lepton budget export device-7/ledger.db --out spent.json
    """
    with one_line_errors():
        import json

        from lepton_flwr._files import write_atomic

        with _opened(ledger) as book:
            text = json.dumps(book.export(delta), indent=2, allow_nan=False)
        if out is None:
            typer.echo(text)
        else:
            write_atomic(out, f"{text}\n".encode())


def _opened(path: Path):  # type: ignore[no-untyped-def]  # its type is heavy to import
    from lepton_flwr.errors import ConfigError
    from lepton_flwr.privacy.ledger import Ledger

    if not path.is_file() and not path.with_suffix(".head").exists():
        raise ConfigError(f"{path}: expected the file of a ledger, as ledger.db of a device")
    return Ledger(path)
