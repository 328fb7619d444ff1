"""What a client does in one round, and how the server applies it."""

from dataclasses import dataclass

from lepton_flwr import _validate as check

OPTIMIZERS = ("sgd", "adam", "adagrad", "rmsprop", "adamw")
STRATEGIES = ("fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad")


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
