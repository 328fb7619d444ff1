"""What a client's failure costs, and that its class arrives: real client mods, no processes."""

import logging
import threading

import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from lepton_flwr.errors import DataError, OutputError, PolicyError
from lepton_flwr.failures import Failure
from lepton_flwr.privacy.accounting import BudgetError
from lepton_flwr.secagg import version
from lepton_flwr.secagg.wire import EXCHANGE, RECORD, Exchange
from strategies import secure_session
from strategies.exchange import RunInterruptedError
from strategies.secure_aggregation import SecureAggregation
from strategies.secure_grid import SecureGrid, SecureSettings
from strategies.watcher import Watcher


class Heard(Watcher):
    def __init__(self):
        self.waits, self.failures, self.retries, self.exchanges = [], [], [], []

    def waiting(self, phase, done, total, nodes):
        self.waits.append((phase, done, total, list(nodes)))

    def failed(self, phase, node, failure):
        self.failures.append((phase, node, failure))

    def retrying(self, attempt, seconds, reason):
        self.retries.append((attempt, seconds))

    def exchanged(self, purpose, phase, done, total, seconds):
        self.exchanges.append((purpose, phase, done, total))


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    monkeypatch.setattr(secure_session, "FIRST_BACKOFF", 0.001)


def run(grid, members, initial, rounds=1, watcher=None, stop=None, **changes):
    sessions = []
    values = {"update_bound": 2.0, "max_examples": 1000, "timeout": 0.2, **changes}
    strategy = SecureAggregation(
        FedAvg(fraction_evaluate=0.0),
        lambda plain: SecureGrid(
            plain,
            members[1],
            SecureSettings(**values),
            on_session=lambda report, decoded: sessions.append(report),
            watcher=watcher,
            stop=stop,
        ),
    )
    strategy.start(grid, initial, num_rounds=rounds, train_config=ConfigRecord())
    return sessions


