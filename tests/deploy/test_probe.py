import http.server
import importlib
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.keyring import Keyring
from lepton_flwr.deploy import gate
from lepton_flwr.deploy.probe import AHEAD_SECONDS, BEHIND_SECONDS, try_server
from lepton_flwr.errors import FederationError


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the gate does: 404, with the time."""

    def do_HEAD(self):
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_):
        pass


class WithoutTime(Handler):
    def date_time_string(self, timestamp=None):
        return "noon"


class Late(Handler):
    def date_time_string(self, timestamp=None):
        return super().date_time_string(time.time() - 1.5)


class Nonsense(Handler):
    def date_time_string(self, timestamp=None):
        return f"Mon, {10**30} Jan 2026 00:00:00 GMT"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    for name in ("fed", "other"):
        Keyring.create(folder / name, 1, Address("localhost", 8000))
    return folder


@pytest.fixture(params=[Handler])
def address(folder, request):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(
        folder / "fed" / "server" / "server.pem", folder / "fed" / "server" / "server.key"
    )
    with http.server.HTTPServer(("127.0.0.1", 0), request.param) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Address("localhost", server.server_port)
        server.shutdown()
        thread.join()


def clock(seconds):
    return lambda: datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize("seconds", [0, AHEAD_SECONDS - 1, -BEHIND_SECONDS + 3])
def test_a_clock_that_the_superlink_allows_for_is_no_obstacle(folder, address, seconds):
    try_server(address, folder / "fed" / "server" / "ca.crt", clock(seconds))


@pytest.mark.parametrize(("seconds", "said"), [(3600, "s ahead of"), (-3600, "s behind")])
def test_a_clock_that_differs_too_much_is_named(folder, address, seconds, said):
    with pytest.raises(FederationError, match=f"this device's clock is 3[56].. {said}.*chrony"):
        try_server(address, folder / "fed" / "server" / "ca.crt", clock(seconds))


@pytest.mark.parametrize("address", [Late], indirect=True)
def test_a_time_that_is_told_late_is_no_obstacle(folder, address):
    try_server(address, folder / "fed" / "server" / "ca.crt", clock(AHEAD_SECONDS - 0.5))


@pytest.mark.parametrize("address", [WithoutTime, Nonsense], indirect=True)
def test_a_server_that_does_not_tell_the_time_is_a_server(folder, address):
    try_server(address, folder / "fed" / "server" / "ca.crt", clock(3600))


def test_another_authoritys_server_and_none_are_told_apart(folder, address):
    with pytest.raises(FederationError, match=r"not the one of ca\.crt"):
        try_server(address, folder / "other" / "server" / "ca.crt")
    with pytest.raises(FederationError, match="no server at"):
        try_server(Address("localhost", 1), folder / "fed" / "server" / "ca.crt")


def test_the_limits_are_those_of_the_running_version_of_flower():
    constants = importlib.import_module("flwr.common.constant")
    assert constants.SYSTEM_TIME_TOLERANCE == AHEAD_SECONDS
    assert constants.TIMESTAMP_TOLERANCE + constants.SYSTEM_TIME_TOLERANCE == BEHIND_SECONDS


def test_the_gate_tells_the_time(monkeypatch, folder):
    given = {}
    monkeypatch.setattr("uvicorn.run", lambda app, **options: given.update(options))
    monkeypatch.setattr(gate, "_open_many_files", lambda: None)
    gate.main(str(folder / "fed" / "server"), "127.0.0.1", "1", "2")
    assert given.get("date_header", True) is True
