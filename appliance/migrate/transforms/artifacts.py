"""Models that others pack: Docker's artifacts, repositories of GGUF files, Ollama's library.

What our importer reads stays the source, byte for byte. What it does not is for the person to settle; the file names
the safetensors that the model was made from, where they are known, so that it can be settled by agreeing.
"""

from __future__ import annotations

import re
from dataclasses import replace

from appliance.migrate import catalogue
from appliance.migrate.catalogue import USUAL_TYPE, Known
from appliance.migrate.draft import Model
from appliance.migrate.importer import architectures, unread
from appliance.migrate.repository_names import gguf_type, suggestion
from appliance.migrate.transforms.setting import AS_THE_RULE_SAYS, Result, Setting, manual
from appliance.models.convert.architecture import ENCODERS


def docker_artifact(text: str, model: Model, setting: Setting) -> Result:
    """A name of Docker's catalogue, or of any other registry."""
    source = catalogue.registry_source(text)
    if source is None:
        model.source = placeholder(text)
        return asked("Not the name of an artifact in a registry", text)
    known = _as_listed(catalogue.known(source), model)
    written = f"oci:{catalogue.normal(text)}"
    _remember(known, model, source.tag)
    if model.packed == "safetensors":
        return _kept(written, "The same safetensors, from the same registry.", known, model, setting)
    problem = unread(known, model.stored)
    if stays_behind(known, setting):
        model.source = known.origin if problem and known and known.origin else written
        return elsewhere()
    if problem:
        return _instead(f"A GGUF {problem}, which the importer does not read", text, known, written, model)
    if known is None or known.architecture is None:
        return _kept(written, f"The same artifact, from the same registry. {_if_read()}", known, model, setting)
    why = "The same GGUF, from the same registry; it is converted once, at the first start."
    if known.images:
        why += " Images are not read: what the artifact has for them is not used."
    return _kept(written, why, known, model, setting)


def repository_of_ggufs(text: str, model: Model, setting: Setting) -> Result:
    """`organisation/name:QUANTIZATION` on the hub."""
    name, _, tag = text.partition(":")
    kind = tag or USUAL_TYPE
    known = _as_listed(catalogue.family(name), model)
    _remember(known, model, kind)
    one = f"hf:{name}#{kind}"
    problem = unread(known, kind.upper()) if catalogue.acceptable(one) else f"in {kind}"
    if stays_behind(known, setting):
        model.source = one if catalogue.acceptable(one) else placeholder(name)
        return elsewhere()
    if problem is None:
        default = "" if tag else ", which llama.cpp takes by default"
        why = f"The same repository's {kind} file{default}; it is converted once, at the first start."
        if known is None or known.architecture is None:
            why = f"The same repository's {kind} file{default}. {_if_read()}"
        return _kept(one, why, known, model, setting)
    guess = suggestion(name, apple=setting.draft.apple)
    if not catalogue.acceptable(guess) or "ORGANISATION" in guess:
        guess = f"hf:{name}"
    model.stored = None
    model.source = guess if catalogue.acceptable(guess) else placeholder(name)
    return Result(
        "manual",
        f"GGUF files {problem}, which the importer does not read. `{guess}` is a guess: see that it is there, or use "
        "`--source`.",
        value=model.source,
    )


def ollama_artifact(text: str, model: Model, setting: Setting) -> Result:
    """Of Ollama's library, whose registry has formats of its own: the same model in Docker's catalogue."""
    name, _, tag = text.partition(":")
    known = catalogue.for_ollama(f"ai/{name}", "" if tag == "latest" else tag)
    if known is None:
        question = "Of Ollama's library, which is not read; say where its safetensors are"
        return manual(f"{question}: `--source {quoted(text)}=hf:ORGANISATION/NAME`.")
    if stays_behind(known, setting):
        model.source = known.origin
        return elsewhere()
    problem = unread(known, known.stored)
    if problem or known.tag is None:
        model.parameters = known.parameters
        what = f"Ollama packs it as a GGUF {problem}, which the importer does not read"
        return _instead(what if problem else "Ollama's own registry is not read", text, known, "", model)
    _remember(known, model, known.tag)
    source = f"oci:{catalogue.normal(f'{name}:{known.tag}')}"
    why = "Ollama's own registry is not read; this is the same model as Docker packs it, in a GGUF as well."
    result = _kept(source, why, known, model, setting)
    return result if result.level == "manual" else replace(result, level="mapped")


