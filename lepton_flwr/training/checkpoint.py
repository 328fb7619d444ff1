"""A private training on disk: one file from which it goes on as the same mechanism.

The file is a Keras model archive (weights, optimizer, compilation) with one more member that says
what was spent and what may be. The noise of each step is independent of all others, so the state
of the noise is the number of steps taken; keys are in no file. Whoever had them could subtract the
noise, and a training resumed twice from one file with the same noise on other rows would show the
difference of the rows. Steps taken after the file was written count again when they are repeated.
"""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import keras

from lepton_flwr._files import replace
from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.training.record_privacy import RecordPrivacy, StepBudget

if TYPE_CHECKING:
    from lepton_flwr.training.private import PrivateTrainer

MEMBER = "lepton_private.json"
VERSION = 1
SUFFIX = ".keras"
_LARGEST_MEMBER = 10_000
T = TypeVar("T", bound="PrivateTrainer")


class CheckpointCallback(keras.callbacks.Callback):
    """Saves a trainer after every epoch.

    Args:
        trainer: the trainer whose `fit` this is passed to.
        path: the file; the former one is replaced when the new one is whole.
    """

    def __init__(self, trainer: "PrivateTrainer", path: Path) -> None:
        super().__init__()
        self._trainer = trainer
        self._path = Path(path)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Save."""
        save(self._trainer, self._path)


def save(trainer: "PrivateTrainer", path: Path) -> None:
    """Write a trainer; see `PrivateTrainer.save`."""
    if path.suffix != SUFFIX:
        raise ConfigError(f"{path.name}: expected a name that ends in {SUFFIX}")
    state = {
        "version": VERSION,
        "steps_taken": trainer.steps_taken,
        "engine": trainer.engine_name,
        "physical_batch_size": trainer.physical_batch_size,
        "privacy": dataclasses.asdict(trainer.privacy),
        "budget": None if trainer.budget is None else dataclasses.asdict(trainer.budget),
    }

    def write(beside: Path) -> None:
        trainer.model.save(beside)
        with zipfile.ZipFile(beside, "a") as archive:
            archive.writestr(MEMBER, json.dumps(state, indent=1))

    replace(path, write)


def load(trainer_class: type[T], path: Path, *, custom_objects: Any = None, **options: Any) -> T:
    """Read a trainer; see `PrivateTrainer.load`."""
    state = _state(path)
    try:
        if state["version"] != VERSION:
            raise DataError(
                f"{path.name}: version {state['version']!r}: expected {VERSION}; it was written by "
                "another release"
            )
        budget = state["budget"]
        privacy = RecordPrivacy(**state["privacy"])
        steps = state["steps_taken"]
        if type(steps) is not int or steps < 0:
            raise DataError(f"{path.name}: expected a number of steps")
        model = keras.models.load_model(path, custom_objects=custom_objects)
        trainer = trainer_class(
            model,
            privacy,
            budget=None if budget is None else StepBudget(**budget),
            engine=state["engine"],
            physical_batch_size=state["physical_batch_size"],
            **options,
        )
    except (KeyError, TypeError, ConfigError, OSError) as error:
        raise DataError(f"{path.name}: not a whole checkpoint: {error}") from None
    trainer.steps_taken = steps
    return trainer


def _state(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(MEMBER).file_size > _LARGEST_MEMBER:
                raise DataError(f"{path.name}: {MEMBER} is too large to be one")
            state = json.loads(archive.read(MEMBER))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path.name}: cannot read the checkpoint: {reason}") from None
    except KeyError:
        raise DataError(
            f"{path.name}: no {MEMBER} in it: expected a file that PrivateTrainer.save wrote"
        ) from None
    except (zipfile.BadZipFile, ValueError) as error:
        raise DataError(f"{path.name}: damaged: {error}") from None
    if not isinstance(state, dict):
        raise DataError(f"{path.name}: {MEMBER}: expected a JSON object")
    return state
