"""Attacks on the real client state machine, and what each leaves in the server's hands.

`Hostile` is a server that talks to real clients, says whatever a test wants it to say, and keeps
all that it hears. What it can compute from that is computed here: `secrets` combines all shares,
`sums` finds every set of clients whose masks it can remove, and removes them.
"""

import dataclasses

import numpy as np
import pytest

from lepton_flwr.crypto.authority import Authority
from lepton_flwr.errors import LeptonError
from lepton_flwr.secagg import client as client_module
from lepton_flwr.secagg import keys, shamir
from lepton_flwr.secagg.attestation import CommitteeWitness
from lepton_flwr.secagg.client import ClientSession
from lepton_flwr.secagg.errors import (
    AttestationError,
    FloorError,
    KeyRecordError,
    MessageError,
    ModelMismatchError,
    OrderError,
    ReplayError,
    RevealError,
    SurvivorError,
    ThresholdError,
    VectorError,
)
from lepton_flwr.secagg.floors import ClientFloors
from lepton_flwr.secagg.graph import Ring, session_graph
from lepton_flwr.secagg.masking import add_streams
from lepton_flwr.secagg.messages import (
    KeyRequest,
    KeyRoster,
    RevealRequest,
    SurvivorRequest,
    WorkRequest,
)
from lepton_flwr.secagg.state import Stage
from lepton_flwr.secagg.transcript import (
    from_bitmap,
    lists_digest,
    participants_digest,
    session_id,
    survivors_digest,
    tag,
    to_bitmap,
)

CONTENT = bytes(range(32))
OTHER = bytes(32)


