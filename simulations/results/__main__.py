"""Measures the scenarios and writes their pages: `python -m simulations.results measure`."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from lepton_flwr._validate import choice
from lepton_flwr.data.scenarios import SCENARIOS
from lepton_flwr.errors import LeptonError
from simulations.results import central as references
from simulations.results.measure import KEYS, PAGES, Store, measure, missing, settings
from simulations.results.pages import write

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
Docs = Annotated[Path, typer.Option(help="Folder of the pages and of measured.json.")]
Seed = Annotated[int, typer.Option(help="Of held-out rows, partition and weights.")]


@app.command("measure")
def measure_all(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[SCENARIO]...", help="Default: all with a page.")
    ] = None,
    *,
    seed: Seed = 1,
    only: Annotated[
        list[str] | None, typer.Option(help=f"One way to learn, of {', '.join(KEYS)}; repeatable.")
    ] = None,
    under: Annotated[str, typer.Option(help="Words before each command, as 'nice -n 10'.")] = "",
    docs: Docs = Path("docs/results"),
) -> None:
    """Measure what measured.json does not hold, one command at a time, and write the pages.

    Example: python -m simulations.results measure health credit --under "nice -n 10"
    """
    store = Store(docs)
    chosen = names or [name for name in PAGES if name in SCENARIOS]
    for way_key in only or ():
        choice("--only", way_key, KEYS)
    failed: list[str] = []
    for scenario, way in list(missing(store, chosen, seed)):
        if only and way.key not in only:
            continue
        try:
            found = measure(scenario, way, seed, shlex.split(under))
        except LeptonError as error:
            failed.append(f"{scenario} {way.key}")
            typer.echo(f"error: {error}", err=True)
            continue
        store.put(scenario, way, seed, found)
        write(store, docs)
        typer.echo(f"{found['command']}: {found['accuracy']}, AUC {found['auc']}")
    write(store, docs)
    if failed:
        raise LeptonError(f"not measured: {', '.join(failed)}; the same command tries them again")


@app.command()
def pages(docs: Docs = Path("docs/results")) -> None:
    """Write the pages from measured.json alone.

    Example: python -m simulations.results pages
    """
    write(Store(docs), docs)


@app.command()
def central(
    scenario: Annotated[str, typer.Argument(help="See `lepton scenarios`.")],
    kind: Annotated[str, typer.Argument(help="network, trees or majority.")] = "network",
    *,
    seed: Seed = 1,
) -> None:
    """Learn from all rows in one place, without privacy, and print what that reaches as JSON.

    Example: python -m simulations.results central health network
    """
    config = dataclasses.replace(settings(scenario), seed=seed)
    typer.echo(json.dumps(dataclasses.asdict(references.central(config, kind))))


if __name__ == "__main__":
    try:
        app()
    except LeptonError as failure:
        sys.exit(f"error: {failure}")
