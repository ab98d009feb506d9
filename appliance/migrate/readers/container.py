"""A container whose image is an engine: what Compose, `docker run`, `docker inspect` and Dockerfiles all describe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from appliance.migrate.draft import Model, Mount
from appliance.migrate.found import Reading
from appliance.migrate.readers.arguments import Command
from appliance.migrate.readers.engines import Variable, engine_in, read_command, read_variables
from appliance.migrate.rules import vocabulary

Kind = Literal["vllm", "llama.cpp", "model-runner", "ollama", "other"]

_IMAGES: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"(?:^|/)docker/model-runner(?:[:@]|$)"), "model-runner"),
    (re.compile(r"(?:^|/)vllm/vllm-[\w-]+(?:[:@]|$)|(?:^|/)vllm-(?:openai|cpu|metal)[\w.-]*(?:[:@]|$)"), "vllm"),
    (re.compile(r"(?:^|/)(?:ggml-org|ggerganov)/llama\.cpp(?:[:@]|$)|(?:^|/)llama-server(?:[:@]|$)"), "llama.cpp"),
    (re.compile(r"(?:^|/)ollama/ollama(?:[:@]|$)|^ollama(?:[:@]|$)"), "ollama"),
    (
        re.compile(
            r"(?:^|/)(?:lmsysorg/sglang|mostlygeek/llama-swap|huggingface/text-generation-inference"
            r"|huggingface/text-embeddings-inference|localai/localai|nvcr\.io/nim/[\w./-]+)(?:[:@]|$)"
        ),
        "other",
    ),
)


def engine_of_image(image: str) -> Kind | None:
    return next((kind for pattern, kind in _IMAGES if pattern.search(image)), None)


@dataclass(slots=True)
class Setting:
    """One key of the container in Compose's words; `key` is how the input calls it."""

    word: str
    value: Any = field(repr=False)
    key: str
    place: str


@dataclass(slots=True)
class Container:
    label: str
    image: str
    base: Path
    argv: list[str] = field(default_factory=list, repr=False)
    argv_key: str = "command"
    argv_place: str = ""
    variables: list[Variable] = field(default_factory=list, repr=False)
    variables_key: str = ""
    settings: list[Setting] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    optional: bool = False

    @property
    def kind(self) -> Kind | None:
        command = engine_in(self.argv)
        return (command.engine if command else None) or engine_of_image(self.image)


def read_container(container: Container, reading: Reading) -> Model | None:
    """Rows for every setting; the model, where the container's command line names one."""
    model = _read_command(container, reading)
    if model is None and any(variable.name == "MODEL_PATH" and variable.value for variable in container.variables):
        model = reading.model(container.label, "model-runner", container.base, container.mounts)
    if model:
        model.optional = container.optional
        model.contained = True
        model.published = any(setting.word == "ports" and setting.value for setting in container.settings)
    read_variables(container.variables, reading, model, key=container.variables_key, gone=True)
    for setting in container.settings:
        reading.add("containers", setting.word, setting.value, key=setting.key, place=setting.place, model=model)
    return model


def _read_command(container: Container, reading: Reading) -> Model | None:
    key, place = container.argv_key, container.argv_place
    command = engine_in(container.argv)
    program = ("containers", "command.program") if command else None
    if command is None and container.kind in ("vllm", "llama.cpp"):
        words = [word for word in container.argv if word != "--server"]  # what llama.cpp's `full` image is told first
        command = Command("vllm" if container.kind == "vllm" else "llama.cpp", (), tuple(words))
    if command is not None:
        return read_command(
            command,
            reading,
            base=container.base,
            label=container.label,
            key=key,
            place=place,
            mounts=container.mounts,
            program_word=program,
        )
    if container.argv:
        why = "The appliance starts its engine itself." if container.kind in ("model-runner", "ollama") else None
        level = "dropped" if why else "manual"
        reading.add("containers", "command", " ".join(container.argv), key=key, place=place, level=level, why=why)
    return None


def settings_of(
    data: Mapping[str, Any], *, prefix: str, place: Any, skip: Sequence[str] = (), path: tuple[str | int, ...] = ()
) -> list[Setting]:
    """A Compose service's keys as settings: a mapping as one, unless there are rules for what is inside it."""
    rules = vocabulary("containers").rules
    found: list[Setting] = []
    for name, value in data.items():
        if name in skip and not path:
            continue
        here = (*path, name)
        word = ".".join(map(str, here))
        if (
            isinstance(value, Mapping)
            and value
            and any(rule.startswith(f"{word}.") and "*" not in rule for rule in rules)
        ):
            found += settings_of(value, prefix=prefix, place=place, path=here)
        elif word == "volumes" and isinstance(value, list):
            found += [
                Setting(word, item, f"{prefix}{word}[{index}]", place(*here, index)) for index, item in enumerate(value)
            ]
        else:
            found.append(Setting(word, value, f"{prefix}{word}", place(*here)))
    return found


def mounts_of(volumes: Any, base: Path) -> list[Mount]:
    """`./models:/models:ro`, `name:/models`, or Compose's long form."""
    found = []
    for volume in volumes if isinstance(volumes, list) else []:
        if isinstance(volume, Mapping):
            source, target = volume.get("source"), volume.get("target")
        else:
            source, _, rest = str(volume).partition(":")
            target = rest.partition(":")[0] or None
        if isinstance(source, str) and isinstance(target, str) and target.startswith("/"):
            found.append(Mount(target, host_directory(source, base)))
    return found


def host_directory(source: str, base: Path) -> Path | None:
    if source.startswith(("/", "./", "../", "~")) or source == ".":
        return base / Path(source).expanduser() if not source.startswith("~") else Path(source).expanduser()
    return None
