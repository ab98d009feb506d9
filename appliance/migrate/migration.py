"""The whole of a migration, up to the point where files are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from appliance.config.problems import InvalidConfig, Problem
from appliance.errors import ApplianceError
from appliance.migrate import document, schema
from appliance.migrate.client import Notice, commands, notices
from appliance.migrate.detect import Kind, detect
from appliance.migrate.draft import Draft, Model
from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input
from appliance.migrate.merging import merge_equal, only_the_last_command
from appliance.migrate.naming import assign_names
from appliance.migrate.readers import READERS, compose, environment, runner
from appliance.migrate.rows import Row, apply_rules
from appliance.migrate.sizing import Estimator, Size, by_name, size_models
from appliance.migrate.target import Target
from appliance.migrate.writers.files import Output
from appliance.migrate.writers.rewrites import rewrites

Validate = Callable[[str, Path], None]
"""Raises InvalidConfig for a text that is no valid configuration at this path."""

MOST_MODELS = 200


@dataclass(frozen=True, slots=True)
class Request:
    """What the person asked for. `folder` is where model-runner.yaml goes."""

    sources: tuple[Input, ...]
    folder: Path
    target: Target
    name: str = "metal"
    backend: str = "auto"
    kind: Kind | None = None
    in_place: bool = False
    answers: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """For `${NAME}` in Compose files."""
    process: bool = False
    """Read `environ` as an input too."""
    runner: str | None = None
    estimate: Estimator = by_name


@dataclass(slots=True)
class Migration:
    """What would be written, and all that there is to say about it. `text` is the configuration as one file."""

    rows: list[Row]
    sizes: list[Size] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    target: Target | None = None
    origin: str = ""
    text: str = field(default="", repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    upgrades: list[schema.Upgrade] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    """Every file that was read."""

    @property
    def needs_a_person(self) -> bool:
        return any(row.level == "manual" for row in self.rows) or any(size.problem for size in self.sizes)


def migrate(request: Request, validate: Validate) -> Migration:
    """Raises ApplianceError for input that cannot be read; everything else is a row."""
    kinds = [request.kind or detect(source) for source in request.sources]
    ours = [source for source, kind in zip(request.sources, kinds, strict=True) if kind == "ours"]
    if ours:
        return _upgraded(ours, request, validate)
    reading = _read(request, kinds)
    draft = Draft(request.backend, request.folder, request.target.apple, sources=dict(request.answers))
    draft.models = reading.models
    only_the_last_command(reading, draft)
    rows = apply_rules(reading, draft)
    same = merge_equal(draft)
    rows += _without_source(draft, rows)
    _point_to(rows, reading, same)
    lost = assign_names(draft.models)
    origin = _origin(request)
    migration = Migration(rows, target=request.target, origin=origin, files=reading.read_files)
    if draft.models:
        _fill(migration, draft, reading, request, kinds, validate, lost)
    migration.secrets = frozenset(reading.secrets)
    return migration


def _fill(
    migration: Migration,
    draft: Draft,
    reading: Reading,
    request: Request,
    kinds: Sequence[Kind],
    validate: Validate,
    lost: Sequence[str],
) -> None:
    for _ in range(_MOST_REFUSALS):
        migration.sizes = size_models(draft.models, request.target, request.folder, request.estimate)
        profile_path = f"profiles/{request.name}.yaml"
        profile = document.profile(draft, migration.sizes, request.target, name=request.name, origin=migration.origin)
        text = document.configuration(draft, profile=f"./{profile_path}", origin=migration.origin)
        problems = _problems(text, profile, profile_path, validate)
        if not problems or not _take_back(problems, draft, migration.rows):
            break
    if problems:
        raise InvalidConfig(problems)
    _as_sized(migration)
    file, mode = request.folder / "model-runner.yaml", request.in_place
    given = {source.path: (source, kind) for source, kind in zip(request.sources, kinds, strict=True) if source.path}
    rewritten = rewrites(draft, reading, given, migration.rows, in_place=mode)
    migration.outputs = [Output(request.folder / profile_path, profile, mode), Output(file, text, mode), *rewritten]
    migration.text = document.whole(draft, migration.sizes, request.target)
    migration.notices = notices(draft, migration.sizes, reading.consumers, lost)
    compose_files = [output.path.name for output in rewritten if output.path.suffix in (".yaml", ".yml")]
    shown = "model-runner.yaml" if request.folder.absolute() == Path.cwd() else str(file)
    guessed = [row.model for row in migration.rows if row.level == "manual" and row.model]
    migration.commands = commands(draft, file=shown, compose=compose_files, guessed=guessed)


_MOST_REFUSALS = 32


def _read(request: Request, kinds: Sequence[Kind]) -> Reading:
    reading = Reading()
    composed = [source for source, kind in zip(request.sources, kinds, strict=True) if kind == "compose"]
    if composed:
        compose.read(composed, request.environ, reading)
    for source, kind in zip(request.sources, kinds, strict=True):
        if kind == "compose":
            continue
        if source.path:
            reading.read_files.append(source.path)
        READERS[kind](source, reading)
    if request.runner:
        runner.read_live(request.runner, request.folder, reading)
    if request.process:
        environment.read_process(request.environ, request.folder, reading)
    if len(reading.models) > MOST_MODELS:
        raise ApplianceError(f"more than {MOST_MODELS} models", hint="migrate fewer files at once")
    return reading


def _origin(request: Request) -> str:
    # What an earlier migration wrote beside a file stands for that file.
    names = [source.name.replace(".appliance", "") for source in request.sources]
    names += [request.runner] if request.runner else []
    names += ["the environment"] if request.process else []
    return ", ".join(names)


def _without_source(draft: Draft, rows: list[Row]) -> list[Row]:
    """A model that nobody could name is left out of the file; there is a row that says so."""
    added = []
    for model in [each for each in draft.models if each.source is None]:
        if not any(row.level == "manual" and row.model is model for row in rows):
            why = "Names no model; say what it serves, and add it under `models`."
            added.append(Row("", model.label, "", "manual", None, why, "", model))
    for row in rows:
        if row.model is not None and row.model.source is None and row.level in ("kept", "mapped") and row.to:
            row.level, row.why = "manual", "Its model is not named, so there was nothing to set it for."
    draft.models[:] = [model for model in draft.models if model.source is not None]
    return added


def _point_to(rows: list[Row], reading: Reading, same: Mapping[int, Model]) -> None:
    for row in rows:
        row.model = same.get(id(row.model), row.model)
    reading.consumers[:] = [
        dataclasses.replace(consumer, model=same.get(id(consumer.model), consumer.model))
        for consumer in reading.consumers
    ]


def _problems(text: str, profile: str, profile_path: str, validate: Validate) -> list[Problem]:
    """What the loader has to say about the two files, written where nobody else reads them."""
    with TemporaryDirectory(prefix="appliance-migrate-") as directory:
        folder = Path(directory)
        (folder / profile_path).parent.mkdir(parents=True)
        (folder / profile_path).write_text(profile, encoding="utf-8", errors="backslashreplace")
        try:
            validate(text, folder / "model-runner.yaml")
        except InvalidConfig as problem:
            return list(problem.problems)
    return []


def _take_back(problems: Sequence[Problem], draft: Draft, rows: list[Row]) -> bool:
    """Take out what the backend or the format refuses, and say so in its row. False: nothing could be taken out."""
    taken = False
    for model in draft.models:
        prefix = f"models.{model.name}."
        for problem in problems:
            if not problem.path.startswith(prefix):
                continue
            section, _, rest = problem.path.removeprefix(prefix).partition(".")
            name = rest.partition("[")[0]
            place: dict[str, Any] = {"engine": model.arguments, "sampling": model.sampling, "env": model.env}.get(
                section, {}
            )
            if name in place:
                del place[name]
                taken = True
                _refuse(rows, model, f"{section}.{name}", problem)
            elif section.startswith("adapters") and model.adapters:
                model.adapters.clear()
                taken = True
                _refuse(rows, model, "adapters", problem)
            elif section == "idle_unload" and model.idle_unload:
                model.idle_unload, taken = None, True
                _refuse(rows, model, "idle_unload", problem)
    return taken


def _refuse(rows: list[Row], model: Model, setting: str, problem: Problem) -> None:
    for row in rows:
        target = (row.to or "").removeprefix("models.*.")
        if row.model is model and (target == setting or target.startswith(f"{setting}.")) and row.level != "dropped":
            reason = f"{problem.message}: {problem.hint}" if problem.hint else problem.message
            row.level, row.why = "manual", f"Not taken here: {reason}."


def _as_sized(migration: Migration) -> None:
    """The rows about sizes say what was written, and why it is less than was asked for."""
    sizes = {id(size.model): size for size in migration.sizes}
    for row in migration.rows:
        size = sizes.get(id(row.model)) or (migration.sizes[0] if len(migration.sizes) == 1 else None)
        if row.to == "memory.budget" and migration.target:
            row.became = f"{migration.target.share * 100:g}%"
        if row.to == "models.*.source" and row.level == "kept" and size and size.model.quantize and migration.target:
            row.level = "mapped"
            row.why = (
                f"{row.why} As they are stored its weights do not fit into {migration.target.name}, so all of them are "
                f"quantized to {size.model.quantize} bits then (`quantize`)."
            )
        written = {
            "models.*.engine.max_model_len": size.context if size else None,
            "models.*.engine.max_num_seqs": size.sequences if size else None,
        }.get(row.to or "")
        if written is None or row.level not in ("kept", "mapped") or size is None or row.became == str(written):
            continue
        asked = size.model.context if (row.to or "").endswith("max_model_len") else size.model.sequences
        row.became = str(written)
        if asked and asked > written:
            no_more = "The model can do no more"
            if not (size.own and (row.to or "").endswith("max_model_len")):
                no_more = f"No more fit into the memory of {migration.target.name}"  # type: ignore[union-attr]
            row.level, row.why = "mapped", f"{row.why} {no_more}."


def _upgraded(ours: Sequence[Input], request: Request, validate: Validate) -> Migration:
    if len(ours) != len(request.sources):
        raise ApplianceError(
            f"`{ours[0].name}` is the appliance's own file",
            hint="bring it up to date by itself: `appliance migrate FILE`",
        )
    migration = Migration([], target=request.target, origin=_origin(request))
    for source in ours:
        done = schema.upgrade(source.text, source.name)
        validate(done.text, source.path or source.base / source.name)
        migration.upgrades.append(done)
        migration.outputs.append(Output(source.path or Path(source.name), done.text, replaces=True))
    return migration
