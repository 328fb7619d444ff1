import numpy as np
import pytest

from lepton_flwr.crypto.authority import Authority
from lepton_flwr.crypto.identity import Roster
from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.inference.in_process import InProcessVoters, Participant
from lepton_flwr.inference.poll import Poll
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.accounting import BudgetError
from lepton_flwr.privacy.events import SampledGaussian, Unit
from lepton_flwr.privacy.ledger import Charge, Ledger, Limit
from lepton_flwr.privacy.noise import GaussianNoise
from lepton_flwr.privacy.votes import (
    ABSTAINED,
    ConfidentGNMax,
    GNMax,
    MeanProbabilities,
    Plurality,
)
from lepton_flwr.secagg.errors import ThresholdError
from lepton_flwr.secagg.in_process import Party
from lepton_flwr.secagg.server import ServerSession

CLASSES = 3
QUERIES = np.arange(8.0).reshape(4, 2)
UNLIMITED = {}


@pytest.fixture(scope="module")
def authority():
    return Authority.create("tests")


@pytest.fixture(scope="module")
def identities(authority):
    return [authority.issue(f"participant-{i}") for i in range(7)]


def sure_of(labels):
    return lambda rows: np.eye(CLASSES)[labels]


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


@pytest.fixture
def make(authority, identities, ledger):
    roster = Roster.of_authority(authority.certificate_pem)

    def poll(predictors, limits=UNLIMITED, noise=None, **settings):
        people = [
            Participant(Party(identity, roster), predict)
            for identity, predict in zip(identities, predictors, strict=False)
        ]
        voters = InProcessVoters(people, roster, **settings)
        return Poll(voters, CLASSES, ledger=ledger, dataset="people", limits=limits, noise=noise)

    return poll


def votes_of(seed: int, people: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, CLASSES, (people, len(QUERIES)))


def seven(votes):
    return [sure_of(labels) for labels in votes]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_without_noise_the_most_votes_win(make, seed):
    votes = votes_of(seed)
    answers = make(seven(votes)).labels(QUERIES, Plurality())
    counts = (votes[:, :, None] == np.arange(CLASSES)).sum(axis=0)
    assert answers.labels.tolist() == counts.argmax(axis=1).tolist()
    assert answers.participants == 7


def test_large_noise_decides_and_small_noise_does_not(make):
    votes = np.ones((7, len(QUERIES)), int)
    quiet = make(seven(votes)).labels(QUERIES, GNMax(0.1))
    assert (quiet.labels == 1).all()
    loud = [make(seven(votes)).labels(QUERIES, GNMax(1000.0)).labels for _ in range(8)]
    assert (np.concatenate(loud) != 1).any()  # fails by chance once in 3^32


def test_the_one_who_asks_sees_masked_ballots_only(make, monkeypatch):
    """Every bit of what arrives is as often 1 as 0: within 7 standard errors, 32 bits.

    False-alarm rate 1e-10. A ballot in clear has nearly no bit set.
    """
    seen = []
    receive = ServerSession.receive_masked

    def watched(self, node, vector, participation):
        seen.append(vector.copy())
        receive(self, node, vector, participation)

    monkeypatch.setattr(ServerSession, "receive_masked", watched)
    rows = np.zeros((500, 2))
    make([sure_of([1] * 500)] * 7).labels(rows, Plurality())
    assert len(seen) == 7
    bits = np.unpackbits(np.concatenate(seen).view(np.uint8)).reshape(-1, 32)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 7 * 0.5 / np.sqrt(len(bits))


def test_every_answer_is_charged_per_record_and_per_client(make, ledger):
    make(seven(votes_of(1))).labels(QUERIES, GNMax(4.0))
    (entry,) = ledger.history()
    assert entry.committed
    assert {c.unit for c in entry.charges} == {Unit.RECORD, Unit.CLIENT}
    assert {c.event for c in entry.charges} == {GNMax(4.0).event(len(QUERIES))}


def test_a_poll_beyond_the_budget_asks_nobody(make, ledger):
    limits = {Unit.CLIENT: (Limit(2.0, 1e-5),)}
    asked = []

    def predict(rows):
        asked.append(len(rows))
        return np.eye(CLASSES)[[0] * len(rows)]

    poll = make([predict] * 7, limits)
    answers = poll.labels(QUERIES, GNMax.calibrated(2.0, 1e-5, len(QUERIES)))
    assert 1.9 < answers.epsilon <= 2.0
    asked.clear()
    with pytest.raises(BudgetError, match="per client"):
        poll.labels(QUERIES[:1], GNMax(40.0))
    assert asked == []
    assert len(ledger.history()) == 1


def test_training_and_polls_share_a_budget(make, ledger):
    limits = {Unit.RECORD: (Limit(3.0, 1e-5),)}
    mechanism = GNMax.calibrated(2.9, 1e-5, len(QUERIES))  # which alone would fit
    training = Charge(Unit.RECORD, "people", SampledGaussian(1.0, 0.05, 50))
    ledger.reserve([training], limits)
    make(seven(votes_of(1)), limits).labels(QUERIES, GNMax(20.0))
    with pytest.raises(BudgetError, match="per record"):
        make(seven(votes_of(1)), limits).labels(QUERIES, mechanism)


