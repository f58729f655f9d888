"""The four processes as commands: how each is started, where it listens, and the environment it reads."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.settings import Settings
from services.stack.child import Command
from services.stack.errors import StackError
from services.stack.ports import free_port, free_ports_from, is_free

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # only translated


@dataclass(frozen=True)
class Program:
    """One of the processes: its name and how it is started."""

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class Address:
    """Where a process answers GET /health and /metrics."""

    host: str
    port: int

    @property
    def reachable_host(self) -> str:
        """The host, or loopback where it stands for any address."""
        return _ANY_ADDRESS.get(self.host, self.host)

    @property
    def url(self) -> str:
        """Without a path."""
        host = self.reachable_host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


PROGRAMS = tuple(
    Program(name, (sys.executable, "-m", "services.cli", name)) for name in ("api", "worker", "relay", "updater")
)


def addresses(settings: Settings, programs: Sequence[Program]) -> dict[str, Address]:
    """The first program listens on `api_port`, the others on the next free ports.

    Raises:
        StackError: the port of the API is taken.
    """
    api_port = settings.api_port or free_port()
    if not is_free(api_port, settings.api_host):
        raise StackError(f"port {api_port} is taken: set FRAUD_API_PORT to a free one")
    api, *others = programs
    ports = free_ports_from(api_port + 1, len(others), settings.ops_host)
    listening = {api.name: Address(settings.api_host, api_port)}
    for program, port in zip(others, ports, strict=True):
        listening[program.name] = Address(settings.ops_host, port)
    return listening


def commands(
    settings: Settings, programs: Sequence[Program], listening: Mapping[str, Address], logs: Path
) -> list[Command]:
    """Each program with all the settings in its environment, and its own port as `api_port` or `ops_port`."""
    api, *_ = programs
    made = []
    for program in programs:
        ports = {"api_port": listening[api.name].port, "ops_port": listening[program.name].port}
        environment = os.environ | as_environment(settings.model_copy(update=ports))
        made.append(Command(program.name, program.argv, logs / f"{program.name}.log", environment))
    return made


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables from which a process reads these very settings."""
    return {
        f"FRAUD_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.model_dump(mode="json").items()
    }
