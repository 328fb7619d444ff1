"""One round written a second time, from the design, with Python's integers and hashlib.

Nothing below `reference` comes from `lepton_flwr.secagg`, which is imported only to be compared.
Elliptic curves, the AES block and AES-GCM are the cryptography package's.
The vectors under `vectors/` were computed by the reference; both sides are held to them.
"""

import functools
import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VECTORS = Path(__file__).parent / "vectors"

# --- reference -------------------------------------------------------------------------------

P = 2**256 + 297


def num(value):
    return value.to_bytes(8, "big", signed=True)


def labelled(label, *fields):
    parts = (label.encode(), *fields)
    return hashlib.sha256(b"".join(len(p).to_bytes(8, "big") + p for p in parts)).digest()


def hkdf(secret, salt, info, blocks):
    """RFC 5869, `blocks` times 32 bytes."""
    key, parts = hmac.new(salt, secret, hashlib.sha256).digest(), [b""]
    for i in range(1, blocks + 1):
        parts.append(hmac.new(key, parts[-1] + info + bytes([i]), hashlib.sha256).digest())
    return b"".join(parts)


def channel(secret, i, j, sid):
    """Keys of the pair of clients, by purpose and by who sends."""
    low, high = sorted((i, j))
    block = derived(secret, "lepton/secagg/channel/v1", sid, low, high, 4)
    names = (("seal", low), ("seal", high), ("vouch", low), ("vouch", high))
    return {name: block[32 * at : 32 * at + 32] for at, name in enumerate(names)}


def derived(secret, label, sid, first, second, blocks=1):
    return hkdf(secret, sid, label.encode() + sid + num(first) + num(second), blocks)


def stream(key, count):
    """`count` bytes: AES-256 of the numbers 0, 1, 2, ... as 16 big-endian bytes."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
    counters = b"".join(i.to_bytes(16, "big") for i in range((count + 15) // 16))
    return block.update(counters)[:count]


def chacha20(key, count):
    """`count` bytes: the block function of RFC 8439, section 2.3, with a nonce of zeros."""

    def quarter(x, a, b, c, d):
        for first, second, third, bits in (
            (a, b, d, 16),
            (c, d, b, 12),
            (a, b, d, 8),
            (c, d, b, 7),
        ):
            x[first] = (x[first] + x[second]) % 2**32
            turned = x[third] ^ x[first]
            x[third] = (turned << bits | turned >> (32 - bits)) % 2**32

    def block(counter):
        words = [int.from_bytes(key[i : i + 4], "little") for i in range(0, 32, 4)]
        start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *words, counter, 0, 0, 0]
        x = list(start)
        for _ in range(10):
            for a, b, c, d in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
                quarter(x, a, b, c, d)
            for a, b, c, d in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
                quarter(x, a, b, c, d)
        total = ((a + b) % 2**32 for a, b in zip(x, start, strict=True))
        return b"".join(word.to_bytes(4, "little") for word in total)

    return b"".join(block(i) for i in range((count + 63) // 64))[:count]


STREAMS = {"aes-256-ctr": stream, "chacha20": chacha20}


def mask(key, dimension, cipher="aes-256-ctr"):
    data = STREAMS[cipher](key, 4 * dimension)
    return [int.from_bytes(data[4 * i : 4 * i + 4], "little") for i in range(dimension)]


def public(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def agreed(secret, other):
    return X25519PrivateKey.from_private_bytes(secret).exchange(
        X25519PublicKey.from_public_bytes(other)
    )


def shared(secret, threshold, count, draw):
    """Shares at 1 to count: sum of a_i x^i, a_0 the secret, the highest coefficient drawn first."""
    drawn = [int.from_bytes(draw(41), "big") % P for _ in range(threshold - 1)]
    coefficients = [int.from_bytes(secret, "big"), *reversed(drawn)]
    return [sum(a * x**i for i, a in enumerate(coefficients)) % P for x in range(1, count + 1)]


def interpolated(shares):
    total = 0
    for x, y in shares.items():
        top = functools.reduce(lambda a, o: a * o % P, [o for o in shares if o != x], 1)
        low = functools.reduce(lambda a, o: a * (o - x) % P, [o for o in shares if o != x], 1)
        total += y * top * pow(low, P - 2, P)
    return (total % P).to_bytes(32, "big")


def bitmap(indices, size):
    value = sum(1 << i for i in indices)
    return value.to_bytes((size + 7) // 8, "little")


class Draw:
    """A client's randomness: the stream of its key, from the start, in the order of use."""

    def __init__(self, key):
        self.data, self.at = stream(key, 1 << 14), 0

    def __call__(self, count):
        self.at += count
        return self.data[self.at - count : self.at]


