"""`lepton simulate` and `lepton scenarios`."""

from lepton_flwr.commands.errors import one_line_errors
from lepton_flwr.commands.options import (
    Assignments,
    By,
    ClientEpsilon,
    Clients,
    ConfigFile,
    CsvFile,
    Debug,
    Epsilon,
    Label,
    LedgerFolder,
    ModelKey,
    ModelTo,
    NoDP,
    Out,
    ResumedRun,
    Rounds,
    Scenario,
    Seed,
)
from lepton_flwr.errors import ConfigError


def simulate(
    scenario: Scenario = None,
    *,
    csv: CsvFile = None,
    label: Label = None,
    by: By = None,
    clients: Clients = None,
    rounds: Rounds = None,
    epsilon: Epsilon = None,
    client_epsilon: ClientEpsilon = None,
    no_dp: NoDP = False,
    config: ConfigFile = None,
    assignments: Assignments = None,
    out: Out = None,
    ledger: LedgerFolder = None,
    seed: Seed = None,
    model_to: ModelTo = None,
    resume: ResumedRun = None,
    model_key: ModelKey = None,
    debug: Debug = False,
) -> None:
    """Run a federation on this machine and leave a folder with its results.

    `lepton scenarios` lists what SCENARIO can be; transport if not given. With --csv it is a table
    of yours: columns of numbers and categories, also with missing values and duplicates.
    `--resume` goes on with a run that was ended, after its last round, with its own settings and
    budget.

    Example: lepton simulate health --rounds 20 --epsilon 2 --set train.local_steps=30

    Example: lepton simulate --csv patients.csv --label died --by hospital
    """
    given = (
        scenario, clients, rounds, epsilon, client_epsilon, config, assignments, out, ledger, csv,
        label, by, model_to,
    )  # fmt: skip
    with one_line_errors(debug):
        from lepton_flwr.runs.progress import print_summary

        if resume is not None:
            if no_dp or seed is not None or any(value is not None for value in given):
                raise ConfigError("--resume: a run goes on with its own settings: give no others")
            from lepton_flwr.commands.passphrases import getter
            from simulations import runner

            print_summary(runner.resume(resume, debug, getter(model_key)))
            return
        if model_key is not None:
            raise ConfigError("--model-key: expected with --resume; --model-to encrypts a model")
        from lepton_flwr.runs.settings import resolve

        settings = resolve(
            scenario,
            config=config,
            clients=clients,
            rounds=rounds,
            epsilon=epsilon,
            client_epsilon=client_epsilon,
            no_dp=no_dp,
            seed=seed,
            csv=csv,
            label=label,
            by=by,
            model_to=model_to or (),
            assignments=assignments or (),
        )
        from simulations import runner

        print_summary(runner.simulate(settings, out, debug, ledger))


def scenarios() -> None:
    """List the scenarios.

    Example: lepton scenarios
    """
    with one_line_errors():
        from rich.console import Console
        from rich.table import Table

        from lepton_flwr.data.scenarios import SCENARIOS

        table = Table(box=None, padding=(0, 3, 1, 0))
        table.add_column("scenario", style="bold", no_wrap=True)
        table.add_column("title")
        table.add_column("data, label and clients")
        for scenario in SCENARIOS.values():
            table.add_row(scenario.name, scenario.title, scenario.description)
        Console().print(table)
