"""Handwritten digits; clients see some digits more than others."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.data.assemble import assemble
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.scenario import Scenario
from lepton_flwr.errors import DataError

SIDE = 28
_PARTS = ("train", "t10k")
_HEADER = {"images-idx3": 16, "labels-idx1": 8}  # bytes
_MAGIC = {"images-idx3": 0x803, "labels-idx1": 0x801}


def read_folder(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read MNIST from its four gzipped idx files.

    Returns:
        Images, uint8, shape (n, 28, 28), and labels, uint8, shape (n,); train rows first.

    Raises:
        DataError: a file is missing, damaged, or not MNIST.
    """
    images, labels = [], []
    for part in _PARTS:
        pixels = _idx(folder, part, "images-idx3")
        if len(pixels) % SIDE**2:
            raise DataError(f"{folder}: {part} images are not {SIDE} x {SIDE} pixels")
        images.append(pixels.reshape(-1, SIDE, SIDE))
        labels.append(_idx(folder, part, "labels-idx1"))
        if len(images[-1]) != len(labels[-1]):
            raise DataError(
                f"{folder}: {len(images[-1])} {part} images and {len(labels[-1])} labels"
            )
    return np.concatenate(images), np.concatenate(labels)


def _idx(folder: Path, part: str, kind: str) -> Any:
    path = folder / f"{part}-{kind}-ubyte.gz"
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(f"{path}: damaged, expected a gzipped idx file") from None
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; data.path is the folder of MNIST's four .gz files"
        ) from None
    start = _HEADER[kind]
    shape = np.frombuffer(content[4:start], ">u4")
    if content[:4] != _MAGIC[kind].to_bytes(4, "big") or len(content) - start != shape.prod():
        raise DataError(f"{path}: not an idx file of MNIST")
    return np.frombuffer(content, np.uint8, offset=start)


def _download() -> tuple[np.ndarray, np.ndarray]:
    try:
        from keras.datasets import mnist

        (x_train, y_train), (x_test, y_test) = mnist.load_data()
    except Exception as error:  # the loader raises bare Exception when the network fails
        raise DataError(
            f"MNIST could not be downloaded ({type(error).__name__}): set data.path to a folder "
            "with its four .gz files"
        ) from None
    return np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])


def load(config: RunConfig) -> FederatedData:
    """Images as clients; there are no natural ones. Pixels are divided by 255."""
    folder = config.data.path
    images, labels = read_folder(Path(folder)) if folder else _download()
    return assemble(
        config,
        images[..., np.newaxis].astype(np.float32) / np.float32(255),
        labels.astype(np.int32),
        keys=None,
        clients=10,
        num_classes=10,
    )


SCENARIO = Scenario(
    name="image",
    title="Handwritten digits",
    description=(
        "70,000 images of digits (MNIST), from a folder or through Keras: which digit is it? "
        "Ten clients with uneven shares of the digits. Up to 5 minutes on two cores."
    ),
    model="cnn",
    load=load,
    defaults={
        "data": {"partition": "dirichlet"},
        "train": {"optimizer": "adam", "learning_rate": 0.005, "local_steps": 60},
    },
)
