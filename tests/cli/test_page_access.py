"""Who gets the page's files, and who gets the admin API without a key: each refusal has its test."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from appliance.gateway.page import ROOT
from appliance.gateway.peer import TABLES
from tests.cli.conftest import Machine
from tests.cli.test_admin import KEYS

PAGE = {"x-appliance-page": "1"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An appliance on loopback, without keys."""
    machine = Machine(tmp_path_factory.mktemp("open"))
    machine.write()
    yield machine.up("--no-watch")
    machine.close()


def ask(base: str, path: str, method: str = "GET", **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=20)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def test_the_page_itself_reaches_the_admin_api_without_a_key(base: str) -> None:
    status, body, _ = ask(base, "/admin/v1/status", **PAGE)
    assert (status, '"tiny"' in body) == (200, True)
    assert ask(base, "/admin/v1/status", **PAGE, origin=base, sec_fetch_site="same-origin")[0] == 200
    assert ask(base, "/admin/v1/keys", **PAGE)[1] == "[]"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="without the header that only the page's own script can send"),
        pytest.param({**PAGE, "origin": "http://localhost:1"}, id="another port of this machine"),
        pytest.param({**PAGE, "origin": "null"}, id="a sandboxed frame or a file"),
        pytest.param({**PAGE, "origin": "https://{host}"}, id="another scheme"),
        pytest.param({**PAGE, "sec_fetch_site": "same-site"}, id="a page of the same site"),
        pytest.param({**PAGE, "sec_fetch_site": "cross-site"}, id="a page of another site"),
        pytest.param({**PAGE, "sec_fetch_site": "none"}, id="an address that was typed"),
        pytest.param({**PAGE, "host": "evil.example"}, id="a name that was bound to loopback"),
        pytest.param({**PAGE, "x_forwarded_for": "203.0.113.9"}, id="a proxy that says for whom it asks"),
        pytest.param({**PAGE, "forwarded": "for=203.0.113.9"}, id="a proxy that says it the standard's way"),
        pytest.param({**PAGE, "via": "1.1 proxy"}, id="a proxy that says that it is one"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/admin/v1/status"), ("POST", "/admin/v1/rollback"), ("GET", "/admin/v1/events")]
)
def test_without_a_key_everybody_else_is_refused(base: str, method: str, path: str, headers: dict[str, str]) -> None:
    host = base.removeprefix("http://")
    status, body, answered = ask(base, path, method, **{k: v.format(host=host) for k, v in headers.items()})
    assert status == 403
    assert '"models"' not in body
    assert not any(name.lower().startswith("access-control") for name in answered)


def test_no_other_origin_is_ever_allowed_to_send_the_header(base: str) -> None:
    """A browser asks first, and takes anything but an explicit permission for a no."""
    asked = {"origin": "http://localhost:3000", "access_control_request_headers": "x-appliance-page"}
    status, _, headers = ask(base, "/admin/v1/status", "OPTIONS", **asked, access_control_request_method="GET")
    assert status == 405
    assert not any(name.lower().startswith("access-control") for name in headers)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a moment; CI is root")
@pytest.mark.skipif(not TABLES[0].exists(), reason="this system does not tell whose connection it is")
def test_another_user_of_this_machine_is_refused(base: str) -> None:
    host, port = base.removeprefix("http://").split(":")
    script = (  # imports come first: the other user may not be able to read this interpreter's files
        "import os, socket, sys; a = (sys.argv[1], int(sys.argv[2])); os.setgid(65534); "
        "os.setuid(65534); s = socket.socket(); s.connect(a); "
        "s.sendall(b'GET /admin/v1/status HTTP/1.1\\r\\nhost: localhost\\r\\n"
        "x-appliance-page: 1\\r\\nconnection: close\\r\\n\\r\\n'); sys.stdout.buffer.write(s.makefile('rb').read())"
    )
    command = [sys.executable, "-c", script, host, port]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert answer.startswith("HTTP/1.1 403 ")
    assert "another user of this machine" in answer


def test_where_keys_are_configured_the_page_needs_one(machine: Machine) -> None:
    machine.write(more=KEYS)
    base = machine.up("--no-watch")
    assert ask(base, "/ui")[0] == 200
    assert ask(base, "/admin/v1/status", **PAGE)[0] == 401


def test_the_files_of_the_page_are_served_with_a_strict_policy(base: str) -> None:
    for path in ("/ui", "/ui/", *(f"/ui/{file.name}" for file in ROOT.iterdir())):
        status, body, headers = ask(base, path)
        assert status == 200
        assert body
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        again, nothing, _ = ask(base, path, if_none_match=headers["etag"])
        assert (again, nothing) == (304, "")
        assert ask(base, path, "HEAD")[1:2] == ("",)


@pytest.mark.parametrize("path", ["/ui/../admin.py", "/ui/%2e%2e/admin.py", "/ui/nothing.js", "/ui/index.html/x"])
def test_nothing_but_the_files_of_the_page_is_served(base: str, path: str) -> None:
    assert ask(base, path)[0] == 404


def test_a_name_that_was_bound_to_loopback_gets_no_page_either(base: str) -> None:
    assert ask(base, "/ui", host="evil.example")[0] == 403


def test_the_page_has_no_script_or_style_in_it_and_nothing_from_elsewhere() -> None:
    page = (ROOT / "index.html").read_text()
    assert page.count("<script") == page.count("<script src=") == 2
    assert "<style" not in page
    assert " style=" not in page
    for file in ROOT.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, file
        assert "https://" not in text, file
