"""What every process answers beside its work: /health for whoever restarts it, /metrics for Prometheus."""

from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.metrics import Metrics

HealthCheck = Callable[[], Awaitable[str | None]]
"""Gives None while the process can do its work, else the reason why not."""


def ops_routes(metrics: Metrics, check: HealthCheck) -> list[Route]:
    """Make the two routes."""

    async def health(_: Request) -> Response:
        problem = await check()
        if problem is None:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "unavailable", "reason": problem}, status_code=503)

    async def prometheus(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return [Route("/health", health), Route("/metrics", prometheus)]
