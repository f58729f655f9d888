from services.chaos.case import TRANSACTIONS, plan
from services.chaos.faults import KINDS


def named(points):
    return [(point.kind.name, point.after) for point in points]


def test_a_seed_names_its_kill_points():
    assert named(plan(7, 30)) == named(plan(7, 30))
    assert named(plan(7, 30)) != named(plan(8, 30))


def test_every_kind_comes_before_any_comes_again():
    kinds = [kind.name for kind in KINDS]
    chosen = [point.kind.name for point in plan(1, 3 * len(kinds))]
    for first in range(0, len(chosen), len(kinds)):
        assert sorted(chosen[first : first + len(kinds)]) == sorted(kinds)


def test_a_kill_point_has_traffic_before_and_after_it():
    assert all(0 < point.after < TRANSACTIONS - 20 for point in plan(3, 100))
