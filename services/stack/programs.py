"""The four processes as commands: how each is started, where it listens, and the environment it reads."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.settings import Settings
from services.stack.child import Command
from services.stack.errors import StackError
from services.stack.ports import free_port, free_ports_from, is_free

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # only translated


@dataclass(frozen=True)
class Program:
    """One of the processes: its name (`api`, or `api-2` where there are several), how it is started, and with what."""

    name: str
    argv: tuple[str, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings of this process alone."""

    @property
    def is_api(self) -> bool:
        """Whether it is an HTTP door."""
        return self.name.partition("-")[0] == "api"


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


def fleet(*, api: int = 1, worker: int = 1, relay: int = 1, updater: int = 1) -> tuple[Program, ...]:
    """So many of each process: `api-1`, `api-2`, `worker-1` ..."""
    counts = {"api": api, "worker": worker, "relay": relay, "updater": updater}
    return tuple(
        Program(f"{kind}-{number}", _argv(kind)) for kind, count in counts.items() for number in range(1, count + 1)
    )


def _argv(kind: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "services.cli", kind)


PROGRAMS = tuple(Program(kind, _argv(kind)) for kind in ("api", "worker", "relay", "updater"))


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
        own = listening[program.name].port
        ports = {"api_port": own if program.is_api else listening[api.name].port, "ops_port": own}
        environment = os.environ | as_environment(settings.model_copy(update=ports | dict(program.settings)))
        made.append(Command(program.name, program.argv, logs / f"{program.name}.log", environment))
    return made


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables from which a process reads these very settings."""
    return {
        f"FRAUD_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.model_dump(mode="json").items()
    }
