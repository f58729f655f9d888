import socket
from pathlib import Path

import pytest

from services.settings import Settings
from services.stack.errors import StackError
from services.stack.ports import free_port
from services.stack.programs import PROGRAMS, Address, addresses, as_environment, commands


def test_a_process_reads_the_settings_it_was_given(monkeypatch):
    given = Settings(partitions=4, redis_cluster=True, redis_timeout_seconds=0.125, data_dir=Path("elsewhere"))
    for name, value in as_environment(given).items():
        monkeypatch.setenv(name, value)
    assert Settings() == given


def test_the_api_gets_its_port_and_the_others_free_ports_above_it(tmp_path):
    settings = Settings(api_port=free_port())
    listening = addresses(settings, PROGRAMS)
    ports = [address.port for address in listening.values()]
    assert list(listening) == ["api", "worker", "relay", "updater"]
    assert ports[0] == settings.api_port
    assert ports == sorted(set(ports))

    made = commands(settings, PROGRAMS, listening, tmp_path)
    assert [command.env["FRAUD_API_PORT"] for command in made] == 4 * [str(settings.api_port)]
    assert [command.env["FRAUD_OPS_PORT"] for command in made] == [str(port) for port in ports]
    assert [command.log for command in made] == [tmp_path / f"{name}.log" for name in listening]


def test_a_taken_api_port_is_refused_with_the_name_of_its_setting():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} is taken: set FRAUD_API_PORT"):
            addresses(Settings(api_port=port), PROGRAMS)


def test_port_zero_lets_the_api_have_any_free_port():
    assert addresses(Settings(api_port=0), PROGRAMS)["api"].port > 0


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),  # noqa: S104  # nothing listens
        ("::", "http://[::1]:8000"),
    ],
)
def test_an_address_is_shown_as_one_that_can_be_opened(host, url):
    assert Address(host, 8000).url == url
