"""Participants of a poll that live in this process, each behind secure aggregation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError
from lepton_flwr.inference.ballot import BALLOTS, Predict, Question, cast, layout_of
from lepton_flwr.inference.poll import Tally
from lepton_flwr.secagg.content import content_digest
from lepton_flwr.secagg.graph import complete_threshold
from lepton_flwr.secagg.in_process import Party, secure_sum
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.roles import Members

LABEL = "lepton/inference/poll/v1"
MIN_PARTICIPANTS = 3


@dataclass
class Participant:
    """One participant.

    Attributes:
        party: as secure aggregation sees it.
        predict: its model: from rows (queries, ...) to probabilities, float (queries, classes).
    """

    party: Party
    predict: Predict


class InProcessVoters:
    """Adds up the ballots of participants in this process; give it to a `Poll`.

    **Guarantee**: the caller gets the sum over at least `min_survivors` participants, by the real
    protocol, and no participant's own ballot. One that fails is left out.

    Args:
        participants: who is asked, three or more.
        roster: the roster of the one who asks.
        min_survivors: fewest participants whose sum is released; 0 takes the protocol's threshold.
        run_id: of the sessions.

    Raises:
        ConfigError: too few participants, or a number out of range.
    """

    def __init__(
        self,
        participants: Sequence[Participant],
        roster: Members,
        *,
        min_survivors: int = 0,
        run_id: str = "poll",
    ) -> None:
        if len(participants) < MIN_PARTICIPANTS:
            raise ConfigError(
                f"{len(participants)} participants: expected {MIN_PARTICIPANTS} or more"
            )
        check.integer("min_survivors", min_survivors, at_least=0, at_most=len(participants))
        self._participants = list(participants)
        self._roster = roster
        self._min_survivors = min_survivors or complete_threshold(len(participants))
        self._run_id = run_id

    def __call__(self, queries: np.ndarray, question: Question) -> Tally:
        """One session.

        Raises:
            ThresholdError: too few participants answered; with the error classes of the others.
        """
        parties = [participant.party for participant in self._participants]
        layout = layout_of(question, len(queries), len(parties))
        config = SessionConfig(
            self._run_id,
            1 + max(party.last_number for party in parties),
            "evaluate",
            layout,
            self._min_survivors,
        )

        def answer(predict: Predict, config: SessionConfig) -> np.ndarray:
            part = cast(predict, queries, question)
            return config.layout.encode({BALLOTS: part}, 1)

        asked = {"queries": queries, **question.to_fields()}
        work = [partial(answer, participant.predict) for participant in self._participants]
        found = secure_sum(config, content_digest({LABEL: asked}), self._roster, parties, work)
        return Tally.of(found.total, layout, question.num_classes, found.survivors)
