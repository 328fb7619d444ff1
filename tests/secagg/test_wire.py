from lepton_flwr.secagg import wire


def test_names_on_the_wire_do_not_change():
    # Devices and servers of different releases read them.
    assert list(wire.Exchange) == ["keys", "shares", "train", "attest", "reveal"]
    names = (wire.RECORD, wire.EXCHANGE, wire.MASKED, wire.UPDATE, wire.NUM_EXAMPLES)
    assert names == ("lepton.secagg", "exchange", "lepton.masked", "update", "num-examples")
