"""What a run is: frozen, checked dataclasses, built from nested tables (TOML, run config).

`RunConfig.build` layers tables over the scenario's defaults and refuses unknown keys. Privacy
settings have types of their own: tuning speed cannot change a guarantee.
"""

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from lepton_flwr import _validate as check
from lepton_flwr.config_tables import build, merge, plain
from lepton_flwr.errors import ConfigError

PARTITIONS = ("natural", "iid", "dirichlet", "shards", "quantity")
COLUMN_KINDS = ("number", "category", "ignore")
IMPUTE = ("mean", "median")
OPTIMIZERS = ("sgd", "adam", "adagrad", "rmsprop", "adamw")
ENGINES = ("bookkeeping", "vectorized", "tensorflow-privacy")
STRATEGIES = ("fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad")


@dataclass(frozen=True)
class DataConfig:
    """Which rows a client holds.

    Attributes:
        partition: how rows become clients; "natural" uses the scenario's own key.
        alpha: concentration of the Dirichlet and quantity partitions; small is uneven.
        test_fraction: chance of each row to be held out before training, drawn by the row alone.
        min_rows: clients of the natural partition with fewer rows are left out.
        path: file or folder of the scenarios that read one (`csv`, `image`); empty otherwise.
        label: the label column of a CSV; empty takes the last one.
        by: the column of a CSV whose values are the clients; empty splits by `partition`.
        ranges: column name to its public [low, high] range, for a CSV.
        kinds: column name to "number", "category" or "ignore", for a CSV; the others' kinds are
            taken from the file.
        impute: what stands for a missing number of a CSV, "mean" or "median".
        drop_duplicates: leave out equal rows of one client of a CSV.
        deviations: by how many standard deviations numbers are divided that statistics scale.
    """

    partition: str = "natural"
    alpha: float = 0.5
    test_fraction: float = 0.2
    min_rows: int = 50
    path: str = ""
    label: str = ""
    by: str = ""
    ranges: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, Any] = field(default_factory=dict)
    impute: str = "mean"
    drop_duplicates: bool = True
    deviations: float = 1.0

    def __post_init__(self) -> None:
        check.finite("data.deviations", self.deviations, above=0)
        check.choice("data.impute", self.impute, IMPUTE)
        for column, kind in self.kinds.items():
            check.choice(f"data.kinds.{column}", kind, COLUMN_KINDS)
        check.choice("data.partition", self.partition, PARTITIONS)
        check.finite("data.alpha", self.alpha, above=0)
        check.finite("data.test_fraction", self.test_fraction, above=0, below=1)
        check.integer("data.min_rows", self.min_rows, at_least=2)
        for column, pair in self.ranges.items():
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise ConfigError(f"data.ranges.{column}={pair!r}: expected [low, high]")
            low, high = (check.finite(f"data.ranges.{column}", v) for v in pair)
            if low >= high:
                raise ConfigError(f"data.ranges.{column}={pair!r}: expected low < high")


@dataclass(frozen=True)
class ModelConfig:
    """What a server must know of rows that only devices have; unset, the scenario's data says it.

    Attributes:
        input_shape: shape of one row.
        num_classes: number of classes.
        label: the column that held them, where a table did.
        classes: their names, in the order of their numbers, where a table's values name them.
    """

    input_shape: tuple[int, ...] = ()
    num_classes: int = 0
    label: str = ""
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for size in self.input_shape:
            check.integer("model.input_shape", size, at_least=1)
        check.integer("model.num_classes", self.num_classes, at_least=0)
        if bool(self.input_shape) != (self.num_classes >= 2):
            raise ConfigError(
                f"model.input_shape={list(self.input_shape)}, "
                f"model.num_classes={self.num_classes}: expected both, with 2 classes or more, "
                "or neither"
            )
        if self.classes and (
            len(set(self.classes)) != self.num_classes
            or not all(isinstance(name, str) for name in self.classes)
        ):
            raise ConfigError(
                f"model.classes: {len(self.classes)} names: expected {self.num_classes} different "
                "texts, or none"
            )


@dataclass(frozen=True)
class TableConfig:
    """What the raw tables of devices hold, where those bring tables; public.

    Each device compares it with its own `schema.toml`, of which it is a part.

    Attributes:
        label: the column that holds the classes.
        classes: their names.
        columns: each feature column's kind, "number" or "category", or a table with `kind`, and of
            a number its public `low` and `high`, of a category its public `values`.
    """

    label: str
    classes: tuple[str, ...]
    columns: Mapping[str, Any]

    def __post_init__(self) -> None:
        texts = [self.label, *self.classes]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise ConfigError("table.label, table.classes: expected texts")
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise ConfigError("table.classes: expected two different texts or more")
        if not self.columns or self.label in self.columns:
            raise ConfigError("table.columns: expected one or more, without the label")


