"""The commands that ask for a poll; who answers is replaced."""

import csv
import functools
from pathlib import Path

import numpy as np
import pytest

from lepton_flwr.crypto.address import Address
from lepton_flwr.deploy import poll as deploy_poll
from lepton_flwr.deploy.folders import create
from lepton_flwr.deploy.status import RUNNING, StatusFile
from lepton_flwr.deploy.supervisor import only_one
from lepton_flwr.errors import FederationError
from lepton_flwr.inference.folder import PollFolder
from lepton_flwr.inference.poll import Answers, Averages
from lepton_flwr.privacy.accounting import BudgetError
from simulations import polls

HEADER = "age,sex,sample.yr,kappa,lambda,creatinine,mgus"
ROWS = ["90,F,1997,1.2,1.3,1,0", "55,M,2000,0.9,1.0,1.1,0", "85,F,1995,2,2,1,1"]
ANSWERS = Answers(np.array([1, -1, 0]), np.array([2.5, np.nan, 0.125]), 9, 1.9, 3.25)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([HEADER, *ROWS, ""]))
    return path


@pytest.fixture
def asked(monkeypatch):
    """Questions to simulated clients, which give `ANSWERS`."""
    calls = []

    def ask(config, request, queries, **options):
        calls.append((config, request, queries, options))
        return ANSWERS

    monkeypatch.setattr(polls, "poll", ask)
    return calls


@pytest.fixture
def poll(lepton):
    return functools.partial(lepton, "poll")


def test_answers_margins_and_costs_are_told(poll, rows, asked, tmp_path):
    code, out, err = poll(rows, "health", "--epsilon", 2, "--limit", 4, "--out", "found.csv")
    assert (code, err) == (0, "")
    with (tmp_path / "found.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["prediction", "margin"], ["1", "2.500"], ["", ""], ["0", "0.125"],
        ]  # fmt: skip
    assert "2 of 3 rows answered by 9 participants" in out
    assert "epsilon 1.9 per participant for these answers alone, 3.25 per record for all" in out
    ((config, request, queries, _),) = asked
    assert (request.epsilon, request.limit, len(queries)) == (2, 4, 3)
    assert config.model.input_shape == queries.shape[1:]
    assert config.rounds == 1


def test_answers_that_the_file_has_are_compared(poll, rows, asked):
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([lines[0] + ",death", *(f"{row},1" for row in lines[1:]), ""]))
    _, out, _ = poll(rows, "health", "--epsilon", 2)
    assert "accuracy 0.500 of the rows with an answer" in out


def test_probabilities_have_a_column_for_each_class(poll, rows, monkeypatch, tmp_path):
    shares = np.array([[0.25, 0.75]] * 3)
    monkeypatch.setattr(polls, "poll", lambda *_, **__: Averages(shares, 9, 1.9, 1.9))
    code, _, _ = poll(rows, "health", "--epsilon", 2, "--probabilities")
    assert code == 0
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines[:2] == ["prediction,probability 0,probability 1", "1,0.250000,0.750000"]


