"""What a private vote costs and gets right: `python -m simulations.benchmarks.votes [SCENARIO]`.

Every participant trains on its own rows alone; all vote on held-out rows through secure
aggregation. Rows of the table: one participant's model by itself, their plurality without noise,
GNMax at several epsilon for all queries together, and one model trained on all rows in one place.
The noise is drawn anew for each of `--repeats` polls on the same votes, added up once.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.identity import Roster
from lepton_flwr.data import scenarios
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.inference.ballot import Question
from lepton_flwr.inference.in_process import InProcessVoters, Participant
from lepton_flwr.inference.local_models import train_local_models
from lepton_flwr.inference.poll import Poll, Tally, Voters
from lepton_flwr.privacy.ledger import Ledger
from lepton_flwr.privacy.votes import ABSTAINED, ConfidentGNMax, GNMax, Plurality
from lepton_flwr.runs.settings import resolve
from lepton_flwr.secagg.in_process import Party
from lepton_flwr.training.models import ModelSpec
from simulations.results.central import central

DELTA = 1e-5
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)


def _once(voters: Voters) -> Voters:
    """The same tally again: one secure sum serves all repetitions, whose noise alone is new."""
    kept: dict[str, Tally] = {}

    def again(queries: np.ndarray, question: Question) -> Tally:
        if question.kind not in kept:
            kept[question.kind] = voters(queries, question)
        return kept[question.kind]

    return again


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", default="transport")
    parser.add_argument("--participants", type=int, default=100)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--path", default="", help="data.path of scenarios that read a folder")
    options = parser.parse_args()

    config = resolve(
        options.scenario,
        clients=options.participants,
        assignments=["data.partition=iid", f"data.path={options.path}"],
    )
    scenario = scenarios.get(config.scenario)
    data = scenario.load(config)
    if not isinstance(data, FederatedData):
        parser.error(f"scenario {options.scenario}: expected one with public ranges")
    spec = ModelSpec(scenario.model, data.input_shape, data.num_classes, config.train.hidden_units)
    start = time.perf_counter()
    models = train_local_models(config, spec, data.clients, options.steps)
    training = time.perf_counter() - start
    x = np.concatenate([client.x_test for client in data.clients])
    y = np.concatenate([client.y_test for client in data.clients])
    chosen = np.random.default_rng(1).permutation(len(x))[: options.queries]
    x, y = x[chosen], y[chosen]

    table = Table(box=None, padding=(0, 3, 0, 0))
    for name in ("answers of", "noise, votes", "accuracy", "as the plurality", "answered"):
        table.add_column(name, justify="right" if name != "answers of" else "left")
    alone = [float(np.mean(model(x).argmax(axis=1) == y)) for model in models]
    table.add_row("one participant alone", "–", f"{np.mean(alone):.3f}", "–", "1.000")

    authority = Authority.create("votes")
    roster = Roster.of_authority(authority.certificate_pem)
    people = [
        Participant(Party(authority.issue(f"participant-{i}"), roster), model)
        for i, model in enumerate(models)
    ]
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.db") as ledger:
        poll = Poll(
            _once(InProcessVoters(people, roster)),
            data.num_classes,
            ledger=ledger,
            dataset="rows",
            limits={},
        )
        start = time.perf_counter()
        plain = poll.labels(x, Plurality()).labels
        asking = time.perf_counter() - start
        table.add_row("plurality, not private", "0", f"{np.mean(plain == y):.3f}", "1.000", "1.000")
        rows: list[tuple[str, float, GNMax | ConfidentGNMax]] = []
        for epsilon in EPSILONS:
            mechanism = GNMax.calibrated(epsilon, DELTA, options.queries)
            rows.append((f"GNMax, epsilon {epsilon:g}", mechanism.stddev, mechanism))
        threshold = 0.75 * options.participants
        confident = ConfidentGNMax.calibrated(threshold, 4.0, DELTA, options.queries)
        name = f"confident, {threshold:g} votes, epsilon <= 4"
        rows.append((name, confident.answer.stddev, confident))
        for name, stddev, used in track(rows, "polls", console=Console(stderr=True)):
            right, same, answered = [], [], []
            for _ in range(options.repeats):
                labels = poll.labels(x, used).labels
                given = labels != ABSTAINED
                answered.append(given.mean())
                if given.any():
                    right.append(np.mean(labels[given] == y[given]))
                    same.append(np.mean(labels[given] == plain[given]))
            cells = (np.mean(right), np.mean(same), np.mean(answered))
            table.add_row(name, f"{stddev:.1f}", *(f"{value:.3f}" for value in cells))
    whole = central(replace(config, clients=options.participants), "network")
    table.add_row(
        "one model on all rows, all held-out rows", "–", f"{whole.accuracy:.3f}", "–", "–"
    )
    console = Console()
    console.print(
        f"{options.scenario}: {options.participants} participants, {options.queries} queries, "
        f"{options.repeats} polls each; delta {DELTA:g}, adding or removing one participant's data"
    )
    console.print(table)
    console.print(f"training {training:.1f} s, one poll {asking:.1f} s")


if __name__ == "__main__":
    main()
