import socket

import pytest

from services.stack.ports import free_port, free_ports_from, is_free


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_somebody_listens_on_is_not_free(taken):
    assert not is_free(taken)


def test_a_port_is_free_again_once_its_server_is_gone():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert is_free(port)


def test_the_preferred_port_is_given_when_it_is_free():
    port = free_port()
    assert free_port(port) == port


def test_another_port_is_given_when_the_preferred_one_is_taken(taken):
    assert free_port(taken) != taken


def test_picked_ports_are_none_of_outgoing_connections():
    assert all(free_port() < 32_768 for _ in range(50))


def test_ports_are_counted_up_past_those_that_are_taken(taken):
    found = free_ports_from(taken, 3)
    assert len(set(found)) == 3
    assert found == sorted(found)
    assert found[0] > taken
