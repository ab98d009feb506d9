"""From model-runner.yaml, a profile, environment variables and flags to one validated value.

read → parse → merge the profile → validate → resolve. Every stage goes on past problems, so that all are shown at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.config import profiles
from appliance.config.layers import Layer, put
from appliance.config.models import Appliance, Key
from appliance.config.positions import LARGEST_FILE, decode, parse
from appliance.config.problems import InvalidConfig, KeyPath, Problem
from appliance.config.rules import broken_rules, with_known_backends
from appliance.config.salvage import salvage
from appliance.config.secrets import Expansion
from appliance.config.validation import REQUIRED, UNKNOWN, Finding, findings
from appliance.config.variables import API_KEY, names_in, read_variables

DEFAULT_FILE = Path("model-runner.yaml")
SHORTEST_KEY = 16
_FLAGS = {"models.default.source": "--model"}

Check = Callable[[Appliance], Iterable[Finding]]
"""More to check than config knows of, such as a backend's own arguments: (key path, message, hint). It is given the
models whose backend exists."""


@dataclass(frozen=True)
class Loaded:
    appliance: Appliance
    text: str = field(repr=False)
    """The file as read, empty where there is none."""
    path: Path | None
    layers: tuple[Layer, ...] = field(repr=False)
    """Every source that had a say, in order of precedence."""
    warnings: tuple[Problem, ...] = ()
    computed: Mapping[KeyPath, str] = field(default_factory=dict, repr=False)

    def origin(self, path: KeyPath) -> str:
        """Which source set the value at this path: a place in a file, a variable, a flag, or `default`."""
        return next(iter(self.origins(path)), "default")

    def origins(self, path: KeyPath) -> tuple[str, ...]:
        """Every source that sets it; the first one won."""
        computed = [origin for key, origin in self.computed.items() if path[: len(key)] == key]
        return (*computed, *(layer.origin(path) for layer in self.layers if layer.has(path)))


def load(
    path: Path | None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
    backends: Collection[str] | None = None,
    check: Check = lambda _: (),
) -> Loaded:
    """The configuration in force, or InvalidConfig with every problem of every source.

    `overrides` are what flags say, by dotted key (`server.port`); None stands for a flag that was not given. A `path`
    that does not exist is a problem, except for DEFAULT_FILE where MODEL_PATH or a flag names a model.
    """
    optional = path == DEFAULT_FILE and (environ.get("MODEL_PATH") or (overrides or {}).get("models.default.source"))
    if path is None or (optional and not path.exists()):
        return interpret(None, None, environ=environ, overrides=overrides, backends=backends, check=check)
    text = read(path, str(path))
    if isinstance(text, Problem):
        raise InvalidConfig([text])
    return interpret(text, path, environ=environ, overrides=overrides, backends=backends, check=check)


def read(path: Path, source: str) -> str | Problem:
    """The only place that touches the disk."""
    try:
        with path.open("rb") as file:
            return decode(file.read(LARGEST_FILE + 1), source)
    except FileNotFoundError:
        return Problem(
            source, "there is no such file", hint="name it with `-f FILE`, or set MODEL_PATH to serve one model"
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Problem(source, f"cannot be read: {reason.lower()}")


def interpret(
    text: str | None,
    path: Path | None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
    backends: Collection[str] | None = None,
    check: Check = lambda _: (),
) -> Loaded:
    """`load` for text that is at hand; `path` gives it its name and the place that relative paths start from."""
    loading = _Loading(environ)
    loading.parse(text, path, overrides or {})
    appliance = loading.validate()
    if appliance is not None:
        appliance = loading.resolve(appliance, backends, check)
    if loading.problems or appliance is None:
        raise InvalidConfig(_in_order(loading.problems))
    return Loaded(appliance, text or "", path, loading.ordered, tuple(loading.warnings), loading.computed)


class _Loading:
    """What the stages share: the layers, and the problems found so far."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.computed: dict[KeyPath, str] = {}
        self._environ = environ
        self._layers: dict[str, Layer] = {}
        self._readable = True
        self._broken: set[KeyPath] = set()

    @property
    def ordered(self) -> tuple[Layer, ...]:
        from appliance.config.precedence import PRECEDENCE  # pydantic-settings costs 150 ms

        return tuple(self._layers[name] for name in PRECEDENCE if name in self._layers)

    def parse(self, text: str | None, path: Path | None, overrides: Mapping[str, Any]) -> None:
        if text is not None and path is not None:
            self._layers["file"] = self._document("file", text, str(path), path.parent)
        self._layers["command line"] = _command_line(overrides)
        self._layers["environment"], _ = read_variables(self._environ, {})  # for APPLIANCE_PROFILE
        self._profile()
        files = [layer for name, layer in self._layers.items() if name in ("file", "profile")]
        self._layers["environment"], problems = read_variables(self._environ, names_in(files))
        self.problems += problems

    def _document(self, name: str, text: str, source: str, base: Path) -> Layer:
        document = parse(text, source)
        self.problems += document.problems
        self._readable = self._readable and document.readable
        return Layer.of(name, document, source=source, base=base)

    def _profile(self) -> None:
        layer = next((layer for layer in self.ordered if layer.has(("profile",))), None)
        name = layer.get(("profile",)) if layer else None
        if layer is None or not isinstance(name, str) or not name:
            return
        path = profiles.locate_profile(name, layer.base)
        text = read(path, str(path))
        if isinstance(text, Problem):
            self._readable = False
            missing = text.message.startswith("there is no") and not profiles.is_path(name)
            message = f"unknown profile `{name}`" if missing else f"`{path}`: {text.message}"
            hint = profiles.suggest(name) if missing else "a path is relative to the file that names it"
            self.problems.append(layer.problem(("profile",), message, hint, at_value=True))
            return
        profile = self._document(f"profile {name}", text, str(path), path.parent)
        self._layers["profile"] = profile
        if profile.has(("profile",)):
            self.problems.append(
                profile.problem(("profile",), "a profile may not name a profile", "merge the two by hand")
            )

    def validate(self) -> Appliance | None:
        """Each layer by itself, where its problems have a place; then together, for what is missing in all of them."""
        from appliance.config.precedence import merge

        for layer in self.ordered:
            for finding in findings(layer.data, layer.written):
                if finding[1] != REQUIRED:
                    self._report(finding, layer)
        if not self._readable:
            return None
        merged = merge(self._layers)
        for finding in findings(merged, {}):
            if finding[0] not in self._broken:
                self._report(finding, self._owner(finding[0]))
        return salvage(merged, self._broken)

    def resolve(self, appliance: Appliance, backends: Collection[str] | None, check: Check) -> Appliance:
        expansion = Expansion(self._environ, lambda path: self._owner(path).base, _secret_file)
        appliance = self._with_api_key(expansion.apply(appliance))
        rules = broken_rules(appliance, backends)
        checked = check(with_known_backends(appliance, backends))
        broken = frozenset(self._broken)
        for finding in (*expansion.findings, *rules, *checked):
            if not _follows(finding[0], broken):
                self._report(finding, self._owner(finding[0]))
        return appliance

    def _report(self, finding: Finding, layer: Layer) -> None:
        path, message, hint = finding
        self._broken.add(path)
        about_the_key = message == UNKNOWN or message.startswith("not a name")
        plain_value = layer.get(path) is not None and not isinstance(layer.get(path), dict)
        self.problems.append(layer.problem(path, message, hint, at_value=plain_value and not about_the_key))

    def _owner(self, path: KeyPath) -> Layer:
        """The layer whose value is in force; for a key that is in none, the one that has most of the way to it."""
        for length in range(len(path), 0, -1):
            for layer in self.ordered:
                if layer.has(path[:length]):
                    return layer
        return self._layers.get("file") or Layer("default", source="the configuration")

    def _with_api_key(self, appliance: Appliance) -> Appliance:
        """API_KEY is one more key, not a replacement for those in the file: nobody loses access over a variable."""
        secret = self._environ.get(API_KEY)
        if not secret:
            return appliance
        source = f"environment variable {API_KEY}"
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            self.problems.append(Problem(source, "holds characters that no HTTP header can carry"))
            return appliance
        if len(secret) < SHORTEST_KEY:
            # Model Runner took any key, so a short one has to go on working.
            message, hint = f"shorter than {SHORTEST_KEY} characters", "`appliance key create NAME` makes a strong one"
            self.warnings.append(Problem(source, message, hint=hint))
        keys = appliance.auth.keys
        self.computed["auth", "keys", len(keys)] = source
        digest = hashlib.sha256(secret.encode()).hexdigest()
        key = Key(name=API_KEY, sha256=digest, scopes=("inference", "metrics"))
        return appliance.model_copy(update={"auth": appliance.auth.model_copy(update={"keys": (*keys, key)})})


