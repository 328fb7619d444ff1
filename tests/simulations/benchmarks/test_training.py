import os

import pytest

from simulations.benchmarks import training

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tf-keras and Keras 3


def test_the_plain_step_and_every_engine_are_measured():
    names = training.subjects("mlp")
    assert names[:2] == [training.KERAS, training.XLA]
    assert {"vectorized: gradients only", "vectorized: private step"} < set(names)
    chosen = [training.KERAS, "vectorized: gradients only", "vectorized: private step"]
    seconds = training.measure_time("mlp", chosen, 16, 1)
    assert list(seconds) == chosen
    assert all(value > 0 for value in seconds.values())


def test_a_subject_that_cannot_run_is_left_out_and_named(capsys):
    assert training.measure_time("mlp", ["no engine: private step"], 16, 1) == {}
    assert "no engine: private step: ConfigError" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_grows_with_the_batch():
    subject = "vectorized: gradients only"
    small, large = (training.measure_memory("mlp", subject, batch) for batch in (16, 128))
    assert large > 100 > small  # 200,000 parameters of 4 bytes for each of 128 examples


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="memory needs Linux")
def test_the_quick_table_has_the_peers_too(capsys):
    training.main(["--quick", "--models", "mlp"])
    lines = capsys.readouterr().out.splitlines()
    for name in training.subjects("mlp"):
        assert any(name in line for line in lines)
    assert not any(" - " in line for line in lines)
