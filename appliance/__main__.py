from __future__ import annotations

import sys

from appliance import __version__


def main() -> int:
    """The command line's outermost frame: exit codes are 0 ok, 1 expected failure, 2 usage, 3 bug, 130 interrupted."""
    if sys.argv[1:] == ["--version"]:
        # Scripts and package managers ask this often; it must not pay for the command tree.
        print(f"appliance {__version__}")
        return 0
    from appliance.cli.app import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