def _follows(path: KeyPath, broken: Collection[KeyPath]) -> bool:
    """Nobody is told `no model` for a model that is only misspelled, nor `no keys` for a key with a bad hash."""
    cause: str | None
    match path:
        case ("server", "host"):
            cause = "auth"
        case ("models",):
            cause = "models"
        case ("backend",) | ("models", _, "backend"):
            cause = "backends"
        case _:
            cause = None
    if any(other[0] == cause for other in broken):
        return True
    # A list that has lost a broken item counts differently from the file.
    lists = [path[:index] for index, part in enumerate(path) if isinstance(part, int)]
    return any(other[: len(items)] == items for other in broken for items in lists)


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Files first, from top to bottom; of two problems with one key the first, which the other follows from."""
    first: dict[tuple[object, ...], Problem] = {}
    for problem in problems:
        first.setdefault((problem.source, problem.path, problem.line, problem.column), problem)
    return sorted(first.values(), key=lambda it: (it.line is None, it.source, it.line or 0, it.column or 0))


def _command_line(overrides: Mapping[str, Any]) -> Layer:
    data: dict[str, Any] = {}
    labels: dict[KeyPath, str] = {}
    written: dict[KeyPath, str] = {}
    for key, value in overrides.items():
        if value is not None:
            path = tuple(key.split("."))
            put(data, path, value)
            labels[path] = _FLAGS.get(key, f"--{path[-1].replace('_', '-')}")
            written[path] = str(value)
    return Layer("command line", data, labels=labels, written=written)


def _secret_file(path: Path) -> str | None:
    content = read(path, str(path))
    return content if isinstance(content, str) else None
