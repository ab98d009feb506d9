"""`docker run …` and `podman run …` command lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from appliance.migrate.draft import Model
from appliance.migrate.found import Reading
from appliance.migrate.inputs import inside, read_input
from appliance.migrate.readers import environment
from appliance.migrate.readers.container import Container, Setting, engine_of_image, mounts_of, read_container
from appliance.migrate.readers.engines import Variable, engine_in, mapping_variables

# Without a value; all other flags of `docker run` take one.
_SWITCHES = frozenset(
    [
        "-d",
        "--detach",
        "--rm",
        "-i",
        "--interactive",
        "-t",
        "--tty",
        "-it",
        "-ti",
        "-dit",
        "-itd",
        "--init",
        "--privileged",
        "--read-only",
        "-P",
        "--publish-all",
        "--no-healthcheck",
        "--oom-kill-disable",
        "--sig-proxy",
        "--quiet",
        "-q",
        "--disable-content-trust",
    ]
)
_SHORT = {
    "-e": "--env", "-p": "--publish", "-v": "--volume", "-m": "--memory", "-u": "--user", "-w": "--workdir",
    "-h": "--hostname", "-l": "--label", "-c": "--cpu-shares", "-a": "--attach", "-d": "--detach",
    "-i": "--interactive", "-t": "--tty", "-P": "--publish-all", "-q": "--quiet",
}  # fmt: skip
_COMPOSE_WORDS = {
    "publish": "ports", "publish_all": "ports", "volume": "volumes", "mount": "volumes", "memory": "mem_limit",
    "memory_swap": "memswap_limit", "ulimit": "ulimits", "device": "devices", "label": "labels", "net": "network",
    "cpuset_cpus": "cpuset", "link": "links", "sysctl": "sysctls", "userns": "userns_mode", "tty": "tty",
    "health_cmd": "healthcheck", "health_interval": "healthcheck", "health_retries": "healthcheck",
    "health_timeout": "healthcheck", "health_start_period": "healthcheck", "no_healthcheck": "healthcheck",
    "add_host": "extra_hosts", "quiet": "pull", "oom_kill_disable": "oom_kill_disable",
}  # fmt: skip


def is_docker_run(argv: Sequence[str]) -> bool:
    words = [word for word in argv[:4] if word not in ("sudo", "container")]
    return words[:1] in (["docker"], ["podman"], ["nerdctl"]) and words[1:2] == ["run"]


def read(argv: Sequence[str], base: Path, reading: Reading, *, place: str, key: str = "docker run") -> Model | None:
    """Rows for every flag of a container that is an engine; nothing for other containers."""
    tokens = list(argv[argv.index("run") + 1 :])
    container = Container(label="default", image="", base=base, argv_key="", argv_place=place, variables_key="-e ")
    volumes: list[str] = []
    files: list[str] = []
    while tokens:
        token = tokens.pop(0)
        if not token.startswith("-"):
            container.image = token
            break
        name, value = _flag(token, tokens)
        if name == "--env":
            container.variables += [
                Variable(each.name, each.value, place) for each in mapping_variables([value], place)
            ]
        elif name == "--env-file":
            files.append(value)
        elif name == "--entrypoint":
            container.argv.insert(0, value)
        else:
            word = "interactive" if re.fullmatch(r"-[dit]{2,3}", name) else name.lstrip("-").replace("-", "_")
            word = _COMPOSE_WORDS.get(word, word)
            if word == "volumes":
                volumes.append(_mount(value))
            if name == "--name":
                container.label = value
            container.settings.append(
                Setting(word, value or None, f"{name} {value}".strip() if word == "ports" else name, place)
            )
    container.argv += tokens
    container.mounts = mounts_of(volumes, base)
    if engine_of_image(container.image) is None and engine_in(container.argv) is None:
        reading.add(
            "containers", "image", container.image, key=f"{key} {container.image}", place=place, level="kept",
            why="Not an engine; it stays as it is.",
        )  # fmt: skip
        return None
    container.settings.insert(0, Setting("image", container.image, f"{key} IMAGE", place))
    for file in files:
        _env_file(file, container, reading, place)
    return read_container(container, reading)


def _flag(token: str, tokens: list[str]) -> tuple[str, str]:
    name, equals, value = token.partition("=")
    if not name.startswith("--") and len(name) > 2 and name not in _SWITCHES:
        name, value, equals = name[:2], token[2:], "="  # -p8000:8000
    long = _SHORT.get(name, name)
    if equals:
        return long, value
    if name in _SWITCHES or (long in _SWITCHES):
        return long, ""
    return long, tokens.pop(0) if tokens else ""


def _mount(value: str) -> str:
    """`type=bind,source=/a,target=/b` as `/a:/b`."""
    parts = dict(part.partition("=")[::2] for part in value.split(",") if "=" in part)
    source, target = (
        parts.get("source") or parts.get("src"),
        parts.get("target") or parts.get("dst") or parts.get("destination"),
    )
    return f"{source}:{target}" if source and target else value


def _env_file(file: str, container: Container, reading: Reading, place: str) -> None:
    path = container.base / file
    if not inside(path, container.base) or not path.is_file():
        why = "Not there, or outside the folder; its variables were not read."
        reading.add("containers", "env_file", file, key=f"--env-file {file}", place=place, level="manual", why=why)
        return
    reading.add("containers", "env_file", file, key=f"--env-file {file}", place=place)
    reading.read_files.append(path)
    given = {variable.name for variable in container.variables}
    container.variables += [each for each in environment.parse(read_input(path).text, file) if each.name not in given]