def reference_round(inputs):
    """The whole round, as hexadecimal texts and numbers."""
    c = inputs["config"]
    content = bytes.fromhex(inputs["content_hash"])
    config = labelled(
        "lepton/secagg/config/v2",
        c["run_id"].encode(),
        num(c["number"]),
        c["purpose"].encode(),
        num(c["num_clients"]),
        num(c["max_weight"]),
        num(c["min_survivors"]),
        c["l2_norm_clip"].hex().encode(),
        c["cipher"].encode(),
        *(
            field
            for name, kind, size, bound in c["segments"]
            for field in (name.encode(), kind.encode(), num(size), bound.hex().encode())
        ),
    )
    bound_fields = (c["run_id"].encode(), num(c["number"]), config, content)
    clients = []
    for client in inputs["clients"]:
        identity = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(client["identity"]))
        draw = Draw(bytes.fromhex(client["random"]))
        mask_secret, share_secret, nonce = draw(32), draw(32), draw(32)
        signed = labelled(
            "lepton/secagg/signed-keys/v1",
            *bound_fields,
            public(share_secret),
            public(mask_secret),
            nonce,
        )
        member = identity.public_key().public_bytes_raw()
        record = (
            member, public(share_secret), public(mask_secret), nonce, identity.sign(signed)
        )  # fmt: skip
        clients.append(
            {
                "member": member,
                "identity": identity,
                "draw": draw,
                "mask_secret": mask_secret,
                "share_secret": share_secret,
                "record": record,
                "vector": client["vector"],
                "answers_until": client["answers_until"],
            }
        )
    clients.sort(key=lambda client: client["member"])
    n, t = len(clients), 2 * len(clients) // 3 + 1
    digests = [labelled("lepton/secagg/key-record/v1", *client["record"]) for client in clients]
    members = b"".join(client["member"] for client in clients)
    sid = labelled("lepton/secagg/sid/v2", *bound_fields, members, b"".join(digests))
    for i, client in enumerate(clients):
        client["seed"] = client["draw"](32)
        client["seed_shares"] = shared(client["seed"], t, n, client["draw"])
        client["key_shares"] = shared(client["mask_secret"], t, n, client["draw"])
        client["sealed"] = []
        for j, other in enumerate(clients):
            if j != i:
                secret = agreed(client["share_secret"], other["record"][1])
                key = channel(secret, i, j, sid)["seal", i]
                nonce = client["draw"](12)
                plain = client["seed_shares"][j].to_bytes(33, "big")
                plain += client["key_shares"][j].to_bytes(33, "big")
                box = AESGCM(key).encrypt(nonce, plain, sid + num(i) + num(j))
                client["sealed"].append(nonce + box)
    live = [i for i, client in enumerate(clients) if client["answers_until"] >= 2]
    dimension = len(clients[0]["vector"])

    def pair(i, j):
        secret = agreed(clients[i]["mask_secret"], clients[j]["record"][2])
        return mask(
            derived(secret, "lepton/secagg/pairwise-mask/v1", sid, min(i, j), max(i, j)),
            dimension,
            c["cipher"],
        )

    def own(i, seed):
        key = derived(seed, "lepton/secagg/self-mask/v1", sid, i, i)
        return mask(key, dimension, c["cipher"])

    masked = {}
    for i in live:
        y = [v + b for v, b in zip(clients[i]["vector"], own(i, clients[i]["seed"]), strict=True)]
        for j in range(n):
            if j != i:
                sign = 1 if j > i else -1
                y = [a + sign * b for a, b in zip(y, pair(i, j), strict=True)]
        masked[i] = [a % 2**32 for a in y]
    attested = labelled("lepton/secagg/attestation/v2", sid, bitmap(live, n))

    def tag(i, j):
        secret = agreed(clients[i]["share_secret"], clients[j]["record"][1])
        key = channel(secret, i, j, sid)["vouch", i]
        return hmac.new(key, attested, hashlib.sha256).digest()[:16].hex()

    reveals = {
        i: [
            clients[j]["seed_shares" if j in live else "key_shares"][i].to_bytes(33, "big").hex()
            for j in range(n)
        ]
        for i in live
    }
    # The server, from the masked vectors and the revealed shares alone.
    total = [sum(column) for column in zip(*masked.values(), strict=True)]
    for j in range(n):
        some = {i + 1: int(reveals[i][j], 16) for i in live[:t]}
        secret = interpolated(some)
        if j in live:
            total = [a - b for a, b in zip(total, own(j, secret), strict=True)]
        else:
            for i in live:
                key = agreed(secret, clients[i]["record"][2])
                key = derived(key, "lepton/secagg/pairwise-mask/v1", sid, min(i, j), max(i, j))
                sign = 1 if i > j else -1
                removed = mask(key, dimension, c["cipher"])
                total = [a + sign * b for a, b in zip(total, removed, strict=True)]
    return {
        "config_digest": config.hex(),
        "members": [client["member"].hex() for client in clients],
        "records": [[part.hex() for part in client["record"]] for client in clients],
        "sid": sid.hex(),
        "sealed": [[box.hex() for box in client["sealed"]] for client in clients],
        "masked": {str(i): vector for i, vector in masked.items()},
        "survivors": bitmap(live, n).hex(),
        "attestations": {str(i): [tag(i, j) for j in live if j != i] for i in live},
        "reveals": {str(i): shares for i, shares in reveals.items()},
        "sum": [a % 2**32 for a in total],
    }


