"""The application: routes to handlers, and the OpenAPI document that describes them.

The handlers take the raw request: msgspec reads the body straight into a transaction, and the decision goes out as the
bytes that were stored. A pydantic model on the way would cost more than the rest of the request.
"""

from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from feature_store.transaction import Label, Transaction
from services.api.decisions import Decisions
from services.api.labels import LabelAccepted, Labels
from services.api.problems import ProblemDocument, from_failure, from_http_exception
from services.decision.record import Answer
from services.metrics import Metrics
from services.ops import HealthCheck, ops_routes

_TYPES = (Transaction, Answer, Label, LabelAccepted, ProblemDocument)
_REF = "#/components/schemas/{name}"


def create_app(decisions: Decisions, labels: Labels, metrics: Metrics, check: HealthCheck) -> FastAPI:
    """Put the application together."""
    app = FastAPI(
        title="Real-time fraud detection",
        version="1",
        exception_handlers={HTTPException: from_http_exception, Exception: from_failure},
    )
    app.add_api_route(
        "/v1/decisions",
        decisions.post,
        methods=["POST"],
        summary="Decide a transaction, once",
        openapi_extra=_body(Transaction),
        responses=_responses({200: Answer}, 409, 413, 422, 503),
    )
    app.add_api_route(
        "/v1/decisions/{card_id}/{transaction_id}",
        decisions.get,
        methods=["GET"],
        summary="Look a decision up",
        openapi_extra={"parameters": [_in_path("card_id"), _in_path("transaction_id")]},
        responses=_responses({200: Answer}, 404, 422, 503),
    )
    app.add_api_route(
        "/v1/labels",
        labels.post,
        methods=["POST"],
        status_code=202,
        summary="Report a chargeback",
        openapi_extra=_body(Label),
        responses=_responses({202: LabelAccepted}, 413, 422, 503),
    )
    app.router.routes.extend(ops_routes(metrics, check))
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """Give the OpenAPI document, with the schemas of our own types."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        _, schemas = msgspec.json.schema_components(_TYPES, ref_template=_REF)
        document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
        app.openapi_schema = document
    return app.openapi_schema


def _schema(kind: type) -> dict[str, Any]:
    return {"schema": {"$ref": _REF.format(name=kind.__name__)}}


def _body(kind: type) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": _schema(kind)}}}


def _responses(answers: dict[int, type], *problems: int) -> dict[int | str, dict[str, Any]]:
    problem = {"application/problem+json": _schema(ProblemDocument)}
    good: dict[int | str, dict[str, Any]] = {
        code: {"description": "OK", "content": {"application/json": _schema(kind)}} for code, kind in answers.items()
    }
    return good | {code: {"description": "Problem", "content": problem} for code in problems}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
