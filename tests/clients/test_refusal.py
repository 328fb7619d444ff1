import logging

import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients.refusal import refusal
from lepton_flwr.errors import DataError, OutputError, PolicyError
from lepton_flwr.failures import Failure


@pytest.fixture
def message(monkeypatch):
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    for name, value in (("_run_id", 1), ("_node_id", 1), ("_task_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value)
    made = Message(RecordDict(), 7, "train")
    made.metadata.__dict__["_message_id"] = "1"
    return made


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ValueError("patient 4711"), Failure.OTHER),
        (MemoryError("patient 4711"), Failure.MEMORY),
        (DataError("patient 4711"), Failure.DATA),
        (OutputError("/home/patient 4711"), Failure.OTHER),
        (KeyError("patient 4711"), Failure.OTHER),
    ],
)
def test_only_the_class_of_an_exception_leaves_the_device(message, error, failure):
    reply = refusal(message, error)
    assert Failure.of_code(reply.error.code) is failure
    assert reply.error.reason == f"{type(error).__name__}: see the log on the device"


def test_a_sentence_that_was_written_to_be_sent_is_sent(message):
    reply = refusal(message, PolicyError("noise: 1: this device asks for 2"))
    assert Failure.of_code(reply.error.code) is Failure.REFUSED
    assert reply.error.reason == "PolicyError: noise: 1: this device asks for 2"
