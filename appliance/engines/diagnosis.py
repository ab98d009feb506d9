"""The one line of an engine's output that says why it failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

LINES = 200

_PREFIX = re.compile(
    r"(?:\(\w+(?: pid=\d+)?\) ?)*"
    r"(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \[[^\]]*\] ?)?"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NOISE = re.compile(
    r"resource_tracker|nanobind|leaked |Engine core initialization failed|See root cause above"
    r"|^\s*warnings\.warn|(?:Deprecation|User|Future)Warning"
)
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit): \S")


def diagnose(lines: Sequence[str]) -> str | None:
    """The first of these that the last lines hold, freed of its prefix, or None.

    (1) The argument parser's verdict. (2) What the worker died of, which precedes the generic failure of the engine
    core. (3) What could not be imported, where all that vLLM says is that a model could not be inspected. (4) The
    sentence of a validation error. (5) The last exception that says something of its own.
    """
    useful = [line for line in map(_strip, lines[-LINES:]) if line and not _NOISE.search(line)]
    for find in (_argument_error, _worker_failure, _missing_module, _validation, _last_exception):
        if line := find(useful):
            return line
    return None


def _strip(line: str) -> str:
    return _PREFIX.sub("", _COLOUR.sub("", line), count=1).rstrip()


def _last(lines: Sequence[str], matches: Callable[[str], bool]) -> str | None:
    return next((line for line in reversed(lines) if matches(line)), None)


def _argument_error(lines: Sequence[str]) -> str | None:
    line = _last(lines, lambda line: re.match(r"\S.*?: error: ", line) is not None)
    return line.partition(": error: ")[2] if line else None


def _worker_failure(lines: Sequence[str]) -> str | None:
    line = _last(lines, lambda line: "Worker failed with error" in line)
    if line is None:
        return None
    quoted = re.search(r"Worker failed with error '(.*?)'(?:, please|\.?$)", line)
    return quoted[1] if quoted else line


def _missing_module(lines: Sequence[str]) -> str | None:
    if not any("failed to be inspected" in line for line in lines):
        return None
    return _last(lines, lambda line: re.match(r"(?:ModuleNotFound|Import)Error: ", line) is not None)


def _validation(lines: Sequence[str]) -> str | None:
    line = _last(lines, lambda line: "Value error, " in line)
    return re.sub(r" \[type=.*$", "", line.partition("Value error, ")[2]) if line else None


def _last_exception(lines: Sequence[str]) -> str | None:
    return _last(lines, lambda line: _EXCEPTION.match(line) is not None)
