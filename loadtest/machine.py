"""What a number was measured on. Stands beside every result, for a number without it is worth nothing."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("fastapi", "locust", "onnxruntime", "redis", "uvicorn")


def describe_machine() -> dict[str, str]:
    """Give processor, cores, system and the versions that shape a load result."""
    cores = os.cpu_count() or 0
    return {
        "processor": f"{_processor()}, {cores} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def _processor() -> str:
    """The processor's name, which only Linux keeps where everyone can read it; else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
