"""Write the Homebrew formula from its template and the lock, or check it.

python -m tools.homebrew --write
python -m tools.homebrew --check
python -m tools.homebrew --write --release https://… --sha256 …    # once there is an archive of a release
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from tools.lock import ROOT, Pin, applies, read

FORMULA = ROOT / "packaging" / "homebrew" / "appliance.rb"
TEMPLATE = ROOT / "packaging" / "homebrew" / "appliance.rb.template"
PYTHON = "3.12"
"""vLLM's Metal plug-in has wheels for this one only, and an engine environment has the appliance's own Python."""


def render(release: str = "") -> str:
    """The formula; `release` are its lines for a stable version, empty where only HEAD can be installed."""
    template = TEMPLATE.read_text(encoding="utf-8")
    resources = "\n".join(map(_resource, _needed()))
    return template.replace("{python}", PYTHON).replace("{release}", release).replace("{resources}", resources)


def _needed() -> Iterator[Pin]:
    for pin in read():
        if any(applies(pin, python=PYTHON, platform=platform) for platform in ("darwin", "linux")):
            yield pin


def _resource(pin: Pin) -> str:
    return f'  resource "{pin.name}" do\n    url "{pin.sdist}"\n    sha256 "{pin.hashes[0]}"\n  end\n'


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.homebrew", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true")
    mode.add_argument("--check", action="store_true")
    parser.add_argument("--release", metavar="URL", help="the source archive of a release")
    parser.add_argument("--sha256", help="its hash")
    options = parser.parse_args()
    if bool(options.release) != bool(options.sha256):
        parser.error("--release and --sha256 belong together")
    if options.write:
        lines = f'  url "{options.release}"\n  sha256 "{options.sha256}"\n' if options.release else ""
        FORMULA.write_text(render(lines), encoding="utf-8")
        return 0
    if FORMULA.read_text(encoding="utf-8") != render():
        print(f"error: {FORMULA.relative_to(ROOT)} is out of date\n  hint: run `make lock`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
