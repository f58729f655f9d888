"""Errors as RFC 9457 problem documents. They name the field and the rule, and never repeat what was sent."""

from collections.abc import Sequence

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from services.api.reply import Reply


class FieldError(msgspec.Struct, frozen=True):
    """Which field broke which rule."""

    field: str
    message: str


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457, section 3, with `errors` as the extension that names fields."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()


def problem(
    status: int,
    kind: str,
    title: str,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    retry_after: int | None = None,
) -> Reply:
    """Make the reply."""
    document = ProblemDocument(
        type=f"urn:fraud:problem:{kind}", title=title, status=status, detail=detail, errors=tuple(errors)
    )
    headers = ((b"retry-after", b"%d" % retry_after),) if retry_after is not None else ()
    return Reply(status, msgspec.json.encode(document), b"application/problem+json", headers)


def invalid(field: str, message: str) -> Reply:
    """422: a field breaks its rule."""
    errors = [FieldError(field, message)]
    return problem(422, "invalid", "The request is not valid", f"{field} {message}", errors=errors)


def too_large(most: int) -> Reply:
    """413: the body is longer than anything valid."""
    errors = [FieldError("body", f"is longer than {most} bytes")]
    return problem(413, "too-large", "The request is too large", f"body is longer than {most} bytes", errors=errors)


def conflict() -> Reply:
    """409: same id, other body."""
    detail = "transaction_id was decided before with another body"
    errors = [FieldError("transaction_id", "was decided before with another body")]
    return problem(409, "conflict", "The transaction was decided with another body", detail, errors=errors)


def unavailable(what: str) -> Reply:
    """503: nothing is known to have happened; the same request again is safe."""
    detail = f"{what}; sending the same request again is safe"
    return problem(503, "unavailable", "Not available now", detail, retry_after=1)


def not_found() -> Reply:
    """404: no such decision (any more)."""
    return problem(404, "not-found", "Not found", "no decision is stored under this card_id and transaction_id")


def internal() -> Reply:
    """500: what nobody foresaw; the log has it."""
    return problem(500, "internal", "Internal error", "the request failed for a reason of our own")


async def from_http_exception(_: Request, error: Exception) -> Response:
    """Turn the framework's own errors (no such path, wrong method) into problem documents."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type only
    reply = problem(error.status_code, "http", error.detail, error.detail)
    return Response(reply.body, reply.status, error.headers, media_type=reply.content_type.decode())
