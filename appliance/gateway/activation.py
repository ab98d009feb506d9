"""Listeners that were open before this process: from systemd, from launchd, or from the appliance it replaces.

Connections queue in such a listener while nobody accepts, so that none is refused when the control process is replaced.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import stat
import sys
from collections.abc import MutableMapping, Sequence

from appliance.errors import Conflict

FIRST = 3
"""Where sd_listen_fds(3) says that the descriptors begin."""
NAME = "gateway"
"""What the listener is called in a launchd property list, and in LISTEN_FDNAMES where we pass it on."""

_HINT = "pass listening TCP sockets only (systemd: `ListenStream=` and `Accept=no`), or none"


def inherited(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening TCP sockets that this process was started with, taken out of reach of its children."""
    # The variables are ours alone: a child would take the same numbers for its own descriptors.
    pid, count, names = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid == str(os.getpid()) and count:
        given = [*_descriptors(count, names)]
    else:
        given = [(descriptor, f"launchd's `{NAME}`") for descriptor in _from_launchd()]
    return [_listener(descriptor, where) for descriptor, where in given]


def pass_on(listeners: Sequence[socket.socket], environ: MutableMapping[str, str]) -> None:
    """Leave them, and what says so, to the program that this process executes next in its own place."""
    if not listeners:
        return
    # Above their destination first, where none can overwrite another.
    numbers = [os.dup(listener.fileno()) for listener in listeners]
    while min(numbers) < FIRST + len(listeners):
        numbers = [os.dup(number) for number in numbers]
    for place, number in enumerate(numbers, start=FIRST):
        os.dup2(number, place, inheritable=True)
    environ["LISTEN_PID"] = str(os.getpid())
    environ["LISTEN_FDS"] = str(len(numbers))
    environ["LISTEN_FDNAMES"] = ":".join([NAME] * len(numbers))


def require_agreement(listeners: Sequence[socket.socket], host: str, *, loopback: bool) -> None:
    """The file says who can connect, and only there are keys asked for where others can."""
    for listener in listeners:
        if loopback and not is_loopback(listener):
            address = listener.getsockname()[0]
            raise Conflict(
                f"the inherited listener is on `{address}`, which other machines can reach; `server.host` is `{host}`",
                hint=f"write `server.host: {address}`, with `auth.keys`, or let it listen on `{host}`",
            )


def is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _descriptors(count: str, names: str) -> list[tuple[int, str]]:
    if not count.isdecimal() or int(count) == 0:
        raise Conflict(f"LISTEN_FDS is `{count}`, not a number of sockets", hint=_HINT)
    called = dict(enumerate(names.split(":") if names else (), start=FIRST))
    numbers = range(FIRST, FIRST + int(count))
    return [(number, f"`{called[number]}`" if number in called else "without a name") for number in numbers]


def _listener(descriptor: int, where: str) -> socket.socket:
    what = f"inherited descriptor {descriptor} ({where})"
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise Conflict(f"{what} is not a socket", hint=_HINT)
    except OSError as error:
        raise Conflict(f"{what} is not open: {error.strerror}", hint=_HINT) from error
    os.set_inheritable(descriptor, False)
    listener = socket.socket(fileno=descriptor)
    if wrong := _wrong(listener):
        listener.detach()
        raise Conflict(f"{what} is {wrong}", hint=_HINT)
    listener.setblocking(False)
    return listener


def _wrong(listener: socket.socket) -> str | None:
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return f"of family `{socket.AddressFamily(listener.family).name}`, not TCP"
    if listener.type != socket.SOCK_STREAM:
        return f"of type `{socket.SocketKind(listener.type).name}`, not TCP"
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "a connection, not a listener"
    return None


def _from_launchd() -> list[int]:
    """None where launchd did not start this process, or its property list has no such socket."""
    if sys.platform != "darwin":
        return []
    return activate(ctypes.CDLL(None), NAME)


def activate(library: ctypes.CDLL, name: str) -> list[int]:
    """launch_activate_socket(3): descriptors in an array that is ours to free; the result is an error number."""
    call, free = library.launch_activate_socket, library.free
    call.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.POINTER(ctypes.c_int)), ctypes.POINTER(ctypes.c_size_t)]
    call.restype = ctypes.c_int
    free.argtypes, free.restype = [ctypes.c_void_p], None
    descriptors, count = ctypes.POINTER(ctypes.c_int)(), ctypes.c_size_t()
    result = call(name.encode(), ctypes.byref(descriptors), ctypes.byref(count))
    # Not from launchd; no such socket; already taken, by the process that this one has replaced.
    if result in (errno.ESRCH, errno.ENOENT, errno.EALREADY):
        return []
    if result != 0:
        raise Conflict(f"launchd does not hand over its socket `{name}`: {os.strerror(result)}")
    try:
        return descriptors[: count.value]
    finally:
        free(descriptors)
