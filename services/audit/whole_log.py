"""The whole log in memory, for audits: every decision that counts, and every label that has an effect."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from feature_store.entity_writer import LoggedLabel
from feature_store.transaction import InvalidError
from services.decision.record import Record
from services.log import Epochs, label_of, read
from services.topics import DECISIONS, LABELS

Advance = Callable[[int, int], None]
"""Told how many records were read, and of how many."""


@dataclass
class Log:
    """Decisions by partition in sequence order, and the first label of each transaction with its place."""

    decisions: list[list[Record]]
    labels: dict[tuple[str, str], LoggedLabel] = field(default_factory=dict)
    """By card and transaction."""
    without_effect: int = 0
    """Records that stand in the log once more, or behind the end of their epoch, or are no decision."""

    def __iter__(self) -> Iterator[Record]:
        """Go through all decisions, partition after partition."""
        for partition in self.decisions:
            yield from partition

    def __len__(self) -> int:
        """Count them."""
        return sum(map(len, self.decisions))

    @property
    def missing(self) -> list[tuple[int, int]]:
        """Give (partition, sequence) of each gap: there is none, or the log has lost something."""
        gaps: list[tuple[int, int]] = []
        for number, partition in enumerate(self.decisions):
            last = 0
            for decision in partition:
                gaps += ((number, sequence) for sequence in range(last + 1, decision.sequence))
                last = decision.sequence
        return gaps

    def add_decision(self, epochs: Epochs, record: ConsumerRecord) -> None:
        """Take in a record of topic decisions. One that is none has no effect on state, and so none here."""
        known = self.decisions[record.partition]
        try:
            decision = epochs.decision(record)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            decision = None
        if decision and (not known or decision.sequence > known[-1].sequence):
            known.append(decision)
        elif record.value:
            self.without_effect += 1

    def add_label(self, record: ConsumerRecord) -> None:
        """Take in a record of topic labels; the first of a transaction stands."""
        try:
            label = label_of(record)
        except InvalidError:
            return
        logged = LoggedLabel(record.partition, record.offset, label)
        self.labels.setdefault((label.card_id, label.transaction_id), logged)


async def whole_log(reader: AIOKafkaConsumer, partitions: int, advance: Advance = lambda _done, _total: None) -> Log:
    """Read topics decisions and labels from their beginning to where they end now.

    Raises:
        KafkaError, TimeoutError: the broker does not give them.
    """
    names = [TopicPartition(topic, number) for topic in (DECISIONS, LABELS) for number in range(partitions)]
    starts, ends = await reader.beginning_offsets(names), await reader.end_offsets(names)
    total, done = sum(ends[name] - starts[name] for name in names), 0
    log = Log([[] for _ in range(partitions)])
    for name in names:
        epochs = Epochs((), starts[name])
        async for records in read(reader, name, starts[name], ends[name]):
            for record in records:
                if name.topic == DECISIONS:
                    log.add_decision(epochs, record)
                else:
                    log.add_label(record)
            done += len(records)
            advance(done, total)
    return log
