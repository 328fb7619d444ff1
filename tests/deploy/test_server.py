from datetime import UTC, datetime, timedelta

from lepton_flwr.crypto.address import Address
from lepton_flwr.crypto.keyring import Keyring
from lepton_flwr.crypto.tls import ServerCredentials, TlsAuthority
from lepton_flwr.deploy import server as module
from lepton_flwr.deploy.status import Status, StatusFile


def test_a_certificate_that_ends_while_a_server_runs_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CERTIFICATE_SECONDS", 0.0)
    Keyring.create(tmp_path / "fed", 1, Address("localhost", 8000))
    folder, said = tmp_path / "fed" / "server", []
    files = ServerCredentials.within(folder)
    watch = module._certificate_watch(files, StatusFile(folder), said.append)
    watch()
    assert said == []
    web = TlsAuthority.load(tmp_path / "fed" / "authority")
    day = timedelta(days=1)
    _, ended = web.issue(["localhost"], datetime.now(UTC) - 2 * day, day)
    files.certificate.write_bytes(ended)
    watch()
    watch()
    assert len(said) == 1
    assert "TLS certificate has expired" in Status.read(folder).last_error
