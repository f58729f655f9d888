"""`fraud up`: the whole stack in the foreground, until Ctrl-C."""

import asyncio
import signal
from collections.abc import Callable, Sequence

from typer import echo

from services.settings import Settings
from services.stack.errors import StackError
from services.stack.programs import PROGRAMS, Program
from services.stack.running import Running, running
from services.topics import PartitionCountError


def print_ready(stack: Running) -> None:
    """One line `ready URL`, and under it where everything else is."""
    broker = stack.broker
    api, *_ = stack.addresses.values()
    lines = [(f"{name} metrics", f"{address.url}/metrics") for name, address in stack.addresses.items()]
    exports = (
        f"FRAUD_KAFKA_BOOTSTRAP={broker.bootstrap}",
        f"FRAUD_REDIS_URL={stack.redis_url}",
        f"FRAUD_PARTITIONS={broker.partitions}",
        *(("FRAUD_REDIS_CLUSTER=true",) if len(stack.servers) > 1 else ()),
    )
    lines += [
        ("redis", stack.redis_url),
        ("kafka", broker.bootstrap),
        (broker.choice.name, broker.choice.limits),
        ("event time", "of any age is taken, so that old data replays; FRAUD_OLDEST_EVENT_DAYS sets a limit"),
        ("data", str(stack.directory)),
        ("logs", str(stack.logs)),
        ("other terminals", " ".join(("export", *exports))),
    ]
    echo("\n".join([f"ready {api.url}", *(f"  {name:<16} {value}" for name, value in lines)]))


async def up(
    settings: Settings,
    ready: Callable[[Running], None] = print_ready,
    programs: Sequence[Program] = PROGRAMS,
) -> int:
    """Run the stack until SIGINT, SIGTERM or SIGHUP; gives the exit code.

    Args:
        settings: see `running`.
        ready: called once, when every process is healthy.
        programs: the processes, the API first.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
            loop.add_signal_handler(number, stop.set)
    stack = asyncio.create_task(_run(settings, ready, programs))
    asked = asyncio.create_task(stop.wait())
    await asyncio.wait({stack, asked}, return_when=asyncio.FIRST_COMPLETED)
    # Only the first signal cancels: stopping has its own deadlines, a second Ctrl-C must not cut it short.
    (stack if stop.is_set() else asked).cancel()
    try:
        await stack
    except (StackError, PartitionCountError) as error:
        echo(f"error: {error}", err=True)
        return 1
    except asyncio.CancelledError:
        echo("stopped")
    return 0


async def _run(settings: Settings, ready: Callable[[Running], None], programs: Sequence[Program]) -> None:
    async with running(settings, programs) as stack:
        ready(stack)
        if stack.broker.lost is None:
            await asyncio.Event().wait()  # until cancelled
        else:
            await stack.broker.lost()
            raise StackError(f"the broker ended: {stack.broker.choice.limits}")
