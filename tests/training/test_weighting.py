import numpy as np
import pytest

from lepton_flwr.errors import ConfigError, DataError
from lepton_flwr.training.weighting import example_weights

LABELS = np.array([0, 1, 2, 1])


def test_without_weights_there_are_none():
    assert example_weights(LABELS, 4, None, None) is None


def test_class_weights_multiply_sample_weights():
    found = example_weights(LABELS, 4, [1.0, 2.0, 3.0, 0.0], {1: 10.0, 2: 0.5})
    np.testing.assert_array_equal(found, np.array([1, 20, 1.5, 0], np.float32))


@pytest.mark.parametrize("labels", [LABELS[:, None], np.eye(3)[LABELS]], ids=["column", "one-hot"])
def test_classes_are_found_in_any_shape_of_labels(labels):
    found = example_weights(labels, 4, None, {1: 2.0})
    np.testing.assert_array_equal(found, [1, 2, 1, 2])


@pytest.mark.parametrize("bad", [[1.0], [[1.0, 1.0]] * 4, [1, 1, 1, -1], [1, 1, 1, np.nan]])
def test_sample_weights_that_mean_nothing_are_refused(bad):
    with pytest.raises(DataError, match="sample_weight"):
        example_weights(LABELS, 4, bad, None)


def test_class_weights_that_mean_nothing_are_refused():
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="class_weight"):
            example_weights(LABELS, 4, None, {1: bad})
    for labels in ({"a": LABELS}, np.zeros((4, 2, 2))):
        with pytest.raises(DataError, match="class_weight"):
            example_weights(labels, 4, None, {1: 1.0})
