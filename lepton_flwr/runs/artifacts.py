"""What a run leaves to predict with, in clear or as envelopes for chosen recipients.

That is the model, and where a table was preprocessed, the preprocessor.
"""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lepton_flwr import _memory_files
from lepton_flwr._files import replace, write_atomic
from lepton_flwr._quiet import silent_stderr
from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.envelope import seal, unseal
from lepton_flwr.crypto.recipients import Recipient
from lepton_flwr.crypto.stanza import Opener
from lepton_flwr.data.preprocessing import PREPROCESSOR_FILE, Preprocessor
from lepton_flwr.errors import ConfigError, DataError

MODEL = "model.keras"
SUFFIX = ".lepton"
PURPOSES = {MODEL: "lepton/model/v1", PREPROCESSOR_FILE: "lepton/preprocessor/v1"}

GetKey = Callable[[], Opener]


def recipients_of(config: RunConfig) -> list[Recipient]:
    """For whom a run's model is encrypted; empty leaves it in clear.

    Raises:
        RecipientError: a text is no recipient's.
    """
    return [Recipient.from_text(text) for text in config.output.model_to]


def write_model(
    folder: Path, save: Callable[[Path], None], recipients: Sequence[Recipient]
) -> None:
    """Replace the folder's model.

    Guarantee: with recipients, this writes the model to no disk but in an envelope that only they
    can open.

    Args:
        folder: the run's.
        save: writes the model to the path that it is given, a `.keras` file.
        recipients: who shall open it; none leaves it in clear.

    Raises:
        OutputError: it cannot be written; the former one is intact.
    """
    if recipients:
        _seal(folder, MODEL, _memory_files.written(save, MODEL), recipients)
    else:
        replace(folder / MODEL, save)


def write_preprocessor(
    folder: Path, preprocessor: Preprocessor, recipients: Sequence[Recipient]
) -> None:
    """Write the folder's preprocessor; as `write_model`."""
    if recipients:
        _seal(folder, PREPROCESSOR_FILE, preprocessor.to_json().encode(), recipients)
    else:
        preprocessor.save(folder / PREPROCESSOR_FILE)


def has_model(folder: Path) -> bool:
    """Whether there is a model, in clear or not."""
    return any((folder / name).exists() for name in (MODEL, MODEL + SUFFIX))


def find_model(path: Path) -> Path:
    """The model's file, of a run's folder or of itself.

    Raises:
        ConfigError: there is none.
    """
    if not path.is_dir():
        if path.is_file():
            return path
        raise ConfigError(f"{path}: expected a run's folder, {MODEL} or {MODEL}{SUFFIX}")
    for name in (MODEL, MODEL + SUFFIX):
        if (path / name).is_file():
            return path / name
    raise ConfigError(f"{path}: no {MODEL} or {MODEL}{SUFFIX} in it: expected a run's folder")


def read_model(path: Path, key: GetKey | None) -> Any:
    """The Keras model in a file, not compiled.

    Args:
        path: what `find_model` found.
        key: called for the key if the model is encrypted.

    Raises:
        ConfigError: it is encrypted and there is no key.
        EnvelopeError: the key is another's, or the envelope was altered.
        DataError: it cannot be read, or is no Keras model.
    """
    content = _read(path, PURPOSES[MODEL], key)
    with silent_stderr():
        import keras
        import tensorflow  # noqa: F401 - here, for its libraries write past Python's logging

    # Keras' safe mode is on: code within the file is refused, not run.
    with _memory_files.readable(content, MODEL) as file:
        try:
            return keras.models.load_model(file, compile=False, safe_mode=True)
        except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path}: no Keras model that can be read ({type(error).__name__}): expected the "
                f"{MODEL} of a run"
            ) from None


def read_preprocessor(folder: Path, key: GetKey | None) -> Preprocessor | None:
    """The folder's preprocessor, or None if there is none; errors as of `read_model`."""
    for name in (PREPROCESSOR_FILE, PREPROCESSOR_FILE + SUFFIX):
        if (folder / name).exists():
            content = _read(folder / name, PURPOSES[PREPROCESSOR_FILE], key)
            try:
                return Preprocessor.from_json(content.decode())
            except UnicodeDecodeError:
                raise DataError(f"{folder / name}: not text: fit again") from None
    return None


def _seal(folder: Path, name: str, content: bytes, recipients: Sequence[Recipient]) -> None:
    write_atomic(folder / (name + SUFFIX), seal(content, recipients, purpose=PURPOSES[name]))


def _read(path: Path, purpose: str, key: GetKey | None) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    if path.suffix != SUFFIX:
        return content
    if key is None:
        raise ConfigError(f"{path}: is encrypted: give the key of one of its recipients (--key)")
    return unseal(content, key(), purpose=purpose)
