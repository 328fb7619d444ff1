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


def shuffled(label, sid, count):
    data = stream(labelled(label, sid), 16 * count)
    return sorted(range(count), key=lambda i: data[16 * i : 16 * i + 16])


class Everybody:
    """The complete graph: all hold shares of all, two thirds are needed."""

    committee = ()

    def __init__(self, count):
        self.threshold = 2 * count // 3 + 1
        self.holders = {i: list(range(count)) for i in range(count)}


class RingOf:
    """Places in the order of one stream, a committee from the beginning of another."""

    def __init__(self, sid, count, sizes):
        self.ring, half = shuffled("lepton/secagg/graph/v1", sid, count), sizes["degree"] // 2
        self.threshold, self.quorum = sizes["threshold"], sizes["quorum"]
        steps = [step for step in range(-half, half + 1) if step]
        self.holders = {
            i: sorted(self.ring[(place + step) % count] for step in steps)
            for place, i in enumerate(self.ring)
        }
        self.committee = shuffled("lepton/secagg/committee/v1", sid, count)[: sizes["committee"]]


class Draw:
    """A client's randomness: the stream of its key, from the start, in the order of use."""

    def __init__(self, key):
        self.data, self.at = stream(key, 1 << 14), 0

    def __call__(self, count):
        self.at += count
        return self.data[self.at - count : self.at]


def expanded(inputs):
    """Inputs with a list of clients, where they say how many to make of a seed."""
    if "clients" in inputs:
        return inputs
    seed, dimension = inputs["seed"], inputs["dimension"]
    clients = []
    for i in range(inputs["config"]["num_clients"]):
        made = {name: labelled(f"{seed} {name}", num(i)) for name in ("identity", "random", "mask")}
        clients.append(
            {
                "identity": made["identity"].hex(),
                "random": made["random"].hex(),
                "vector": mask(made["mask"], dimension),
                "answers_until": inputs["answers_until"].get(str(i), 4),
            }
        )
    return {**inputs, "clients": clients}


def reference_round(inputs):
    """The whole round, as hexadecimal texts and numbers."""
    inputs = expanded(inputs)
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
    n = len(clients)
    digests = [labelled("lepton/secagg/key-record/v1", *client["record"]) for client in clients]
    members = b"".join(client["member"] for client in clients)
    sid = labelled("lepton/secagg/sid/v2", *bound_fields, members, b"".join(digests))
    graph = RingOf(sid, n, inputs["ring"]) if "ring" in inputs else Everybody(n)
    t, holders = graph.threshold, graph.holders
    near = {i: [j for j in holders[i] if j != i] for i in range(n)}
    told = [i for i, client in enumerate(clients) if client["answers_until"] >= 1]
    live = [i for i, client in enumerate(clients) if client["answers_until"] >= 2]
    for i in told:
        client = clients[i]
        client["seed"] = client["draw"](32)
        for kind, secret in (("seed", client["seed"]), ("key", client["mask_secret"])):
            shares = shared(secret, t, len(holders[i]), client["draw"])
            client[kind + "_shares"] = dict(zip(holders[i], shares, strict=True))
        client["sealed"], client["keys"] = [], {}
        for j in near[i]:
            secret = agreed(client["share_secret"], clients[j]["record"][1])
            client["keys"][j] = channel(secret, i, j, sid)
            nonce = client["draw"](12)
            plain = b"".join(
                client[kind + "_shares"][j].to_bytes(33, "big") for kind in ("seed", "key")
            )
            box = AESGCM(client["keys"][j]["seal", i]).encrypt(nonce, plain, sid + num(i) + num(j))
            client["sealed"].append(nonce + box)
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

    def tag(i, j, said):
        return hmac.new(clients[i]["keys"][j]["vouch", i], said, hashlib.sha256).hexdigest()[:32]

    masked, participations = {}, {}
    participants = labelled("lepton/secagg/participants/v1", sid, bitmap(told, n))
    for i in live:
        y = [v + b for v, b in zip(clients[i]["vector"], own(i, clients[i]["seed"]), strict=True)]
        for j in set(near[i]) & set(told):
            sign = 1 if j > i else -1
            y = [a + sign * b for a, b in zip(y, pair(i, j), strict=True)]
        masked[i] = [a % 2**32 for a in y]
        participations[i] = [tag(i, j, participants) for j in near[i] if j in told]
    survivors = bitmap(live, n)
    attested = labelled("lepton/secagg/attestation/v2", sid, survivors)
    lists = labelled("lepton/secagg/signed-lists/v1", sid, bitmap(told, n), survivors)
    if graph.committee:
        attestations = {
            i: clients[i]["identity"].sign(lists).hex() if i in graph.committee else ""
            for i in live
        }
        shown = sorted(i for i in live if attestations[i])[: graph.quorum]
    else:
        attestations = {i: "".join(tag(i, j, attested) for j in near[i] if j in live) for i in live}
        shown = []
    reveals = {
        i: [
            clients[j]["seed_shares" if j in live else "key_shares"][i].to_bytes(33, "big").hex()
            for j in holders[i]
            if j in told
        ]
        for i in live
    }
    # The server, from the masked vectors and the revealed shares alone.
    total = [sum(column) for column in zip(*masked.values(), strict=True)]
    for j in told:
        answers = [i for i in holders[j] if i in live][:t]
        held = {i: [other for other in holders[i] if other in told].index(j) for i in answers}
        some = {holders[j].index(i) + 1: int(reveals[i][held[i]], 16) for i in answers}
        secret = interpolated(some)
        if j in live:
            total = [a - b for a, b in zip(total, own(j, secret), strict=True)]
        else:
            for i in (i for i in holders[j] if i in live):
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
        "sealed": {str(i): [box.hex() for box in clients[i]["sealed"]] for i in told},
        "participants": bitmap(told, n).hex(),
        "masked": {str(i): vector for i, vector in masked.items()},
        "participations": {str(i): tags for i, tags in participations.items()},
        "survivors": survivors.hex(),
        "attestations": {str(i): proof for i, proof in attestations.items()},
        "shown": shown,
        "reveals": {str(i): shares for i, shares in reveals.items()},
        "sum": [a % 2**32 for a in total],
    }


