"""Clients of a cluster that has no scripts yet, and a node that is cut off."""

import contextlib

import pytest
from contract.cluster_client.calls import COUNT, FORSAKEN, LONG
from redis.asyncio import Redis

from feature_store.redis_client import connect
from feature_store.scripts import Script


@pytest.fixture
async def cluster(cluster):
    """Without scripts, too."""
    for node in cluster.nodes:
        async with Redis.from_url(node.url) as direct:
            await direct.script_flush()
            await direct.config_resetstat()
    return cluster


@pytest.fixture
async def opened(cluster):
    """Opens clients, and closes them after the test."""
    async with contextlib.AsyncExitStack() as stack:

        def open_client(timeout):
            client = connect(cluster.url, timeout=timeout, cluster=True)
            stack.push_async_callback(client.aclose)
            return client

        yield open_client


@pytest.fixture
def client(opened):
    return opened(LONG)


@pytest.fixture
async def count(client):
    """A script that counts its runs, which every node has."""
    return Script(COUNT, await client.script_load(COUNT))


@pytest.fixture
def forsaken(eventually):
    """A node that finds the cluster down, as one does that was cut off: it knows of no home for one of the slots."""

    @contextlib.asynccontextmanager
    async def made(node):
        async with Redis.from_url(node.url) as direct:

            async def is_down():
                return (await direct.cluster("INFO"))["cluster_state"] == "fail"

            await direct.cluster("DELSLOTS", FORSAKEN)
            try:
                await eventually(is_down)
                yield
            finally:
                await direct.cluster("ADDSLOTS", FORSAKEN)

    return made
