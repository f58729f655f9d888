"""The ways of fraud that the simulator plays, each by name, so that a model can be judged on each of them.

Three are those of the Fraud Detection Handbook (Le Borgne et al., 2022, chapter 3, "Transaction data simulator"):
large amounts, compromised merchants, compromised cards. The fourth, card testing, is the burst that velocity features
are for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

MINUTE, DAY = 60, 86_400
Integers = npt.NDArray[np.int64]


class Pattern(StrEnum):
    """What kind of fraud a transaction is."""

    GENUINE = ""
    LARGE_AMOUNT = "large_amount"
    """Any amount above 220."""
    COMPROMISED_MERCHANT = "compromised_merchant"
    """All transactions of a merchant for 28 days."""
    COMPROMISED_CARD = "compromised_card"
    """A third of a card's transactions for 14 days, at five times the amount: the card is used by two."""
    CARD_TESTING = "card_testing"
    """A stolen list: each card is tried online with tiny amounts within minutes, then used once for a large one."""


CODES = {pattern: code for code, pattern in enumerate(Pattern)}
"""What `Traffic.pattern` holds."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How often each pattern begins. The defaults make about 1 % of transactions fraud, as the Handbook does."""

    large_amount: int = 220_00
    """Minor units above which a transaction is fraud."""
    merchants: float = 0.4
    """Newly compromised merchants a day, of 1,000."""
    cards: float = 0.8
    """Newly compromised cards a day, of 1,000."""
    lists: float = 0.1
    """Stolen lists tried a day, of 1,000 cards."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Transactions as columns, each of shape (n,): card, merchant, second, minor units, the pattern's code."""

    card: Integers
    merchant: Integers
    second: Integers
    amount: Integers
    pattern: Integers

    def __len__(self) -> int:
        """Count the transactions."""
        return len(self.second)

    def in_order(self) -> "Traffic":
        """Sort by event time; what happens in the same second stays in its order."""
        order = np.argsort(self.second, kind="stable")
        return Traffic(*(column[order] for column in self.columns()))

    def and_also(self, others: Sequence["Traffic"]) -> "Traffic":
        """Append other traffic."""
        columns = zip(self.columns(), *(other.columns() for other in others), strict=True)
        return Traffic(*(np.concatenate(parts) for parts in columns))

    def columns(self) -> tuple[Integers, ...]:
        """Give the columns in the order of their names."""
        return self.card, self.merchant, self.second, self.amount, self.pattern


@dataclass(frozen=True, slots=True)
class World:
    """What the patterns need to know: how many cards, which merchants may be hit or are online, and the period."""

    cards: int
    quiet_merchants: Integers
    """All but the busiest, which are guarded better; one of them alone would be most of the fraud."""
    online_merchants: Integers
    first_second: int
    days: int


def add_frauds(traffic: Traffic, world: World, rates: Rates, rng: np.random.Generator) -> Traffic:
    """Play every pattern on genuine traffic; the result is in order of event time."""
    traffic = _large_amounts(traffic, rates)
    for merchant in rng.choice(world.quiet_merchants, _events(rates.merchants, len(world.quiet_merchants), world)):
        traffic = _compromise_merchant(traffic, merchant, _moment(world, rng))
    for card in rng.integers(world.cards, size=_events(rates.cards, world.cards, world)):
        traffic = _compromise_card(traffic, card, _moment(world, rng), rng)
    bursts = [_test_cards(world, rng) for _ in range(_events(rates.lists, world.cards, world))]
    return traffic.and_also(bursts).in_order()


def _events(per_thousand_a_day: float, of: int, world: World) -> int:
    """How often something happens in the whole period: at least once, unless its rate is zero."""
    return max(round(per_thousand_a_day * of * world.days / 1_000), int(per_thousand_a_day > 0))


def _moment(world: World, rng: np.random.Generator) -> int:
    return world.first_second + int(rng.integers(world.days * DAY - 2 * 60 * MINUTE))


def _large_amounts(traffic: Traffic, rates: Rates) -> Traffic:
    return _marked(traffic, traffic.amount > rates.large_amount, Pattern.LARGE_AMOUNT)


def _compromise_merchant(traffic: Traffic, merchant: int, since: int) -> Traffic:
    hit = (traffic.merchant == merchant) & _within(traffic, since, days=28)
    return _marked(traffic, hit, Pattern.COMPROMISED_MERCHANT)


def _compromise_card(traffic: Traffic, card: int, since: int, rng: np.random.Generator) -> Traffic:
    genuine = traffic.pattern == CODES[Pattern.GENUINE]
    used = np.flatnonzero((traffic.card == card) & genuine & _within(traffic, since, days=14))
    hit = np.zeros(len(traffic), np.bool_)
    hit[rng.choice(used, len(used) // 3, replace=False)] = True
    dearer = replace(traffic, amount=np.where(hit, traffic.amount * 5, traffic.amount))
    return _marked(dearer, hit, Pattern.COMPROMISED_CARD)


def _test_cards(world: World, rng: np.random.Generator) -> Traffic:
    """One stolen list: 6 to 12 cards, each tried 3 to 6 times over three merchants, then used for 120 to 600."""
    start = _moment(world, rng)
    cards = rng.choice(world.cards, min(world.cards, int(rng.integers(6, 13))), replace=False)
    merchants = rng.choice(world.online_merchants, 4)
    return _empty().and_also([_test_card(card, merchants, start, rng) for card in cards])


def _test_card(card: int, merchants: Integers, start: int, rng: np.random.Generator) -> Traffic:
    tries = int(rng.integers(3, 7))
    first = start + rng.integers(30 * MINUTE)
    tested = first + np.cumsum(rng.integers(5, 40, tries))
    used = tested[-1] + rng.integers(2 * MINUTE, 30 * MINUTE)
    return Traffic(
        card=np.full(tries + 1, card),
        merchant=np.append(rng.choice(merchants[:3], tries), merchants[3]),
        second=np.append(tested, used),
        amount=np.append(rng.integers(50, 200, tries), rng.integers(120_00, 600_00)),
        pattern=np.full(tries + 1, CODES[Pattern.CARD_TESTING]),
    )


def _empty() -> Traffic:
    return Traffic(*(np.empty(0, np.int64) for _ in range(5)))


def _within(traffic: Traffic, since: int, *, days: int) -> npt.NDArray[np.bool_]:
    return (traffic.second >= since) & (traffic.second < since + days * DAY)


def _marked(traffic: Traffic, hit: npt.NDArray[np.bool_], pattern: Pattern) -> Traffic:
    return replace(traffic, pattern=np.where(hit, CODES[pattern], traffic.pattern))
