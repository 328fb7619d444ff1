import hashlib

from simulations.benchmarks import encryption


def test_the_file_is_a_table_of_the_length_that_was_asked_for(tmp_path):
    encryption.make_csv(tmp_path / "plain.csv", 1_000_003)
    lines = (tmp_path / "plain.csv").read_bytes().split(b"\n")
    assert (tmp_path / "plain.csv").stat().st_size == 1_000_003
    assert {line.count(b",") for line in lines[:-1]} == {4}


def test_every_work_is_timed_and_leaves_what_it_should(tmp_path):
    best = encryption.measure(tmp_path, 3_000_000, 1)
    assert all(times.seconds > 0 < times.processor for times in best.values())
    plain, found = (hashlib.sha256((tmp_path / name).read_bytes()) for name in
                    ("plain.csv", "found.csv"))  # fmt: skip
    assert plain.digest() == found.digest()
    before, encrypting, decrypting = encryption.memory(tmp_path)
    assert 10 < before < encrypting <= decrypting < before + 8


def test_slow_encryption_fails_the_benchmark(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(encryption, "REQUIRED", 100.0)
    arguments = ["--megabytes", "3", "--repeats", "1", "--folder", str(tmp_path)]
    assert encryption.main(arguments) == 1
    assert "peak memory" in (out := capsys.readouterr().out)
    assert "expected 10000%" in out
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(encryption, "REQUIRED", 0.0)
    assert encryption.main(arguments) == 0
