"""A `LeptonClient` at the server of a real federation: the devices' rows, which stay with them."""

import contextlib
import io
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.config_tables import read_toml
from lepton_flwr.data.preprocessing import num_releases
from lepton_flwr.data.preprocessing.fit import by_bounds
from lepton_flwr.data.scenarios.csv import class_text
from lepton_flwr.data.table_spec import TableSpec
from lepton_flwr.data.wire import SCHEMA_FILE
from lepton_flwr.errors import ConfigError, DataError, FederationError
from lepton_flwr.privacy.events import SampledGaussian
from lepton_flwr.runs.artifacts import GetKey, find_model, read_model, read_preprocessor
from lepton_flwr.sdk.errors import LabelError
from lepton_flwr.sdk.labels import Labels, kind_of
from lepton_flwr.sdk.model import LearntModel
from lepton_flwr.sdk.preparation import run_config
from lepton_flwr.sdk.settings import Settings


@dataclass(frozen=True)
class DevicePlan:
    """A run on devices, before anybody was asked anything.

    Attributes:
        folder: the server's.
        config: the run, with its noise.
        labels: of the classes.
    """

    folder: Path
    config: RunConfig
    labels: Labels

    @classmethod
    def of(cls, settings: Settings, x: Any, y: Any, model_to: str) -> Self:
        """Read what the devices' tables hold, and see whether this user's rows are of that kind.

        Args:
            settings: the client's.
            x: this user's rows, which are checked and not kept; None for none.
            y: their labels, likewise.
            model_to: for whom the model will be encrypted.

        Raises:
            ConfigError: no server's folder, or one that does not say what the tables hold.
            FederationError: the server does not run.
            DataError: the rows are of other columns.
            LabelError: a label is none of the classes.
        """
        from lepton_flwr.deploy.nodes import wanted_nodes
        from lepton_flwr.deploy.train import check_running
        from strategies.calibration import with_floor, with_noise, with_statistics

        folder = Path(settings.federation or "").expanduser().resolve()
        check_running(folder)
        if not (folder / SCHEMA_FILE).exists():
            raise ConfigError(
                f"{folder}: no {SCHEMA_FILE}: expected what the devices' tables hold, as "
                "`lepton federation init --schema` puts it there (docs/deploy/device-folder.md)"
            )
        spec = TableSpec.read(folder / SCHEMA_FILE)
        if x is not None:
            spec.schema.read(x)
        labels = labels_of(spec, y)
        rows, answers = (None if part is None else len(part) for part in (x, y))
        if x is not None and y is not None and rows != answers:
            raise DataError(f"{rows} rows and {answers} labels: expected as many")
        config = run_config(settings, None, model_to)
        config = replace(
            config,
            clients=settings.participants or len(wanted_nodes(folder)),
            train=replace(config.train, average=True),
            table=spec.config,
        )
        releases = 0 if by_bounds(spec.schema) else num_releases(spec.schema)
        config = with_noise(with_statistics(with_floor(config), releases))
        return cls(folder, config, labels)

    @property
    def statistics(self) -> tuple[SampledGaussian, int] | None:
        """What the statistics tell of each record, and how often at most; None if none is asked."""
        record = self.config.dp.record
        if not record.statistics_releases:  # public bounds of all columns say enough
            return None
        noise = record.statistics_noise_multiplier
        return SampledGaussian(noise, 1.0, 1), record.statistics_releases

    def run(self, settings: Settings) -> Path:
        """Ask the devices and train on them; its log is in the folder that is returned.

        Raises:
            FederationError: the server does not run, or the run failed.
            OutputError: the run's folder cannot be made.
        """
        from lepton_flwr.deploy.train import train

        out = None if settings.out is None else Path(settings.out).absolute()
        ledger = None if settings.ledger is None else Path(settings.ledger).absolute()
        console = sys.stdout if settings.progress else io.StringIO()
        return train(self.folder, self.config, out, ledger, console)

    def learnt(self, folder: Path, key: GetKey, guarantee: str) -> LearntModel:
        """The model of a run, with all that predictions need.

        Raises:
            FederationError: no round released a sum.
            EnvelopeError: a file was altered.
            DataError: a file is missing or damaged.
        """
        from strategies.server_app import describe_model

        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        if len(summary["rounds_skipped"]) >= summary["rounds"]:
            raise FederationError(
                f"no round released a sum: see {folder / 'report.html'}; a new LeptonClient starts "
                "another run"
            )
        config = RunConfig.build(read_toml(folder / "config.toml"))
        preprocessor = read_preprocessor(folder, key)
        if preprocessor is None:
            raise DataError(f"{folder}: no preprocessor: expected what the run has left")
        weights = tuple(
            np.asarray(weight, np.float32)
            for weight in read_model(find_model(folder), key).get_weights()
        )
        return LearntModel(describe_model(config), weights, preprocessor, self.labels, guarantee)


def labels_of(spec: TableSpec, y: Any) -> Labels:
    """The classes as labels of the kind that this user's are; without those, as they read.

    Numbers, if each class is how its number is written: "007" is a text.

    Args:
        spec: with the classes' texts.
        y: n labels, or None.

    Raises:
        LabelError: a label is none of the classes, or of another kind.
    """
    if y is None:
        return _as_read(spec.classes)
    items = np.asarray(y).tolist()
    try:
        spec.answers(items)
        return Labels.of_texts(kind_of(items), spec.classes)
    except (DataError, ValueError):
        raise LabelError(
            f"{len(items)} labels: expected those of the {len(spec.classes)} classes of "
            f"{SCHEMA_FILE}, and of one kind with them"
        ) from None


def _as_read(classes: tuple[str, ...]) -> Labels:
    for kind in ("int", "float"):
        with contextlib.suppress(ValueError):
            labels = Labels.of_texts(kind, classes)
            written = tuple(map(class_text, labels.values))
            if written == classes and all(map(math.isfinite, labels.values)):
                return labels
    try:
        return Labels.of_texts("text", classes)
    except LabelError:
        raise LabelError(
            f"the classes of {SCHEMA_FILE} are in another order as texts than as numbers: expected "
            "numbers, written as 9 and 10, or texts of equal length, as 009 and 010"
        ) from None
