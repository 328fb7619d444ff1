import json
import math

import numpy as np
import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.config_tables import read_toml
from lepton_flwr.data.preprocessing import Preprocessor
from lepton_flwr.data.preprocessing.preprocessor import FittedNumber
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.inference.folder import PollError, PollFolder
from lepton_flwr.inference.poll import Answers, Averages
from lepton_flwr.inference.request import Request
from lepton_flwr.privacy.accounting import BudgetError

QUERIES = np.arange(6, dtype=np.float32).reshape(3, 2)
CONFIG = RunConfig.build({"scenario": "smoke"})


@pytest.fixture
def folder(tmp_path):
    made = PollFolder(tmp_path)
    made.ask(CONFIG, Request(2.0, threshold=1.0), QUERIES)
    return made


def test_what_is_asked_is_read_as_it_was_written(folder):
    request, queries = folder.asked()
    assert request == Request(2.0, threshold=1.0)
    assert queries.dtype == np.float32
    assert queries.tolist() == QUERIES.tolist()
    assert RunConfig.build(read_toml(folder.config_file)) == CONFIG


def test_what_makes_features_of_raw_tables_goes_with_it(folder):
    assert folder.preprocessor() is None
    made = Preprocessor((FittedNumber("income", 100.0, 50.0, 100.0),), salt=bytes(16))
    folder.ask(CONFIG, Request(2.0), QUERIES, made)
    assert folder.preprocessor().to_json() == made.to_json()


def test_answers_are_read_as_they_were_written(folder):
    margins = np.array([1.5, np.nan, 0.25])
    folder.answer(Answers(np.array([1, -1, 0]), margins, 5, 1.5, math.inf))
    found = folder.answers()
    assert isinstance(found, Answers)
    assert found.labels.tolist() == [1, -1, 0]
    assert np.array_equal(found.margins, margins, equal_nan=True)
    assert (found.participants, found.cost, found.epsilon) == (5, 1.5, math.inf)


def test_averages_are_read_as_they_were_written(folder):
    shares = np.array([[0.1, 0.9], [1 / 3, 2 / 3]])
    folder.answer(Averages(shares, 4, 0.5, 0.75))
    found = folder.answers()
    assert isinstance(found, Averages)
    assert found.probabilities.tolist() == shares.tolist()
    assert (found.participants, found.cost, found.epsilon) == (4, 0.5, 0.75)


def test_why_there_are_no_answers_is_told_as_the_server_told_it(folder):
    assert folder.failed() is None
    folder.fail(BudgetError("no budget left"))
    failure = folder.failed()
    assert isinstance(failure, PollError)
    assert str(failure) == "BudgetError: no budget left"


@pytest.mark.parametrize("name", ["request.json", "queries.npy", "answers.json"])
@pytest.mark.parametrize("content", [None, b"", b"[1]", b"{", b"\x93NUMPY\x01\x00"])
def test_files_that_are_none_are_refused(folder, name, content):
    folder.answer(Averages(np.ones((1, 2)) / 2, 4, 0.5, 0.75))
    (folder.path / name).unlink()
    if content is not None:
        (folder.path / name).write_bytes(content)
    read = folder.answers if name == "answers.json" else folder.asked
    with pytest.raises((DataError, ConfigError)):
        read()


@pytest.mark.parametrize("wrong", [{"cost": "much"}, {"participants": None}, {"labels": ["a"]}])
def test_answers_of_other_types_are_refused(folder, wrong):
    folder.answer(Answers(np.array([1]), np.array([1.5]), 5, 1.5, 2.0))
    path = folder.path / "answers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
    with pytest.raises(DataError, match="damaged"):
        folder.answers()


def test_objects_in_the_queries_are_not_unpickled(folder):
    np.save(folder.path / "queries.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="ask again"):
        folder.asked()