class Hostile:
    """A server that says anything. Clients are named by their index in the session.

    Args:
        fed: the clients.
        rosters: node to what it is told in E1; None is the truth.
        corrupt: nodes that hand it all their secrets.
    """

    def __init__(self, fed, rosters=None, corrupt=()):
        self.fed = fed
        if rosters is None:
            rosters = fed.keys(fed.everyone())
        some = next(iter(rosters.values()))
        size = len(some.members) // 32
        self.sid = session_id(fed.config, CONTENT, some.members, some.digests)
        self.graph = session_graph(self.sid, size)
        names = [some.members[32 * i : 32 * i + 32] for i in range(size)]
        self.node = {
            names.index(device.public_key): i
            for i, device in enumerate(fed.identities)
            if i in rosters and device.public_key in names
        }
        self.publics = {}
        self.rosters = rosters
        self.bundles, self.told, self.masked = {}, {}, {}
        self.words, self.lists, self.proofs, self.reveals = {}, {}, {}, {}
        # What corrupt clients hand over: of each the secret of its masks.
        self.corrupt = {i for i, node in self.node.items() if node in corrupt}
        self.mask_secrets = {i: self.client(i).state.secrets.mask_secret for i in self.corrupt}

    @classmethod
    def after(cls, rehearsal, exchange, corrupt=()):
        """A server that kept its word up to E1 or E2 in a session of 150."""
        server = cls(*rehearsal.at("E1"), corrupt)
        server.fed, requests = rehearsal.at("E2")
        for i, node in server.node.items():
            near = server.graph.neighbours(i)
            for j, sealed in zip(near, requests[node].ciphertexts, strict=True):
                server.bundles.setdefault(j, {})[i] = sealed
            for j, record in zip(near, server.rosters[node].records, strict=True):
                server.publics[j] = record.mask_public
        if exchange == "E2":
            server.fed, _ = rehearsal.at("E3")
            everybody, sent = set(server.node), server.fed.server
            masked = [vector for vector in server.fed.seen if isinstance(vector, np.ndarray)]
            for i, node in server.node.items():
                server.masked[i], server.told[i] = masked[node], everybody
                server.words[i] = {sent._index[n]: word for n, word in sent._masked[node].items()}
        return server

    def client(self, index):
        return self.fed.clients[self.node[index]]

    def near(self, index, among):
        return [j for j in self.graph.holders(index) if j in among]

    def truth(self, indices):
        layout = self.fed.config.layout
        return sum(
            layout.encode({"update": self.fed.vectors[self.node[i]]}, 1).astype(np.uint32)
            for i in indices
        )

    def shares(self, indices=None):
        """E1; a client that refuses is left out. Returns the errors."""
        errors = {}
        for i in indices if indices is not None else list(self.node):
            roster = self.rosters[self.node[i]]
            try:
                sealed = self.client(i).share(roster).ciphertexts
            except LeptonError as error:
                errors[i] = error
                continue
            near = self.graph.neighbours(i)
            self.bundles[i] = dict(zip(near, sealed, strict=True))
            for j, record in zip(near, roster.records, strict=True):
                self.publics[j] = record.mask_public
        return errors

    def work(self, index, participants, content=CONTENT):
        """E2; the list is for this client alone."""
        others = [j for j in self.near(index, participants) if j != index]
        sealed = tuple(self.bundles[j][index] for j in others)
        request = WorkRequest(to_bitmap(participants, self.graph.size), sealed)
        client, layout = self.client(index), self.fed.config.layout
        tags = client.start(request, content).tags
        self.words[index] = dict(zip(others, tags, strict=True))
        vector = layout.encode({"update": self.fed.vectors[self.node[index]]}, 1)
        self.masked[index] = client.mask(vector)
        self.told[index] = set(participants)

    def attest(self, index, survivors):
        """E3, with every tag that there is for the client; a corrupt neighbour's says anything."""
        others = [j for j in self.near(index, survivors) if j != index]
        tags = tuple(self.word(j, index) for j in others)
        request = SurvivorRequest(to_bitmap(survivors, self.graph.size), tags)
        answer = self.client(index).attest(request)
        self.lists[index] = set(survivors)
        if self.graph.committee:
            self.proofs[index] = answer.proof
        else:
            tags = (answer.proof[at : at + 16] for at in range(0, len(answer.proof), 16))
            self.proofs[index] = dict(zip(others, tags, strict=True))

    def word(self, index, to):
        """What a client said to another of the participants."""
        if index in self.corrupt:
            told = to_bitmap(self.told[to], self.graph.size)
            key = self.client(index).state.secrets.channels[to].vouch
            return tag(key, participants_digest(self.sid, told))
        return self.words.get(index, {}).get(to, bytes(16))

    def reveal(self, index):
        """E4, with everything that vouches for the client's lists."""
        request = self.signed(index) if self.graph.committee else self.tagged(index)
        shares = self.client(index).reveal(request).shares
        self.reveals[index] = dict(zip(self.near(index, self.told[index]), shares, strict=True))

    def tagged(self, index):
        near = self.near(index, self.lists[index])
        senders = [j for j in near if index in self.proofs.get(j, {})]
        return RevealRequest(tuple(senders), tuple(self.proofs[j][index] for j in senders))

    def signed(self, index):
        """The signatures of members who were told the same; corrupt ones sign anything."""
        lists = self.told[index], self.lists[index]
        said = lists_digest(self.sid, *(to_bitmap(of, self.graph.size) for of in lists))
        signatures = {}
        for i in sorted(self.graph.committee):
            device = self.fed.identities[self.node[i]] if i in self.node else None
            if i in self.corrupt:
                signatures[i] = device.sign(said), device.certificate
            elif self.proofs.get(i) and (self.told[i], self.lists[i]) == lists:
                signatures[i] = self.proofs[i], device.certificate
        proofs, credentials = zip(*signatures.values(), strict=True) if signatures else ((), ())
        return RevealRequest(tuple(signatures), proofs, credentials)

    def all(self, step, indices, *args):
        """One step for many; returns the errors."""
        errors = {}
        for i in list(indices):
            try:
                step(i, *args)
            except LeptonError as error:
                errors[i] = error
        return errors

    def secrets(self):
        """Seeds and mask keys that the server can put together, by client."""
        pieces = {"seed": {}, "key": {}}
        for holder, shares in self.reveals.items():
            for j, share in shares.items():
                kind = "seed" if j in self.lists[holder] else "key"
                pieces[kind].setdefault(j, {})[self.point(j, holder)] = share
        for holder in self.corrupt:
            for j, both in self.client(holder).state.secrets.held.items():
                for kind, share in zip(("seed", "key"), both, strict=True):
                    pieces[kind].setdefault(j, {})[self.point(j, holder)] = share
        found = {"seed": {}, "key": dict(self.mask_secrets)}
        for kind, of in pieces.items():
            for j, shares in of.items():
                if len(shares) < self.graph.threshold:
                    continue
                some = dict(list(shares.items())[: self.graph.threshold])
                try:
                    secret = shamir.combine(some)
                except RevealError:
                    continue
                if kind == "seed" or keys.public_key(secret) == self.publics[j]:
                    found[kind][j] = secret
        return found["seed"], found["key"]

    def point(self, of, holder):
        return self.graph.holders(of).index(holder) + 1

    def sums(self):
        """The sets of clients whose sum it can compute, none of them a union of others.

        A vector is tied to another by a mask that both hold and the server lacks, and lost if it
        holds a mask that nothing takes away.
        """
        seeds, secrets = self.secrets()
        bare, ties, lost = {}, {}, set()
        for i, vector in self.masked.items():
            masks, ties[i] = [], set()
            if i in seeds:
                masks.append((keys.self_key(seeds[i], self.sid, i), -1))
            else:
                lost.add(i)
            for j in self.near(i, self.told[i]):
                known = secrets.get(i) or secrets.get(j)
                if j == i:
                    continue
                if known is None:
                    ties[i].add(j)
                    if i not in self.told.get(j, ()):
                        lost.add(i)
                    continue
                public = self.publics[j if i in secrets else i]
                key = keys.pair_key(keys.private_key(known), public, self.sid, i, j)
                masks.append((key, -1 if j > i else 1))
            bare[i] = vector.copy()
            add_streams(bare[i], masks)
        found, left = [], set(bare)
        while left:
            group, new = set(), {left.pop()}
            while new:
                group |= new
                new = {j for i in new for j in ties[i] if j in bare} - group
            left -= group
            if not group & lost:
                total = sum(bare[i] for i in group)
                np.testing.assert_array_equal(total, self.truth(group))  # and it is the right one
                found.append(group)
        return found


