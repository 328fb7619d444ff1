import gzip
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from lepton_flwr.config import RunConfig
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.scenarios import get, image
from lepton_flwr.errors import ConfigError, DataError

MNIST = Path(os.environ.get("LEPTON_MNIST", Path(__file__).parents[4] / "shared/data/mnist"))
needs_mnist = pytest.mark.skipif(
    not MNIST.is_dir(), reason=f"no MNIST files in {MNIST}; set LEPTON_MNIST to their folder"
)


def load(path: Path | str, **settings) -> FederatedData:
    table = {"data": {"path": str(path), "min_rows": 2}}
    return get("image").load(RunConfig.build(get("image").defaults, table, settings))


def write(folder: Path, train: int = 60, test: int = 20) -> Path:
    rng = np.random.default_rng(0)
    for part, n in (("train", train), ("t10k", test)):
        sizes = b"".join(k.to_bytes(4, "big") for k in (0x803, n, 28, 28))
        pixels = rng.integers(0, 256, n * 784, dtype=np.uint8).tobytes()
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(sizes + pixels))
        sizes = b"".join(k.to_bytes(4, "big") for k in (0x801, n))
        labels = (np.arange(n) % 10).astype(np.uint8).tobytes()
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(sizes + labels))
    return folder


def test_images_are_divided_among_clients_with_pixels_up_to_one(tmp_path):
    data = load(write(tmp_path), clients=4, data={"partition": "iid"})
    assert data.input_shape == (28, 28, 1)
    assert data.num_classes == 10
    assert data.feature_names == ()
    assert sum(len(c.y_train) + len(c.y_test) for c in data.clients) == 80
    pixels = np.concatenate([c.x_train for c in data.clients])
    assert pixels.min() == 0
    assert pixels.max() == 1


def test_images_keep_their_labels_and_orientation(tmp_path):
    images, labels = image.read_folder(write(tmp_path))
    raw = gzip.decompress((tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    assert images.shape == (80, 28, 28)
    assert images[60:].tobytes() == raw
    assert labels.tolist() == [*(i % 10 for i in range(60)), *(i % 10 for i in range(20))]


def test_images_have_no_natural_clients(tmp_path):
    with pytest.raises(ConfigError, match="no natural clients"):
        load(write(tmp_path), data={"partition": "natural"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "No such file.*data.path is the folder"),
        (lambda path: path.write_bytes(b"no gzip"), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "damaged"),
        (lambda path: path.write_bytes(gzip.compress(b"")), "not an idx file"),
        (lambda path: path.write_bytes(gzip.compress(b"\x00" * 500)), "not an idx file"),
    ],
)
@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_a_missing_or_damaged_file_is_named(tmp_path, damage, message, kind):
    path = write(tmp_path) / f"t10k-{kind}-ubyte.gz"
    damage(path)
    with pytest.raises(DataError, match=f"{path.name}.*{message}"):
        load(tmp_path)


def test_images_and_labels_of_different_number_are_refused(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write(other, train=50)
    write(tmp_path)
    name = "train-labels-idx1-ubyte.gz"
    (tmp_path / name).write_bytes((other / name).read_bytes())
    with pytest.raises(DataError, match="60 train images and 50 labels"):
        load(tmp_path)


def test_a_failed_download_names_the_setting_for_a_folder(monkeypatch):
    def fail() -> None:
        raise Exception("URL fetch failure")

    datasets = types.ModuleType("keras.datasets")
    datasets.mnist = types.SimpleNamespace(load_data=fail)
    monkeypatch.setitem(sys.modules, "keras", types.ModuleType("keras"))
    monkeypatch.setitem(sys.modules, "keras.datasets", datasets)
    with pytest.raises(DataError, match=r"could not be downloaded.*set data\.path"):
        load("")


@needs_mnist
def test_mnist_has_70000_digits_unevenly_divided_among_ten_clients():
    data = load(MNIST)
    assert len(data.clients) == 10
    counts = np.stack(
        [np.bincount(np.concatenate([c.y_train, c.y_test]), minlength=10) for c in data.clients]
    )
    assert counts.sum() == 70_000
    assert counts.sum(axis=0).tolist() == [
        *(6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958)
    ]
    assert (counts.max(axis=0) > 3 * np.median(counts, axis=0)).any()
    mean = np.concatenate([c.x_train for c in data.clients]).mean()
    assert mean == pytest.approx(0.1309, abs=0.001)
