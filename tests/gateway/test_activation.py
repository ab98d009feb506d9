"""Listeners that systemd, launchd or the appliance's own predecessor opened."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from appliance.errors import Conflict
from appliance.gateway.activation import activate, inherited, is_loopback, require_agreement

ROOT = Path(__file__).parents[2]

# Puts the descriptor it is given at 3, and says what `inherited` makes of it.
STARTED = """
import json, os, sys
from appliance.errors import Conflict
from appliance.gateway.activation import inherited
if len(sys.argv) > 1:
    os.dup2(int(sys.argv[1]), 3)
    os.environ.setdefault("LISTEN_PID", str(os.getpid()))
try:
    listeners = inherited(os.environ)
except Conflict as error:
    print(json.dumps({"refused": error.message}))
else:
    addresses = [listener.getsockname() for listener in listeners]
    kept = [listener.get_inheritable() for listener in listeners]
    left = [name for name in os.environ if name.startswith("LISTEN_")]
    print(json.dumps({"addresses": addresses, "inheritable": kept, "left": left}))
"""

REPLACED = """
import os, socket, sys
from appliance.gateway.activation import pass_on
listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print([listener.getsockname()[1] for listener in listeners], flush=True)
pass_on(listeners, os.environ)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""


def started(descriptor: int, **variables: str) -> dict[str, Any]:
    environ = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", **variables}
    argv = [sys.executable, "-c", STARTED, str(descriptor)]
    result = subprocess.run(argv, cwd=ROOT, env=environ, pass_fds=[descriptor], capture_output=True, check=True)
    told: dict[str, Any] = json.loads(result.stdout)
    return told


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_listener_of_systemd_is_used_and_kept_from_children(listener: socket.socket) -> None:
    told = started(listener.fileno())
    assert told == {"addresses": [[*listener.getsockname()]], "inheritable": [False], "left": []}


def test_listener_meant_for_another_process_is_left_alone(listener: socket.socket) -> None:
    assert started(listener.fileno(), LISTEN_PID="1") == {"addresses": [], "inheritable": [], "left": []}


def test_nothing_is_inherited_where_nothing_was_passed() -> None:
    assert inherited({"PATH": "/bin"}) == []


@pytest.mark.parametrize("count", ["x", "0", "-1", "1.5"])
def test_number_of_sockets_that_is_none_is_an_error(count: str) -> None:
    with pytest.raises(Conflict, match=f"LISTEN_FDS is `{count}`"):
        inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a file": (lambda: open(os.devnull), "is not a socket"),  # noqa: PTH123, SIM115
    "a socket that does not listen": (socket.socket, "is a connection, not a listener"),
    "a datagram socket": (lambda: socket.socket(type=socket.SOCK_DGRAM), "of type `SOCK_DGRAM`"),
    "a unix socket": (lambda: socket.socket(socket.AF_UNIX), "of family `AF_UNIX`"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_descriptor_of_the_wrong_kind_is_an_error_that_says_what_it_is(kind: str) -> None:
    make, words = WRONG[kind]
    with make() as wrong:
        assert words in started(wrong.fileno())["refused"]
        assert "descriptor 3 (`web`)" in started(wrong.fileno())["refused"]


def test_descriptor_that_is_not_open_is_an_error(listener: socket.socket) -> None:
    assert "descriptor 4 (without a name) is not open" in started(listener.fileno(), LISTEN_FDS="2")["refused"]


def test_listeners_are_passed_on_to_the_program_that_takes_this_ones_place() -> None:
    argv = [sys.executable, "-c", REPLACED, STARTED]
    result = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True, text=True)
    before, after = map(json.loads, result.stdout.splitlines())
    assert [port for _, port in after["addresses"]] == before
    assert after["left"] == []


def test_listener_that_others_reach_needs_a_file_that_says_so(listener: socket.socket) -> None:
    require_agreement([listener], "127.0.0.1", loopback=True)
    with socket.create_server(("0.0.0.0", 0)) as open_to_all:
        assert not is_loopback(open_to_all)
        require_agreement([open_to_all], "0.0.0.0", loopback=False)
        with pytest.raises(Conflict, match=r"on `0\.0\.0\.0`.*`server\.host` is `127\.0\.0\.1`"):
            require_agreement([open_to_all], "127.0.0.1", loopback=True)


# launchd's C interface, in place of which a callback writes into the same pointers

_Call = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.POINTER(ctypes.c_int)),
    ctypes.POINTER(ctypes.c_size_t),
)


class Launchd:
    def __init__(self, descriptors: list[int], result: int = 0) -> None:
        self._libc = ctypes.CDLL(None)
        self._libc.malloc.restype = ctypes.POINTER(ctypes.c_int)
        self.free = self._libc.free
        self.asked: list[bytes] = []

        def call(name: bytes, array: Any, count: Any) -> int:
            self.asked.append(name)
            if result == 0:
                array[0] = self._libc.malloc(ctypes.c_size_t(4 * len(descriptors)))
                for place, descriptor in enumerate(descriptors):
                    array[0][place] = descriptor
                count[0] = len(descriptors)
            return result

        self.launch_activate_socket = _Call(call)


def test_launchd_hands_over_its_descriptors() -> None:
    launchd = Launchd([7, 9])
    assert activate(cast("ctypes.CDLL", launchd), "gateway") == [7, 9]
    assert launchd.asked == [b"gateway"]


@pytest.mark.parametrize("code", [errno.ESRCH, errno.ENOENT, errno.EALREADY])
def test_process_that_launchd_did_not_start_inherits_nothing(code: int) -> None:
    assert activate(cast("ctypes.CDLL", Launchd([], code)), "gateway") == []


def test_any_other_answer_of_launchd_is_an_error() -> None:
    with pytest.raises(Conflict, match="Invalid argument"):
        activate(cast("ctypes.CDLL", Launchd([], errno.EINVAL)), "gateway")
