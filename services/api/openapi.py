"""The OpenAPI document of the doors, with the schemas of our own types: the framework shows it under /docs."""

from typing import Any

import msgspec

from feature_store.transaction import Label, Transaction
from services.api.labels import LabelAccepted
from services.api.problems import ProblemDocument
from services.decision.record import Answer

_TYPES = (Transaction, Answer, Label, LabelAccepted, ProblemDocument)
_REF = "#/components/schemas/{name}"


def paths() -> dict[str, Any]:
    """Describe the doors."""
    look_up = {"parameters": [_in_path("card_id"), _in_path("transaction_id")]}
    return {
        "/v1/decisions": {
            "post": {
                "summary": "Decide a transaction, once",
                **_body(Transaction),
                "responses": _responses({200: Answer}, 409, 413, 422, 503),
            }
        },
        "/v1/decisions/{card_id}/{transaction_id}": {
            "get": {"summary": "Look a decision up", **look_up, "responses": _responses({200: Answer}, 404, 422, 503)}
        },
        "/v1/labels": {
            "post": {
                "summary": "Report a chargeback",
                **_body(Label),
                "responses": _responses({202: LabelAccepted}, 413, 422, 503),
            }
        },
    }


def schemas() -> dict[str, Any]:
    """Give the schemas that the paths name."""
    _, components = msgspec.json.schema_components(_TYPES, ref_template=_REF)
    return components


def _schema(kind: type) -> dict[str, Any]:
    return {"schema": {"$ref": _REF.format(name=kind.__name__)}}


def _body(kind: type) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": _schema(kind)}}}


def _responses(answers: dict[int, type], *problems: int) -> dict[str, Any]:
    problem = {"application/problem+json": _schema(ProblemDocument)}
    good = {
        str(code): {"description": "OK", "content": {"application/json": _schema(kind)}}
        for code, kind in answers.items()
    }
    return good | {str(code): {"description": "Problem", "content": problem} for code in problems}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