def _as_listed(known: Known | None, model: Model) -> Known | None:
    """A running Model Runner has said more than a name can."""
    if model.architecture is None or (known is not None and known.architecture == model.architecture):
        return known
    return Known(architecture=model.architecture, origin=known.origin if known else None)


def _remember(known: Known | None, model: Model, name: str | None) -> None:
    """What sizing needs: how many parameters there are, and how they are stored."""
    if known is not None:
        model.parameters = known.parameters or model.parameters
        model.packed = model.packed or known.packed
        model.longest = known.longest
        if known.task == "embed":
            model.arguments.setdefault("runner", "pooling")
    if model.packed == "safetensors":
        model.stored = None
    else:
        model.stored = model.stored or (known.stored if known else None) or gguf_type(name or "") or USUAL_TYPE


def _kept(source: str, why: str, known: Known | None, model: Model, setting: Setting) -> Result:
    model.source = source
    if stays_behind(known, setting):
        return elsewhere()
    return Result("kept", why, value=source)


def stays_behind(known: Known | None, setting: Setting) -> bool:
    """Whether the target is a Mac and the model one that the Metal plug-in refuses."""
    if not setting.draft.apple or known is None:
        return False
    return known.architecture == "nomic-bert" or (known.architecture in ENCODERS and known.task == "score")


def elsewhere() -> Result:
    return manual(
        "An encoder that the Metal plug-in does not run: of them it has BERT and RoBERTa, for embeddings. Serve it by "
        "another server under `backends`, or name another with `--source`, such as `oci:ai/mxbai-embed-large`."
    )


def _if_read() -> str:
    read = ", ".join(architectures())
    return f"A GGUF is read if it is of {read}; another is refused when the model starts, and the reason is said."


def _instead(what: str, text: str, known: Known | None, written: str, model: Model) -> Result:
    """Safetensors in place of a GGUF, for the person to agree to."""
    origin = known.origin if known else None
    model.stored = "MXFP4" if known and known.stored == "MXFP4" else None  # gpt-oss is made in it
    model.source = origin or written
    if origin is None:
        return asked(what, text)
    why = f"{what}. `{origin}`, its safetensors, is written instead: see that it is what you want, or use `--source`."
    return Result("manual", why, value=origin)


def asked(what: str, text: str) -> Result:
    return manual(f"{what}; say where its safetensors are: `--source {quoted(text)}=hf:ORGANISATION/NAME`.")


def placeholder(text: str) -> str:
    """A path where the person may put the weights: it keeps the model's settings in the file, and starts nothing."""
    return f"./models/{re.sub(r'[^A-Za-z0-9._-]+', '-', text).strip('-.')[:80] or 'model'}"


def quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w./:@-]+", text) else f"'{text}'"


def listed_fact(setting: Setting) -> Result:
    """What a running Model Runner says of an artifact: no setting, but it decides what is kept."""
    word, text = setting.found.word.rpartition(".")[2], str(setting.value or "")
    for model in setting.models:
        if word == "architecture" and re.fullmatch(r"[\w.-]{1,40}", text):
            model.architecture = text
        elif word == "format" and text in ("gguf", "safetensors"):
            model.packed = "gguf" if text == "gguf" else "safetensors"
        elif word == "quantization" and (kind := gguf_type(text.rpartition("/")[2])):
            model.stored = kind
    return AS_THE_RULE_SAYS
