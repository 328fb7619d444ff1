import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_flwr.data.preprocessing.whole import MAX_BOUND, WholeNumbers
from lepton_flwr.errors import ConfigError


@given(
    st.integers(2, 10_000),
    st.sampled_from([1, 255, 2**31, 2**53, MAX_BOUND]),
    st.integers(0, 2**32),
)
def test_sums_are_exact_for_any_number_of_clients(clients, bound, seed):
    coding = WholeNumbers(3, bound, clients)
    rng = np.random.default_rng(seed)
    taking_part = min(clients, 20)
    vectors = rng.integers(-bound, bound, (taking_part, 3), dtype=np.int64, endpoint=True)
    vectors[0] = [-bound, 0, bound]
    total = np.zeros(coding.layout.dimension, dtype=np.uint32)
    for vector in vectors:
        total += coding.encode(vector)
    sums, counted = coding.decode(total)
    assert counted == taking_part
    assert sums == [sum(map(int, column)) for column in vectors.T]


def test_what_exceeds_the_bound_is_cut_to_it():
    coding = WholeNumbers(2, 100, 3)
    sums, _ = coding.decode(coding.encode(np.array([1000, -1000])))
    assert sums == [100, -100]


@pytest.mark.parametrize(("size", "bound", "clients"), [(0, 1, 2), (1, 2**63, 2), (1, 1, 1)])
def test_values_out_of_range_are_refused(size, bound, clients):
    with pytest.raises(ConfigError):
        WholeNumbers(size, bound, clients)