def ends_in(errors, kind):
    assert errors
    assert {type(error) for error in errors.values()} == {kind}


def nothing(server):
    """The server has no secret of an honest client and no sum."""
    seeds, secrets = server.secrets()
    assert not set(seeds) - server.corrupt
    assert not set(secrets) - server.corrupt
    assert server.sums() == []


def closed(client):
    fields = client.to_fields()
    assert fields["stage"] == Stage.CLOSED
    assert not any(fields[name] for name in ("mask-secret", "share-secret", "self-seed", "held"))
    assert not fields["channels"]
    return True


@pytest.fixture
def nine(federation):
    return federation(clients=9, dimension=4)


def everyone(server):
    return set(server.node)


def up_to_attest(server, survivors=None):
    assert not server.shares()
    live = everyone(server) if survivors is None else survivors
    assert not server.all(server.work, live, everyone(server))
    return live


def up_to_reveal(server, survivors=None):
    live = up_to_attest(server, survivors)
    assert not server.all(server.attest, live, live)
    return live


class TestTheServerThatKeepsItsWord:
    """So that an empty answer above means something: here the same code finds the sum."""

    def test_all_stay(self, nine):
        server = Hostile(nine)
        live = up_to_reveal(server)
        assert not server.all(server.reveal, live)
        assert server.sums() == [live]

    def test_some_drop_out(self, nine):
        server = Hostile(nine)
        live = up_to_reveal(server, everyone(server) - {0, 5})
        assert not server.all(server.reveal, live)
        seeds, secrets = server.secrets()
        assert (set(seeds), set(secrets)) == (live, {0, 5})
        assert server.sums() == [live]

    def test_on_a_sparse_graph(self, sparse):
        server = Hostile(sparse())
        live = up_to_reveal(server, everyone(server) - set(range(0, 150, 15)))
        assert not server.all(server.reveal, live)
        assert server.sums() == [live]

    def test_with_corrupt_clients_it_learns_the_sum_of_the_others(self, nine):
        server = Hostile(nine, corrupt=(1, 4))
        live = up_to_reveal(server)
        assert not server.all(server.reveal, live - server.corrupt)
        assert sorted(server.sums(), key=len)[-1] == live - server.corrupt


