"""`LeptonClient`: one object that does everything, in the order of its methods."""

import contextlib
import enum
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lepton_flwr.crypto.envelope import seal, unseal
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.runs.artifacts import recipients_of, write_model, write_preprocessor
from lepton_flwr.runs.folder import new_folder
from lepton_flwr.sdk import guarantee as guarantees
from lepton_flwr.sdk.devices import DevicePlan
from lepton_flwr.sdk.errors import OrderError
from lepton_flwr.sdk.guarantee import Guarantee
from lepton_flwr.sdk.keystore import KeyStore
from lepton_flwr.sdk.learning import Weights, learn
from lepton_flwr.sdk.model import PURPOSE, LearntModel, ModelEnvelope
from lepton_flwr.sdk.perturbation import Perturbation
from lepton_flwr.sdk.preparation import Basis, prepare
from lepton_flwr.sdk.rows import EncryptedRows
from lepton_flwr.sdk.settings import TRAINING, Settings
from lepton_flwr.sdk.spending import released
from lepton_flwr.sdk.steps import bar

REPORT_FILE = "report.html"
FOLDER_NAME, ROWS = "client", "rows"


class Stage(enum.IntEnum):
    """What has been done; each value is the method that did it."""

    new = 0
    preprocess_data = 1
    encrypt_data = 2
    add_differential_privacy_noise = 3
    federated_learning = 4


