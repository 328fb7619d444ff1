import pytest

from lepton_flwr.secagg import keys
from lepton_flwr.secagg.errors import KeyRecordError

SID = bytes(32)


def test_both_ends_derive_one_key_for_each_purpose():
    mine, theirs = keys.private_key(b"\x01" * 32), keys.private_key(b"\x02" * 32)
    my_public, their_public = keys.public_key(b"\x01" * 32), keys.public_key(b"\x02" * 32)
    assert keys.pair_key(mine, their_public, SID, 3, 8) == keys.pair_key(
        theirs, my_public, SID, 8, 3
    )
    sent, received = (
        keys.channel(mine, their_public, SID, 3, 8),
        keys.channel(theirs, my_public, SID, 8, 3),
    )
    assert (sent.seal, sent.vouch) == (received.open, received.check)
    assert (sent.open, sent.check) == (received.seal, received.vouch)
    derived = [
        keys.pair_key(mine, their_public, SID, 3, 8),
        *vars(sent).values(),
        keys.pair_key(mine, their_public, b"\x01" * 32, 3, 8),
        keys.channel(mine, their_public, b"\x01" * 32, 3, 8).seal,
        keys.channel(mine, their_public, SID, 3, 9).seal,
        keys.self_key(b"\x01" * 32, SID, 3),
        keys.self_key(b"\x01" * 32, SID, 8),
    ]
    assert len(set(derived)) == len(derived)


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_a_key_whose_secret_everybody_knows_is_refused(point):
    with pytest.raises(KeyRecordError, match="usable"):
        keys.pair_key(keys.private_key(b"\x01" * 32), point, SID, 0, 1)