class TestSurvivors:
    @pytest.mark.parametrize("told_dead", [1, 4, 7])
    def test_one_client_is_called_live_and_dead(self, nine, told_dead):
        # With seven of nine shares of its seed, and seven of its key, the victim would stand bare.
        server = Hostile(nine)
        live = up_to_attest(server)
        dead = set(range(1, 1 + told_dead))
        assert not server.all(server.attest, dead, live - {0})
        assert not server.all(server.attest, live - dead, live)
        errors = server.all(server.reveal, live)
        seeds, secrets = server.secrets()
        assert not set(seeds) & set(secrets)
        if told_dead == 4:
            # Neither side is large enough.
            assert set(errors) == live
            ends_in(errors, AttestationError)
            nothing(server)
        elif told_dead == 1:
            # Eight agree, and answer as if there had been no attack; one stays silent.
            assert set(errors) == dead
            ends_in(errors, AttestationError)
            assert server.sums() == [live]
        else:
            # Seven agree that the victim is gone: it gives its mask key and no seed.
            assert set(errors) == {0, 8}
            assert 0 in secrets
            assert server.sums() == [live - {0}]

    def test_the_halves_are_told_different_survivors(self, nine):
        server = Hostile(nine)
        live = up_to_attest(server)
        first, second = live - {7}, live - {0}
        assert not server.all(server.attest, range(5), first)
        assert not server.all(server.attest, range(5, 9), second)
        errors = server.all(server.reveal, live)
        assert set(errors) == live
        ends_in(errors, AttestationError)
        nothing(server)

    def test_the_halves_are_told_different_participants(self, nine):
        # The masks of the two sides do not cancel; the lists of survivors agree.
        server = Hostile(nine)
        assert not server.shares()
        everybody = everyone(server)
        errors = server.all(server.work, range(5), everybody - {8})
        assert not errors
        assert not server.all(server.work, range(5, 8), everybody)
        live = everybody - {8}
        errors = server.all(server.attest, live, live)
        assert set(errors) == live
        ends_in(errors, SurvivorError)
        nothing(server)

    def test_one_that_never_started_is_called_a_survivor(self, nine):
        server = Hostile(nine)
        assert not server.shares()
        live = everyone(server) - {3}
        assert not server.all(server.work, live, live)
        errors = server.all(server.attest, live, everyone(server))
        ends_in(errors, SurvivorError)
        nothing(server)

    def test_a_client_is_left_out_of_its_own_list(self, nine):
        server = Hostile(nine)
        live = up_to_attest(server)
        errors = server.all(server.attest, [2], live - {2})
        ends_in(errors, SurvivorError)
        nothing(server)

    def test_a_second_list_after_the_first(self, nine):
        server = Hostile(nine)
        live = up_to_reveal(server)
        errors = server.all(server.attest, live, live - {0})
        ends_in(errors, OrderError)
        assert all(closed(server.client(i)) for i in live)
        nothing(server)


class TestModels:
    def test_two_models_after_the_keys(self, nine):
        server = Hostile(nine)
        assert not server.shares()
        errors = server.all(server.work, range(4), everyone(server), OTHER)
        ends_in(errors, ModelMismatchError)
        assert not set(errors) & set(server.masked)
        assert not server.all(server.work, range(4, 9), everyone(server))
        # Five are too few for anything.
        ends_in(server.all(server.attest, range(4, 9), set(range(4, 9))), ThresholdError)
        nothing(server)

    def test_two_models_before_the_keys(self, nine):
        fed = nine
        rosters = fed.keys(range(6))
        other = KeyRequest(fed.config, OTHER)
        for i in range(6, 9):
            fed.clients[i], _ = ClientSession.open(
                other, fed.identities[i], fed.roster, ClientFloors(), 0
            )
        # To those of the other model the six honest records are signed for the wrong one.
        for i in range(6, 9):
            with pytest.raises(KeyRecordError):
                fed.clients[i].share(rosters[0])
            assert closed(fed.clients[i])
        server = Hostile(fed, rosters)
        assert server.sums() == []


def replaced(roster, place, record):
    """Another record of a neighbour, listed as such."""
    former = roster.records[place].digest()
    records = list(roster.records)
    records[place] = record
    digests = roster.digests.replace(former, record.digest())
    return dataclasses.replace(roster, records=tuple(records), digests=digests)


