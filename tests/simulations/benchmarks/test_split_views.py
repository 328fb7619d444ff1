import numpy as np
import pytest

from simulations.benchmarks import split_views


def ring(share, clients=1_000):
    return np.random.default_rng(3).permutation(clients) < share * clients


def test_honest_rings_cannot_be_cut_and_corrupt_ones_can():
    for start in range(0, 1_000, 100):
        assert not split_views.can_cut(ring(0.0), start, 152, 106)
        assert split_views.can_cut(ring(0.4), start, 152, 106)


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_none_can_be_cut_where_the_proof_says_so(share):
    # 2 t >= 3 k / 2 + c + 2, with c the most corrupt clients in a stretch of k / 2.
    degree, corrupt = 200, ring(share)
    doubled = np.concatenate([corrupt, corrupt])
    most = max(doubled[i : i + degree // 2].sum() for i in range(1_000))
    threshold = -(-(3 * degree // 2 + int(most) + 2) // 2)
    for start in range(0, 1_000, 50):
        assert not split_views.can_cut(corrupt, start, degree, threshold)


def test_marked_neighbours_are_counted():
    marks = np.array([1, 0, 0, 1, 1], bool)
    np.testing.assert_array_equal(split_views.around(marks, 2), [0, 2, 3, 1, 1])


def test_the_table_has_a_row_for_each_share(capsys):
    split_views.main(["--places", "1"])
    assert capsys.readouterr().out.count("%") >= 2 * 3 * len(split_views.SHARES)
