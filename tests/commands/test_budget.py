"""`lepton budget` and `lepton app`."""

import json

import pytest

from lepton_flwr.code import SIGNATURE_FILE, code_digest, is_signed
from lepton_flwr.crypto.authority import Authority
from lepton_flwr.privacy.accounting import SampledGaussian, epsilon_of
from lepton_flwr.privacy.events import Laplace, Unbounded, Unit
from lepton_flwr.privacy.ledger import Charge, Ledger, Limit
from lepton_flwr.privacy.plan import make_plan


@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "ledger.db"
    with Ledger(path) as book:
        record = Charge(Unit.RECORD, book.dataset(bytes(32)), SampledGaussian(1.2, 0.05, 20))
        whole = Charge(Unit.CLIENT, "device", Unbounded())
        limits = {Unit.RECORD: (Limit(5.0, 1e-5),)}
        for number in range(1, 6):
            book.commit(book.reserve([record, whole], limits, f"run 7, round {number}"))
        book.reserve([Charge(Unit.RECORD, record.dataset, Laplace(4.0))], limits, "a count")
    return path


def test_a_plan_finds_the_noise_and_its_price(lepton):
    arguments = ("budget", "plan", "--records", 60_000, "--batch", 256, "--epochs", 15)
    code, out, err = lepton(*arguments, "--epsilon", 2)
    assert (code, err) == (0, "")
    plan = make_plan(60_000, 256, 15, epsilon=2.0)
    for shown in (f"{plan.mechanism.noise_multiplier:.4g}", "3516 in all", "1.66667e-06", "PLD"):
        assert shown in out
    assert plan.epsilon <= 2.0 < plan.epsilon_rdp
    assert plan.delta == pytest.approx(0.1 / 60_000)
    assert plan.batch_size % 8 == 0
    assert plan.batch_size > 256
    assert "would be (2" in out or "would be (1.999" in out
    code, out, _ = lepton(*arguments, "--noise", 1.1, "--delta", 1e-5, "--rounds", 10)
    mechanism = SampledGaussian(1.1, 256 / 60_000, 1)
    assert f"{epsilon_of(mechanism, 1e-5, 3516):.4f}" in out
    assert "352 a round" in out


def test_replacing_a_record_takes_more_noise():
    one, other = (
        make_plan(200, 50, 1, epsilon=0.5, replace_one=relation) for relation in (False, True)
    )
    assert other.mechanism.noise_multiplier > 1.1 * one.mechanism.noise_multiplier
    assert "replacing one record" in other.sentence()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--records", "0", "--batch", "1", "--epochs", "1", "--epsilon", "1"],
        ["--records", "9", "--batch", "10", "--epochs", "1", "--epsilon", "1"],
        ["--records", "9", "--batch", "1", "--epochs", "-1", "--epsilon", "1"],
        ["--records", "9", "--batch", "1", "--epochs", "1"],
        ["--records", "9", "--batch", "1", "--epochs", "1", "--epsilon", "1", "--noise", "1"],
        ["--records", "9", "--batch", "1", "--epochs", "1", "--epsilon", "nan"],
        ["--records", "9"],
    ],
)
def test_impossible_plans_are_one_line_and_code_2(lepton, arguments):
    code, out, err = lepton("budget", "plan", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_show_has_a_table_and_draws_epsilon_against_the_limit(lepton, ledger, tmp_path):
    code, out, err = lepton("budget", "show", ledger, "--limit", 5)
    assert (code, err) == (0, "")
    with Ledger(ledger) as book:
        (record, *_) = book.history()[0].charges
        epsilon = book.spent(Unit.RECORD, record.dataset, 1e-5)
    assert f"{epsilon:.2f}"[:3] in out
    for shown in ("one record", "one client", "unbounded", "run 7, round 5", "20 x Gaussian", "PLD",
                  "counts as spent", "Laplace", "like the last"):  # fmt: skip
        assert shown in out
    assert (tmp_path / "budget.png").read_bytes()[:4] == b"\x89PNG"
    assert record.dataset[:8] in out


def test_export_is_json_on_standard_output_or_in_a_file(lepton, ledger, tmp_path):
    code, out, _ = lepton("budget", "export", ledger)
    assert code == 0
    told = json.loads(out)
    assert len(told["releases"]) == 6
    assert told["spent"][1]["epsilon"] is None
    code, out, _ = lepton("budget", "export", ledger, "--out", "spent.json")
    assert (code, out) == (0, "")
    assert json.loads((tmp_path / "spent.json").read_text()) == told


def test_an_empty_ledger_is_shown(lepton, tmp_path):
    Ledger(tmp_path / "new.db").close()
    code, _, err = lepton("budget", "show", "new.db", "--plot", "new.png")
    assert (code, err) == (0, "")
    assert (tmp_path / "new.png").exists()


def test_what_is_no_ledger_is_one_line_and_makes_no_file(lepton, ledger, tmp_path):
    code, _, err = lepton("budget", "show", "absent.db")
    assert (code, err.count("\n")) == (2, 1)
    assert not (tmp_path / "absent.db").exists()
    (tmp_path / "other.db").write_text("hello" * 500)
    code, _, err = lepton("budget", "export", "other.db")
    assert (code, err.count("\n")) == (3, 1)
    ledger.unlink()
    code, _, err = lepton("budget", "show", ledger)
    assert code == 3
    assert "its head is" in err


def test_code_is_digested_and_signed(lepton, tmp_path):
    code, out, _ = lepton("app", "digest")
    assert (code, out.strip()) == (0, code_digest().hex())
    folder = tmp_path / "signer"
    folder.mkdir(mode=0o700)
    signer = Authority.create("signers").issue("signer")
    signer.save(folder)
    code, out, _ = lepton("app", "sign", folder)
    assert code == 0
    assert signer.public_key.hex() in out
    signature = (tmp_path / SIGNATURE_FILE).read_bytes()
    assert is_signed(code_digest(), signature, signer.public_key)
    assert not is_signed(bytes(32), signature, signer.public_key)
