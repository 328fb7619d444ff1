"""`lepton predict`: a run's model on a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors
from lepton_flwr.commands.options import Debug

if TYPE_CHECKING:
    from lepton_flwr.runs.predictions import Assessment


def predict(
    model: Annotated[
        Path, typer.Argument(help="A run's folder, or its model.keras or model.keras.lepton.")
    ],
    table: Annotated[
        Path, typer.Argument(metavar="CSV", help="Rows with the columns that it was trained on.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Predictions; a picture goes beside them.")] = Path(
        "predictions.csv"
    ),
    key: Annotated[
        Path | None, typer.Option(help="Key of one for whom the model was encrypted.")
    ] = None,
    unseen: Annotated[
        str,
        typer.Option(
            help="What a category is that training did not see: 'error', or 'other' to take it "
            "as training took rare ones."
        ),
    ] = "error",
    debug: Debug = False,
) -> None:
    """Predict each row's class, and say how right that is where the CSV holds the answers.

    Writes the predicted class and the probability of each class. If the label column is there, it
    shows accuracy, AUC and a confusion matrix, and draws them with the ROC curve.

    Example: lepton predict runs/20260101-120000-health patients.csv --out predictions.csv
    """
    with one_line_errors(debug):
        from lepton_flwr._files import write_atomic
        from lepton_flwr._validate import choice
        from lepton_flwr.commands.passphrases import getter
        from lepton_flwr.data.schema import UNSEEN
        from lepton_flwr.errors import ConfigError
        from lepton_flwr.runs.predictions import assess, draw, to_csv
        from lepton_flwr.runs.saved import SavedRun

        choice("--unseen", unseen, UNSEEN)
        picture = out.with_suffix(".png")
        if out in (table, picture):
            raise ConfigError(f"--out {out}: expected a CSV file other than that of the rows")

        run = SavedRun.open(model, getter(key))
        rows = run.read(table)
        shares = run.probabilities(rows, unseen)
        found = None
        if run.table.label in rows:
            answers = run.table.answers(rows[run.table.label])
            found = assess(run.table.classes, shares, answers)
        write_atomic(out, to_csv(run.table.classes, shares).encode())
        typer.echo(f"{out}: {len(shares):,} predictions")
        if found is not None:
            write_atomic(picture, draw(run.table.classes, found))
            _show(run.table.classes, found)
            typer.echo(f"{picture}: confusion matrix and ROC curve")
        else:
            typer.echo(f"no column {run.table.label!r}: nothing to compare with")


def _show(classes: tuple[str, ...], found: "Assessment") -> None:
    from rich.console import Console
    from rich.table import Table

    from lepton_flwr.runs.text import decimal, one_line

    typer.echo(f"accuracy {decimal(found.accuracy)}, AUC {decimal(found.auc)}")
    table = Table(box=None, padding=(0, 3, 0, 0))
    table.add_column("answer \\ predicted", style="bold")
    for name in classes:
        table.add_column(one_line(name), justify="right")
    for name, counts in zip(classes, found.confusion.tolist(), strict=True):
        table.add_row(one_line(name), *(f"{count:,}" for count in counts))
    Console().print(table)
