import numpy as np
import pytest

from lepton_flwr.privacy.accounting import epsilon_of, epsilon_rdp_of
from simulations.benchmarks import mnist


@pytest.mark.slow
@pytest.mark.parametrize("setting", mnist.SETTINGS)
def test_the_published_epsilons_are_those_of_renyi_accounting(setting):
    """The tutorial rounds, and later conversions are tighter: ours is at most its own, and near."""
    steps = setting.epochs * mnist.STEPS_PER_EPOCH
    rdp = epsilon_rdp_of(setting.mechanism, mnist.DELTA, steps)
    assert 0.8 * setting.published_epsilon < rdp < 1.01 * setting.published_epsilon
    assert epsilon_of(setting.mechanism, mnist.DELTA, steps) < rdp


def test_a_picture_is_drawn(tmp_path):
    result = mnist.Result(np.array([[0.85, 0.9], [0.87, 0.91]]), np.array([0.2, 0.3]), 0.5, 1.0)
    assert result.final == pytest.approx(0.905)
    mnist.draw([(mnist.SETTINGS[0], result)], tmp_path / "mnist.png")
    assert (tmp_path / "mnist.png").stat().st_size > 5000


@pytest.mark.parametrize("arguments", [["--data", "nowhere"], ["--data", "nowhere", "--runs", "0"]])
def test_what_cannot_run_is_said_in_a_line(arguments, capsys):
    with pytest.raises(SystemExit):
        mnist.main(arguments)
    assert "expected" in (text := capsys.readouterr().err) or "nowhere" in text
