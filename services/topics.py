"""The topics: their names, and how they come to exist."""

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from services.kafka import when_there


def dead_letter(topic: str) -> str:
    """Give the name of the topic where records go that `topic` should not have held."""
    return f"{topic}.dead-letter"


TRANSACTIONS = "transactions"
DECISIONS = "decisions"
LABELS = "labels"
ALL = tuple(name for topic in (TRANSACTIONS, DECISIONS, LABELS) for name in (topic, dead_letter(topic)))

_UNLIMITED = {"retention.ms": "-1"}
"""`decisions` and `labels` are what state is a function of: the broker must not forget them by itself."""


class PartitionCountError(RuntimeError):
    """A topic exists with another number of partitions than `FRAUD_PARTITIONS`."""


async def ensure_topics(bootstrap: str, partitions: int, *, patience: float = 0.0) -> None:
    """Create the topics that are missing, and check the partition count of all.

    Args:
        bootstrap: host:port of a broker.
        partitions: of every topic.
        patience: how many seconds to wait for a broker that is not there yet.

    Raises:
        PartitionCountError: a topic has another number of partitions. Cards would change their
            partition, so the count can only change with a rebuild from the log.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await (when_there(admin.start, patience) if patience else admin.start())
    try:
        existing = set(await admin.list_topics())
        missing = [
            NewTopic(
                name,
                num_partitions=partitions,
                replication_factor=1,
                topic_configs=_UNLIMITED if name in {DECISIONS, LABELS} else None,
            )
            for name in ALL
            if name not in existing
        ]
        if missing:
            response = await admin.create_topics(missing)
            for _, code, *_ in response.topic_errors:
                error = for_code(code)
                if code and error is not TopicAlreadyExistsError:  # another process may be faster
                    raise error
        for topic in await admin.describe_topics(list(ALL)):
            found = len(topic["partitions"])
            if topic["error_code"] == 0 and found != partitions:
                message = f"topic {topic['topic']} has {found} partitions, FRAUD_PARTITIONS is {partitions}"
                raise PartitionCountError(message)
    finally:
        await admin.close()
