"""The admin API from outside: over TCP with a key, its events, and plans that are applied as shown or not at all."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from appliance.gateway.keys import new_key
from tests.cli.conftest import Machine
from tests.support import wait_until

ADMIN, ADMIN_DIGEST = new_key()
GUEST, GUEST_DIGEST = new_key()
KEYS = (
    f"auth: {{keys: [{{name: boss, sha256: {ADMIN_DIGEST}, scopes: [admin]}}, "
    f"{{name: guest, sha256: {GUEST_DIGEST}}}]}}\n"
)


class Api:
    """One caller over TCP."""

    def __init__(self, base: str, key: str = ADMIN) -> None:
        self.address = base.removeprefix("http://")
        self.headers = {"authorization": f"Bearer {key}"} if key else {}

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, Any, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection(self.address, timeout=20)
        try:
            connection.request(method, path, headers=self.headers | headers)
            answer = connection.getresponse()
            body = answer.read()
            is_json = "json" in answer.headers.get("content-type", "")
            return answer.status, json.loads(body) if is_json else body.decode(), answer.headers
        finally:
            connection.close()

    @contextmanager
    def events(self, last: str = "") -> Iterator[list[dict[str, Any]]]:
        """What has arrived so far of the stream of events; grows while the block runs."""
        connection = http.client.HTTPConnection(self.address, timeout=20)
        headers = self.headers | ({"last-event-id": last} if last else {})
        connection.request("GET", "/admin/v1/events", headers=headers)
        answer = connection.getresponse()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert connection.sock is None or answer.status == 200
        told: list[dict[str, Any]] = []
        reader = threading.Thread(target=_read, args=(answer, told))
        reader.start()
        try:
            yield told
        finally:
            if connection.sock is not None:
                connection.sock.shutdown(2)
            reader.join(20)
            connection.close()
            assert not reader.is_alive()


def _read(answer: http.client.HTTPResponse, told: list[dict[str, Any]]) -> None:
    event: dict[str, Any] = {}
    while line := answer.readline().decode():
        name, _, value = line.rstrip("\n").partition(": ")
        if name:
            event[name] = value
        elif "data" in event:
            told.append({**event, "data": json.loads(event["data"])})
            event = {}


@pytest.fixture
def served(machine: Machine) -> tuple[Machine, str]:
    machine.write(more=KEYS)
    return machine, machine.up("--no-watch")


def kinds(told: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in told]


def test_only_a_key_with_the_scope_admin_reaches_the_api(served: tuple[Machine, str]) -> None:
    _, base = served
    assert Api(base).ask("GET", "/admin/v1/status")[1]["models"][0]["name"] == "tiny"
    status, answer, _ = Api(base, GUEST).ask("GET", "/admin/v1/status")
    assert (status, answer["error"]["code"]) == (403, "insufficient_scope")
    assert Api(base, "").ask("GET", "/admin/v1/status")[0] == 401


def test_without_keys_nobody_reaches_it_over_tcp(machine: Machine) -> None:
    machine.write()
    status, answer, _ = Api(machine.up(), "").ask("GET", "/admin/v1/status")
    assert (status, answer["error"]["code"]) == (403, "key_required")
    assert "--scope admin" in answer["error"]["message"]


def test_the_process_is_ended_over_the_unix_socket_alone(served: tuple[Machine, str]) -> None:
    machine, base = served
    for path in ("stop", "restart"):
        assert Api(base).ask("POST", f"/admin/v1/{path}")[0] == 404
    assert machine.status()["ready"]


def test_a_plan_is_applied_as_it_was_shown_or_not_at_all(served: tuple[Machine, str]) -> None:
    machine, base = served
    api = Api(base)
    machine.write(models="  tiny: {source: ./weights, aliases: [one]}", more=KEYS)
    _, plan, headers = api.ask("GET", "/admin/v1/plan")
    assert [change["path"] for change in plan["changes"]] == ["models.tiny.aliases"]
    assert headers["etag"] == f'"{plan["tag"]}"'
    machine.write(models="  tiny: {source: ./weights, aliases: [two]}", more=KEYS)
    status, answer, _ = api.ask("POST", "/admin/v1/apply", **{"if-match": headers["etag"]})
    assert (status, answer["error"]["type"]) == (412, "Stale")
    result = machine.run("apply", "--if-match", plan["tag"])
    assert result.returncode == 1
    assert "look at the new plan" in result.stderr
    assert machine.status()["generation"] == 1
    tag = json.loads(machine.run("plan", "--json").stdout)["tag"]
    assert machine.run("apply", "--if-match", tag).returncode == 0
    assert machine.status()["generation"] == 2
    assert api.ask("POST", "/admin/v1/apply", **{"if-match": f'"{tag}"'})[0] == 412  # what is in force has moved


def test_history_diff_and_rollback_over_tcp(served: tuple[Machine, str]) -> None:
    machine, base = served
    api = Api(base)
    good = machine.file.read_text()
    machine.write(models="  tiny: {source: ./weights, aliases: [new]}", more=KEYS)
    assert api.ask("POST", "/admin/v1/apply")[1]["changes"] == [{"path": "models.tiny.aliases", "cost": "live"}]
    wait_until(lambda: api.ask("GET", "/admin/v1/history")[1][-1]["result"] == "ready", what="it is recorded")
    entries = api.ask("GET", "/admin/v1/history")[1]
    assert [entry["generation"] for entry in entries] == [1, 2]
    assert "text" not in entries[0]
    assert api.ask("GET", "/admin/v1/history/1")[1]["text"] == good
    assert "+  tiny: {source: ./weights, aliases: [new]}" in api.ask("GET", "/admin/v1/diff?from=1&to=2")[1]
    status, answer, _ = api.ask("POST", "/admin/v1/rollback")
    assert (status, answer["generation"], answer["problem"]) == (200, 1, None)
    assert machine.file.read_text() == good
    for path in ("history/9", "diff", "diff?from=x"):
        assert api.ask("GET", f"/admin/v1/{path}")[0] == 400
    assert api.ask("POST", "/admin/v1/rollback?generation=77")[0] == 400
    assert api.ask("POST", f"/admin/v1/rollback?generation={'9' * 5000}")[0] == 400


def test_events_tell_a_rollout_step_by_step(served: tuple[Machine, str]) -> None:
    machine, base = served
    with Api(base).events() as told:
        wait_until(lambda: "generation" in kinds(told) and "status" in kinds(told), what="the past and the present")
        seen = len(told)
        machine.write("--events", "3", more=KEYS)
        machine.run("apply")
        wait_until(lambda: "generation" in kinds(told[seen:]), what="the rollout ends")
        news = told[seen:]
    steps = [(e["event"], e["data"].get("action") or e["data"].get("state")) for e in news if e["event"] != "status"]
    assert steps[:2] == [("reload", None), ("action", "start")]
    assert [step for step in steps if step[1] in ("admit", "ready", "drain", "stop", "forget")] == [
        ("action", "admit"),
        ("engine", "ready"),
        ("action", "drain"),
        ("action", "stop"),
        ("action", "forget"),
    ]
    assert news[0]["data"]["changes"] == {"backends.fake.command": "restart"}
    numbers = [int(event["id"]) for event in told if "id" in event]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [e for e in news if e["event"] == "status"][-1]["data"]["generation"] == 2
    with Api(base).events(last=str(numbers[-2])) as again:
        wait_until(lambda: len(again) >= 2, what="only what was missed, and the status")
    assert (again[0]["id"], again[1]["event"]) == (str(numbers[-1]), "status")


def test_whoever_follows_events_or_logs_does_not_hold_up_a_restart(served: tuple[Machine, str]) -> None:
    machine, base = served
    follower = http.client.HTTPConnection(base.removeprefix("http://"), timeout=30)
    follower.request("GET", "/admin/v1/logs?model=tiny&follow=true", headers=Api(base).headers)
    with Api(base).events() as told:
        wait_until(lambda: told, what="events arrive")
        assert machine.run("restart").returncode == 0
    assert follower.getresponse().status == 200
    follower.close()
    assert machine.status()["ready"]


def test_logs_are_those_of_known_models_only(served: tuple[Machine, str]) -> None:
    machine, base = served
    (machine.home / "secret.log").write_text("swordfish\n")
    api = Api(base)
    status, text, _ = api.ask("GET", "/admin/v1/logs?model=tiny&lines=3")
    assert status == 200
    assert len(text.splitlines()) <= 3
    status, answer, _ = api.ask("GET", "/admin/v1/logs?model=../secret")
    assert status == 400
    assert "swordfish" not in json.dumps(answer)
