"""The container's health: `/readyz` answers 200. Prints what it answered, which `docker inspect` shows."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request


def main() -> int:
    port = os.environ.get("APPLIANCE_SERVER__PORT") or os.environ.get("PORT") or "8000"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=4) as answer:
            print(answer.read().decode(errors="replace"))
            return 0
    except urllib.error.HTTPError as refused:
        print(f"{refused.code} {refused.read().decode(errors='replace')}")
    except OSError as error:
        print(error)
    return 1


if __name__ == "__main__":
    sys.exit(main())
