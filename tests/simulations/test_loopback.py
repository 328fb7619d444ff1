from simulations.loopback import POLL_VARIABLE, environment, free_port


def test_who_set_how_often_a_node_asks_for_work_has_the_last_word(monkeypatch):
    monkeypatch.delenv(POLL_VARIABLE, raising=False)
    assert environment()[POLL_VARIABLE] == "0.1"
    monkeypatch.setenv(POLL_VARIABLE, "2")
    assert environment()[POLL_VARIABLE] == "2"


def test_no_port_is_given_twice():
    """Of the 28,000 that Linux gives, drawn anew each time, some would be among so many."""
    assert len({free_port() for _ in range(700)}) == 700
