"""The yardstick: a FastAPI endpoint that does nothing, on the server that serves decisions.

What a decision costs is told as a ratio to it, so that a figure means the same on another machine.
"""

import asyncio
from typing import Annotated

import typer
import uvloop
from fastapi import FastAPI

from services.process import Process, serve

app = FastAPI()


@app.post("/")
async def nothing() -> dict[str, str]:
    """Answer without having read anything."""
    return {"action": "approve"}


def main(port: Annotated[int, typer.Argument(help="where to listen, on loopback")]) -> None:
    """Serve it until SIGTERM."""
    uvloop.run(serve(Process(app, "127.0.0.1", port, _until_stopped)))


async def _until_stopped(stop: asyncio.Event) -> None:
    await stop.wait()


if __name__ == "__main__":
    typer.run(main)
