"""What comes in: a transaction to decide, and the label (chargeback) that may follow it days later.

Both doors, the log and the training data use these two types, so a rule about a field stands here once.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import msgspec

from feature_store.card_number import contains_card_number
from feature_store.currency import EXPONENT
from feature_store.rates import RATES, cents

MAX_AMOUNT = 10**10
"""Largest amount in minor units."""
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far ahead of our clock an event may be. A later one would push the card's real history out of its windows."""

# Python's `$` also matches before a final newline, hence `(?!\n)`.
Token = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:-]+(?!\n)$")]
"""An identifier that stands for the thing itself; never a card number."""
Instant = Annotated[datetime, msgspec.Meta(tz=True)]


NOT_KNOWN = "is not a known field"
"""The rule that an unknown field breaks. What it holds may be anything, a security code for instance."""


class InvalidError(ValueError):
    """Input that breaks a rule. `field` names the place, `message` the rule; neither repeats the value."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What a transaction and its label share: which transaction, whose, where, when."""

    transaction_id: Token
    card_id: Token
    merchant_id: Token
    event_time: Instant

    @property
    def second(self) -> int:
        """Event time in whole seconds since 1970, UTC: the only time that features know."""
        return int(self.event_time.timestamp())


class Transaction(Event, frozen=True, kw_only=True, omit_defaults=True):
    """A card payment to decide. `amount` is in minor units of `currency`, the cardholder's billing currency."""

    amount: Annotated[int, msgspec.Meta(ge=0, le=MAX_AMOUNT)]
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}(?!\n)$")]
    channel: Literal["pos", "ecommerce", "atm", "moto"] | None = None
    country: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}(?!\n)$")] | None = None
    mcc: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}(?!\n)$")] | None = None
    device_id: Token | None = None

    @property
    def cents(self) -> int:
        """The amount in euro cents at the reference rate: what features count and compare."""
        return cents(self.amount, self.currency)


class Label(Event, frozen=True, kw_only=True):
    """What became known of a transaction: a chargeback says fraud. `event_time` is the transaction's own."""

    is_fraud: bool


class _SubmittedTransaction(Transaction, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A transaction at a door, where a misspelt field must not pass. Readers of the log let newer fields pass."""


class _SubmittedLabel(Label, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A label at a door."""


_AnyEvent = TypeVar("_AnyEvent", bound=Event)


def parse(kind: type[_AnyEvent], raw: bytes, *, now: datetime, oldest: datetime = EARLIEST) -> _AnyEvent:
    """Read `raw` JSON as a `kind`, its time in UTC.

    Args:
        kind: `Transaction` or `Label`.
        raw: the JSON.
        now: the clock.
        oldest: what happened before is refused.

    Raises:
        InvalidError: the JSON is malformed, a field breaks its rule, or something looks like a card number.
    """
    try:
        event: _AnyEvent = _DECODERS[kind].decode(raw)
    except msgspec.ValidationError as error:
        raise _named(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidError("body", "is not well-formed JSON in UTF-8") from None
    for name in _IDENTIFIERS[kind]:
        if contains_card_number(getattr(event, name) or ""):
            raise InvalidError(name, "looks like a card number; send a token that stands for the card")
    if isinstance(event, Transaction) and event.currency not in RATES:
        known = event.currency in EXPONENT
        raise InvalidError("currency", "has no reference rate" if known else "is not an ISO 4217 currency code")
    if event.event_time < oldest:
        raise InvalidError("event_time", f"is before {oldest.isoformat(timespec='seconds')}, the oldest accepted here")
    if event.event_time > now + CLOCK_TOLERANCE:
        raise InvalidError("event_time", f"is more than {CLOCK_TOLERANCE} ahead of the clock")
    return kind(**msgspec.structs.asdict(event) | {"event_time": event.event_time.astimezone(UTC)})


def _identifiers(kind: type[Event]) -> tuple[str, ...]:
    """Name the fields that hold identifiers, required or not: no other has room for a card number."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(name for name, hint in hints.items() if Token in (hint, *get_args(hint)))


_IDENTIFIERS: dict[type[Event], tuple[str, ...]] = {kind: _identifiers(kind) for kind in (Transaction, Label)}
_DECODERS: dict[type[Event], msgspec.json.Decoder[Any]] = {
    Transaction: msgspec.json.Decoder(_SubmittedTransaction),
    Label: msgspec.json.Decoder(_SubmittedLabel),
}
_PLACE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"missing required field `(?P<field>\w+)`")
_UNKNOWN = re.compile(r"contains unknown field `(?P<field>[\w.-]{1,64})`")


def _named(message: str) -> InvalidError:
    """Turn msgspec's message into the field's name and the rule it broke, without the sender's values."""
    if missing := _MISSING.search(message):
        return InvalidError(missing["field"], "is required")
    if "unknown field" in message:
        unknown = _UNKNOWN.search(message)
        nameable = unknown is not None and not contains_card_number(unknown["field"])
        return InvalidError(unknown["field"] if unknown and nameable else "body", NOT_KNOWN)
    place = _PLACE.search(message)
    field = (place["path"] if place else "") or "body"
    rule = _PLACE.sub("", message).replace("Expected", "must be")
    if rule.startswith("Invalid enum value"):
        rule = "is not one of the documented values"
    return InvalidError(field, rule.replace("Invalid RFC3339 encoded datetime", "must be an RFC 3339 date and time"))
