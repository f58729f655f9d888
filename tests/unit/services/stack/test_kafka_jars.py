from pathlib import Path

import pytest

from services.stack.errors import StackError
from services.stack.kafka_jars import available, default_cache_dir, download


@pytest.fixture
def put_on_path(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def put(name, script):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)

    return put


def test_it_cannot_run_without_java(put_on_path, tmp_path):
    assert available(tmp_path) == "there is no java on PATH"


@pytest.mark.parametrize(("version", "major"), [("1.8.0_402", 8), ("11.0.22", 11)])
def test_it_cannot_run_on_a_java_that_is_too_old(put_on_path, tmp_path, version, major):
    put_on_path("java", f"echo 'openjdk version \"{version}\" 2024-01-16' >&2")
    assert available(tmp_path) == f"java is version {major}, Apache Kafka 4.1.1 needs 17"


def test_a_java_that_is_only_a_stub_counts_as_none(put_on_path, tmp_path):
    put_on_path("java", "echo 'Unable to locate a Java Runtime.' >&2; exit 1")
    assert available(tmp_path) == "there is no java on PATH"


@pytest.mark.parametrize("version", ["17.0.15", "21", "25-ea"])
def test_it_runs_on_java_17_or_newer_without_maven(put_on_path, tmp_path, version):
    put_on_path("java", f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")
    assert available(tmp_path) is None


def test_it_cannot_run_without_maven_while_the_jars_are_not_there(put_on_path, tmp_path):
    put_on_path("java", "echo 'openjdk version \"21\"' >&2")
    assert available(tmp_path / "absent") == "there is no mvn (Maven) on PATH to download it with"


def test_it_can_run_with_maven_to_download_it(put_on_path, tmp_path):
    put_on_path("java", "echo 'openjdk version \"21\"' >&2")
    put_on_path("mvn", "")
    assert available(tmp_path / "absent") is None


async def test_a_failed_download_quotes_maven_and_leaves_nothing(put_on_path, tmp_path):
    put_on_path("mvn", "echo '[ERROR] Could not transfer artifact'; exit 1")
    with pytest.raises(StackError, match=r"FRAUD_BROKER=librdkafka[^$]*Could not transfer artifact"):
        await download(tmp_path / "cache" / "kafka")
    assert list((tmp_path / "cache").iterdir()) == []


async def test_a_download_appears_under_its_name_only_when_complete(put_on_path, tmp_path, capsys):
    take_directory = 'for a; do case "$a" in -DoutputDirectory=*) d="${a#*=}";; esac; done'
    put_on_path("mvn", f"{take_directory}; PATH=/bin:/usr/bin; mkdir $d && echo jar > $d/kafka.jar")
    jars = await download(tmp_path / "cache" / "kafka")
    assert [jar.name for jar in jars.iterdir()] == ["kafka.jar"]
    assert list((tmp_path / "cache").iterdir()) == [jars]
    assert "43 MB, once" in capsys.readouterr().err


async def test_what_is_there_is_not_downloaded_again(put_on_path, tmp_path, capsys):
    put_on_path("mvn", "exit 1")
    assert await download(tmp_path) == tmp_path
    assert capsys.readouterr().err == ""


def test_the_jars_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "realtime-fraud-detection" / "kafka-4.1.1"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir().is_relative_to(Path.home() / ".cache")
