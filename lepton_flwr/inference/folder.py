"""A poll on disk: what is asked, and what came of it.

`request.json`, `queries.npy` and `config.toml` are there before anybody is asked; then
`answers.json`, or `failure.json` if there are none. Each is written as a whole.
"""

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_flwr import _npz
from lepton_flwr._files import write_atomic
from lepton_flwr.config import RunConfig
from lepton_flwr.data.preprocessing import PREPROCESSOR_FILE, Preprocessor
from lepton_flwr.errors import DataError, LeptonError
from lepton_flwr.inference.poll import Answers, Averages
from lepton_flwr.inference.request import Request

REQUEST_FILE, QUERIES_FILE = "request.json", "queries.npy"
ANSWERS_FILE, FAILURE_FILE = "answers.json", "failure.json"


class PollError(LeptonError):
    """A poll that a server asked got no answers; the message is the server's."""

    exit_code = 5


@dataclass(frozen=True)
class PollFolder:
    """The folder of one poll.

    Attributes:
        path: where it is; there already.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        """How participants train their models."""
        return self.path / "config.toml"

    def ask(
        self,
        config: RunConfig,
        request: Request,
        queries: np.ndarray,
        preprocessor: Preprocessor | None = None,
    ) -> None:
        """Write what is to be asked.

        Args:
            config: how participants train their models.
            request: how.
            queries: float32 (queries, ...), rows as the participants' models take them.
            preprocessor: what makes features of their tables, if they bring raw ones.

        Raises:
            OutputError: it cannot be written.
        """
        import tomli_w

        npy = io.BytesIO()
        np.lib.format.write_array(npy, np.ascontiguousarray(queries), allow_pickle=False)
        write_atomic(self.path / QUERIES_FILE, npy.getvalue(), 0o600)
        if preprocessor is not None:
            preprocessor.save(self.path / PREPROCESSOR_FILE)
        write_atomic(self.config_file, tomli_w.dumps(config.to_dict()).encode())
        write_atomic(self.path / REQUEST_FILE, json.dumps(request.to_plain(), indent=1).encode())

    def asked(self) -> tuple[Request, np.ndarray]:
        """What `ask` wrote.

        Raises:
            DataError: a file is missing or damaged.
            ConfigError: the request is none.
        """
        try:
            queries = _npz.array((self.path / QUERIES_FILE).read_bytes())
        except LeptonError:
            raise
        except _npz.UNREADABLE as error:
            raise DataError(f"{QUERIES_FILE}: {type(error).__name__}: ask again") from None
        return Request.from_plain(self._json(REQUEST_FILE)), queries

    def preprocessor(self) -> Preprocessor | None:
        """That of `ask`.

        Raises:
            DataError: it is damaged.
        """
        path = self.path / PREPROCESSOR_FILE
        return Preprocessor.load(path) if path.exists() else None

    def answer(self, answers: Answers | Averages) -> None:
        """Write what may be published.

        Raises:
            OutputError: it cannot be written.
        """
        plain: dict[str, Any] = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(answers).items()
        }
        if "margins" in plain:
            plain["margins"] = [None if math.isnan(v) else v for v in plain["margins"]]
        for name in ("cost", "epsilon"):
            if math.isinf(plain[name]):
                plain[name] = None
        write_atomic(self.path / ANSWERS_FILE, json.dumps(plain, allow_nan=False).encode())

    def fail(self, error: LeptonError) -> None:
        """Write why there are none."""
        plain = {"error": type(error).__name__, "message": str(error)}
        write_atomic(self.path / FAILURE_FILE, json.dumps(plain).encode())

    def failed(self) -> PollError | None:
        """What `fail` wrote; None if it did not."""
        if not (self.path / FAILURE_FILE).exists():
            return None
        plain = self._json(FAILURE_FILE)
        return PollError(f"{plain.get('error')}: {plain.get('message')}")

    def answers(self) -> Answers | Averages:
        """What `answer` wrote.

        Raises:
            DataError: it is missing or damaged.
        """
        plain = self._json(ANSWERS_FILE)
        try:
            people = int(plain["participants"])
            cost, epsilon = (
                math.inf if plain[name] is None else float(plain[name])
                for name in ("cost", "epsilon")
            )
            if "probabilities" in plain:
                shares = np.array(plain["probabilities"], dtype=np.float64)
                return Averages(shares, people, cost, epsilon)
            labels = np.array(plain["labels"], dtype=np.int64)
            margins = np.array(plain["margins"], dtype=np.float64)  # None becomes NaN
            return Answers(labels, margins, people, cost, epsilon)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{ANSWERS_FILE}: damaged ({type(error).__name__})") from None

    def _json(self, name: str) -> dict[str, Any]:
        try:
            plain = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path / name}: {type(error).__name__}: ask again") from None
        if not isinstance(plain, dict):
            raise DataError(f"{self.path / name}: expected a JSON object: ask again")
        return plain
