"""Start the engine: its own session, our death is its death, and an exec that fails says so."""

from __future__ import annotations

import os
import signal
from typing import Any

from appliance.process.shim import kernel


def spawn(document: dict[str, Any], output: int) -> int:
    """The engine's pid. OSError where it cannot be executed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _become(document, output)
        except OSError as error:
            os.write(writer, f"{error.errno} {error.strerror}".encode())
        finally:
            os._exit(127)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        failure = pipe.read().decode()  # empty: the pipe was closed by a successful exec
    if failure:
        os.waitpid(pid, 0)
        number, _, text = failure.partition(" ")
        raise OSError(int(number), text, document["argv"][0])
    return pid


def _become(document: dict[str, Any], output: int) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    kernel.die_with_parent(signal.SIGKILL)
    os.chdir(document["cwd"])
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.execvpe(document["argv"][0], document["argv"], document["env"])  # noqa: S606 - a list, never a shell