class TestKeyRecords:
    def attack(self, name, fed):
        """Rosters of all clients, in which the first one's record is tampered with."""
        rosters = fed.keys(fed.everyone())
        graph = session_graph(b"", len(fed.identities))
        victim = fed.server._index[0]

        def place(i):
            return graph.neighbours(fed.server._index[i]).index(victim)

        def forged():
            if name == "replayed":
                old = type(fed)(fed.identities, fed.roster, earlier, fed.vectors)
                return old.open(0)[1]
            if name == "self-signed":
                stranger = Authority.create("server").issue("device")
                request = fed.server.request_keys()
                return ClientSession.open(request, stranger, fed.roster, ClientFloors(), 0)[1]
            ours = rosters[1].records[place(1)]
            return dataclasses.replace(ours, mask_public=keys.public_key(b"\x09" * 32))

        earlier = dataclasses.replace(fed.config, run_id="6")
        if name == "missing":
            return {
                i: dataclasses.replace(
                    roster,
                    records=tuple(r for p, r in enumerate(roster.records) if p != place(i)),
                )
                for i, roster in rosters.items()
                if i
            }
        if name == "duplicated":
            # The victim takes the place of another member, too.
            second = (victim + 1) % len(rosters)
            own = rosters[1].members[32 * victim : 32 * victim + 32]
            return {
                i: dataclasses.replace(
                    roster,
                    members=roster.members[: 32 * second]
                    + own
                    + roster.members[32 * second + 32 :],
                )
                for i, roster in rosters.items()
                if fed.server._index[i] not in (victim, second)
            }
        if name == "swapped":
            other = next(i for i in fed.everyone() if i not in (0, 1))
            answer = {}
            for i, roster in rosters.items():
                if i in (0, other):
                    continue
                a, b = (
                    place(i),
                    graph.neighbours(fed.server._index[i]).index(fed.server._index[other]),
                )
                records = list(roster.records)
                records[a], records[b] = records[b], records[a]
                answer[i] = dataclasses.replace(roster, records=tuple(records))
            return answer
        record = forged()
        return {i: replaced(roster, place(i), record) for i, roster in rosters.items() if i}

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("swapped", KeyRecordError),
            ("replayed", KeyRecordError),
            ("self-signed", KeyRecordError),
            ("altered", KeyRecordError),
            ("duplicated", KeyRecordError),
            ("missing", MessageError),
        ],
    )
    def test_the_record_of_one_client(self, federation, name, error):
        fed = federation(clients=7)
        rosters = self.attack(name, fed)
        for i, roster in rosters.items():
            with pytest.raises(error):
                fed.clients[i].share(roster)
            # Not even a share was sent.
            assert closed(fed.clients[i])


class TestServersClients:
    """A server that makes up clients: their records are on nobody's roster."""

    def ring(self, fed, fakes, attempts):
        """Rosters with made-up clients; of some attempts the one that hits fewest clients."""
        genuine = []
        for i in range(len(fed.identities) - fakes):
            fed.clients[i], record = fed.open(i)
            genuine.append((fed.identities[i].public_key, record, i))
        request = fed.server.request_keys()
        best = None
        for _ in range(attempts):
            ca = Authority.create("server")
            made = []
            for _ in range(fakes):
                device = ca.issue("device")
                record = ClientSession.open(request, device, fed.roster, ClientFloors(), 0)[1]
                made.append((device.public_key, record, None))
            everyone = sorted([*genuine, *made], key=lambda one: one[0])
            members = b"".join(member for member, _, _ in everyone)
            digests = b"".join(record.digest() for _, record, _ in everyone)
            graph = session_graph(session_id(fed.config, CONTENT, members, digests), len(everyone))
            rosters, hit = {}, set()
            for at, (_, _, node) in enumerate(everyone):
                near = graph.neighbours(at)
                if node is None:
                    hit |= {everyone[j][2] for j in near} - {None}
                else:
                    records = tuple(everyone[j][1] for j in near)
                    rosters[node] = KeyRoster(members, digests, records)
            if best is None or len(hit) < len(best[1]):
                best = rosters, hit
        return best

    @pytest.mark.parametrize(("fakes", "attempts"), [(1, 1), (2, 30), (20, 3)])
    def test_whoever_sees_one_refuses_and_nobody_is_summed(self, sparse, fakes, attempts):
        fed = sparse()
        rosters, hit = self.ring(fed, fakes, attempts)
        server = Hostile(fed, rosters)
        errors = server.shares()
        assert {server.node[i] for i in errors} == hit
        ends_in(errors, KeyRecordError)
        # The server goes on with the others, and says that all are there, except where a client
        # would notice: among its neighbours.
        for step, done in ((server.work, server.bundles), (server.attest, server.masked)):
            answered = set(done)
            for i in answered:
                near = set(server.graph.neighbours(i))
                claimed = {j for j in range(server.graph.size) if j in answered or j not in near}
                server.all(step, [i], claimed)
        server.all(server.reveal, set(server.proofs))
        assert server.masked or fakes == 20  # the attack was a real one
        assert server.sums() == []

    def test_a_neighbourhood_full_of_them_gets_nothing_of_its_middle(self, sparse):
        fed = sparse()
        rosters, _ = self.ring(fed, 80, 1)
        server = Hostile(fed, rosters)
        errors = server.shares()
        assert set(errors) == everyone(server)
        ends_in(errors, KeyRecordError)
        nothing(server)

    def test_a_corrupt_member_cannot_stand_in_many_places(self, sparse):
        # Its records would all be well signed; the list of members shows it.
        fed = sparse()
        rosters = fed.keys(fed.everyone())
        roster = rosters[0]
        names = [roster.members[at : at + 32] for at in range(0, len(roster.members), 32)]
        own = fed.server._index[0]
        far = [i for i in range(150) if i != own and i not in fed.server._graph.neighbours(own)]
        names[far[1]] = names[far[0]]
        told = dataclasses.replace(roster, members=b"".join(sorted(names)))
        with pytest.raises(KeyRecordError, match="each member once"):
            fed.clients[0].share(told)
        assert closed(fed.clients[0])