@dataclass(frozen=True)
class TrainConfig:
    """What a client does in one round.

    Attributes:
        optimizer: the client's Keras optimizer, fresh in every round.
        learning_rate: its learning rate.
        local_steps: optimizer steps per round.
        sampling_probability: chance of each row to be in a step's batch (Poisson sampling).
        hidden_units: widths of the hidden layers; empty is a linear model.
        strategy: the server's Flower strategy.
        server_learning_rate: for the strategies that have one.
        average: whether the run leaves the mean of the global models of its second half of rounds,
            which has less of the noise, in place of the last.
    """

    optimizer: str = "sgd"
    learning_rate: float = 1.0
    local_steps: int = 50
    sampling_probability: float = 0.02
    hidden_units: tuple[int, ...] = (32,)
    strategy: str = "fedavg"
    server_learning_rate: float = 1.0
    average: bool = False

    def __post_init__(self) -> None:
        check.choice("train.optimizer", self.optimizer, OPTIMIZERS)
        check.finite("train.learning_rate", self.learning_rate, above=0)
        check.integer("train.local_steps", self.local_steps, at_least=1)
        check.finite("train.sampling_probability", self.sampling_probability, above=0, at_most=1)
        for units in self.hidden_units:
            check.integer("train.hidden_units", units, at_least=1)
        check.choice("train.strategy", self.strategy, STRATEGIES)
        check.finite("train.server_learning_rate", self.server_learning_rate, above=0)


@dataclass(frozen=True)
class SecAggConfig:
    """Secure aggregation: always on.

    Attributes:
        min_survivors: fewest clients whose sum the server may learn; 0 takes the protocol's
            threshold. Each device's own policy has a floor of its own.
        update_bound: largest absolute value of one coordinate of an update; larger ones saturate,
            are counted and reported. With client-level privacy the clip norm takes its place.
        max_examples: largest weight of one client; a client with more rows counts as this many.
        timeout: seconds that one exchange waits at most for its slowest client.
        straggler_factor: as soon as enough clients for a sum have answered, the others get so many
            times what that took, and no longer; 0 waits for `timeout`.
        straggler_grace: the fewest seconds that an exchange waits for them.
        retries: how often a session that failed before any client was asked to work is opened
            anew, after 1, 2, 4, ... seconds.
        cipher: of the masks; chacha20 is for devices without AES instructions.
    """

    min_survivors: int = 0
    update_bound: float = 16.0
    max_examples: int = 65_536
    timeout: float = 600.0
    straggler_factor: float = 10.0
    straggler_grace: float = 60.0
    retries: int = 2
    cipher: str = "aes-256-ctr"

    def __post_init__(self) -> None:
        check.integer("secagg.min_survivors", self.min_survivors, at_least=0)
        check.finite("secagg.update_bound", self.update_bound, above=0)
        check.integer("secagg.max_examples", self.max_examples, at_least=1, at_most=2**24)
        check.finite("secagg.timeout", self.timeout, above=0)
        check.finite("secagg.straggler_factor", self.straggler_factor, at_least=0)
        check.finite("secagg.straggler_grace", self.straggler_grace, at_least=0)
        if 0 < self.straggler_factor < 1:
            raise ConfigError(
                f"secagg.straggler_factor={self.straggler_factor}: expected 0 (off) or at least 1"
            )
        check.integer("secagg.retries", self.retries, at_least=0, at_most=10)
        check.choice("secagg.cipher", self.cipher, ("aes-256-ctr", "chacha20"))


@dataclass(frozen=True)
class RecordDPConfig:
    """Record-level privacy: DP-SGD on the client.

    Attributes:
        enabled: whether clients train with it.
        epsilon: most that the whole run may spend.
        noise_multiplier: noise standard deviation over the clip norm; 0 calibrates it to
            `epsilon`. A run whose noise is too small for its epsilon does not start.
        l2_norm_clip: bound of one example's gradient.
        engine: how per-example gradients are computed.
        statistics_share: of `epsilon`, what the statistics of preprocessing may spend by
            themselves, where they are needed. Together with training they spend `epsilon`.
        statistics_noise_multiplier: of each of their releases; 0 calibrates it to the share.
        statistics_releases: how many there were in this run; filled in when data is prepared.
    """

    enabled: bool = True
    epsilon: float = 3.0
    noise_multiplier: float = 0.0
    l2_norm_clip: float = 1.0
    engine: str = "bookkeeping"
    statistics_share: float = 0.3
    statistics_noise_multiplier: float = 0.0
    statistics_releases: int = 0

    def __post_init__(self) -> None:
        check.finite("dp.record.statistics_share", self.statistics_share, above=0, below=1)
        check.finite(
            "dp.record.statistics_noise_multiplier", self.statistics_noise_multiplier, at_least=0
        )
        check.integer("dp.record.statistics_releases", self.statistics_releases, at_least=0)
        check.finite("dp.record.epsilon", self.epsilon, above=0)
        check.finite("dp.record.noise_multiplier", self.noise_multiplier, at_least=0)
        check.finite("dp.record.l2_norm_clip", self.l2_norm_clip, above=0)
        check.choice("dp.record.engine", self.engine, ENGINES)