class LeptonClient:
    """Learns privately and federatedly from one table.

        client = LeptonClient()
        client.preprocess_data(X, y)
        client.encrypt_data()
        client.add_differential_privacy_noise()
        client.federated_learning()
        model_params = client.get_model_params()
        client.decrypt_model_params(model_params)
        predictions = client.predict(X)

    The rows are divided among simulated participants; each of them drops duplicates, answers
    noised questions for the preprocessing, encrypts its rows, and trains with noise of its own.
    Nothing but secure sums leaves it.

    Args:
        participants: how many, 3 or more; None is 3, or all values of the column `by`, or all
            devices of the federation.
        partition: "iid", "dirichlet", "shards", "quantity", or "natural" with `by`.
        by: column (name or position) whose values are the participants; it is no feature.
        alpha: concentration of the Dirichlet and quantity partitions; small is uneven.
        test_fraction: share of each participant's rows that only the report's figures read.
        bounds: column name ("column 0", ... of an array) to its public [low, high].
        epsilon: most that everything together may tell about one record.
        delta: the chance that epsilon does not cover; None is a power of ten of at most a tenth
            of one over the rows, at most 1e-5.
        mechanism: "training" (DP-SGD), or "laplace" or "gaussian" noise on the inputs.
        statistics_share: share of epsilon for the statistics of the preprocessing.
        model: "linear", or widths of hidden layers as (32,).
        rounds: of the federation.
        local_steps: steps of each participant in a round.
        learning_rate: None is 8 for training noise and 0.05 for perturbed inputs.
        sampling_probability: chance of a row to be in a step's batch; 1 takes all.
        l2_norm_clip: bound of one example's gradient.
        key_store: folder of the keys; None is `~/.lepton`.
        encryption: suite of new keys: "x25519", "x25519-mlkem768" or "rsa-3072".
        federation: folder of a running server (`lepton server run`) on this machine: its devices
            are the participants, with the tables that they hold; see docs/sdk.md. None simulates.
        ledger: folder of the ledgers, so that what is spent there counts; None is a new one.
        out: folder that holds the runs; None is `runs`, or the one in the server's folder.
        seed: of partition, held-out rows and initial weights; never of noise or keys.
        progress: whether bars and the guarantee are printed.

    Attributes:
        folder: of this client's run; None before `preprocess_data`, and on devices before
            `federated_learning`.

    Raises:
        ConfigError: an option is unknown or out of range, or contradicts another.
    """

    def __init__(self, **options: Any) -> None:
        self._settings = Settings.of(options)
        self.folder: Path | None = None
        self._stage = Stage.new
        self._data: FederatedData | None = None
        self._basis: Basis | None = None
        self._plan: DevicePlan | None = None  # in place of data, basis and rows, on devices
        self._rows: EncryptedRows | None = None
        self._perturbed: set[int] = set()  # participants, also of a call that was interrupted
        self._guarantee: Guarantee | None = None
        self._envelope: ModelEnvelope | None = None
        self._model: LearntModel | None = None

    def __repr__(self) -> str:
        return f"<LeptonClient after {self._stage.name}>" if self._stage else "<LeptonClient>"

    @property
    def labels(self) -> np.ndarray:
        """The label's values, in the order of `predict_proba`'s columns.

        Raises:
            OrderError: there is no model yet.
        """
        return self._loaded("labels").labels.array

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What the model takes: numbers by their column's name, categories by column and hash.

        Raises:
            OrderError: there is no model yet.
        """
        return self._loaded("feature_names").preprocessor.feature_names

    def preprocess_data(self, X: Any = None, y: Any = None) -> None:
        """Divide the rows among the participants, and turn them into features.

        Duplicates within a participant are dropped. Means, deviations, ranges and categories come
        out of secure sums, to which each participant adds noise for `statistics_share` of epsilon;
        they are charged to the ledgers first. Missing numbers become the mean, missing texts a
        category of their own.

        With `federation` the devices have the rows. These here are compared with what the devices'
        tables hold, and neither kept, sent nor learnt from; they may be left out. The devices are
        asked in `federated_learning`.

        Args:
            X: n rows: an array (n, columns) of numbers and texts, as `DataFrame.values`, or a
                DataFrame.
            y: n labels: texts, numbers or truth values, of 2 to 100 different ones.

        Raises:
            OrderError: it was called already.
            LabelError: missing labels, one class only, or more than 100.
            DataError: the rows are no table, or too few for the participants.
            BudgetError: earlier runs have spent the budget of these rows in a kept `ledger`.
            FederationError: the server does not run.
            OutputError: the folder of the run cannot be made.
        """
        self._expect(Stage.preprocess_data)
        settings = self._settings
        if settings.federation is not None:
            self._plan = DevicePlan.of(settings, X, y, self._store.models().recipient.to_text())
            self._stage = Stage.preprocess_data
            return
        if X is None or y is None:
            raise DataError("preprocess_data: expected rows X and labels y")
        model_to = self._store.models().recipient.to_text()
        folder = self.folder or new_folder(settings.runs, FOLDER_NAME).resolve()
        try:
            with bar("preprocessing", settings.progress) as progress:
                self._data, self._basis = prepare(
                    settings, X, y, folder, model_to=model_to, progress=progress
                )
        finally:
            with contextlib.suppress(OSError):  # what was charged stays known
                folder.rmdir()
            self.folder = folder if folder.exists() else None
        self._stage = Stage.preprocess_data

    def encrypt_data(self) -> None:
        """Encrypt each participant's rows for that participant, and forget them.

        **Guarantee**: afterwards this object and the folder of the run hold the rows as ciphertext
        only. Whoever can read the key store can open it. With `federation` they hold none of the
        devices' rows at any time, nor this user's.

        Raises:
            OrderError: `preprocess_data` was not called, or this was called already.
            KeyFileError: the key store, or a key in it, is open to other users or malformed.
            OutputError: a file cannot be written.
        """
        self._expect(Stage.encrypt_data)
        if self._plan is not None:
            self._stage = Stage.encrypt_data
            return
        basis, folder = self._known()
        if self._data is None:
            raise OrderError("encrypt_data: expected preprocess_data before it")
        with bar("encrypting", self._settings.progress) as progress:
            rows = EncryptedRows.write(self._data, folder / ROWS, self._store, progress)
            write_preprocessor(folder, basis.preprocessor, recipients_of(basis.config))
        self._rows, self._data = rows, None
        self._stage = Stage.encrypt_data

    def add_differential_privacy_noise(self) -> Guarantee:
        """Choose the noise for what the statistics have left of epsilon, and say what it promises.

        With `mechanism="training"` (the default) each participant adds Gaussian noise to every
        step of its training. With "laplace" or "gaussian" it perturbs its records instead, here
        and once: their features by that noise, their labels by randomized response. The perturbed
        records may then be used for anything, and each hides by itself: models of them are much
        less accurate. Perturbed records take the place of the others in the encrypted files.

        Returns:
            The guarantee; it is printed too, unless `progress` is off.

        Raises:
            OrderError: `encrypt_data` was not called, or this was called already.
            BudgetError: the statistics, or earlier runs in a kept `ledger`, leave nothing.
            ConfigError: no noise reaches epsilon with so many steps.
        """
        self._expect(Stage.add_differential_privacy_noise)
        known = self._plan or self._known()[0]
        if isinstance(known, DevicePlan) or self._settings.mechanism == TRAINING:
            self._guarantee = guarantees.of_training(known.config, known.statistics)
        else:
            dp = known.config.dp
            perturbation = Perturbation.within(
                self._settings.mechanism,
                dp.record.epsilon,
                dp.delta,
                beside=known.statistics,
                num_features=len(known.preprocessor.feature_names),
                num_classes=len(known.labels.values),
            )
            self._perturb(perturbation)
            self._guarantee = guarantees.of_inputs(known, perturbation)
        self._stage = Stage.add_differential_privacy_noise
        if self._settings.progress:
            print(self._guarantee)
        return self._guarantee

    def federated_learning(self) -> None:
        """Run the federation: each participant decrypts its rows in its own process, and trains.

        With `federation` the devices are asked for statistics first, then train. The model is
        encrypted for the key store at once; the folder of the run gets the report. If their run
        ended and its model could not be read, another call reads it and asks no device again.

        Raises:
            OrderError: `add_differential_privacy_noise` was not called, or this was called already.
            EnvelopeError: a file of rows was altered, or its key is another.
            FederationError: no round released a sum.
            RunInterrupted: Ctrl-C; what the finished rounds have learnt is kept.
        """
        self._expect(Stage.federated_learning)
        if self._plan is not None:
            self._learn_on_devices(self._plan)
            return
        basis, folder = self._known()
        rows, guarantee = self._rows, self._guarantee
        if rows is None or guarantee is None:
            raise OrderError("federated_learning: expected encrypted rows and a guarantee")
        kept = Weights(self._settings.rounds)
        try:
            progress = self._settings.progress
            learn(basis, rows, guarantee, kept, folder=folder, progress=progress)
        finally:
            if kept.learnt:
                self._envelope = self._seal(kept.average())
                self._stage = Stage.federated_learning

    def get_model_params(self) -> ModelEnvelope:
        """The model as an envelope that the key store of this client opens.

        It holds all that predictions need: weights, preprocessing, labels. `save` keeps it.

        Raises:
            OrderError: `federated_learning` was not called.
        """
        if self._envelope is None:
            raise OrderError("get_model_params: expected federated_learning before it")
        return self._envelope

    def decrypt_model_params(self, envelope: bytes) -> list[np.ndarray]:
        """Open an envelope; `predict` then uses its model.

        A new client with the same key store opens envelopes of others as well.

        Args:
            envelope: what `get_model_params` returned, or `ModelEnvelope.load` read.

        Returns:
            The weights: float32 arrays, kernel before bias, layer by layer.

        Raises:
            EnvelopeError: it was altered (`TamperedHeaderError`, `TamperedChunkError`,
                `TruncatedError`), or is for another key (`WrongKeyError`).
            DataError: it holds no model.
            ConfigError: it is not bytes.
        """
        if not isinstance(envelope, bytes | bytearray | memoryview):
            raise ConfigError(
                f"envelope: {type(envelope).__name__}, expected what get_model_params returns"
            )
        model = LearntModel.from_bytes(
            unseal(bytes(envelope), self._store.models(), purpose=PURPOSE)
        )
        self._model = model
        return [np.array(weight) for weight in model.weights]

    def predict(self, X: Any, *, unseen: str = "other") -> np.ndarray:
        """Labels of rows.

        Numbers and truth values come back as they were. Texts come back as `TextLabels`: an array
        that compares as the texts, has them in `.text`, and is numbers to matplotlib's `c`.

        Args:
            X: as in `preprocess_data`, with the same columns; no label.
            unseen: what a text is that had no feature of its own, new ones and rare ones: "other",
                one category for all of them, or "error".

        Returns:
            Shape (n,).

        Raises:
            OrderError: `decrypt_model_params` was not called.
            UnseenCategoryError: with `unseen="error"`, there is such a text.
            DataError: the columns are not those of the model.
        """
        model = self._loaded("predict")
        return model.labels.decode(model.predict_proba(X, unseen=unseen).argmax(axis=1))

    def predict_proba(self, X: Any, *, unseen: str = "other") -> np.ndarray:
        """Probabilities of the labels, float64 (n, classes), in the order of `labels`.

        Args and errors as in `predict`.
        """
        return self._loaded("predict_proba").predict_proba(X, unseen=unseen)

    def report(self, *, show: bool = False) -> Path:
        """Where the run's report is, one HTML page.

        Args:
            show: whether to open it in a browser.

        Raises:
            OrderError: `federated_learning` was not called.
        """
        path = None if self.folder is None else self.folder / REPORT_FILE
        if path is None or not path.exists():
            raise OrderError("report: expected federated_learning before it")
        if show:
            webbrowser.open(path.resolve().as_uri())
        return path

    def _learn_on_devices(self, plan: DevicePlan) -> None:
        if self.folder is None:  # else the devices have trained, and only the reading failed
            self.folder = plan.run(self._settings)
        model = plan.learnt(self.folder, self._store.models, str(self._guarantee))
        self._envelope = self._envelope_of(model)
        self._stage = Stage.federated_learning

    def _envelope_of(self, model: LearntModel) -> ModelEnvelope:
        recipient = self._store.models().recipient
        return ModelEnvelope(seal(model.to_bytes(), [recipient], purpose=PURPOSE))

    @property
    def _store(self) -> KeyStore:
        return KeyStore(self._settings.store, self._settings.encryption)

    def _expect(self, called: Stage) -> None:
        """Refuse a method whose turn it is not."""
        if self._stage >= called:
            raise OrderError(
                f"{called.name} was called already: a new LeptonClient starts from the beginning"
            )
        if self._stage + 1 < called:
            missing = Stage(called - 1).name
            raise OrderError(f"{called.name}: expected {missing} before it")

    def _known(self) -> tuple[Basis, Path]:
        if self._basis is None or self.folder is None:
            raise OrderError("expected preprocess_data before it")
        return self._basis, self.folder

    def _loaded(self, called: str) -> LearntModel:
        if self._model is None:
            raise OrderError(f"{called}: expected decrypt_model_params before it")
        return self._model

    def _perturb(self, perturbation: Perturbation) -> None:
        """Perturb every record, each participant's by itself, and charge before it is written.

        After an interruption it goes on with the participants that are left; one whose charge was
        interrupted itself counts as released, and is refused.
        """
        basis, _ = self._known()
        rows = self._rows
        if rows is None:
            raise OrderError("add_differential_privacy_noise: expected encrypt_data before it")
        rows.checked()  # nothing is charged if a file was altered
        count = len(rows.records)
        with bar("perturbing", self._settings.progress) as progress:
            for number in range(count):
                if number not in self._perturbed:
                    noisy = perturbation.apply(rows.open(number))  # in memory: nothing is released
                    with released(basis, number, perturbation.events):
                        rows.put(number, noisy)
                        self._perturbed.add(number)
                progress(number + 1, count)
        # What is trained on now is other data, and its releases are paid for.
        self._rows = replace(rows, records=(b"",) * count)

    def _seal(self, weights: list[np.ndarray]) -> ModelEnvelope:
        """Encrypt what was learnt, for the key store."""
        from strategies.server_app import describe_model, model_saver

        basis, folder = self._known()
        model = LearntModel(
            describe_model(basis.config),
            tuple(weights),
            basis.preprocessor,
            basis.labels,
            str(self._guarantee),
            self._settings.by,
        )
        save = model_saver(basis.config)
        write_model(folder, lambda path: save(weights, path), recipients_of(basis.config))
        return self._envelope_of(model)