class TestFloors:
    def test_the_server_asks_for_less_than_the_device(self, nine):
        request = nine.server.request_keys()
        for floors in (ClientFloors(min_survivors=3), ClientFloors(min_clients=10)):
            with pytest.raises(FloorError):
                ClientSession.open(request, nine.identities[0], nine.roster, floors, 0)

    def test_a_threshold_below_the_devices_own(self, nine):
        rosters = nine.keys(nine.everyone())
        nine.clients[0]._floors = ClientFloors(min_threshold=8)
        server = Hostile(nine, rosters)
        errors = server.shares()
        assert set(errors) == {nine.server._index[0]}
        ends_in(errors, FloorError)
        assert closed(nine.clients[0])

    def test_a_sparse_graph_where_the_device_wants_a_complete_one(self, sparse):
        fed = sparse()
        rosters = fed.keys(fed.everyone())
        fed.clients[0]._floors = ClientFloors(sparse=False)
        with pytest.raises(FloorError, match="complete"):
            fed.clients[0].share(rosters[0])
        assert closed(fed.clients[0])

    def test_another_floor_for_each_client(self, nine):
        # What a client signs is its own floor: nobody takes part in a session with two.
        rosters = nine.keys(nine.everyone())
        lower = dataclasses.replace(nine.config, min_survivors=3)
        request = KeyRequest(lower, CONTENT)
        client, _ = ClientSession.open(request, nine.identities[0], nine.roster, ClientFloors(), 0)
        with pytest.raises(KeyRecordError):
            client.share(rosters[0])
        assert closed(client)

    def test_a_sum_of_fewer_than_the_session_promised(self, federation):
        fed = federation(clients=9, dimension=4, min_survivors=8)
        server = Hostile(fed)
        live = up_to_attest(server)
        # Seven would do for the threshold.
        ends_in(server.all(server.attest, range(7), set(range(7))), ThresholdError)
        assert not server.all(server.attest, range(7, 9), live)
        ends_in(server.all(server.reveal, range(7, 9)), AttestationError)
        nothing(server)

    def test_fewer_attestations_than_the_threshold(self, nine):
        server = Hostile(nine)
        live = up_to_attest(server)
        assert not server.all(server.attest, range(6), live)
        ends_in(server.all(server.reveal, range(6)), AttestationError)
        nothing(server)


class TestReplays:
    def test_a_session_number_again(self, nine):
        server = Hostile(nine)
        live = up_to_reveal(server)
        assert not server.all(server.reveal, live)
        # A second session of that number would let the server drop another client.
        for i in nine.everyone():
            with pytest.raises(ReplayError):
                nine.open(i, last_number=nine.config.number)
        assert server.sums() == [live]

    def test_a_second_reveal(self, nine):
        server = Hostile(nine)
        live = up_to_reveal(server)
        assert not server.all(server.reveal, live)
        former = {i: dict(shares) for i, shares in server.reveals.items()}
        server.lists = dict.fromkeys(live, live - {0})
        ends_in(server.all(server.reveal, live), OrderError)
        assert server.reveals == former
        server.lists = dict.fromkeys(live, live)
        seeds, secrets = server.secrets()
        assert set(seeds) == live
        assert not secrets
        assert server.sums() == [live]

    def test_a_vector_that_comes_late(self, nine):
        server = Hostile(nine)
        live = up_to_reveal(server, everyone(server) - {4})
        # Its masks with the others are known by then; its own is not.
        assert not server.all(server.reveal, live)
        assert not server.all(server.work, [4], everyone(server))
        seeds, secrets = server.secrets()
        assert 4 in secrets
        assert 4 not in seeds
        assert server.sums() == [live]

    def test_a_late_vector_and_a_late_list(self, nine):
        server = Hostile(nine)
        live = up_to_reveal(server, everyone(server) - {4})
        assert not server.all(server.reveal, live)
        assert not server.all(server.work, [4], everyone(server))
        # The late client signs what it likes: nobody is left that would answer.
        assert not server.all(server.attest, [4], everyone(server))
        ends_in(server.all(server.reveal, [4]), AttestationError)
        assert server.sums() == [live]

    def test_the_tags_of_one_list_for_another(self, nine):
        server = Hostile(nine)
        live = up_to_attest(server)
        assert not server.all(server.attest, live - {8}, live)
        assert not server.all(server.attest, [8], live - {0})
        ends_in(server.all(server.reveal, [8]), AttestationError)
        nothing(server)


