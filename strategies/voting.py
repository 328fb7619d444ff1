"""Voters of a poll behind Flower: every node trains on its own rows and votes in a secure sum."""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from lepton_flwr.errors import DataError
from lepton_flwr.failures import counted
from lepton_flwr.inference.ballot import QUERIES, VOTE, Question, layout_of
from lepton_flwr.inference.poll import Tally
from lepton_flwr.secagg.errors import ThresholdError
from lepton_flwr.secagg.parameters import SessionConfig
from lepton_flwr.secagg.roles import Members
from lepton_flwr.training.task import Task
from strategies.exchange import Patience
from strategies.secure_session import SecureSession
from strategies.watcher import Watcher


class FlowerVoters:
    """Adds up the ballots of a federation's nodes; give it to a `Poll`.

    A device takes part only if its policy names the action "evaluate.vote". It charges its ledger
    for the training of its local model per record, and for the votes, with the noise that the
    question states, as a whole.

    **Guarantee**: the server gets the sum over at least `min_survivors` nodes, and no node's own
    ballot or model.

    Args:
        grid: the federation's.
        members: the roster.
        task: how each node trains its local model.
        weights: from which it starts, in the model's order.
        fields: what a device that brings a raw table has to know of its features beside that.
        min_survivors: fewest nodes whose sum is released.
        timeout: seconds that each exchange waits.
        sessions_before: numbers of sessions, from 1, that this run of Flower has used up already;
            a poll is a run of its own.
        watcher: hears of replies and failures as they come.
        stop: when set, a session ends with `RunInterruptedError`.
    """

    def __init__(
        self,
        grid: Grid,
        members: Members,
        task: Task,
        weights: Sequence[np.ndarray],
        *,
        fields: Mapping[str, str] | None = None,
        min_survivors: int,
        timeout: float = 600.0,
        sessions_before: int = 0,
        watcher: Watcher | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._grid = grid
        self._members = members
        self._task = task
        self._weights = list(weights)
        self._fields = dict(fields or {})
        self._min_survivors = min_survivors
        self._timeout = timeout
        self._number = sessions_before + 1
        self._watcher = watcher
        self._stop = stop

    def __call__(self, queries: np.ndarray, question: Question) -> Tally:
        """One session over all nodes.

        Raises:
            ThresholdError: too few nodes answered.
            DataError: rows of another shape than the model takes.
        """
        shape = self._task.model.input_shape
        if queries.shape[1:] != shape:
            raise DataError(f"queries of shape {queries.shape[1:]}: expected {shape}")
        nodes = list(self._grid.get_node_ids())
        if len(nodes) < self._min_survivors:
            raise ThresholdError(f"{len(nodes)} nodes: expected at least {self._min_survivors}")
        content = RecordDict(
            {
                "arrays": ArrayRecord(self._weights),
                QUERIES: ArrayRecord([queries.astype(np.float32)]),
                "config": ConfigRecord({"task": self._task.to_json(), **self._fields}),
                VOTE: ConfigRecord(dict(question.to_fields())),
            }
        )
        messages = [Message(content, node, f"evaluate.{VOTE}") for node in nodes]
        layout = layout_of(question, len(queries), len(nodes))
        config = SessionConfig(
            str(messages[0].metadata.run_id), self._number, "evaluate", layout, self._min_survivors
        )
        self._number += 1
        session = SecureSession(
            self._grid,
            config,
            messages,
            self._members,
            patience=Patience(self._timeout),
            watcher=self._watcher,
            stop=self._stop,
        )
        total = session.run()
        if total is None:
            lost = counted(session.report.failures)
            raise ThresholdError(session.report.skipped + (f"; lost: {lost}" if lost else ""))
        lifted = layout.lift(total)
        return Tally.of(lifted, layout, question.num_classes, session.report.survivors)