# --- comparison ------------------------------------------------------------------------------


class Device:
    """A signer without a certificate: its credential is its public key."""

    def __init__(self, seed):
        self.key = Ed25519PrivateKey.from_private_bytes(seed)
        self.certificate = self.public_key = self.key.public_key().public_bytes_raw()
        self.sign = self.key.sign


def _parts(column):
    return [column[at : at + 32] for at in range(0, len(column), 32)]


def load(name):
    return json.loads((VECTORS / f"{name}.json").read_text())


class Ours:
    """The same inputs through the library, up to any exchange."""

    def __init__(self, inputs):
        from lepton_flwr.crypto.identity import Roster
        from lepton_flwr.crypto.stream import StreamCipher
        from lepton_flwr.secagg.client import ClientSession
        from lepton_flwr.secagg.encoding import Layout, Segment
        from lepton_flwr.secagg.floors import ClientFloors
        from lepton_flwr.secagg.parameters import SessionConfig
        from lepton_flwr.secagg.server import ServerSession

        c = dict(inputs["config"])
        segments = tuple(Segment(*segment) for segment in c.pop("segments"))
        layout = Layout(segments, c.pop("num_clients"), c.pop("max_weight"))
        c["cipher"] = StreamCipher(c["cipher"])
        self.config = SessionConfig(layout=layout, **c)
        self.content = bytes.fromhex(inputs["content_hash"])
        devices = [Device(bytes.fromhex(one["identity"])) for one in inputs["clients"]]
        roster = Roster.of_keys(device.certificate for device in devices)
        self.server = ServerSession(self.config, self.content, roster)
        self.inputs = inputs["clients"]
        self.clients = []
        for i, (device, client) in enumerate(zip(devices, self.inputs, strict=True)):
            random = Draw(bytes.fromhex(client["random"]))
            request = self.server.request_keys()
            session, record = ClientSession.open(
                request, device, roster, ClientFloors(), 0, random=random
            )
            self.clients.append(session)
            self.server.receive_keys(i, record)
        self.rosters = self.server.close_keys()

    def index(self, i):
        return self.server._index[i]

    def until(self, exchange):
        """Yield what each exchange sends, and stop before the one that is named."""
        everyone = range(len(self.clients))
        live = [i for i in everyone if self.inputs[i]["answers_until"] >= 2]
        sent = {"rosters": self.rosters}
        if exchange == "E1":
            return sent
        sent["bundles"] = {i: self.clients[i].share(self.rosters[i]) for i in everyone}
        for i, bundle in sent["bundles"].items():
            self.server.receive_shares(i, bundle)
        sent["work"] = self.server.close_shares()
        if exchange == "E2":
            return sent
        sent["masked"] = {}
        for i in live:
            self.clients[i].start(sent["work"][i], self.content)
            vector = np.array(self.inputs[i]["vector"], np.uint32)
            sent["masked"][i] = self.clients[i].mask(vector).tolist()
            self.server.receive_masked(i, np.array(sent["masked"][i], np.uint32))
        sent["survivors"] = self.server.close_masked()
        if exchange == "E3":
            return sent
        sent["attestations"] = {i: self.clients[i].attest(sent["survivors"]) for i in live}
        for i, attestation in sent["attestations"].items():
            self.server.receive_attestation(i, attestation)
        sent["requests"] = self.server.close_attestations()
        if exchange == "E4":
            return sent
        sent["reveals"] = {i: self.clients[i].reveal(sent["requests"][i]) for i in live}
        for i, reveal in sent["reveals"].items():
            self.server.receive_reveal(i, reveal)
        sent["sum"] = self.server.close_reveals().tolist()
        return sent


