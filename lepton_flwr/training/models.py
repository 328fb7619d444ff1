"""The models that a server can ask for: a checked description, and how it becomes a Keras model."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Self

from lepton_flwr import _validate as check
from lepton_flwr.config import OPTIMIZERS
from lepton_flwr.errors import ConfigError

KINDS = ("mlp", "cnn")
LARGEST_MODEL = 50_000_000
_LONGEST_JSON = 4096
_SMALLEST_IMAGE = 13  # below it, the last pooling of the CNN has nothing left


@dataclass(frozen=True)
class ModelSpec:
    """A model, as the server describes it to devices. Bounded, since it comes from outside.

    Attributes:
        kind: "mlp" (dense layers with ReLU) or "cnn" (the MNIST tutorial network of
            tensorflow-privacy).
        input_shape: shape of one example, one to three dimensions; the CNN takes
            (height, width, channels).
        num_classes: 2 gives one logit, more give one logit each.
        hidden_units: widths of the hidden dense layers; none makes an MLP linear.

    Raises:
        ConfigError: a value is out of range, or the model exceeds 50 million parameters.
    """

    kind: str
    input_shape: tuple[int, ...]
    num_classes: int
    hidden_units: tuple[int, ...] = (32,)

    def __post_init__(self) -> None:
        check.choice("model.kind", self.kind, KINDS)
        check.integer("model.num_classes", self.num_classes, at_least=2, at_most=10_000)
        for name, sizes, longest in (
            ("model.input_shape", self.input_shape, 3),
            ("model.hidden_units", self.hidden_units, 16),
        ):
            if not isinstance(sizes, tuple) or len(sizes) > longest:
                raise ConfigError(f"{name}: expected a tuple of at most {longest} numbers")
            for size in sizes:
                check.integer(name, size, at_least=1, at_most=2**20)
        if not self.input_shape:
            raise ConfigError("model.input_shape=(): expected at least one dimension")
        if self.kind == "cnn" and (
            len(self.input_shape) != 3 or min(self.input_shape[:2]) < _SMALLEST_IMAGE
        ):
            raise ConfigError(
                f"model.input_shape={self.input_shape}: expected (height, width, channels) of at "
                f"least {_SMALLEST_IMAGE} by {_SMALLEST_IMAGE} for a CNN"
            )
        if self.num_parameters > LARGEST_MODEL:
            raise ConfigError(
                f"the model has {self.num_parameters} parameters: expected at most {LARGEST_MODEL}"
            )

    @property
    def num_outputs(self) -> int:
        """Logits of one example."""
        return 1 if self.num_classes == 2 else self.num_classes

    @property
    def num_parameters(self) -> int:
        """Trainable parameters: the length of an update."""
        width, count = math.prod(self.input_shape), 0
        if self.kind == "cnn":
            height, breadth = (((-(-side // 2) - 1) - 4) // 2 for side in self.input_shape[:2])
            width = height * breadth * 32
            count = (64 * self.input_shape[2] + 1) * 16 + (16 * 16 + 1) * 32
        for units in (*self.hidden_units, self.num_outputs):
            width, count = units, count + (width + 1) * units
        return count

    def to_json(self) -> str:
        """One line of canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of `to_json`.

        Raises:
            ConfigError: not such JSON, or out of range.
        """
        try:
            table = json.loads(text) if len(text) <= _LONGEST_JSON else None
        except (ValueError, RecursionError):
            table = None
        keys = {"kind", "input_shape", "num_classes", "hidden_units"}
        if not isinstance(table, dict) or set(table) != keys:
            raise ConfigError(f"model: expected a JSON object with {', '.join(sorted(keys))}")
        for name in ("input_shape", "hidden_units"):
            if not isinstance(table[name], list):
                raise ConfigError(f"model.{name}: expected a list of whole numbers")
            table[name] = tuple(table[name])
        return cls(**table)


def build(spec: ModelSpec, seed: int) -> Any:
    """Build the Keras model with logits as output; equal seeds give equal weights.

    The order of weights on the wire is that of `model.get_weights()`.

    Args:
        spec: the description.
        seed: of the initial weights (Glorot uniform, zero biases).
    """
    import keras

    layers = keras.layers
    seeds = iter(range(seed, seed + 64))

    def weights() -> Any:
        return keras.initializers.GlorotUniform(seed=next(seeds))

    stack = [keras.Input(spec.input_shape)]
    if spec.kind == "cnn":
        for filters, kernel, padding in ((16, 8, "same"), (32, 4, "valid")):
            stack += [
                layers.Conv2D(
                    filters,
                    kernel,
                    strides=2,
                    padding=padding,
                    activation="relu",
                    kernel_initializer=weights(),
                ),
                layers.MaxPool2D(2, 1),
            ]
    if len(spec.input_shape) > 1:
        stack.append(layers.Flatten())
    for units in spec.hidden_units:
        stack.append(layers.Dense(units, "relu", kernel_initializer=weights()))
    stack.append(layers.Dense(spec.num_outputs, kernel_initializer=weights()))
    return keras.Sequential(stack)


def compile_model(model: Any, optimizer_name: str, learning_rate: float) -> Any:
    """Compile `model` with the loss that its outputs call for, and return it.

    One logit: binary cross-entropy; more: sparse categorical cross-entropy; both from logits.

    Raises:
        ConfigError: unknown optimizer, or a learning rate that is not above zero.
    """
    import keras

    check.choice("train.optimizer", optimizer_name, OPTIMIZERS)
    check.finite("train.learning_rate", learning_rate, above=0)
    optimizer = keras.optimizers.get(
        {"class_name": optimizer_name, "config": {"learning_rate": float(learning_rate)}}
    )
    if model.output_shape[-1] == 1:
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    return model
