"""What a node of Apache Kafka needs in its directory before it can start: its configuration and a formatted log."""

import base64
import uuid
from pathlib import Path

from services.stack.child import Command, kill_group, spawn
from services.stack.errors import StackError
from services.stack.ports import LOOPBACK, free_port

# A killed node may register again only once its last session has timed out: 3 s instead of 9.
_SERVER = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@{host}:{controller_port}
log.dirs={data}
auto.create.topics.enable=false
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""
# To standard output, which is a file of ours.
_LOG4J = """\
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c: %m%n
"""


async def prepare(directory: Path, jars: Path, port: int, lock: int) -> Command:
    """Make `directory` ready for a node on `port`; gives the command that is this node.

    The controller's port is a new one each time: the log stores no address.

    Raises:
        StackError: the log could not be formatted.
    """
    data = directory / "data"
    (directory / "log4j2.properties").write_text(_LOG4J)
    properties = directory / "server.properties"
    properties.write_text(_SERVER.format(host=LOOPBACK, port=port, controller_port=free_port(), data=data))
    if not (data / "meta.properties").exists():  # a second format would give stored topics a foreign cluster id
        await _format(directory, jars, properties)
    return _java(directory, jars, "kafka.Kafka", str(properties), inherited=(lock,))


async def _format(directory: Path, jars: Path, properties: Path) -> None:
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    arguments = ("format", f"--cluster-id={cluster_id}", f"--config={properties}", "--ignore-formatted")
    tool = _java(directory, jars, "kafka.tools.StorageTool", *arguments)
    process = await spawn(tool)
    try:
        failed = await process.wait()
    finally:
        kill_group(process)
    if failed:
        raise StackError(f"Apache Kafka could not format its log; {tool.log} says:\n{tool.log_tail()}")


def _java(directory: Path, jars: Path, *arguments: str, inherited: tuple[int, ...] = ()) -> Command:
    log4j = f"-Dlog4j2.configurationFile={directory / 'log4j2.properties'}"
    argv = ("java", "-Xmx512m", log4j, "-cp", f"{jars}/*", *arguments)
    return Command("kafka", argv, directory / "kafka.log", inherited=inherited)