def test_exact_answers_are_called_not_private(poll, rows, asked):
    _, out, _ = poll(rows, "health", "--no-dp")
    assert "exact and not private" in out
    assert asked[0][1].epsilon is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "--epsilon or --no-dp"),
        (["--epsilon", 1, "--no-dp"], "--epsilon or --no-dp"),
        (["--epsilon", -1], "epsilon=-1"),
        (["--epsilon", "nan"], "epsilon=nan"),
        (["--epsilon", 2, "--limit", 1], "limit=1: expected at least the 2"),
        (["--epsilon", 2, "--threshold", 3, "--probabilities"], "contradict"),
        (["--epsilon", 2, "--out", "rows.csv"], "other than that of the rows"),
        (["--epsilon", 2, "--run", "."], "the run names its own"),
        (["--epsilon", 2, "--training-epsilon", 0], "dp.record.epsilon=0"),
        (["--epsilon", 2, "--clients", 0], "clients=0"),
        (["--epsilon", 2, "--set", "model.input_shape=[3]", "--set", "model.num_classes=2"],
         "model.input_shape=[3]"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_one_line(poll, rows, asked, options, told):
    code, _, err = poll("rows.csv", "health", *options)
    assert code == 2
    assert err.startswith("error: ")
    assert told in err
    assert len(err.splitlines()) == 1
    assert asked == []


@pytest.mark.parametrize(
    ("table", "scenario", "told"),
    [
        ("none.csv", ["health"], "none.csv: No such file"),
        ("rows.csv", ["smoke"], "missing column mean radius"),
        ("rows.csv", ["csv"], "nothing says how rows become inputs"),
        ("rows.csv", ["helth"], "did you mean health"),
        ("rows.csv", ["--run", "."], "no config.toml"),
    ],
)
def test_rows_that_cannot_be_asked_of_are_one_line(poll, rows, asked, table, scenario, told):
    code, _, err = poll(table, *scenario, "--epsilon", 1)
    assert code != 0
    assert told in err
    assert len(err.splitlines()) == 1
    assert asked == []


def test_tables_without_a_preprocessor_are_not_polled(poll, rows, tmp_path):
    data = tmp_path / "data.csv"
    data.write_text("a,b,c\n" + "1,x,0\n2,y,1\n3,x,1\n" * 60)
    (tmp_path / "q.csv").write_text("a\n1\n")
    code, _, err = poll(
        "q.csv", "csv", "--epsilon", 1, "--set", f"data.path={data}",
        "--set", "model.input_shape=[1]", "--set", "model.num_classes=2",
    )  # fmt: skip
    assert code == 2
    assert "need a preprocessor" in err


# Of devices


@pytest.fixture
def server(tmp_path):
    create(tmp_path / "fed", 3, Address("localhost", 8000))
    folder = tmp_path / "fed" / "server"
    StatusFile(folder).enter(RUNNING)
    with only_one(folder):
        yield folder


def test_the_server_gets_all_within_its_own_folder(lepton, rows, server, monkeypatch):
    calls = []

    def run(folder, values, logs, console):
        calls.append(values)
        made = PollFolder(Path(values["poll"]))
        request, queries = made.asked()
        assert (request.epsilon, len(queries)) == (2, 3)
        made.answer(ANSWERS)

    monkeypatch.setattr(deploy_poll, "run_app", run)
    code, out, _ = lepton("server", "poll", server, rows, "health", "--epsilon", 2)
    assert code == 0
    assert "2 of 3 rows answered" in out
    (values,) = calls
    assert set(values) == {"simulated", "poll", "roster", "config-file", "ledger"}
    paths = [str(v) for k, v in values.items() if k != "simulated"]
    assert all(path.startswith(str(server.resolve())) for path in paths)


def test_what_the_server_says_of_a_poll_without_answers_is_told(lepton, rows, server, monkeypatch):
    def run(folder, values, logs, console):
        PollFolder(logs.parent).fail(BudgetError("the budget per client is spent"))
        raise FederationError("the run ended as finished:failed")

    monkeypatch.setattr(deploy_poll, "run_app", run)
    code, _, err = lepton("server", "poll", server, rows, "health", "--epsilon", 2)
    assert code == 5
    assert err == "error: BudgetError: the budget per client is spent\n"


def test_a_server_that_does_not_run_asks_nobody(lepton, rows, server, tmp_path):
    StatusFile(server).enter("stopped")
    code, _, err = lepton("server", "poll", server, rows, "health", "--epsilon", 2)
    assert code == 5
    assert "the server is stopped" in err
    assert not (server / "polls").exists()
    code, _, err = lepton("server", "poll", tmp_path, rows, "health", "--epsilon", 2)
    assert code == 2
    assert "server.toml" in err
