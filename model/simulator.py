"""Card payments that look like a bank's, made from a seed: for training without data, for load, for trying an idea.

Cards differ in how often and how much they spend; few merchants have most of the traffic, as in life, so a store or a
partition that suffers from hot keys shows it here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import typer

from feature_store.tables import Row, write_table
from feature_store.transaction import Transaction
from model.fraud_patterns import DAY, Integers, Pattern, Rates, Traffic, World, add_frauds

CHANNELS: tuple[Literal["pos", "ecommerce"], ...] = ("pos", "ecommerce")
COUNTRIES = ("DE", "FR", "NL", "ES", "IT", "PL", "US")
CATEGORIES = ("5411", "5812", "5541", "5732", "5651", "5912", "4111", "5942", "7011", "5999")
"""Merchant category codes (ISO 18245): groceries, restaurants, fuel, electronics, clothes, pharmacies and so on."""

Numbers = npt.NDArray[np.float64]
_BUSY_SHARE = 20  # one merchant in twenty counts as busy
_PATTERNS = tuple(Pattern)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a simulation is made from; equal parameters make equal transactions."""

    cards: int = 2_000
    merchants: int = 1_000
    days: int = 90
    seed: int = 7
    start: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    rates: Rates = field(default_factory=Rates)
    transactions_a_day: float = 1.5
    """Mean over cards; the rate of one card is gamma-distributed around it."""
    skew: float = 1.0
    """Exponent of the merchants' popularity, 1 / rank**skew (Zipf's law)."""
    favourites: int = 12
    """Merchants a card goes to most of the time."""
    loyalty: float = 0.7
    """Share of a card's transactions at its favourites."""


_DEFAULTS = Parameters()


@dataclass(frozen=True)
class Simulation:
    """Simulated rows in order of event time. Iterating makes them, and can be repeated."""

    parameters: Parameters
    traffic: Traffic = field(repr=False)
    channel: Integers = field(repr=False)
    """Shape (merchants,), as the next two: each merchant's place in CHANNELS, COUNTRIES, CATEGORIES."""
    country: Integers = field(repr=False)
    category: Integers = field(repr=False)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.traffic)

    def __iter__(self) -> Iterator[Row]:
        """Make the rows."""
        columns = (column.tolist() for column in self.traffic.columns())
        for number, values in enumerate(zip(*columns, strict=True)):
            yield self._row(number, values)

    def _row(self, number: int, values: tuple[int, ...]) -> Row:
        card, merchant, second, amount, pattern = values
        transaction = Transaction(
            transaction_id=f"t{number:08}",
            card_id=f"c{card:06}",
            merchant_id=f"m{merchant:06}",
            event_time=datetime.fromtimestamp(second, UTC),
            amount=amount,
            currency="EUR",
            channel=CHANNELS[self.channel[merchant]],
            country=COUNTRIES[self.country[merchant]],
            mcc=CATEGORIES[self.category[merchant]],
        )
        return Row(transaction, is_fraud=pattern > 0, pattern=_PATTERNS[pattern])


def simulate(parameters: Parameters) -> Simulation:
    """Make cards, merchants and their transactions, then let the frauds happen."""
    p = parameters
    rng = np.random.Generator(np.random.PCG64(p.seed))
    popularity = _popularity(p, rng)
    channel = (rng.random(p.merchants) < 0.35).astype(np.int64)  # noqa: PLR2004 - a third of merchants is online
    channel[rng.integers(p.merchants)] = 1  # at least one is
    country = rng.choice(len(COUNTRIES), p.merchants, p=(0.5, 0.12, 0.1, 0.08, 0.08, 0.06, 0.06))
    category = rng.integers(len(CATEGORIES), size=p.merchants)
    first_second = int(p.start.timestamp())
    world = World(
        cards=p.cards,
        quiet_merchants=np.argsort(-popularity, kind="stable")[p.merchants // _BUSY_SHARE :],
        online_merchants=np.flatnonzero(channel),
        first_second=first_second,
        days=p.days,
    )
    traffic = add_frauds(_genuine(p, popularity, first_second, rng), world, p.rates, rng)
    return Simulation(p, traffic, channel, country, category)


def _popularity(p: Parameters, rng: np.random.Generator) -> Numbers:
    """Each merchant's share of the traffic, shape (merchants,)."""
    weight: Numbers = 1 / rng.permutation(np.arange(1, p.merchants + 1)) ** p.skew
    share: Numbers = weight / weight.sum()
    return share


def _genuine(
    p: Parameters,
    popularity: Numbers,
    first_second: int,
    rng: np.random.Generator,
) -> Traffic:
    """Everyone's honest payments, card by card."""
    rate = rng.gamma(2.0, p.transactions_a_day / 2, p.cards)
    mean = np.clip(rng.lognormal(np.log(28), 0.6, p.cards), 4, 90)  # currency units
    variation = rng.uniform(0.25, 0.7, p.cards)  # standard deviation / mean
    card = np.repeat(np.arange(p.cards), rng.poisson(rate * p.days))
    n = len(card)
    shape = 1 / variation[card] ** 2
    amount = rng.gamma(shape, mean[card] / shape)
    favourite = rng.choice(p.merchants, (p.cards, p.favourites), p=popularity)
    merchant = np.where(
        rng.random(n) < p.loyalty,
        favourite[card, rng.integers(p.favourites, size=n)],
        rng.choice(p.merchants, n, p=popularity),
    )
    time_of_day = rng.normal(14 * 3_600, 4.5 * 3_600, n).astype(np.int64) % DAY  # around two in the afternoon
    return Traffic(
        card=card,
        merchant=merchant,
        second=first_second + rng.integers(p.days, size=n) * DAY + time_of_day,
        amount=np.maximum(1, np.rint(amount * 100)).astype(np.int64),
        pattern=np.zeros(n, np.int64),
    )


def main(
    out: Annotated[Path, typer.Option(help="File to write: .parquet or .csv.")] = Path("var/transactions.parquet"),
    cards: Annotated[int, typer.Option(min=1, help="How many cards.")] = _DEFAULTS.cards,
    merchants: Annotated[int, typer.Option(min=1, help="How many merchants.")] = _DEFAULTS.merchants,
    days: Annotated[int, typer.Option(min=1, help="How many days, from 2026-01-01.")] = _DEFAULTS.days,
    seed: Annotated[int, typer.Option(help="Equal seeds make equal transactions.")] = _DEFAULTS.seed,
) -> None:
    """Simulate card transactions with labelled frauds, and write them in order of event time."""
    simulation = simulate(Parameters(cards=cards, merchants=merchants, days=days, seed=seed))
    write_table(out, simulation)
    frauds = int(np.count_nonzero(simulation.traffic.pattern))
    typer.echo(f"{out}: {len(simulation):,} transactions, {frauds:,} of them fraud ({frauds / len(simulation):.2%})")


if __name__ == "__main__":
    typer.run(main)
