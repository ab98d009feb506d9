"""What is written for launchd and systemd, judged by their own formats and tools."""

from __future__ import annotations

import os
import plistlib
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.models import Appliance
from appliance.errors import ConfigError, Conflict, ServiceError
from appliance.gateway.activation import NAME
from appliance.service.definition import SOCKET, Definition, address_of, define
from appliance.service.installation import Installation
from appliance.service.launchd import LABEL, Launchd, property_list
from appliance.service.supervisor import Answer
from appliance.service.systemd import SYSTEM_HOME, Systemd

LAUNCHCTL = """#!/bin/sh
# Remembers what is loaded as launchd would. Flags of the test: files `refuse-bootstrap` and `nobody-logged-in`.
cd "$(dirname "$0")" || exit 1
echo "$@" >> calls
case $1 in
print)
    [ -e nobody-logged-in ] && { echo "Could not find domain for user"; exit 112; }
    case $2 in */local.appliance) [ -e loaded ] || exit 113; printf 'state = running\\n\\tpid = 4711\\n' ;; esac ;;
bootstrap) [ -e refuse-bootstrap ] && { echo "Bootstrap failed: 5: Input/output error"; exit 5; }; touch loaded ;;
bootout) [ -e loaded ] || exit 113; rm loaded ;;
esac
"""


@pytest.fixture
def definition(tmp_path: Path) -> Definition:
    appliance = Appliance.model_validate({"server": {"port": 8123}, "models": {"a": {"source": "./a"}}})
    program, home = (sys.executable, "-m", "appliance"), tmp_path / "home"
    return define(appliance, tmp_path / "model-runner.yaml", program=program, home=home, environ={}, user=None)