@pytest.mark.parametrize("name", ["round", "round_chacha20"])
def test_the_reference_gives_the_vectors_of_the_round(name):
    vector = load(name)
    assert reference_round(vector["inputs"]) == vector["expected"]
    live = [one["vector"] for one in vector["inputs"]["clients"] if one["answers_until"] >= 2]
    assert vector["expected"]["sum"] == [sum(column) % 2**32 for column in zip(*live, strict=True)]


@pytest.mark.parametrize("name", ["round", "round_chacha20"])
def test_the_library_gives_the_vectors_of_the_round(name):
    vector = load(name)
    expected = vector["expected"]
    ours = Ours(vector["inputs"])
    sent = ours.until("the end")
    assert ours.config.digest().hex() == expected["config_digest"]
    assert ours.server._sid.hex() == expected["sid"]
    for i, roster in sent["rosters"].items():
        others = [r for j, r in enumerate(expected["records"]) if j != ours.index(i)]
        assert [[part.hex() for part in vars(r).values()] for r in roster.records] == others
        assert roster.members.hex() == "".join(expected["members"])
    for i, bundle in sent["bundles"].items():
        sealed = [box.hex() for box in bundle.ciphertexts]
        assert sealed == expected["sealed"][ours.index(i)]
    by_index = {str(ours.index(i)): masked for i, masked in sent["masked"].items()}
    assert by_index == expected["masked"]
    assert sent["survivors"].survivors.hex() == expected["survivors"]
    for i, attestation in sent["attestations"].items():
        tags = [tag.hex() for tag in attestation.tags]
        assert tags == expected["attestations"][str(ours.index(i))]
    for i, reveal in sent["reveals"].items():
        shares = [share.hex() for share in reveal.shares]
        assert shares == expected["reveals"][str(ours.index(i))]
    assert sent["sum"] == expected["sum"]


