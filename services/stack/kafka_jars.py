"""Whether Apache Kafka can run here, and its jars: no index for Python has it, but Maven Central does."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from typer import echo

from services.stack.child import Command, kill_group, spawn
from services.stack.errors import StackError

VERSION = "4.1.1"
_OLDEST_JAVA = 17
_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>fraud</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.1</version>
    </dependency>
  </dependencies>
</project>
"""


def default_cache_dir() -> Path:
    """Where the jars are kept, under XDG_CACHE_HOME."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "realtime-fraud-detection" / f"kafka-{VERSION}"


def available(cache_dir: Path | None = None) -> str | None:
    """None where Apache Kafka can run, else the reason why it cannot."""
    java = _java_version()
    if java is None:
        return "there is no java on PATH"
    if java < _OLDEST_JAVA:
        return f"java is version {java}, Apache Kafka {VERSION} needs {_OLDEST_JAVA}"
    if not (cache_dir or default_cache_dir()).exists() and shutil.which("mvn") is None:
        return "there is no mvn (Maven) on PATH to download it with"
    return None


async def download(cache_dir: Path | None = None) -> Path:
    """Download the jars unless they are there; gives their directory.

    Raises:
        StackError: Maven failed; quotes its output.
    """
    jars = cache_dir or default_cache_dir()
    if jars.exists():
        return jars
    echo(f"downloading Apache Kafka {VERSION} to {jars} (43 MB, once)", err=True)
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix="download-") as temporary:
        complete = await _copy_dependencies(Path(temporary))
        try:
            complete.rename(jars)
        except OSError:
            if not jars.exists():  # else another process was faster
                raise
    return jars


async def _copy_dependencies(directory: Path) -> Path:
    pom, jars = directory / "pom.xml", directory / "jars"
    pom.write_text(_POM)
    maven = Command(
        "mvn",
        (
            *("mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies"),
            *("-DincludeScope=runtime", f"-DoutputDirectory={jars}"),
        ),
        directory / "mvn.log",
    )
    process = await spawn(maven)
    try:
        failed = await process.wait()
    finally:
        kill_group(process)
    if failed or not jars.exists():
        raise StackError(
            f"Maven could not download Apache Kafka {VERSION}; FRAUD_BROKER=librdkafka runs without it."
            f" Maven says:\n{maven.log_tail()}"
        )
    return jars


def _java_version() -> int | None:
    """Major version of the java on PATH; None without one that runs (macOS has a stub that does not)."""
    if (java := shutil.which("java")) is None:
        return None
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603  # java as found on PATH
    version = re.search(r'version "(?:1\.)?(\d+)', said.stderr)  # Java 8 says 1.8
    return int(version[1]) if version and said.returncode == 0 else None
