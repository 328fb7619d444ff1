import math

import numpy as np
import pytest
from typer.testing import CliRunner

from lepton_flwr import cli
from lepton_flwr.errors import ConfigError
from lepton_flwr.secagg import plan as planning
from lepton_flwr.secagg.plan import plan


def test_bytes_are_those_of_a_session(federation, monkeypatch, identities):
    fed = federation(clients=6, dimension=50, run_id="plan")
    monkeypatch.setattr(planning, "CREDENTIAL_BYTES", len(identities[0].certificate))
    keys = fed.server.request_keys()
    roster = fed.keys(range(6))
    work = fed.shares(roster, range(6))
    survivors = fed.work(work, range(6))
    signatures = fed.attest(survivors, range(6))
    fed.reveal(signatures, range(6))
    size = planning.payload
    # Five replies of six clients, in order.
    replies = [
        item.nbytes if isinstance(item, np.ndarray) else size(item.to_fields()) for item in fed.seen
    ]
    asked = sum(
        size(request.to_fields())
        for request in (keys, roster[0], work[0], survivors[0], signatures[0])
    )
    made = plan(6, 50, bound=1.0)
    # Certificates differ by a few bytes: serial numbers and names.
    assert made.bytes_up == pytest.approx(sum(replies) / 6, abs=10)
    assert made.bytes_down == pytest.approx(asked + 4 * 52, abs=60)


def test_bytes_on_a_ring_are_those_of_a_session(rehearsal, monkeypatch):
    lengths = [len(device.certificate) for device in rehearsal.at("E1")[0].identities]
    monkeypatch.setattr(planning, "CREDENTIAL_BYTES", round(sum(lengths) / len(lengths)))
    size, down, made = planning.payload, 0, plan(150, 3, bound=1.0)
    for exchange in ("E1", "E2", "E3", "E4"):
        fed, requests = rehearsal.at(exchange)
        down += size(requests[0].to_fields())
    down += size(fed.server.request_keys().to_fields()) + 4 * fed.config.layout.dimension
    fed.reveal(requests, fed.everyone())
    member = fed.server._order[fed.server._graph.committee[0]]
    # Keys and bundles come first, then of each client the vector with its tags, then the rest.
    columns = [fed.seen[:150], fed.seen[150:300], fed.seen[300:600:2], fed.seen[301:600:2]]
    columns += [fed.seen[600:750], fed.seen[750:]]
    sent = [column[member] for column in columns]
    up = sum(
        item.nbytes if isinstance(item, np.ndarray) else size(item.to_fields()) for item in sent
    )
    assert made.bytes_up == pytest.approx(up, abs=10)
    # Of each neighbour and of each of the quorum a certificate, a few bytes longer or shorter.
    assert made.bytes_down == pytest.approx(down, abs=2 * (made.degree + 31))


def test_a_real_certificate_is_about_as_long_as_assumed(identities):
    assert len(identities[0].certificate) == pytest.approx(planning.CREDENTIAL_BYTES, rel=0.1)


def test_up_to_128_clients_a_third_is_tolerated_with_certainty():
    made = plan(100, 10)
    assert (made.degree, made.threshold, made.floor, made.certain) == (99, 67, 67, 33)
    assert made.security_bits == made.correctness_bits == math.inf
    assert plan(100, 10, corrupt=0.34).security_bits == 0
    assert plan(100, 10, dropout=0.34).correctness_bits == 0


def test_above_it_is_a_matter_of_chance():
    made = plan(1_000, 10)
    assert (made.degree, made.threshold) == (110, 52)
    assert made.vouch == "94 of a committee of 134"
    assert made.security_bits >= 80
    assert made.correctness_bits >= 40
    assert plan(1_000, 10, corrupt=0.2).security_bits < 40
    assert plan(1_000, 10, dropout=0.3).correctness_bits < 1
    assert plan(1_000, 10, corrupt=0.0).security_bits == math.inf


def test_seconds_are_told_for_every_part_of_the_work():
    parts = plan(50, 1_000).seconds
    assert {"masks"} < set(parts)
    assert all(math.isfinite(seconds) and seconds > 0 for seconds in parts.values())


def test_the_fixed_point_keeps_its_margin():
    for clients in (3, 128, 10_000):
        made = plan(clients, 10, bound=2.0)
        assert 0 < made.margin < 1e-4
        assert made.resolution == pytest.approx(2.0 / 2**31, rel=1e-3)


@pytest.mark.parametrize(
    "arguments", [(2, 10), (10_001, 10), (10, 0), (10, 10, 1.0), (10, 10, 0.1, -1.0)]
)
def test_what_cannot_be_planned_is_refused(arguments):
    with pytest.raises(ConfigError):
        plan(*arguments)


class TestCommand:
    def test_it_prints_one_row_for_each_answer(self):
        result = CliRunner().invoke(
            cli.app, ["secagg", "plan", "--clients", "1000", "--dim", "100000"]
        )
        assert result.exit_code == 0
        for text in (
            *("110", "52 shares", "94 of a committee of 134", "667 of 1000"),
            *("2^-80", "2^-41", "per client", "sparse"),
        ):
            assert text in result.output

    def test_shares_without_safety_are_said_to_be(self):
        arguments = ["secagg", "plan", "--clients", "200", "--dim", "10"]
        result = CliRunner().invoke(cli.app, [*arguments, "--corrupt", "0.4", "--dropout", "0.5"])
        assert result.output.count("likely") == 2
        result = CliRunner().invoke(cli.app, [*arguments, "--corrupt", "0.05"])
        assert "never, at this share" in result.output
        result = CliRunner().invoke(
            cli.app, ["secagg", "plan", "--clients", "9", "--dim", "10", "--corrupt", "0.5"]
        )
        assert "too many" in result.output

    def test_help_has_an_example(self):
        result = CliRunner().invoke(cli.app, ["secagg", "plan", "--help"])
        assert "Example: lepton secagg plan --clients" in result.output

    def test_a_wrong_number_is_one_line(self):
        result = CliRunner().invoke(cli.app, ["secagg", "plan", "--clients", "2", "--dim", "10"])
        assert result.exit_code == 2
        assert result.stderr == "error: clients=2: expected a whole number >= 3 and <= 10000\n"


def test_the_plan_is_for_one_cipher():
    rows = dict(plan(50, 1_000, cipher="chacha20").rows())
    assert rows["cipher of the masks"] == "chacha20"
    assert dict(plan(50, 1_000).rows())["cipher of the masks"] == "aes-256-ctr"
    with pytest.raises(ConfigError, match="chacha20"):
        plan(50, 1_000, cipher="rot13")
