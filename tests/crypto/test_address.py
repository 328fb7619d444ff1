import pytest

from lepton_flwr.crypto.address import Address
from lepton_flwr.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("fl.example.org:8000", "fl.example.org", 8000),
        ("localhost:1", "localhost", 1),
        ("192.0.2.1:65535", "192.0.2.1", 65535),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
    ],
)
def test_an_address_is_a_host_and_a_port_and_reads_as_it_is_written(text, host, port):
    assert Address.parse(text) == (host, port)
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "host", "host:", ":80", "host:0", "host:65536", "host:-1", "host:8o", "host:+80",
        "a b:80", "a..b:80", "-a:80", "a-:80", "a_b:80", "2001:db8::1:80", "[192.0.2.1]:80",
        "[::1:80", "300.1.1.1:80", "https://host:80", "host:٣", "x" * 64 + ":80", "host:80\n",
        "a.b/../c:80",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        Address.parse(text)
