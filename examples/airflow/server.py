"""A whole Airflow on loopback, for a demo or a test: API server, scheduler, DAG processor and triggerer, on a SQLite file in one folder.

Rules:
- It runs in Airflow's own virtual environment, as processes; this module imports nothing of it.
- Ports are free ones, the password is made up at each start; every process that was started is stopped by `stop`.
- Only the REST API is used to speak to it, with a token, as a user would.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from pipeline.format.errors import StalledError
from pipeline.stack.ports import LOOPBACK, free_ports
from pipeline.stack.processes import Program, Running, kill, stop

REPOSITORY = Path(__file__).parents[2]
AIRFLOW_BIN = REPOSITORY / ".venv-airflow" / "bin"
BIN = REPOSITORY / ".venv" / "bin"
DAGS = REPOSITORY / "dags" / "definitions"
MIGRATE_S_MAX = 120.0
ANSWER_S_MAX = 30.0  # two cores start four Python processes at once
KNOWN_S_MAX = 120.0  # until the DAG processor has read the folder for the first time
LOCKED_S_MAX = 25.0  # SQLite has one writer at a time: after Python's 5 s the API answers 500 while the DAG processor writes
LOOK_S = 0.5
USER = "demo"


class LocalAirflow:
    """One Airflow; nothing runs before `start`. `specs` is the folder of dataset specs, `settings` the cluster's settings file."""

    def __init__(self, folder: Path, specs: Path, settings: Path, more: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self._password = secrets.token_urlsafe()
        self._running: dict[str, Running] = {}
        self._programs: dict[str, Program] = {}
        self._more = dict(more or {})
        self._specs, self._settings = specs, settings

    @property
    def url(self) -> str:
        """Where its pages and its API are."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def logs(self) -> Path:
        """The logs of its processes."""
        return self.folder / "logs"

    def environment(self, path: str) -> dict[str, str]:
        """What its processes need; `path` is the PATH of this one."""
        connection = {"conn_type": "redkv", "extra": {"settings": str(self._settings)}}
        return {
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.folder / "passwords.json"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.folder}/airflow.db?timeout={LOCKED_S_MAX:.0f}",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": self._password,
            "AIRFLOW__API_AUTH__JWT_SECRET": f"{self._password}{self._password}",
            "AIRFLOW_CONN_REDKV_DEFAULT": json.dumps(connection),
            "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[2]"}),
            "REDKV_DAG_SPECS": str(self._specs),
            "PATH": f"{AIRFLOW_BIN}:{path}:{BIN}",  # spark-submit is in BIN
            "PYSPARK_PYTHON": str(BIN / "python"),
            "NO_COLOR": "1",
            **self._more,
        }

    def start(self, path: str) -> None:
        """Make the database, and start all processes; returns when the API answers and the scheduler is at work.

        Raises:
            MemberStartError: one did not come up; those that did are stopped.
        """
        self.folder.mkdir(parents=True)
        (self.folder / "passwords.json").write_text(json.dumps({USER: self._password}), encoding="utf-8")
        environment = self.environment(path)
        migrate = [str(AIRFLOW_BIN / "airflow"), "db", "migrate"]
        subprocess.run(migrate, env=environment, check=True, capture_output=True, timeout=MIGRATE_S_MAX)
        programs = [
            self._program(environment, "api-server", "--host", LOOPBACK, "--port", str(self.port)),
            self._program(environment, "scheduler", "--skip-serve-logs"),
            self._program(environment, "dag-processor"),
            self._program(environment, "triggerer", "--skip-serve-logs"),
        ]
        self._programs = {one.name: one for one in programs}
        try:
            for one in programs:
                self._running[one.name] = one.start()
            for one in programs:
                one.await_ready(self._running[one.name])
        except BaseException:
            self.stop()
            raise

    def restart(self, name: str, number: signal.Signals) -> None:
        """End one process by a signal, start it again, and wait until it is at work."""
        program = self._programs[name]
        old = self._running[name]
        os.kill(old.pid, number)
        kill([old])
        self._running[name] = program.start()
        program.await_ready(self._running[name])

    def stop(self) -> None:
        """Stop all processes, and whatever they started."""
        stop(self._running.values())

    def api(self) -> Api:
        """Its REST API, logged in."""
        return Api(self.url, USER, self._password)

    def _program(self, environment: Mapping[str, str], name: str, *arguments: str) -> Program:
        command = [str(AIRFLOW_BIN / "airflow"), name, *arguments]
        ports = [self.port] if name == "api-server" else []
        return Program(name, command, environment, self.logs / f"{name}.log", lambda: self._is_healthy(name), ports)

    def _is_healthy(self, name: str) -> bool:
        try:
            health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=ANSWER_S_MAX)
        except httpx.TransportError:
            return False
        part = health.json().get(name.replace("-", "_"), {})
        return health.is_success and (name == "api-server" or part.get("status") == "healthy")


class Api:
    """The REST API, version 2."""

    def __init__(self, url: str, user: str, password: str) -> None:
        answer = _good(httpx.post(f"{url}/auth/token", json={"username": user, "password": password}, timeout=ANSWER_S_MAX))
        self.token = str(answer.json()["access_token"])
        headers = {"Authorization": f"Bearer {self.token}"}
        self._client = httpx.Client(base_url=f"{url}/api/v2", headers=headers, timeout=ANSWER_S_MAX)

    def await_dag(self, dag_id: str) -> None:
        """Return when the DAG is known.

        Raises:
            StalledError: it is not, in time.
        """
        deadline = time.monotonic() + KNOWN_S_MAX
        while self._client.get(f"/dags/{dag_id}").status_code == httpx.codes.NOT_FOUND:
            if time.monotonic() > deadline:
                errors = self._get("/importErrors")["import_errors"]
                raise StalledError(f"Airflow does not know the DAG {dag_id} after {KNOWN_S_MAX:.0f} s; import errors: {errors}")
            time.sleep(LOOK_S)

    def set_pool(self, name: str, slots: int) -> None:
        """Make a pool, or give it another number of slots."""
        told = {"slots": slots, "description": "loads", "include_deferred": True}
        if self._client.get(f"/pools/{name}").status_code == httpx.codes.NOT_FOUND:
            _good(self._client.post("/pools", json=told | {"name": name}))
            return
        _good(self._client.patch(f"/pools/{name}", json=told | {"pool": name}))

    def trigger(self, dag_id: str, logical_date: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run; its id."""
        body = {"logical_date": logical_date, "conf": dict(conf or {})}
        return str(_good(self._client.post(f"/dags/{dag_id}/dagRuns", json=body)).json()["dag_run_id"])

    def backfill(self, dag_id: str, begin: str, end: str, runs_max: int) -> None:
        """Start runs for the dates between two, of which so many work at a time.

        On SQLite, Airflow answers 503 and takes back what it began if somebody else wrote meanwhile: it is to be asked again.
        """
        body = {"dag_id": dag_id, "from_date": begin, "to_date": end, "max_active_runs": runs_max}
        deadline = time.monotonic() + KNOWN_S_MAX
        while (answer := self._client.post("/backfills", json=body)).status_code == httpx.codes.SERVICE_UNAVAILABLE:
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK_S)
        _good(answer)

    def await_run(self, dag_id: str, run_id: str, wait_s_max: float) -> str:
        """The state of a run when it has ended.

        Raises:
            StalledError: it has not, in time.
        """
        deadline = time.monotonic() + wait_s_max
        with self._client.stream("GET", f"/dags/{dag_id}/dagRuns/{run_id}/wait", params={"interval": LOOK_S}) as answer:
            answer.raise_for_status()
            state = ""
            for line in answer.iter_lines():
                state = json.loads(line)["state"]
                if time.monotonic() > deadline:
                    tasks = {name: one["state"] for name, one in self.tasks(dag_id, run_id).items()}
                    raise StalledError(f"run {run_id} of {dag_id} is not done after {wait_s_max:.0f} s: {tasks}")
        return str(state)

    def await_task(self, dag_id: str, run_id: str, task_id: str, state: str, wait_s_max: float) -> dict[str, Any]:
        """A task of a run, when it is in a state.

        Raises:
            StalledError: it is not, in time.
        """
        deadline = time.monotonic() + wait_s_max
        while True:
            found = self.tasks(dag_id, run_id).get(task_id, {})
            if found.get("state") == state:
                return found
            if time.monotonic() > deadline:
                raise StalledError(f"task {task_id} of {dag_id} is {found.get('state')}, not {state}, after {wait_s_max:.0f} s")
            time.sleep(LOOK_S)

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear one task of a run, and those after it."""
        body = {"dag_run_id": run_id, "task_ids": [task_id], "include_downstream": True, "dry_run": False, "only_failed": False}
        _good(self._client.post(f"/dags/{dag_id}/clearTaskInstances", json=body))

    def mark_failed(self, dag_id: str, run_id: str) -> None:
        """End a run as failed, with whatever it does."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}"
        _good(self._client.patch(path, params={"update_mask": "state"}, json={"state": "failed"}))

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """A run as the API tells it."""
        return self._get(f"/dags/{dag_id}/dagRuns/{run_id}")

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """All runs of a DAG."""
        return list(self._get(f"/dags/{dag_id}/dagRuns")["dag_runs"])

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """The tasks of a run, by name."""
        found = self._get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {one["task_id"]: one for one in found}

    def links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str | None]:
        """Where the buttons of a task's page lead."""
        found: dict[str, str | None] = self._get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links")["extra_links"]
        return found

    def log(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1) -> str:
        """A task's log as plain lines."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}"
        answer = _good(self._client.get(path, params={"full_content": True}, headers={"Accept": "application/json"}))
        return "\n".join(_events(answer.json()["content"]))

    def assets(self) -> list[dict[str, Any]]:
        """All Asset events so far."""
        return list(self._get("/assets/events")["asset_events"])

    def _get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = _good(self._client.get(path)).json()
        return answer


def _good(answer: httpx.Response) -> httpx.Response:
    """An answer, or an error with what Airflow says of it."""
    if answer.is_error:
        told = f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text}"
        raise httpx.HTTPStatusError(told, request=answer.request, response=answer)
    return answer


def _events(content: Any) -> Iterator[str]:
    """Airflow tells a log as records, and as text where it is none."""
    for one in content if isinstance(content, list) else [content]:
        if not isinstance(one, dict):
            yield str(one)
            continue
        details = one.get("error_detail") or []
        yield " ".join([str(one.get("event", "")), *(str(cause.get("exc_value", "")) for cause in details)])
