"""Command lines: a script, a crontab, a shell history, or one line on standard input."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input
from appliance.migrate.readers import docker_model, docker_run
from appliance.migrate.readers.engines import Variable, engine_in, read_command, read_variables
from appliance.migrate.words import split

_HISTORY = re.compile(r"^(?:: \d+:\d+;|#\d{9,}$|\s*\d+\s{2,})")
_CRON = re.compile(r"^(?:(?:[\d*/,-]+\s+){5}|@\w+\s+)(?=\S)")
_REDIRECTED = re.compile(r"[<>&|]*\s*(?:'[^']*'|\"[^\"]*\"|[^\s;|&<>'\"])*")
_ASSIGNMENT = re.compile(r"(?:export\s+)?[A-Za-z_]\w*=")
_NAMES = {"vllm": "vllm", "llama.cpp": "llama-server", "ollama": "ollama"}
_WANTED = re.compile(
    r"vllm|llama-server|docker|podman|nerdctl|ollama|_configure|^\s*(?:export\s+)?[A-Z_]+=", re.MULTILINE
)


def looks_like_it(text: str) -> bool:
    return bool(_WANTED.search(text))


def read(source: Input, reading: Reading) -> None:
    """Rows for every line that starts, configures or names an engine; other lines are no settings."""
    exported: list[Variable] = []
    for argv, number in commands(source.text):
        place = f"{source.name}:{number}"
        if argv and all(_ASSIGNMENT.match(word) for word in argv if word != "export"):
            exported += _assignments(argv, place)
            continue
        _line(argv, source, reading, place)
    used = {found.key for found in reading.founds}
    read_variables([each for each in exported if each.name not in used], reading, None, key="", known_only=True)


def _line(argv: list[str], source: Input, reading: Reading, place: str) -> None:
    if docker_run.is_docker_run(argv):
        docker_run.read(argv, source.base, reading, place=place)
    elif docker_model.is_docker_model(argv):
        docker_model.read(argv, source.base, reading, place=place)
    elif docker_model.is_configure_call(argv):
        docker_model.read_call(argv, source.base, reading, place=place)
    elif command := engine_in(argv):
        before = [word for word in command.program if _ASSIGNMENT.match(word)]
        model = read_command(
            command, reading, base=source.base, label="default", key=_NAMES[command.engine], place=place
        )
        read_variables(_assignments(before, place), reading, model, key="")


def commands(text: str) -> Iterator[tuple[list[str], int]]:
    """Each simple command with its line, continued lines joined."""
    for line, number in _joined(text):
        bare = _CRON.sub("", _HISTORY.sub("", line)).strip()
        for segment in simple_commands(bare):
            words = split(segment)
            words = words[1:] if words[:1] == ["sudo"] else words
            if words:
                yield words, number


def simple_commands(line: str) -> list[str]:
    """A line apart at `&&`, `||`, `;`, `|` and `&` outside quotes; redirections and comments left out."""
    found, current, quote, at = [], "", "", 0
    while at < len(line):
        letter = line[at]
        if letter == "\\" and quote != "'":
            current += line[at : at + 2]
            at += 2
            continue
        at += 1
        if quote or letter in "'\"":
            current += letter
            quote = ("" if letter == quote else quote) if quote else letter
        elif letter in "<>":
            current = re.sub(r"(?:^|(?<=\s))[\d&]$", "", current)  # the 2 of `2>`
            redirected = _REDIRECTED.match(line, at)
            at = redirected.end() if redirected else at
        elif letter == "&" and line[at : at + 1] == ">":
            continue
        elif letter in ";|&":
            found.append(current)
            current = ""
        elif letter == "#" and (not current or current[-1].isspace()):
            break
        else:
            current += letter
    return [*found, current]


def _joined(text: str) -> Iterator[tuple[str, int]]:
    pending, start, quote = "", 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        start = start or number
        if line.rstrip().endswith("\\") and not line.lstrip().startswith("#"):
            pending += line.rstrip()[:-1] + " "
            continue
        quote = pending + line
        if quote.count("'") % 2 and len(quote) < 65_536 and ("docker" in quote or "curl" in quote or "vllm" in quote):
            pending = quote + "\n"  # a quoted JSON body goes on over the line's end
            continue
        yield quote, start
        pending, start = "", 0
    if pending:
        yield pending, start


def _assignments(words: Sequence[str], place: str) -> list[Variable]:
    pairs = (word.partition("=") for word in words if word != "export" and "=" in word)
    return [Variable(name, value, place) for name, _, value in pairs]