@dataclass(frozen=True)
class ClientDPConfig:
    """Client-level privacy: clipped updates, noise on the decrypted sum.

    Attributes:
        enabled: whether it is on; weights are then uniform.
        epsilon: most that the whole run may spend.
        noise_multiplier: noise standard deviation over the clip norm; 0 calibrates it.
        l2_norm_clip: bound of one client's whole update.
        sampling_probability: chance of each client to be in a round's cohort, drawn by the
            server (Poisson sampling); 1 takes every client.
        noise: who adds the noise.
        adaptive_clip: whether `l2_norm_clip`, then that of the first round, follows the quantile.
        clip_quantile: share of clients whose updates adaptive clipping leaves as they are.
        clip_learning_rate: of the logarithm of the bound, per round.
        clip_by_layer: whether each of k layers is clipped to l2_norm_clip / sqrt(k).
    """

    enabled: bool = False
    epsilon: float = 8.0
    noise_multiplier: float = 0.0
    l2_norm_clip: float = 0.5
    sampling_probability: float = 1.0
    noise: str = "central"
    adaptive_clip: bool = False
    clip_quantile: float = 0.5
    clip_learning_rate: float = 0.2
    clip_by_layer: bool = False

    def __post_init__(self) -> None:
        check.finite("dp.client.epsilon", self.epsilon, above=0)
        check.finite("dp.client.noise_multiplier", self.noise_multiplier, at_least=0)
        check.finite("dp.client.l2_norm_clip", self.l2_norm_clip, above=0)
        check.finite(
            "dp.client.sampling_probability", self.sampling_probability, above=0, at_most=1
        )
        check.finite("dp.client.clip_quantile", self.clip_quantile, above=0, below=1)
        check.finite("dp.client.clip_learning_rate", self.clip_learning_rate, above=0, at_most=10)
        check.choice("dp.client.noise", self.noise, ("central",))


@dataclass(frozen=True)
class DPConfig:
    """Both levels of differential privacy and the delta they share."""

    delta: float = 1e-5
    record: RecordDPConfig = field(default_factory=RecordDPConfig)
    client: ClientDPConfig = field(default_factory=ClientDPConfig)

    def __post_init__(self) -> None:
        check.finite("dp.delta", self.delta, at_least=1e-11, below=1)


@dataclass(frozen=True)
class ObserveConfig:
    """Where a run tells of itself beside its folder; nothing of what it does depends on it.

    Attributes:
        prometheus: file for a node exporter's textfile collector; relative to the run's folder,
            empty for none.
    """

    prometheus: str = ""


@dataclass(frozen=True)
class OutputConfig:
    """What a run leaves behind.

    Attributes:
        model_to: recipients, as their files' one line of text, for whom the model is encrypted;
            empty leaves it in clear.
    """

    model_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) for text in self.model_to):
            raise ConfigError("output.model_to: expected a list of recipients' texts")


@dataclass(frozen=True)
class RunConfig:
    """One run.

    Attributes:
        scenario: name of the data and its model.
        clients: number of clients; None takes the scenario's own.
        rounds: rounds of training.
        evaluate_every: rounds between evaluations; the last round is always evaluated.
        seed: partition, held-out rows, initial weights and the data order of training without
            privacy. Never noise, masks, keys, or the sampling that privacy relies on.
        table: what devices' raw tables hold, where they are asked for statistics; None where the
            rows are features already.
    """

    scenario: str = "transport"
    clients: int | None = None
    rounds: int = 10
    evaluate_every: int = 1
    seed: int = 1
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    secagg: SecAggConfig = field(default_factory=SecAggConfig)
    dp: DPConfig = field(default_factory=DPConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)
    table: TableConfig | None = None

    def __post_init__(self) -> None:
        if self.clients is not None:
            check.integer("clients", self.clients, at_least=3, at_most=10_000)
        check.integer("rounds", self.rounds, at_least=1)
        check.integer("evaluate_every", self.evaluate_every, at_least=1)
        check.integer("seed", self.seed, at_least=0, at_most=2**31 - 1)
        if self.clients is not None and self.secagg.min_survivors > self.clients:
            raise ConfigError(
                f"secagg.min_survivors={self.secagg.min_survivors}: expected at most the "
                f"{self.clients} clients"
            )

    @classmethod
    def build(cls, *tables: Mapping[str, Any]) -> Self:
        """Build from nested tables; later ones win, key by key.

        Raises:
            ConfigError: an unknown key (with the nearest known one), a wrong type or value.
        """
        merged: dict[str, Any] = {}
        for table in tables:
            merge(merged, table)
        return typing.cast(Self, build(cls, merged, ""))

    def to_dict(self) -> dict[str, Any]:
        """Nested plain tables without unset values: what `build` takes and TOML can hold."""
        return typing.cast(dict[str, Any], plain(self))

    def to_json(self) -> str:
        """One line of canonical JSON."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of `to_json`.

        Raises:
            ConfigError: not JSON, or not a run's configuration.
        """
        try:
            table = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"configuration is not JSON: {error}") from None
        if not isinstance(table, dict):
            raise ConfigError("configuration is not a JSON object")
        return cls.build(table)
