import pytest

from lepton_flwr import __version__
from lepton_flwr.errors import VersionError
from lepton_flwr.secagg import version
from lepton_flwr.secagg.version import APP_KEY, PROTOCOL, PROTOCOL_KEY, check_client, check_server


def said(app=__version__, protocol=PROTOCOL):
    return {APP_KEY: app, PROTOCOL_KEY: protocol}


def test_both_ends_accept_what_they_say_of_themselves():
    check_client(version.own())
    check_server(version.own())


def test_an_older_release_of_a_device_is_refused_by_both_ends(monkeypatch):
    monkeypatch.setattr(version, "__version__", "0.2.3")
    with pytest.raises(VersionError, match=r"device runs release 0\.1 and the server 0\.2\.3"):
        check_client(said("0.1.9"))
    with pytest.raises(VersionError, match=r"server runs release 1\.0 and this device 0\.2\.3"):
        check_server(said("1.0.0"))


def test_a_newer_device_and_another_patch_release_are_accepted(monkeypatch):
    monkeypatch.setattr(version, "__version__", "0.2.3")
    check_client(said("0.3.0"))
    check_client(said("0.2.0"))
    check_server(said("0.2.9"))
    check_server(said("0.1.0"))


@pytest.mark.parametrize("check", [check_client, check_server])
@pytest.mark.parametrize(
    "values",
    [
        {},
        said(protocol="2"),
        said(protocol="4"),
        said(protocol=3),
        said(protocol=None),
        said(protocol="3\n"),
        said(app=None),
        said(app=1),
        said(app=""),
        said(app="x" * 10_000),
        said(app="-1.0"),
        said(app="1" * 5000 + ".0"),
    ],
)
def test_anything_else_is_a_version_error_of_one_readable_line(check, values):
    with pytest.raises(VersionError) as caught:
        check(values)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_an_end_that_does_not_know_its_own_release_talks_to_nobody(monkeypatch):
    monkeypatch.setattr(version, "__version__", "unknown")
    for check in (check_client, check_server):
        with pytest.raises(VersionError, match="release 'unknown'"):
            check(said("0.1.0"))
