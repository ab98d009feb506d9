"""One engine's shim: `python -m appliance.process.shim`, a unix socket to the control process as its standard input.

The first message is the launch document. It holds the engine's key and environment, hence neither argv nor a file.

    {"directory", "argv", "env", "cwd", "log", "log_size", "log_count", "grace", "identity": {...}}

Then, in both directions, over that socket and later over `shim.sock`:

    → {"do": "hello"} {"do": "tail"} {"do": "look"} {"do": "grace", "seconds"} {"do": "stop", "timeout": seconds}
    ← {"event": "started", "pid", …} {"event": "failed", "message"} {"event": "hello", …} {"event": "tail", "lines"}
      {"event": "looked"}: its shared memory is known to shim and guard
      {"event": "granted"}: so long it will wait for another control process once this one has gone
      {"event": "refused", "message"}: another control process holds the engine; {"event": "unknown", "do"}
      {"event": "exited", "code", "signal", "lines", "left"}: sent when nothing of the engine is left
"""

from __future__ import annotations

import os
import socket
import sys

from appliance.process.shim.connection import Connection
from appliance.process.shim.supervise import Shim


def main() -> int:
    os.umask(0o077)
    control = Connection(socket.socket(fileno=os.dup(0)))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    document = control.first()
    if document is None:
        return 1
    Shim(document, control).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
