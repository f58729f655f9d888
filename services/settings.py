"""Everything that can be set, in one place: built once in `main()` and handed down."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of every process; each is the environment variable of its name with the prefix `FRAUD_`."""

    model_config = SettingsConfigDict(env_prefix="FRAUD_", frozen=True)

    kafka_bootstrap: str = Field("127.0.0.1:9092", description="host:port of a Kafka broker")
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis, or any node of the cluster")
    redis_cluster: bool = Field(
        default=False, description="Redis is a cluster (`fraud up` then starts one of three masters)"
    )
    partitions: PositiveInt = Field(
        12, description="P: partitions of every topic, and Redis hash tags. Fixed once the topics are made"
    )
    model_dir: Path = Field(
        Path(__file__).parents[1] / "model" / "shipped",
        description="directory with model.onnx and manifest.json",
    )

    api_host: str = Field("127.0.0.1", description="address the HTTP door listens on")
    api_port: int = Field(8000, ge=0, le=65535, description="port of the HTTP door, its /health and /metrics")
    ops_host: str = Field("127.0.0.1", description="address of /health and /metrics of the other processes")
    ops_port: int = Field(8001, ge=0, le=65535, description="port of /health and /metrics of this process")

    redis_timeout_seconds: PositiveFloat = Field(
        0.08, description="longest wait for one round trip to Redis on the way of a transaction; there is no retry"
    )
    redis_patience_seconds: float = Field(
        5.0, ge=1.0, description="longest wait for one Redis reply where no caller waits: worker, relay, updater"
    )
    kafka_timeout_seconds: PositiveFloat = Field(
        10.0,
        description="longest wait for a broker's acknowledgement before the process gives up and restarts",
    )
    kafka_fetch_wait_ms: PositiveInt = Field(
        100, description="longest a broker holds back the answer to a reader while there is nothing new"
    )
    decided_days: PositiveInt = Field(
        7, description="how long a decision is kept under its id: the horizon of 'decided once'"
    )
    oldest_event_days: float = Field(
        0.0,
        ge=0.0,
        description="doors refuse transactions older than this; 0: no limit, so that old data replays",
    )
    log_level: str = Field("INFO", description="level of the log on standard error")

    data_dir: Path = Field(Path("var"), description="where `fraud up` keeps Redis, the log and its processes' logs")
    broker: Literal["auto", "apache", "librdkafka"] = Field(
        "auto", description="what `fraud up` starts as a Kafka broker; auto: see services.stack.broker"
    )
