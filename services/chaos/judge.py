"""What must hold after every kill point, judged from the log, from Redis, and from what callers were told."""

import asyncio
import contextlib
from collections import Counter
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from redis import Redis, RedisCluster
from redis.exceptions import RedisError

from feature_store.keys import Keys
from model.scorer import load_scorer
from services.audit.state import actual, differences, expected
from services.audit.verify import verify
from services.audit.whole_log import Log, whole_log
from services.chaos.traffic import Traffic
from services.chaos.world import World
from services.decision.policy import Policy

LOOK_SECONDS = 0.2
PATIENCE_SECONDS = 180.0
"""Longest wait until what was acknowledged has all of its effects."""
SHOWN = 5


class Judge:
    """Knows the world and its callers."""

    def __init__(self, world: World, traffic: Traffic, reader: AIOKafkaConsumer) -> None:
        self._world = world
        self._traffic = traffic
        self._reader = reader
        self._keys = Keys(world.settings.partitions)
        self._scorer = load_scorer(world.settings.model_dir)
        thresholds = self._scorer.manifest.thresholds
        self._policy = Policy(review=thresholds.review, decline=thresholds.decline)

    async def broken(self) -> list[str]:
        """Wait until nothing is on its way; give what is broken then: nothing, if the promises hold.

        A second effect or a lost one never heals, so it is still there when the patience is over.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + PATIENCE_SECONDS
        while True:
            try:
                log = await whole_log(self._reader, self._world.settings.partitions)
                broken = self._of_log(log) or await asyncio.to_thread(self._of_state, log) or self._of_decisions(log)
            except (KafkaError, RedisError, TimeoutError, OSError) as error:
                broken = [f"a server does not answer: {error!r}"]
            if not broken or loop.time() > give_up:
                return broken
            await asyncio.sleep(LOOK_SECONDS)

    def _of_log(self, log: Log) -> list[str]:
        """P1 and P5: acknowledged - decided = 0, double effects = 0, sequences without gap, one answer for an id."""
        answers = {(r.transaction.card_id, r.transaction.transaction_id): msgspec.json.encode(r.answer) for r in log}
        times = Counter((r.transaction.card_id, r.transaction.transaction_id) for r in log)
        sent = self._traffic
        broken = [f"acknowledged and not decided: {each}" for each in sent.transactions.keys() - answers.keys()]
        broken += [f"decided {count} times: {each}" for each, count in times.items() if count > 1]
        broken += [f"sequence {sequence} of partition {partition} is missing" for partition, sequence in log.missing]
        broken += [f"label acknowledged and not in the log: {each}" for each in sent.labels - log.labels.keys()]
        broken += [
            f"answers differ: {each}"
            for each, told in sent.answers.items()
            if each in answers and told != {answers[each]}
        ]
        return broken

    def _of_state(self, log: Log) -> list[str]:
        """P3: every key and field in Redis is what plain Python makes of the log."""
        kind: Any = RedisCluster if self._world.settings.redis_cluster else Redis
        with contextlib.closing(kind.from_url(self._world.settings.redis_url)) as client:
            return differences(expected(log, self._keys), actual(client))

    def _of_decisions(self, log: Log) -> list[str]:
        """P7: each decision recomputed from what it says it had seen."""
        return [repr(each) for each in verify(log, self._scorer, self._policy).differences]
