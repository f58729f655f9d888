import pytest
from story import Story


@pytest.fixture
def new_story():
    """`new_story()`: nothing has happened yet."""
    return Story


@pytest.fixture
def story():
    """Forty decisions: four cards in three partitions, two merchants, chargebacks, an updater that is late."""
    made = Story()
    for number in range(40):
        of_last_week = 8 * 86_400 if number < 10 else 0
        t = made.decide(
            card=f"c{number % 4}",
            merchant=f"m{number % 2}",
            amount=100 * (number % 7 + 1),
            after=20 * number - of_last_week,
        )
        if number % 5 == 0:
            made.label(t)
        if number % 3 == 0:
            made.follow(number // 3 % made.keys.partitions, 5)
    return made
