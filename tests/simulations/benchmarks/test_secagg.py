import pytest

from simulations.benchmarks import secagg


def test_a_small_session_is_measured():
    result = secagg.measure(secagg.Setting(8, 20_000, 1))
    assert 0 < result.mask < result.later
    assert 0 < result.unmask < result.server
    assert 1 < result.bytes_up / 80_000 < 1.1
    assert 2 < result.vectors < 8


@pytest.mark.slow
def test_the_quick_table_has_flowers_row_too(capsys):
    secagg.main(["--quick"])
    out = capsys.readouterr().out
    assert "Flower SecAgg+" in out
    assert out.count("lepton-flwr") == len(secagg.QUICK)
