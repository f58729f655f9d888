"""The load run: Locust users that share one schedule, so that together they are an open loop.

Run it with `make load`, or with other numbers:
`locust -f loadtest/locustfile.py --headless -u 64 -r 64 --host http://127.0.0.1:8000 --rate 200 --seconds 30`
"""

import json
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import gevent
import gevent.event
from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.exception import StopUser

from loadtest.machine import describe_machine
from loadtest.schedule import Schedule
from loadtest.transactions import live_transactions
from loadtest.verdict import Samples, judge

GRACE_SECONDS = 5.0
"""How long after the last scheduled request answers may still come."""
WARM_UP_SECONDS = 1.0


class Run:
    """One load run: the schedule, what came of it, and who is still at it."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.schedule: Schedule | None = None
        self.samples = Samples()
        self.bodies = live_transactions(options.seed)
        self.spawned = gevent.event.Event()

    def begin(self) -> None:
        """Fix the times of all requests, now that every user is there."""
        self.schedule = Schedule(
            rate=self.options.rate, seconds=self.options.seconds, start=time.perf_counter() + WARM_UP_SECONDS
        )
        self.spawned.set()


def _run(environment: Environment) -> Run:
    run: Run = vars(environment)["run"]
    return run


class Caller(FastHttpUser):
    """Takes the next time that is due, waits for it if it is early, and posts a transaction."""

    network_timeout = GRACE_SECONDS
    connection_timeout = GRACE_SECONDS

    @task
    def decide(self) -> None:
        """Post one transaction; count its time from when it was due."""
        run = _run(self.environment)
        run.spawned.wait()
        due = run.schedule.take() if run.schedule else None
        if due is None:
            raise StopUser
        gevent.sleep(max(0.0, due - time.perf_counter()))
        body = next(run.bodies)
        with self.client.post(
            "/v1/decisions", data=body.decode(), headers={"Content-Type": "application/json"}, catch_response=True
        ) as response:
            if response.status_code == 200:  # noqa: PLR2004 - HTTP's own number
                run.samples.seconds.append(time.perf_counter() - due)
            else:
                run.samples.failures += 1
                response.failure(f"status {response.status_code}")


@events.init_command_line_parser.add_listener
def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=100.0, help="transactions a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long")
    parser.add_argument("--budget-ms", type=float, default=200.0, help="from intended start to answer")
    parser.add_argument("--allowed", type=float, default=0.01, help="share that may be late, failed or not sent")
    parser.add_argument("--seed", type=int, default=7, help="of the simulated transactions")
    parser.add_argument("--result", type=Path, default=None, help="also write the verdict here, as JSON")


@events.init.add_listener
def _prepare(environment: Environment, **_: Any) -> None:
    vars(environment)["run"] = Run(environment.parsed_options)


@events.test_start.add_listener
def _watch(environment: Environment, **_: Any) -> None:
    gevent.spawn(_conduct, environment)


def _conduct(environment: Environment) -> None:
    """Begin when all users are there, end when the time is over."""
    run = _run(environment)
    runner = environment.runner
    assert runner is not None  # noqa: S101 - a test has started
    while runner.user_count < run.options.num_users:
        gevent.sleep(0.05)
    run.begin()
    deadline = time.perf_counter() + WARM_UP_SECONDS + run.options.seconds + GRACE_SECONDS
    while time.perf_counter() < deadline and runner.user_count:
        gevent.sleep(0.1)
    runner.quit()


@events.quitting.add_listener
def _judge(environment: Environment, **_: Any) -> None:
    run = _run(environment)
    total = run.schedule.total if run.schedule else 0
    verdict = judge(run.samples, scheduled=total, budget_ms=run.options.budget_ms, allowed=run.options.allowed)
    print(verdict)  # noqa: T201 - what the command is for
    if run.options.result:
        load = {"rate": run.options.rate, "seconds": run.options.seconds, "seed": run.options.seed}
        result = {"load": load, "verdict": verdict.as_json(), "machine": describe_machine()}
        run.options.result.parent.mkdir(parents=True, exist_ok=True)
        run.options.result.write_text(json.dumps(result, indent=2) + "\n")
    environment.process_exit_code = 0 if verdict.passed else 1
