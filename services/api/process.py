"""The composition root of the HTTP door."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial

from services.api.app import create_app
from services.api.decisions import Decisions
from services.api.labels import Labels, LabelSender
from services.metrics import Metrics
from services.process import Process
from services.resources import closed_problem, oldest_accepted, open_deciding, utc_now
from services.settings import Settings


@contextlib.asynccontextmanager
async def open_api(settings: Settings) -> AsyncIterator[Process]:
    """Compose the process."""
    metrics = Metrics()
    async with open_deciding(settings, metrics) as deciding, contextlib.aclosing(LabelSender(settings)) as sender:
        app = create_app(
            Decisions(deciding.decide, deciding.store, metrics, utc_now, partial(oldest_accepted, settings)),
            Labels(sender, metrics, utc_now),
            metrics,
            partial(closed_problem, deciding.gates),
        )
        yield Process(app, settings.api_host, settings.api_port)
