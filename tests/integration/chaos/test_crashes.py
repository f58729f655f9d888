"""The fixed set of kill points: every kind once, on one Redis and on a cluster. `fraud chaos` runs others."""

import pytest

from services.chaos.case import plan, run_case
from services.chaos.command import POINTS_OF_A_SEED
from services.chaos.faults import KINDS


@pytest.mark.timeout(900)
@pytest.mark.parametrize("cluster", [False, True], ids=["one redis", "cluster of three masters"])
async def test_nothing_acknowledged_is_lost_or_has_two_effects_whatever_is_killed(kafka_can_run, cluster):
    outcomes = await run_case(1, plan(1, POINTS_OF_A_SEED), cluster=cluster, told=print)
    assert [outcome for outcome in outcomes if outcome.broken] == []
    assert {outcome.kind for outcome in outcomes} == {kind.name for kind in KINDS}
    assert [outcome.kind for outcome in outcomes if not outcome.struck] == []