LONG = ("members", "records", "sealed", "masked", "participations", "attestations", "reveals")


def shortened(expected):
    """A long round in few bytes: of each long part the SHA-256 of its JSON, keys in order."""
    texts = {name: json.dumps(expected[name], sort_keys=True) for name in LONG}
    return {
        **expected,
        **{name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()},
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
        inputs = expanded(inputs)
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
        self.devices, self.roster = devices, roster
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
        told = [i for i in everyone if self.inputs[i]["answers_until"] >= 1]
        live = [i for i in everyone if self.inputs[i]["answers_until"] >= 2]
        sent = {"rosters": self.rosters}
        if exchange == "E1":
            return sent
        sent["bundles"] = {i: self.clients[i].share(self.rosters[i]) for i in told}
        for i, bundle in sent["bundles"].items():
            self.server.receive_shares(i, bundle)
        sent["work"] = self.server.close_shares()
        if exchange == "E2":
            return sent
        sent["masked"], sent["participations"] = {}, {}
        for i in live:
            tags = self.clients[i].start(sent["work"][i], self.content)
            vector = np.array(self.inputs[i]["vector"], np.uint32)
            sent["masked"][i] = self.clients[i].mask(vector).tolist()
            sent["participations"][i] = tags
            self.server.receive_masked(i, np.array(sent["masked"][i], np.uint32), tags)
        sent["survivors"] = self.server.close_masked()
        if exchange == "E3":
            return sent
        sent["attestations"] = {i: self.clients[i].attest(sent["survivors"][i]) for i in live}
        for i, attestation in sent["attestations"].items():
            self.server.receive_attestation(i, attestation)
        sent["requests"] = self.server.close_attestations()
        if exchange == "E4":
            return sent
        sent["before_the_last"] = {i: self.clients[i].to_fields() for i in live}
        sent["reveals"] = {i: self.clients[i].reveal(sent["requests"][i]) for i in live}
        for i, reveal in sent["reveals"].items():
            self.server.receive_reveal(i, reveal)
        sent["sum"] = self.server.close_reveals().tolist()
        return sent


@functools.cache
def played(name):
    """A whole round with the library."""
    ours = Ours(load(name)["inputs"])
    return ours, ours.until("the end")


ROUNDS = ["round", "round_chacha20", "round_ring"]


@pytest.mark.parametrize("name", ROUNDS)
def test_the_reference_gives_the_vectors_of_the_round(name):
    vector = load(name)
    computed = reference_round(vector["inputs"])
    assert vector["expected"] == (shortened(computed) if name == "round_ring" else computed)
    clients = expanded(vector["inputs"])["clients"]
    live = [one["vector"] for one in clients if one["answers_until"] >= 2]
    assert vector["expected"]["sum"] == [sum(column) % 2**32 for column in zip(*live, strict=True)]


@pytest.mark.parametrize("name", ROUNDS)
def test_the_library_gives_the_vectors_of_the_round(name):
    vector = load(name)
    ours, sent = played(name)
    some = next(iter(sent["rosters"].values()))
    # Everybody is somebody's neighbour.
    records = {
        ours.server._graph.neighbours(ours.index(i))[at]: record
        for i, roster in sent["rosters"].items()
        for at, record in enumerate(roster.records)
    }

    def by_index(column, attribute=None):
        return {
            str(ours.index(i)): value
            if attribute is None
            else [part.hex() for part in getattr(value, attribute)]
            for i, value in sorted(column.items(), key=lambda item: ours.index(item[0]))
        }

    requests = list(sent["requests"].values())
    on_a_ring = bool(ours.server._graph.committee)
    computed = {
        "config_digest": ours.config.digest().hex(),
        "members": [name.hex() for name in _parts(some.members)],
        "records": [[part.hex() for part in vars(records[i]).values()] for i in sorted(records)],
        "sid": ours.server._sid.hex(),
        "sealed": by_index(sent["bundles"], "ciphertexts"),
        "participants": next(iter(sent["work"].values())).participants.hex(),
        "masked": by_index(sent["masked"]),
        "participations": by_index(sent["participations"], "tags"),
        "survivors": next(iter(sent["survivors"].values())).survivors.hex(),
        "attestations": {
            str(ours.index(i)): one.proof.hex() for i, one in sent["attestations"].items()
        },
        "shown": list(requests[0].senders) if on_a_ring else [],
        "reveals": by_index(sent["reveals"], "shares"),
        "sum": sent["sum"],
    }
    assert vector["expected"] == (shortened(computed) if on_a_ring else computed)


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
    from lepton_flwr.secagg.degree import ring_parameters
    from lepton_flwr.secagg.graph import session_graph

    sid, size, sizes = bytes.fromhex(case["sid"]), case["clients"], case["ring"]
    reference = RingOf(sid, size, sizes)
    assert reference.holders[0] == case["neighbours_of_0"]
    assert sorted(reference.committee) == case["committee"]
    assert vars(ring_parameters(size)) == sizes
    graph = session_graph(sid, size)
    assert (graph.degree, graph.threshold) == (sizes["degree"], sizes["threshold"])
    assert graph.quorum == sizes["quorum"]
    assert list(graph.neighbours(0)) == reference.holders[0]
    assert sorted(graph.committee) == case["committee"]


@pytest.mark.parametrize("case", load("failures")["round"], ids=lambda case: case["name"])
def test_a_changed_message_ends_in_the_named_error(case):
    from lepton_flwr.secagg import errors

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
        else:
            message = changed_in(message, field, at, change)

        def step(request):
            client.start(request, content)
    elif case["exchange"] == "E3":
        message, step = changed_in(sent["survivors"][first], field, at, change), client.attest
    else:
        message, step = changed_in(sent["requests"][first], field, at, change), client.reveal
    with pytest.raises(getattr(errors, case["error"])) as caught:
        step(message)
    assert type(caught.value).__name__ == case["error"]


def changed_in(message, field, at, change):
    value = getattr(message, field)
    if isinstance(value, tuple):
        column = list(value)
        column[at] = change(column[at])
        return replace(message, **{field: tuple(column)})
    return replace(message, **{field: change(value)})


@pytest.mark.parametrize("case", load("failures")["ring"], ids=lambda case: case["name"])
def test_a_changed_signature_of_the_committee_ends_in_the_named_error(case):
    from lepton_flwr.secagg import errors
    from lepton_flwr.secagg.client import ClientSession
    from lepton_flwr.secagg.floors import ClientFloors

    def change(value):
        if isinstance(value, int):
            return value ^ int(case["xor"], 16)
        place, bits = case["byte"], int(case["xor"], 16)
        return value[:place] + bytes([value[place] ^ bits]) + value[place + 1 :]

    ours, sent = played("round_ring")
    first = next(i for i in range(len(ours.clients)) if ours.index(i) == 0)
    fields = sent["before_the_last"][first]
    client = ClientSession.from_fields(fields, ours.devices[first], ours.roster, ClientFloors())
    message = changed_in(sent["requests"][first], case["field"], case["at"], change)
    with pytest.raises(getattr(errors, case["error"])):
        client.reveal(message)


@pytest.mark.parametrize("case", load("failures")["shamir"], ids=lambda case: case["name"])
def test_bad_shares_end_in_the_named_error(case):
    from lepton_flwr.secagg import errors, shamir

    with pytest.raises(getattr(errors, case["error"])):
        shamir.combine({int(x): bytes.fromhex(share) for x, share in case["shares"].items()})
