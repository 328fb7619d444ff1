import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_flwr.crypto.digest import DIGEST_BYTES, digest, field

labels = st.text(alphabet=st.characters(codec="utf-8"), max_size=6)
field_lists = st.lists(st.binary(max_size=6), max_size=5)


def test_the_digest_is_sha256_over_length_prefixed_parts():
    # `printf '\0\0\0\0\0\0\0\1a\0\0\0\0\0\0\0\2bc\0\0\0\0\0\0\0\0' | sha256sum`
    text = b"\0\0\0\0\0\0\0\1a" + b"\0\0\0\0\0\0\0\2bc" + b"\0\0\0\0\0\0\0\0"
    assert digest("a", b"bc", b"") == hashlib.sha256(text).digest()
    assert digest("a", b"bc", b"").hex() == (
        "74f2dff90c16bd75e74ea8ab93e0f683754b4ae5a7e2b6c960734cf5c656341a"
    )
    assert len(digest("a")) == DIGEST_BYTES


@given(labels, field_lists, labels, field_lists)
def test_different_labels_or_fields_never_share_a_digest(label, fields, other_label, other):
    same = (label, fields) == (other_label, other)
    assert (digest(label, *fields) == digest(other_label, *other)) == same


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=2, max_size=4), st.data())
def test_moving_a_field_boundary_changes_the_digest(fields, data):
    joined = b"".join(fields)
    cut = data.draw(st.integers(0, len(joined)))
    moved = [joined[:cut], joined[cut:]]
    assert (digest("x", *fields) == digest("x", *moved)) == (fields == moved)
    assert digest("x", *fields) != digest("x", joined)
    assert digest("x", *fields) != digest("x", *fields, b"")


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_number_is_eight_signed_big_endian_bytes(value):
    assert len(field(value)) == 8
    assert int.from_bytes(field(value), "big", signed=True) == value


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_a_number_beyond_64_bits_is_refused(value):
    with pytest.raises(ValueError, match="at most 64"):
        field(value)


def test_text_is_utf8():
    assert field("é") == b"\xc3\xa9"
