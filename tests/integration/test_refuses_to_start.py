"""A process that cannot do its work says why and ends; it never serves something else instead."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHIPPED = Path(__file__).parents[2] / "model" / "shipped"


def fraud(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("process", ["api", "worker"])
def test_a_corrupt_model_is_refused_with_the_reason(process, tmp_path):
    shutil.copytree(SHIPPED, tmp_path / "model")
    model = tmp_path / "model" / "model.onnx"
    damaged = bytearray(model.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    model.write_bytes(damaged)
    ended = fraud(process, FRAUD_MODEL_DIR=str(tmp_path / "model"))
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: model refused: model.onnx is not the file its manifest names")


def test_a_setting_that_cannot_be_meant_is_refused_by_its_name():
    ended = fraud("api", FRAUD_PARTITIONS="none")
    assert ended.returncode == 2
    assert "FRAUD_PARTITIONS" in ended.stderr


@pytest.mark.parametrize("command", ["up", "api", "worker", "relay", "updater", "topics", "replay", "schemas"])
def test_every_command_explains_itself(command):
    ended = fraud(command, "--help")
    assert ended.returncode == 0
    assert len(ended.stdout.splitlines()) > 5


def test_a_topic_with_another_number_of_partitions_is_refused(broker):
    ended = fraud("topics", FRAUD_KAFKA_BOOTSTRAP=broker.bootstrap, FRAUD_PARTITIONS="99")
    if broker.choice.name == "librdkafka":
        pytest.skip("librdkafka's broker has no admin requests")
    assert ended.returncode == 1
    assert "FRAUD_PARTITIONS is 99" in ended.stderr
