"""What a run leaves behind, and where it tells of itself."""

from dataclasses import dataclass

from lepton_flwr.errors import ConfigError


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
class ObserveConfig:
    """Where a run tells of itself beside its folder; nothing of what it does depends on it.

    Attributes:
        prometheus: file for a node exporter's textfile collector; relative to the run's folder,
            empty for none.
    """

    prometheus: str = ""