def test_what_is_stated_in_all_covers_training_that_hides_records_only(make, ledger):
    training = SampledGaussian(1.0, 0.05, 50)
    ledger.reserve([Charge(Unit.RECORD, "people", training)], {})
    ledger.reserve([Charge(Unit.RECORD, "others", training)], {})
    mechanism = GNMax(20.0)
    answers = make(seven(votes_of(1))).labels(QUERIES, mechanism)
    events = [(mechanism.event(len(QUERIES)), 1), (training, 1)]
    assert answers.cost == losses.epsilon(events[:1], 1e-5)
    assert answers.epsilon == losses.epsilon(events, 1e-5) > answers.cost


def test_nothing_finite_is_stated_in_all_after_a_release_that_was_not_accounted_so(make, ledger):
    ledger.reserve([Charge(Unit.CLIENT, "people", SampledGaussian(1.0, 0.5, 1))], {})
    answers = make(seven(votes_of(1))).labels(QUERIES, GNMax(20.0))
    assert answers.cost < np.inf
    assert answers.epsilon == np.inf


@pytest.mark.parametrize("mechanism", [Plurality(), MeanProbabilities()])
def test_answers_without_noise_are_refused_where_there_is_a_limit(make, mechanism):
    poll = make(seven(votes_of(1)), {Unit.CLIENT: (Limit(100.0, 1e-5),)})
    ask = poll.averages if isinstance(mechanism, MeanProbabilities) else poll.labels
    with pytest.raises(BudgetError):
        ask(QUERIES, mechanism)


def test_what_fails_after_the_reservation_stays_charged(make, ledger):
    class Broken(GaussianNoise):
        def rounded(self, shape, stddev):
            raise OSError("no entropy")

    with pytest.raises(OSError, match="entropy"):
        make(seven(votes_of(1)), noise=Broken(CipherStream(bytes(32)))).labels(QUERIES, GNMax(4.0))
    (entry,) = ledger.history()
    assert not entry.committed
    assert ledger.spent(Unit.CLIENT, "people", 1e-5) > 1


def test_participants_abstain_where_they_do_not_agree(make, ledger):
    votes = np.array([[2, 0], [2, 1], [2, 2], [2, 0], [2, 1], [2, 2], [2, 0]])
    mechanism = ConfidentGNMax(5.0, 0.2, GNMax(0.3))
    answers = make(seven(votes)).labels(QUERIES[:2], mechanism)
    assert answers.labels.tolist() == [2, ABSTAINED]
    first, second = ledger.history()
    assert first.charges[0].event == mechanism.event(2)
    assert second.charges[0].event == mechanism.answer.event(1)


def test_nothing_is_charged_for_answers_if_all_abstain(make, ledger):
    votes = np.array([[i % CLASSES] * len(QUERIES) for i in range(7)])
    answers = make(seven(votes)).labels(QUERIES, ConfidentGNMax(7.0, 0.1, GNMax(1.0)))
    assert (answers.labels == ABSTAINED).all()
    assert len(ledger.history()) == 1


def test_averages_are_those_of_the_participants(make):
    rng = np.random.default_rng(5)
    tables = [rng.dirichlet(np.ones(CLASSES), len(QUERIES)) for _ in range(7)]
    averages = make([lambda rows, t=t: t for t in tables]).averages(QUERIES, MeanProbabilities())
    assert averages.probabilities == pytest.approx(np.mean(tables, axis=0), abs=1e-8)


def test_noised_averages_are_near_and_charged(make, ledger):
    tables = [np.tile([0.2, 0.3, 0.5], (len(QUERIES), 1))] * 7
    averages = make([lambda rows, t=t: t for t in tables]).averages(
        QUERIES, MeanProbabilities(0.01)
    )
    assert averages.probabilities == pytest.approx(tables[0], abs=0.02)
    assert ledger.history()[0].charges[0].event == GNMax(0.01).event(len(QUERIES))


def stuffed(rows):
    return 5 * np.eye(CLASSES)[[0] * len(rows)]


def broken(rows):
    raise RuntimeError("a row is 42")


def short(rows):
    return np.eye(CLASSES)[[0]]


@pytest.mark.parametrize("bad", [stuffed, broken, short])
def test_a_participant_that_fails_is_left_out(make, bad):
    answers = make([bad, *seven(np.ones((6, len(QUERIES)), int))]).labels(QUERIES, Plurality())
    assert answers.participants == 6
    assert (answers.labels == 1).all()


def test_too_few_votes_are_no_answer(make):
    poll = make([broken, broken, broken, *seven(votes_of(1, 4))])
    with pytest.raises(ThresholdError, match=r"lost by RuntimeError \(3\)") as error:
        poll.labels(QUERIES, GNMax(1.0))
    assert "42" not in str(error.value)


def test_the_asked_floor_of_participants_holds(make):
    poll = make([broken, *seven(votes_of(1, 6))], min_survivors=7)
    with pytest.raises(ThresholdError, match="at least 7"):
        poll.labels(QUERIES, Plurality())


def test_a_poll_can_be_repeated(make):
    poll = make(seven(votes_of(1)))
    first = poll.labels(QUERIES, Plurality()).labels
    assert poll.labels(QUERIES, Plurality()).labels.tolist() == first.tolist()


@pytest.mark.parametrize(
    "queries", [np.empty((0, 2)), np.zeros(3), np.array([["a"]]), np.array([[np.nan]])]
)
def test_what_is_no_query_is_refused_before_it_is_charged(make, ledger, queries):
    with pytest.raises(DataError, match="quer"):
        make(seven(votes_of(1))).labels(queries, GNMax(1.0))
    assert not ledger.history()


def test_two_participants_are_no_poll(make):
    with pytest.raises(ConfigError, match="3 or more"):
        make(seven(votes_of(1, 2)))