class TestCorruptClients:
    def test_under_a_third_and_two_lists_give_no_second_sum(self, nine):
        # Two corrupt clients vouch for both lists.
        server = Hostile(nine, corrupt=(0, 1))
        live = up_to_attest(server)
        bad = server.corrupt
        good = sorted(live - bad)
        first, second = set(good[:4]), set(good[4:])
        victim = good[0]
        lists = {True: live, False: live - {victim}}
        assert not server.all(server.attest, first, lists[True])
        assert not server.all(server.attest, second, lists[False])
        for i in bad:
            attested = {True: {}, False: {}}
            for truth, members in ((True, first), (False, second)):
                digest = survivors_digest(server.sid, to_bitmap(lists[truth], 9))
                for j in members:
                    key = server.client(i).state.secrets.channels[j].vouch
                    attested[truth][j] = tag(key, digest)
            server.proofs[i] = {**attested[True], **attested[False]}
        errors = server.all(server.reveal, good)
        assert set(errors) == set(good)
        ends_in(errors, AttestationError)
        nothing(server)


def around(server, index, offsets):
    """Indices of the clients at some places from one on the ring."""
    ring = server.graph._ring
    return {ring[(ring.index(index) + offset) % len(ring)] for offset in offsets}


TENTH = range(0, 150, 10)


