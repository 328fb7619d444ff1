"""Models of single participants: each trained on its own rows alone, and none ever shared."""

from collections.abc import Sequence

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.data.federated import ClientData
from lepton_flwr.inference.ballot import Predict
from lepton_flwr.training.models import ModelSpec, build, compile_model
from lepton_flwr.training.plain import PlainTrainer
from lepton_flwr.training.predictions import predict_logits, probabilities


def train_local_models(
    config: RunConfig, spec: ModelSpec, clients: Sequence[ClientData], steps: int
) -> list[Predict]:
    """Train one model for each participant, without noise: what is released later is noised.

    Args:
        config: the optimizer, the share of the rows in a batch, and the seed.
        spec: the model, the same for all.
        clients: their rows.
        steps: steps of each.

    Returns:
        For each participant what turns rows into probabilities, float64 (queries, classes).

    Raises:
        DataError: rows that do not fit the model.
    """
    train = config.train
    # One model serves all participants of this process in turn; what differs is its weights.
    model = compile_model(build(spec, config.seed), train.optimizer, train.learning_rate)
    initial = model.get_weights()

    def fit(number: int, data: ClientData) -> Predict:
        model.set_weights(initial)
        order = np.random.default_rng([config.seed, number])
        trainer = PlainTrainer(model, train.sampling_probability, order)
        trainer.fit(data.x_train, data.y_train, steps=steps)
        weights = model.get_weights()

        def predict(rows: np.ndarray) -> np.ndarray:
            model.set_weights(weights)
            return probabilities(predict_logits(model, rows))

        return predict

    return [fit(number, data) for number, data in enumerate(clients)]