@pytest.fixture
def launchctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the path with a launchctl that keeps its state there."""
    tool = tmp_path / "bin" / "launchctl"
    tool.parent.mkdir()
    tool.write_text(LAUNCHCTL)
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    return tool.parent


def verify(units: dict[Path, bytes], directory: Path, *, user: bool) -> str:
    for path, text in units.items():
        (directory / path.name).write_bytes(text)
    names = [str(directory / path.name) for path in units]
    environ = {"HOME": str(directory), "XDG_RUNTIME_DIR": str(directory), "PATH": os.defpath}
    command = ["systemd-analyze", "--user" if user else "--system", "verify", "--man=no", *names]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    complaints = [line for line in result.stderr.splitlines() if str(directory) in line or "appliance" in line]
    return "\n".join(complaints) + f"\nexit {result.returncode}"


def lock(directory: Path, flag: str) -> None:
    """Modes do not stop root; an immutable directory does."""
    if os.getuid() == 0:
        subprocess.run(["/usr/bin/chattr", flag, str(directory)], check=True)


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("place", ["plain", "with space", "per%cent $dollar \"quote\" back\\slash; 'x'"])
def test_systemd_accepts_its_units(definition: Definition, tmp_path: Path, place: str, system: bool) -> None:
    directory = tmp_path / place
    directory.mkdir()
    # Its own check asks for the program of each command to be there.
    program = directory / "appliance"
    program.symlink_to(sys.executable)
    home = SYSTEM_HOME if system else directory / "home"
    definition = replace(
        definition,
        command=(str(program), "up", "--file", str(directory / "model-runner.yaml")),
        directory=directory,
        home=home,
        user="daemon" if system else None,
        environ={"HTTPS_PROXY": "http://proxy:8080/%20 x"},
    )
    units = tmp_path / "units"
    units.mkdir()
    said = verify(dict(Systemd(units, system=system).files(definition)), units, user=not system)
    assert said.strip() == "exit 0"


def test_systemd_analyze_would_complain_of_a_wrong_unit(definition: Definition, tmp_path: Path) -> None:
    units = dict(Systemd(tmp_path, system=True).files(definition))
    broken = {path: text.replace(b"KillMode=process", b"KillMode=sometimes") for path, text in units.items()}
    assert "kill mode" in verify(broken, tmp_path, user=False)


def test_a_unit_says_what_a_restart_needs(definition: Definition, tmp_path: Path) -> None:
    service, listener = (text.decode() for text in Systemd(tmp_path, system=False).files(definition).values())
    assert "KillMode=process\n" in service
    assert "TimeoutStopSec=360\n" in service
    assert f"FileDescriptorName={NAME}\n" in listener
    assert SOCKET == NAME


def test_a_system_service_runs_as_its_user_and_writes_where_it_must(definition: Definition, tmp_path: Path) -> None:
    definition = replace(definition, user="daemon", home=SYSTEM_HOME)
    service = next(iter(Systemd(tmp_path, system=True).files(definition).values())).decode()
    assert "User=daemon\n" in service
    assert "StateDirectory=appliance\n" in service
    assert f"ReadWritePaths={tmp_path}\n" in service
    assert "ProtectSystem=strict\n" in service


def test_the_property_list_has_the_socket_under_the_name_that_the_gateway_asks_for(definition: Definition) -> None:
    (text,) = Launchd(Path("/nowhere"), "gui/501").files(definition).values()
    values = plistlib.loads(text)
    assert values["Label"] == LABEL
    assert values["ProgramArguments"][:4] == [sys.executable, "-m", "appliance", "up"]
    assert values["Sockets"] == {
        NAME: {"SockNodeName": "127.0.0.1", "SockServiceName": "8123", "SockType": "stream", "SockFamily": "IPv4"}
    }
    assert values["AbandonProcessGroup"] is True
    assert values["KeepAlive"] == {"SuccessfulExit": False}
    assert values["EnvironmentVariables"]["APPLIANCE_HOME"] == str(definition.home)
    assert "UserName" not in values


def test_a_daemon_of_the_machine_runs_as_its_user(definition: Definition) -> None:
    assert property_list(replace(definition, user="_appliance"))["UserName"] == "_appliance"
    assert Launchd.of({}, system=True, uid=0).paths == (Path("/Library/LaunchDaemons/local.appliance.plist"),)


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1))
def test_any_path_survives_the_property_list(text: str) -> None:
    definition = Definition(("/bin/appliance", text), Path("/"), Path("/h"), Path("/l"), "::1", 1, 1)
    if any(ord(character) in {0xFFFE, 0xFFFF} for character in text):
        return  # not in XML, and refused by macOS's file systems
    values = plistlib.loads(plistlib.dumps(property_list(definition)))
    assert values["ProgramArguments"] == ["/bin/appliance", text]
    assert values["Sockets"][SOCKET]["SockFamily"] == "IPv6"


def test_control_characters_are_refused(tmp_path: Path) -> None:
    appliance = Appliance.model_validate({"models": {"a": {"source": "./a"}}})
    with pytest.raises(ConfigError, match="control character"):
        define(appliance, tmp_path / "a\nb", program=("x",), home=tmp_path, environ={}, user=None)


def test_a_name_is_resolved_since_no_supervisor_does() -> None:
    assert address_of("localhost") in {"127.0.0.1", "::1"}
    assert address_of("0.0.0.0") == "0.0.0.0"
    with pytest.raises(ConfigError, match="is no address"):
        address_of("no-such-host.invalid")


def test_launchd_is_given_the_list_once_and_loads_it(definition: Definition, launchctl: Path, tmp_path: Path) -> None:
    installation = Installation(Launchd(tmp_path / "LaunchAgents", "gui/501"))
    installation.require_supervisor()
    installation.install(installation.plan(definition), holder=None)
    assert (launchctl / "loaded").exists()
    assert installation.activity().pid == 4711
    assert not installation.differs(definition)
    assert installation.plan(definition).commands == ()
    calls = (launchctl / "calls").read_text()
    assert calls.index("enable gui/501/local.appliance") < calls.index("bootstrap gui/501 ")


def test_launchd_lets_go_before_it_loads_a_changed_list(
    definition: Definition, launchctl: Path, tmp_path: Path
) -> None:
    installation = Installation(Launchd(tmp_path / "LaunchAgents", "gui/501"))
    installation.install(installation.plan(definition), holder=None)
    (launchctl / "calls").write_text("")
    installation.install(installation.plan(replace(definition, port=9000)), holder=4711)
    calls = [call.split()[0] for call in (launchctl / "calls").read_text().splitlines()]
    assert [call for call in calls if call != "print"] == ["bootout", "enable", "bootstrap"]


def test_a_list_that_launchd_refuses_is_not_left_behind(
    definition: Definition, launchctl: Path, tmp_path: Path
) -> None:
    (launchctl / "refuse-bootstrap").touch()
    installation = Installation(Launchd(tmp_path / "LaunchAgents", "gui/501"))
    with pytest.raises(ServiceError, match="Input/output error"):
        installation.install(installation.plan(definition), holder=None)
    assert not installation.installed


def test_a_change_that_launchd_refuses_leaves_the_earlier_list(
    definition: Definition, launchctl: Path, tmp_path: Path
) -> None:
    installation = Installation(Launchd(tmp_path / "LaunchAgents", "gui/501"))
    installation.install(installation.plan(definition), holder=None)
    (launchctl / "refuse-bootstrap").touch()
    with pytest.raises(ServiceError):
        installation.install(installation.plan(replace(definition, port=9000)), holder=None)
    assert not installation.differs(definition)


def test_without_a_session_launchd_is_not_asked_to_load(
    definition: Definition, launchctl: Path, tmp_path: Path
) -> None:
    (launchctl / "nobody-logged-in").touch()
    installation = Installation(Launchd(tmp_path / "LaunchAgents", "gui/501"))
    with pytest.raises(ServiceError, match="Could not find domain") as refused:
        installation.require_supervisor()
    assert "log in" in (refused.value.hint or "")


def test_an_appliance_that_runs_otherwise_is_in_the_way(
    definition: Definition, launchctl: Path, tmp_path: Path
) -> None:
    installation = Installation(Launchd(tmp_path / "LaunchAgents", "gui/501"))
    with pytest.raises(Conflict, match="pid 99"):
        installation.install(installation.plan(definition), holder=99)
    assert not installation.installed
    assert "bootstrap" not in (launchctl / "calls").read_text()


def test_uninstalling_unloads_and_removes_and_may_be_repeated(
    definition: Definition, launchctl: Path, tmp_path: Path
) -> None:
    installation = Installation(Launchd(tmp_path / "LaunchAgents", "gui/501"))
    installation.install(installation.plan(definition), holder=None)
    assert installation.uninstall() is True
    assert not (launchctl / "loaded").exists()
    assert not installation.installed
    assert installation.uninstall() is False


def test_without_permission_nothing_is_written_and_sudo_is_named(definition: Definition, tmp_path: Path) -> None:
    held = tmp_path / "units"
    held.mkdir(mode=0o500)
    lock(held, "+i")
    try:
        installation = Installation(Systemd(held, system=True), run=lambda _: Answer(0, ""))
        with pytest.raises(ServiceError, match="may not be written") as refused:
            installation.install(installation.plan(definition), holder=None)
    finally:
        lock(held, "-i")
    assert "sudo" in (refused.value.hint or "")
    assert list(held.iterdir()) == []