class TestRing:
    """Attacks by two lists and by gaps; without the check that stops it, each has its prize.

    Half a neighbourhood is 22 places, a secret takes 16 shares, 14 of 22 in a row may be missing,
    and 31 of a committee of 46 must sign.
    """

    def other_participants(self, rehearsal):
        """One client hears that every other neighbour never shared; those call the rest dropped.

        The first still hold its seed, the rest's mask keys come out, and nothing else hides it.
        Both lists have half of every stretch missing there, which is allowed.
        """
        server = Hostile.after(rehearsal, "E1")
        graph, everybody = server.graph, everyone(server)
        # Where enough of the committee is left to attest the list: somewhere there is, for the
        # victim and the dropped are 23 places, of 150 that hold 46 members.
        victim = next(
            i
            for i in sorted(everybody)
            if len(set(graph.committee) - around(server, i, range(-22, 23, 2))) >= graph.quorum
        )
        unheard = around(server, victim, range(-21, 22, 2))
        dropped = around(server, victim, range(-22, 23, 2)) - {victim}
        assert unheard | dropped == set(graph.neighbours(victim))
        assert not server.all(server.work, everybody - {victim}, everybody)
        assert not server.all(server.work, [victim], everybody - unheard)
        live = everybody - dropped
        errors = server.all(server.attest, live - {victim}, live)
        server.all(server.reveal, set(server.proofs))
        return server, victim, errors, unheard

    def test_one_client_is_told_other_participants(self, rehearsal):
        server, victim, errors, unheard = self.other_participants(rehearsal)
        assert set(errors) == unheard
        ends_in(errors, SurvivorError)
        seeds, _ = server.secrets()
        assert victim not in seeds
        assert server.sums() == []

    def test_if_nobody_asked_what_others_were_told_it_would_stand_alone(
        self, rehearsal, monkeypatch
    ):
        monkeypatch.setattr(client_module.hmac, "compare_digest", lambda *_: True)
        server, victim, errors, _ = self.other_participants(rehearsal)
        assert not errors
        assert {victim} in server.sums()

    def gaps(self, rehearsal):
        """Two stretches between two arcs are called dropped, to everybody alike."""
        server = Hostile.after(rehearsal, "E2")
        graph = server.graph
        both = [{*range(start, start + 22), *range(start + 75, start + 97)} for start in range(75)]
        # Where enough of the committee is left to attest the list.
        live = next(
            live
            for live in (everyone(server) - around(server, 0, places) for places in both)
            if len(live & set(graph.committee)) >= graph.quorum
        )
        assert len(live) > server.fed.config.floor(150)
        errors = server.all(server.attest, live, live)
        server.all(server.reveal, set(server.proofs))
        return server, errors, live

    def test_two_gaps_cut_the_ring(self, rehearsal):
        server, errors, live = self.gaps(rehearsal)
        assert set(errors) == live
        ends_in(errors, ThresholdError)
        nothing(server)

    def test_if_gaps_were_allowed_there_would_be_two_sums(self, rehearsal, monkeypatch):
        monkeypatch.setattr(Ring, "check_present", lambda *_: None)
        server, errors, live = self.gaps(rehearsal)
        assert not errors
        first, second = server.sums()
        assert first | second == live
        assert not first & second

    def two_lists(self, rehearsal, told_dead, corrupt=TENTH):
        """Some are told that one client dropped out; corrupt members sign both lists."""
        server = Hostile.after(rehearsal, "E2", corrupt)
        victim = min(everyone(server) - server.corrupt)
        live = everyone(server)
        # The nearest first, every other one, so that its neighbours are of both kinds.
        order = sorted(range(1, 150), key=lambda step: (step % 2, min(step, 150 - step)))
        dead = [i for step in order for i in around(server, victim, [step])][:told_dead]
        dead = set(dead) - server.corrupt
        assert not server.all(server.attest, dead, live - {victim})
        assert not server.all(server.attest, live - dead - server.corrupt, live)
        errors = server.all(server.reveal, live - server.corrupt)
        return server, victim, errors

    @pytest.mark.parametrize("told_dead", [20, 75, 140])
    def test_both_secrets_of_one_client_are_never_in_reach(self, rehearsal, told_dead):
        server, victim, errors = self.two_lists(rehearsal, told_dead)
        ends_in(errors, AttestationError)
        seeds, secrets = server.secrets()
        assert victim not in seeds or victim not in secrets
        sums = [group - server.corrupt for group in server.sums()]
        assert all(len(group) >= 134 for group in sums if group)

    def test_if_no_committee_signed_both_would_be(self, rehearsal, monkeypatch):
        monkeypatch.setattr(CommitteeWitness, "check", lambda *_: None)
        server, victim, errors = self.two_lists(rehearsal, 75)
        assert not errors
        seeds, secrets = server.secrets()
        assert victim in seeds
        assert victim in secrets
        assert {victim} in server.sums()

    def test_the_halves_are_told_different_participants(self, rehearsal):
        server = Hostile.after(rehearsal, "E1", TENTH)
        everybody = everyone(server)
        first, second = around(server, 0, range(75)), around(server, 0, range(75, 150))
        (absent,) = around(server, 0, [37])
        assert not server.all(server.work, first - {absent}, everybody - {absent})
        assert not server.all(server.work, second, everybody)
        live = everybody - {absent}
        # Where the halves meet, each sees what the other was told.
        ends_in(server.all(server.attest, live - server.corrupt, live), SurvivorError)
        ends_in(server.all(server.reveal, set(server.proofs) - server.corrupt), AttestationError)
        assert server.sums() == []

    def test_a_member_of_the_committee_is_asked_twice(self, rehearsal):
        server = Hostile.after(rehearsal, "E2")
        everybody, members = everyone(server), set(server.graph.committee)
        assert not server.all(server.attest, everybody, everybody)
        (gone,) = around(server, 0, [75])
        told = everybody - {gone}
        ends_in(server.all(server.attest, members - {gone}, told), OrderError)
        assert all(closed(server.client(i)) for i in members - {gone})


class TestVectors:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_numbers_that_are_none(self, nine, value):
        server = Hostile(nine)
        assert not server.shares()
        nine.vectors[server.node[3]][1] = value
        ends_in(server.all(server.work, [3], everyone(server)), VectorError)
        assert 3 not in server.masked
        nothing(server)

    def test_values_beyond_the_bound_are_cut_and_counted(self, nine):
        server = Hostile(nine)
        nine.vectors[server.node[3]][:] = [1e300, -7.0, 1.0, 0.5]
        live = up_to_reveal(server)
        assert not server.all(server.reveal, live)
        (group,) = server.sums()
        assert group == live
        layout = nine.config.layout
        total = sum(server.truth([i]) for i in live)
        decoded = layout.decode(layout.lift(total.astype(np.uint32)))
        assert decoded.saturated == 2
        cut = [np.clip(nine.vectors[i], -1, 1) for i in range(9)]
        np.testing.assert_allclose(decoded.means["update"] * 9, sum(cut), atol=1e-6)


def test_a_bitmap_that_is_no_list_is_none():
    assert from_bitmap(b"\xff\xff", 9) is None