@pytest.mark.parametrize("case", load("primitives")["stream"])
def test_streams(case):
    from lepton_flwr.crypto.stream import CipherStream, StreamCipher

    key, expected, cipher = bytes.fromhex(case["key"]), case["bytes"], case["cipher"]
    assert STREAMS[cipher](key, len(expected) // 2).hex() == expected

    def ours():
        return CipherStream(key, cipher=StreamCipher(cipher))

    assert ours().read(len(expected) // 2).hex() == expected
    assert ours().uint32(4).tolist() == mask(key, 4, cipher)


@pytest.mark.parametrize("case", load("primitives")["signature"])
def test_signatures(case):
    from lepton_flwr.crypto.identity import Roster, SignatureError, verify

    public, message, signature = (
        bytes.fromhex(case[name]) for name in ("public", "message", "signature")
    )
    if case["valid"]:
        verify(public, message, signature)
        assert Roster.of_keys([public]).verify(public, message, signature) == public
        assert Device(bytes.fromhex(case["secret"])).sign(message) == signature
    else:
        with pytest.raises(SignatureError):
            verify(public, message, signature)


@pytest.mark.parametrize("case", load("primitives")["keys"])
def test_derived_keys(case):
    from lepton_flwr.secagg import keys

    secret, other, sid = (bytes.fromhex(case[name]) for name in ("secret", "other", "sid"))
    i, j = case["i"], case["j"]
    private = keys.private_key(secret)
    pair = keys.channel(private, other, sid, i, j)
    got = {
        "public": keys.public_key(secret),
        "seal": pair.seal,
        "open": pair.open,
        "vouch": pair.vouch,
        "check": pair.check,
        "pair": keys.pair_key(private, other, sid, i, j),
        "self": keys.self_key(secret, sid, i),
    }
    both = agreed(secret, other)
    low, high = sorted((i, j))
    reference = {
        "public": public(secret),
        "seal": channel(both, i, j, sid)["seal", i],
        "open": channel(both, i, j, sid)["seal", j],
        "vouch": channel(both, i, j, sid)["vouch", i],
        "check": channel(both, i, j, sid)["vouch", j],
        "pair": derived(both, "lepton/secagg/pairwise-mask/v1", sid, low, high),
        "self": derived(secret, "lepton/secagg/self-mask/v1", sid, i, i),
    }
    assert {name: key.hex() for name, key in reference.items()} == case["expected"]
    assert got == reference


@pytest.mark.parametrize("case", load("primitives")["shamir"])
def test_shares(case):
    from lepton_flwr.secagg import shamir

    secret, key = bytes.fromhex(case["secret"]), bytes.fromhex(case["random"])
    t, n = case["threshold"], case["holders"]
    reference = shared(secret, t, n, Draw(key))
    assert [share.to_bytes(33, "big").hex() for share in reference] == case["shares"]
    ours = shamir.split(secret, t, range(1, n + 1), Draw(key))
    assert [share.hex() for share in ours] == case["shares"]
    last = {x: ours[x - 1] for x in range(n - t + 1, n + 1)}
    assert shamir.combine(last) == secret
    assert interpolated({x: reference[x - 1] for x in last}) == secret


@pytest.mark.parametrize("case", load("primitives")["graph"])
def test_rings(case):
    from lepton_flwr.secagg.graph import Graph

    sid, size = bytes.fromhex(case["sid"]), case["clients"]
    data = stream(labelled("lepton/secagg/graph/v1", sid), 16 * size)
    ring = sorted(range(size), key=lambda i: data[16 * i : 16 * i + 16])
    place, half = ring.index(0), case["degree"] // 2
    near = sorted(ring[(place + s) % size] for s in range(-half, half + 1) if s)
    assert near == case["neighbours_of_0"]
    graph = Graph(sid, size)
    assert (graph.degree, graph.threshold) == (case["degree"], case["threshold"])
    assert list(graph.neighbours(0)) == near


@pytest.mark.parametrize("case", load("failures")["round"], ids=lambda case: case["name"])
def test_a_changed_message_ends_in_the_named_error(case):
    from lepton_flwr.secagg import errors
    from lepton_flwr.secagg.messages import SurvivorRequest

    def change(value):
        place, bits = case["byte"], int(case["xor"], 16)
        return value[:place] + bytes([value[place] ^ bits]) + value[place + 1 :]

    ours = Ours(load("round")["inputs"])
    sent = ours.until(case["exchange"])
    first = next(i for i in range(len(ours.clients)) if ours.index(i) == 0)
    client = ours.clients[first]
    field, at = case["field"], case.get("at", 0)
    if case["exchange"] == "E1":
        message, step = sent["rosters"][first], client.share
        if field in ("members", "digests"):
            message = replace(message, **{field: change(getattr(message, field))})
        else:
            # The server names the changed record in its list, so that all agree on it.
            records, digests = list(message.records), _parts(message.digests)
            records[at - 1] = replace(
                records[at - 1], **{field: change(vars(records[at - 1])[field])}
            )
            digests[at] = records[at - 1].digest()
            message = replace(message, records=tuple(records), digests=b"".join(digests))
    elif case["exchange"] == "E2":
        message, content = sent["work"][first], ours.content
        if field == "content":
            content = change(content)
        elif field == "participants":
            message = replace(message, participants=change(message.participants))
        else:
            boxes = list(message.ciphertexts)
            boxes[at] = change(boxes[at])
            message = replace(message, ciphertexts=tuple(boxes))

        def step(request):
            client.start(request, content)
    elif case["exchange"] == "E3":
        message, step = SurvivorRequest(change(sent["survivors"].survivors)), client.attest
    else:
        message, step = sent["requests"][first], client.reveal
        tags = list(message.tags)
        tags[at] = change(tags[at])
        message = replace(message, tags=tuple(tags))
    with pytest.raises(getattr(errors, case["error"])) as caught:
        step(message)
    assert type(caught.value).__name__ == case["error"]


@pytest.mark.parametrize("case", load("failures")["shamir"], ids=lambda case: case["name"])
def test_bad_shares_end_in_the_named_error(case):
    from lepton_flwr.secagg import errors, shamir

    with pytest.raises(getattr(errors, case["error"])):
        shamir.combine({int(x): bytes.fromhex(share) for x, share in case["shares"].items()})
