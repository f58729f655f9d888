"""The application: a framework that routes and documents, and in front of it the one request that has a budget."""

from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.api.decisions import Decisions
from services.api.labels import Labels
from services.api.openapi import paths, schemas
from services.api.problems import from_http_exception
from services.metrics import Metrics
from services.ops import HealthCheck, ops_routes

DECISIONS = "/v1/decisions"


class Front:
    """Hands a decision to its endpoint at once, and everything else to the framework."""

    def __init__(self, decide: ASGIApp, others: ASGIApp) -> None:
        self._decide = decide
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        budgeted = scope["type"] == "http" and scope["path"] == DECISIONS and scope["method"] == "POST"
        await (self._decide if budgeted else self._others)(scope, receive, send)


def create_app(decisions: Decisions, labels: Labels, metrics: Metrics, check: HealthCheck) -> Front:
    """Put the application together."""
    app = FastAPI(title="Real-time fraud detection", version="1")
    app.add_exception_handler(HTTPException, from_http_exception)
    app.router.routes.extend(
        [
            Route(DECISIONS, decisions.post, methods=["POST"]),  # reached by nothing: it makes other methods a 405
            Route(DECISIONS + "/{card_id}/{transaction_id}", decisions.get, methods=["GET"]),
            Route("/v1/labels", labels.post, methods=["POST"]),
            *ops_routes(metrics, check),
        ]
    )

    def openapi() -> dict[str, Any]:
        document = {"openapi": "3.1.0", "info": {"title": app.title, "version": app.version}, "paths": paths()}
        return document | {"components": {"schemas": schemas()}}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return Front(decisions.post, app)