class ResourceExhaustedError(Exception):
    """As TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (MemoryError(), Failure.MEMORY),
        (ResourceExhaustedError(), Failure.MEMORY),
        (DataError("row 4711"), Failure.DATA),
        (BudgetError("spent"), Failure.BUDGET),
        (PolicyError("no"), Failure.REFUSED),
        (ValueError("row 4711"), Failure.OTHER),
    ],
)
def test_a_failure_at_work_costs_the_round_one_client_and_is_told_by_its_class(
    grid, members, initial, error, failure, failing_client
):
    heard = Heard()
    some = grid(app=failing_client(error))
    (report,) = run(some, members, initial, watcher=heard)
    assert not report.skipped
    assert report.survivors == 5
    assert report.failures == {failure: 1}
    assert heard.failures == [("train", 102, failure)]
    assert ("train", "train", 5, 6) in heard.exchanges


def test_a_silent_client_timed_out_and_one_that_the_federation_does_not_know_has_left(
    grid, members, initial
):
    some = grid(clients=10)
    some.gone = {101: 0, 104: 1}
    known = some.get_node_ids
    counted = []

    def get_node_ids():
        counted.append(1)
        # After the cohort was formed one of the two leaves the federation.
        return [node for node in known() if node != 104 or len(counted) < 3]

    some.get_node_ids = get_node_ids
    (report,) = run(some, members, initial)
    assert report.failures == {Failure.TIMEOUT: 1, Failure.LEFT: 1}
    assert report.survivors == 8


def test_a_device_of_an_older_release_is_refused_by_its_class(grid, members, initial, monkeypatch):
    monkeypatch.setattr(version, "__version__", "0.2.0")
    some = grid()

    def tamper(reply):
        record = reply.content.config_records.get(RECORD) if reply.has_content() else None
        if reply.metadata.src_node_id == 103 and record and version.APP_KEY in record:
            record[version.APP_KEY] = "0.1.0"
        return reply

    some.tamper = tamper
    (report,) = run(some, members, initial)
    assert report.failures == {Failure.VERSION: 1}
    assert report.survivors == 5


def test_a_device_refuses_a_server_of_a_later_release(grid, members, initial, monkeypatch):
    some = grid()
    answer = some.answer

    def later(message):
        record = message.content.config_records[RECORD]
        if record[EXCHANGE] == Exchange.KEYS and message.metadata.dst_node_id == 100:
            record[version.APP_KEY] = "99.0.0"
        return answer(message)

    some.answer = later
    (report,) = run(some, members, initial)
    assert report.failures == {Failure.VERSION: 1}
    assert any("upgrade" in r.error.reason for r in some.replies if r.has_error())


@pytest.mark.parametrize("exchange", [1, 2, 3, 4])
def test_a_client_that_restarts_in_a_round_loses_that_round_only(grid, members, initial, exchange):
    some = grid()
    answer, restarted = some.answer, []

    def restart(message):
        record = message.content.config_records[RECORD]
        if (
            message.metadata.dst_node_id == 104
            and record[EXCHANGE] == list(Exchange)[exchange]
            and not restarted
        ):
            restarted.append(some.contexts[104])
            some.contexts[104].state = RecordDict()
        return answer(message)

    some.answer = restart
    first, second = run(some, members, initial, rounds=2)
    assert restarted
    assert first.failures == {Failure.LEFT: 1}
    # Its vector is in the sum from the third exchange on, with its shares in others' hands.
    assert first.survivors == (5 if exchange < 3 else 6)
    assert second.failures == {}
    assert second.survivors == 6


class TestRetries:
    def test_a_session_that_asked_nobody_to_work_is_opened_anew_with_another_number(
        self, grid, members, initial
    ):
        some, heard = grid(), Heard()
        some.gone = {100: 1, 101: 1, 102: 1}
        some.lost_sessions = lambda number: number <= 2
        reports = run(some, members, initial, watcher=heard, retries=2)
        assert [bool(report.skipped) for report in reports] == [True, True, False]
        assert reports[-1].survivors == 6
        assert [attempt for attempt, _ in heard.retries] == [1, 2]
        assert heard.retries[1][1] == 2 * heard.retries[0][1]
        numbers = [
            message.content.config_records[RECORD]["number"]
            for message in some.requests
            if message.content.config_records[RECORD][EXCHANGE] == Exchange.KEYS
        ]
        assert sorted(set(numbers)) == [1, 2, 3]

    def test_after_the_last_retry_the_round_is_skipped(self, grid, members, initial):
        some = grid()
        some.gone = dict.fromkeys((100, 101, 102), 1)
        assert len(run(some, members, initial, retries=1)) == 2

    @pytest.mark.parametrize("exchange", [2, 3, 4])
    def test_a_session_for_which_clients_worked_is_not_repeated(
        self, grid, members, initial, exchange
    ):
        some = grid()
        some.gone = dict.fromkeys((100, 101, 102), exchange)
        reports = run(some, members, initial, retries=5)
        assert len(reports) == 1
        assert reports[0].skipped
        assert reports[0].worked

    def test_the_charge_of_a_round_is_one_however_often_it_is_retried(self, grid, members, initial):
        some, charges = grid(), []
        some.gone = dict.fromkeys((100, 101, 102), 1)
        some.lost_sessions = lambda number: number == 1
        strategy = SecureAggregation(
            FedAvg(fraction_evaluate=0.0),
            lambda plain: SecureGrid(
                plain,
                members[1],
                SecureSettings(update_bound=2.0, timeout=0.2, retries=2),
                before_train=lambda: charges.append(1),
            ),
        )
        strategy.start(some, initial, num_rounds=1, train_config=ConfigRecord())
        assert charges == [1]

    def test_an_operator_ends_the_wait_for_a_retry(self, grid, members, initial, monkeypatch):
        monkeypatch.setattr(secure_session, "FIRST_BACKOFF", 1000.0)
        some, stop = grid(), threading.Event()
        some.gone = dict.fromkeys((100, 101, 102), 1)

        class Stops(Watcher):
            def retrying(self, attempt, seconds, reason):
                stop.set()

        with pytest.raises(RunInterruptedError):
            run(some, members, initial, retries=1, watcher=Stops(), stop=stop)


def test_an_observer_that_fails_ends_the_run_and_is_no_skipped_round(grid, members, initial):
    class Full(Watcher):
        def exchanged(self, purpose, phase, done, total, seconds):
            raise OutputError("disk full")

    with pytest.raises(OutputError):
        run(grid(), members, initial, watcher=Full())
