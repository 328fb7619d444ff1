"""Perturbed records: what they may tell, and what they still can."""

import numpy as np
import pytest

from lepton_flwr.data.federated import ClientData
from lepton_flwr.data.preprocessing import TableSchema, fit_tables
from lepton_flwr.data.preprocessing.searches import Options
from lepton_flwr.errors import ConfigError, PrivacyError
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.events import (
    DiscreteGaussian,
    Laplace,
    RandomizedResponse,
    SampledGaussian,
)
from lepton_flwr.privacy.mechanisms import Noised
from lepton_flwr.sdk.perturbation import Perturbation
from lepton_flwr.sdk.preparation import DEVIATIONS

STATISTICS = (SampledGaussian(8.0, 1.0, 1), 3)


def client(x, y):
    x = np.asarray(x, np.float32)
    return ClientData(x, np.asarray(y, np.int32), x[:1], np.asarray(y[:1], np.int32))


def within(mechanism, epsilon=3.0, classes=2):
    return Perturbation.within(
        mechanism, epsilon, 1e-5, beside=STATISTICS, num_features=4, num_classes=classes
    )


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_all_releases_together_stay_within_epsilon(mechanism, epsilon):
    perturbation = within(mechanism, epsilon)
    kinds = [type(event) for event in perturbation.events]
    assert kinds == [Laplace if mechanism == "laplace" else DiscreteGaussian, RandomizedResponse]
    events = [STATISTICS, *((event, 1) for event in perturbation.events)]
    assert 0.5 * epsilon < losses.epsilon(events, 1e-5) <= epsilon


def test_nothing_left_is_refused():
    with pytest.raises(PrivacyError, match="leave nothing"):
        within("laplace", 0.1)


@pytest.mark.parametrize(("mechanism", "order"), [("laplace", 1), ("gaussian", 2)])
def test_noise_covers_the_distance_of_any_two_records(mechanism, order, monkeypatch):
    """Without noise, records of any size come out within the radius that the noise is for."""
    perturbation = within(mechanism)
    asked = []

    def silent(values, sensitivity, scale):
        asked.append((sensitivity, scale))
        return Noised(values, None)

    name = "laplace" if mechanism == "laplace" else "discrete_gaussian"
    monkeypatch.setattr(f"lepton_flwr.sdk.perturbation.{name}", silent)
    wild = client([[1e6, -1e6, 3.0, 0.0], [0.1, 0.2, 0.0, 0.0], [-1e9, 0, 0, 0]], [0, 1, 0])
    kept = perturbation.apply(wild).x_train / perturbation.shrinkage
    norms = np.linalg.norm(kept, ord=order, axis=1)
    assert (norms <= perturbation.radius * (1 + 1e-6)).all()
    assert kept[1] == pytest.approx(wild.x_train[1], rel=1e-5)
    distance = np.linalg.norm(kept[0] - kept[2], ord=order)
    assert distance <= 2 * perturbation.radius * (1 + 1e-6)
    ((sensitivity, scale),) = asked
    assert scale == pytest.approx(sensitivity * perturbation.noise_multiplier)
    unit = 1.0 if mechanism == "laplace" else perturbation.radius / 2**20
    assert distance <= sensitivity * unit <= 2 * perturbation.radius * (1 + 1e-5)


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
def test_noise_has_its_scale_and_labels_flip_at_their_rate(mechanism):
    """False alarms: below 1e-10 (seven deviations of each figure)."""
    perturbation = within(mechanism, classes=3)
    rows = client(np.zeros((2000, 4)), np.zeros(2000, np.int32))
    noisy = perturbation.apply(rows)
    noise = noisy.x_train.reshape(-1) / perturbation.shrinkage
    expected = perturbation.noise_scale * (1 if mechanism == "laplace" else np.sqrt(2 / np.pi))
    assert np.abs(noise).mean() == pytest.approx(expected, rel=7 / np.sqrt(8000))
    flipped = (noisy.y_train != 0).mean()
    rate = 2 / (np.exp(perturbation.label_epsilon) + 2)
    assert flipped == pytest.approx(rate, abs=7 * np.sqrt(rate * (1 - rate) / 2000))
    assert len({noisy.x_train.tobytes(), perturbation.apply(rows).x_train.tobytes()}) == 2


@pytest.mark.parametrize(("mechanism", "order"), [("laplace", 1), ("gaussian", 2)])
def test_radius_and_shrinkage_are_for_features_as_the_preprocessing_makes_them(mechanism, order):
    """Noise for larger features would be wasted; false alarms: below 1e-11 (seven deviations)."""
    numbers = np.random.default_rng(1).choice([-1.0, 1.0], (1000, 4))
    table = {f"c{i}": column for i, column in enumerate(numbers.T)}
    schema = TableSchema.infer(table)
    halves = [schema.read({n: c[i::2] for n, c in table.items()}) for i in (0, 1)]
    options = Options(deviations=DEVIATIONS)
    features = fit_tables(halves, schema, options=options).transform(table)
    perturbation = within(mechanism, epsilon=30.0)
    norms = np.linalg.norm(features, ord=order, axis=1)
    assert norms.mean() == pytest.approx(perturbation.radius, rel=0.01)
    true = features.reshape(-1)
    perturbed = perturbation.apply(client(features, np.zeros(1000, np.int32))).x_train.reshape(-1)
    slope = true @ perturbed / (perturbed @ perturbed)  # of the true features, by least squares
    deviation = (true - slope * perturbed).std() / np.linalg.norm(perturbed)
    assert abs(slope - 1) < 7 * deviation + 0.02  # for the numbers' own deviation is not quite 1


def test_held_out_rows_stay_and_shapes_too():
    rows = client(np.ones((5, 4)), [0, 1, 0, 1, 1])
    noisy = within("gaussian").apply(rows)
    assert (noisy.x_test == rows.x_test).all()
    assert noisy.x_train.shape == rows.x_train.shape
    assert noisy.records == b""


@pytest.mark.parametrize(
    "changed",
    [{"mechanism": "none"}, {"radius": 0.0}, {"noise_multiplier": 0.0}, {"label_epsilon": 41.0},
     {"num_classes": 1}],
)  # fmt: skip
def test_a_perturbation_that_hides_nothing_is_refused(changed):
    values = {
        "mechanism": "laplace",
        "radius": 1.0,
        "noise_multiplier": 1.0,
        "label_epsilon": 1.0,
        "num_classes": 2,
    }
    with pytest.raises(ConfigError):
        Perturbation(**(values | changed))
