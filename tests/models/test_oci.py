"""`oci:` sources against a real registry."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from appliance.errors import SourceError, SourceNotFound, TransferFailed, UnsupportedModel
from appliance.models.adapter import adapter_file, rank
from appliance.models.checkpoint import Checkpoint
from appliance.models.shape import shape
from appliance.models.sources import RegistrySource, parse_source
from appliance.models.store import Store
from appliance.progress import Progress, silent
from tests.models.checkpoint_builder import hf_files, write_files
from tests.models.gguf_builder import HIDDEN, INTERMEDIATE, Gguf, tiny, tiny_adapter
from tests.models.registry_program import (
    CNCF,
    DOCKER,
    Layer,
    Program,
    TokenServer,
    Wire,
    config_layer,
    digest,
    manifest_of,
    registry_program,
    wire_to,
)
from tests.support import wait_until

PULLER = Path(__file__).with_name("puller.py")
GGUF = Layer(tiny().encode(), f"{DOCKER}gguf.v3")
IMAGE = "application/vnd.oci.image.config.v1+json"
V2 = f"{DOCKER}model.config.v0.2+json"


def big(seed: int, size: int = 4_000_000) -> bytes:
    """A safetensors file that no two seeds share a byte run of."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + Random(seed).randbytes(size)  # noqa: S311


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with registry_program(tmp_path_factory.mktemp("registry")) as program:
        yield program


@pytest.fixture
def wire(registry: Program) -> Iterator[Wire]:
    with wire_to(registry.port) as wire:
        yield wire


@pytest.fixture
def oci_environ(tmp_path: Path, environ: dict[str, str]) -> dict[str, str]:
    return environ | {"HOME": str(tmp_path / "home")}


@pytest.fixture
def store(tmp_path: Path, oci_environ: dict[str, str]) -> Store:
    return Store(tmp_path / "models", environ=oci_environ)


def source_of(host: str, name: str, suffix: str = "") -> RegistrySource:
    source = parse_source(f"oci:{host}/{name}{suffix}", base=Path("/"))
    assert isinstance(source, RegistrySource)
    return source


def pull(store: Store, source: RegistrySource) -> Checkpoint:
    return asyncio.run(store.pull(source, silent, subject="model m"))


def contents(checkpoint: Checkpoint) -> dict[str, bytes]:
    root = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def tar_of(files: dict[str, bytes], *, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_gguf_artifact_becomes_a_checkpoint_with_its_template(registry: Program, store: Store) -> None:
    template = Layer(b"{{ messages }}", f"{DOCKER}chat.template.jinja")
    projector = Layer(b"GGUFxxxx", f"{DOCKER}mmproj")
    pushed = registry.push("ai/tiny", [GGUF, template, projector, Layer(b"MIT", f"{DOCKER}license")])
    checkpoint = pull(store, source_of(registry.host, "ai/tiny"))
    assert (checkpoint.kind, checkpoint.path.name) == ("gguf", "model.gguf")
    assert contents(checkpoint) == {
        "model.gguf": GGUF.data, "chat_template.jinja": template.data, "mmproj.gguf": projector.data
    }  # fmt: skip
    record = store.record(source_of(registry.host, "ai/tiny"))
    assert record is not None
    assert record.revision == pushed


def test_safetensors_artifact_of_either_config_version_becomes_a_directory(registry: Program, store: Store) -> None:
    files = hf_files()
    weights = Layer(files.pop("model.safetensors"), f"{DOCKER}safetensors")
    archive = Layer(tar_of(files), f"{DOCKER}vllm.config.tar")
    registry.push("ai/one", [weights, archive])
    first = pull(store, source_of(registry.host, "ai/one"))
    assert contents(first) == hf_files()
    each = [Layer(data, f"{DOCKER}model.file", name) for name, data in files.items()]
    nested = Layer(b"{}", f"{DOCKER}model.file", "1_Pooling/config.json")
    code = Layer(b"raise", f"{DOCKER}model.file", "modeling.py")
    weights = Layer(weights.data, weights.media, "model.safetensors")
    registry.push("ai/two", [weights, *each, nested, code], config_layer(V2, format="safetensors"))
    second = pull(store, source_of(registry.host, "ai/two"))
    assert contents(second) == hf_files() | {"1_Pooling/config.json": b"{}"}
    assert (first.path / "model.safetensors").samefile(second.path / "model.safetensors")


def test_cncf_model_pack_is_read_raw_and_packed(registry: Program, store: Store) -> None:
    files = hf_files()
    config = config_layer(f"{CNCF}config.v1+json")
    raw = [Layer(data, f"{CNCF}weight.v1.raw", name) for name, data in files.items()]
    registry.push("pack/raw", [*raw, Layer(b"#", f"{CNCF}doc.v1.raw", "README.md")], config)
    assert contents(pull(store, source_of(registry.host, "pack/raw"))) == files
    packed = Layer(
        tar_of({f"./m/{name}": data for name, data in files.items()}, mode="w:gz"), f"{CNCF}weight.v1.tar+gzip"
    )
    registry.push("pack/tar", [packed], config)
    assert contents(pull(store, source_of(registry.host, "pack/tar"))) == files


def test_shards_are_numbered_in_their_order(registry: Program, store: Store) -> None:
    layers = [Layer(big(seed, 1000), f"{DOCKER}safetensors") for seed in (1, 2)]
    files = {name: data for name, data in hf_files().items() if name != "model.safetensors"}
    registry.push("ai/shards", [*layers, Layer(tar_of(files), f"{DOCKER}dir.tar")])
    found = contents(pull(store, source_of(registry.host, "ai/shards")))
    assert found["model-00001-of-00002.safetensors"] == layers[0].data
    assert found["model-00002-of-00002.safetensors"] == layers[1].data


def test_tag_is_kept_at_the_manifest_that_it_first_meant(registry: Program, store: Store) -> None:
    first = registry.push("ai/moving", [GGUF], tag="v1")
    before = pull(store, source_of(registry.host, "ai/moving", ":v1"))
    registry.push("ai/moving", [Layer(tiny(kind="Q8_0").encode(), f"{DOCKER}gguf.v3")], tag="v1")
    assert pull(store, source_of(registry.host, "ai/moving", ":v1")) == before
    pinned = pull(store, source_of(registry.host, "ai/moving", f"@{first}"))
    assert pinned.path == before.path


def test_layer_that_is_here_already_is_not_fetched_again(registry: Program, store: Store, wire: Wire) -> None:
    shared, other = Layer(big(5), f"{DOCKER}safetensors"), hf_files()
    rest = Layer(
        tar_of({name: data for name, data in other.items() if name != "model.safetensors"}), f"{DOCKER}dir.tar"
    )
    registry.push("ai/base", [shared, rest])
    registry.push("ai/derived", [shared, rest, Layer(b"{{ m }}", f"{DOCKER}chat.template.jinja")])
    pull(store, source_of(wire.host, "ai/base"))
    before = wire.sent
    derived = pull(store, source_of(wire.host, "ai/derived"))
    assert wire.sent - before < 100_000
    assert contents(derived)["model.safetensors"] == shared.data


def test_broken_transfer_goes_on_from_the_last_byte(registry: Program, store: Store, wire: Wire) -> None:
    weights = Layer(big(6), f"{DOCKER}safetensors")
    rest = Layer(tar_of({"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}"}), f"{DOCKER}dir.tar")
    registry.push("ai/cut", [weights, rest])
    wire.cuts = [1_500_000, 1_000_000]
    checkpoint = pull(store, source_of(wire.host, "ai/cut"))
    assert contents(checkpoint)["model.safetensors"] == weights.data
    assert any("Range: bytes=" in request for request in wire.requests)
    assert wire.sent < len(weights.data) + 200_000


def test_killed_pull_is_resumed_by_the_next(
    registry: Program, store: Store, wire: Wire, tmp_path: Path, oci_environ: dict[str, str]
) -> None:
    weights = Layer(big(7), f"{DOCKER}safetensors")
    rest = Layer(tar_of({"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}"}), f"{DOCKER}dir.tar")
    registry.push("ai/killed", [weights, rest])
    source = source_of(wire.host, "ai/killed")
    wire.stall_after = 1_000_000
    argv = [sys.executable, str(PULLER), str(tmp_path / "models"), source.text]
    with subprocess.Popen(argv, env=oci_environ, stdout=subprocess.DEVNULL, start_new_session=True) as puller:
        arriving = tmp_path / "models" / "arriving"
        wait_until(lambda: any(each.stat().st_size > 900_000 for each in arriving.glob("*")), what="a part has arrived")
        os.kill(puller.pid, signal.SIGKILL)
    assert store.find(source) is None
    wire.stall_after = None
    assert contents(pull(store, source))["model.safetensors"] == weights.data
    (start,) = [
        request.partition("Range: bytes=")[2].partition("-")[0]
        for request in wire.requests
        if "Range" in request and "bytes=0-" not in request  # the configuration is asked for from its start
    ]
    assert int(start) > 900_000


def test_layers_come_side_by_side(
    registry: Program, wire: Wire, store: Store, tmp_path: Path, oci_environ: dict[str, str]
) -> None:
    weights = [Layer(big(seed), f"{DOCKER}safetensors") for seed in (21, 22)]
    rest = Layer(tar_of({"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}"}), f"{DOCKER}dir.tar")
    registry.push("ai/parallel", [*weights, rest])
    source = source_of(wire.host, "ai/parallel")
    wire.stall_after = 1_000_000
    argv = [sys.executable, str(PULLER), str(tmp_path / "models"), source.text]
    with subprocess.Popen(argv, env=oci_environ, stdout=subprocess.DEVNULL) as puller:
        arriving = tmp_path / "models" / "arriving"
        wait_until(
            lambda: sum(each.stat().st_size > 900_000 for each in arriving.glob("*")) == len(weights),
            what="a part of each has arrived while none is whole",
        )
        wire.stall_after = None
        assert puller.wait(60) == 0
    assert store.find(source) is not None


def test_two_pulls_at_once_share_the_layers(
    registry: Program, wire: Wire, tmp_path: Path, oci_environ: dict[str, str]
) -> None:
    weights = Layer(big(8), f"{DOCKER}safetensors")
    rest = Layer(tar_of({"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}"}), f"{DOCKER}dir.tar")
    registry.push("ai/left", [weights, rest])
    registry.push("ai/right", [weights, rest, Layer(b"x", f"{DOCKER}chat.template.jinja")])
    texts = [source_of(wire.host, name).text for name in ("ai/left", "ai/right")]
    argv = [sys.executable, str(PULLER), str(tmp_path / "models")]
    processes = [subprocess.Popen([*argv, text], env=oci_environ, stdout=subprocess.PIPE, text=True) for text in texts]
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    assert wire.sent < len(weights.data) + 200_000


def test_damaged_layer_is_never_kept(registry: Program, store: Store, tmp_path: Path) -> None:
    damaged = Layer(tiny(kind="Q4_0").encode(), f"{DOCKER}gguf.v3")
    registry.push("ai/damaged", [damaged])
    registry.damage(damaged.data)
    with pytest.raises(TransferFailed, match="another SHA-256"):
        pull(store, source_of(registry.host, "ai/damaged"))
    assert not list((tmp_path / "models" / "blobs").iterdir())


def test_corrupt_blob_is_thrown_away_and_fetched_again(registry: Program, store: Store, tmp_path: Path) -> None:
    registry.push("ai/rot", [GGUF])
    source = source_of(registry.host, "ai/rot")
    checkpoint = pull(store, source)
    checkpoint.path.write_bytes(GGUF.data[:-1] + b"\xff")  # the blob, too: they are one file
    said: list[Progress] = []
    again = asyncio.run(store.pull(source, said.append, subject="model m"))
    assert again.path.read_bytes() == GGUF.data
    assert any("model.gguf" in each.step for each in said)


def test_what_is_fetched_again_is_what_was_fetched_before(registry: Program, store: Store) -> None:
    registry.push("ai/moved", [GGUF])
    source = source_of(registry.host, "ai/moved")
    checkpoint = pull(store, source)
    registry.push("ai/moved", [Layer(tiny(kind="Q8_0").encode(), f"{DOCKER}gguf.v3")])
    checkpoint.path.write_bytes(GGUF.data[:-1] + b"\xff")
    assert pull(store, source).path.read_bytes() == GGUF.data


def test_private_registry_takes_the_credentials_of_docker_login(tmp_path: Path, oci_environ: dict[str, str]) -> None:
    tokens = TokenServer(tmp_path / "tokens")
    try:
        with registry_program(tmp_path / "private", tokens=tokens) as private:
            private.push("org/closed", [GGUF])
            source = source_of(private.host, "org/closed")
            auth = base64.b64encode(b"user:secret").decode()
            write_files(
                tmp_path / "home" / ".docker",
                {"config.json": json.dumps({"auths": {private.host: {"auth": auth}}}).encode()},
            )
            assert pull(Store(tmp_path / "models", environ=oci_environ), source).kind == "gguf"
            assert tokens.asked == [f"Basic {auth}"]
            anonymous = oci_environ | {"HOME": str(tmp_path / "nobody")}
            tokens.refuses = True
            with pytest.raises(SourceNotFound, match="refused access") as caught:
                pull(Store(tmp_path / "others", environ=anonymous), source)
            assert "docker login" in str(caught.value.hint)
    finally:
        tokens.close()


HELPER = """#!{python}
import json, sys
server = sys.stdin.read()
open({log!r}, "a").write(f"{{sys.argv[1:]}} {{server}}\\n")
{what}
"""
GIVES = 'print(json.dumps({"ServerURL": server, "Username": "user", "Secret": "secret"}))'


def helper(directory: Path, name: str, what: str) -> Path:
    """A program as Docker keeps credentials with; what it was asked is in the file that is returned."""
    directory.mkdir(exist_ok=True)
    log, program = directory / f"{name}.log", directory / f"docker-credential-{name}"
    program.write_text(HELPER.format(python=sys.executable, log=str(log), what=what))
    program.chmod(0o755)
    return log


@pytest.mark.parametrize(
    ("config", "what", "expected"),
    [
        ({"credsStore": "mine"}, GIVES, None),
        ({"credsStore": "none", "credHelpers": {"HOST": "mine"}}, GIVES, None),
        ({"credsStore": "mine", "auths": {"HOST": {"auth": "dXNlcjpzZWNyZXQ="}}}, "sys.exit(1)", None),
        ({"credsStore": "absent"}, GIVES, "is not on PATH"),
        ({"credsStore": "../mine"}, GIVES, "is not on PATH"),
        ({"credsStore": "mine"}, "print('{')", "no usable answer"),
        ({"credsStore": "mine"}, "print('x' * 200_000)", "no usable answer"),
        ({"credsStore": "mine"}, GIVES.replace('"user"', '"<token>"'), "identity token"),
        ({"credsStore": "mine"}, "sys.exit(1)", "docker login"),
    ],
)
def test_credentials_that_a_helper_keeps_are_asked_of_it(
    tmp_path: Path, oci_environ: dict[str, str], config: dict[str, Any], what: str, expected: str | None
) -> None:
    tokens = TokenServer(tmp_path / "tokens")
    try:
        with registry_program(tmp_path / "private", tokens=tokens) as private:
            private.push("org/closed", [GGUF])
            log = helper(tmp_path / "bin", "mine", what)
            text = json.dumps(config).replace("HOST", private.host)
            write_files(tmp_path / "home" / ".docker", {"config.json": text.encode()})
            environ = oci_environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{oci_environ['PATH']}"}
            source = source_of(private.host, "org/closed")
            if expected is None:
                assert pull(Store(tmp_path / "models", environ=environ), source).kind == "gguf"
                assert tokens.asked == ["Basic dXNlcjpzZWNyZXQ="]
                assert f"['get'] {private.host}" in log.read_text()
                return
            tokens.refuses = True
            with pytest.raises(SourceNotFound, match="refused access") as caught:
                pull(Store(tmp_path / "models", environ=environ), source)
            assert expected in str(caught.value.hint)
            assert "secret" not in str(caught.value) + str(caught.value.hint)
            assert tokens.asked == [None]
    finally:
        tokens.close()


def test_index_leads_to_the_manifest_for_this_machine(registry: Program, store: Store) -> None:
    mine = registry.push("ai/many", [GGUF], tag="mine")
    other = registry.push("ai/many", [Layer(tiny(kind="Q8_0").encode(), f"{DOCKER}gguf.v3")], tag="other")
    here = {"os": sys.platform, "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]}
    attests: dict[str, Any] = {"digest": other, "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    indexes: dict[str, list[dict[str, Any]]] = {
        "one": [{"digest": mine}, attests],
        "two": [{"digest": other, "platform": {"os": "plan9", "architecture": "mips"}}, {"digest": mine}],
        "three": [{"digest": other}, {"digest": mine, "platform": here}],
    }
    for tag, manifests in indexes.items():
        registry.push_index("ai/many", manifests, tag=tag)
        assert pull(store, source_of(registry.host, "ai/many", f":{tag}")).path.read_bytes() == GGUF.data
    registry.push_index("ai/many", [{"digest": mine}, {"digest": other}], tag="both")
    with pytest.raises(UnsupportedModel, match="index of 2 manifests") as caught:
        pull(store, source_of(registry.host, "ai/many", ":both"))
    assert mine in str(caught.value.hint)


def docker_store(home: Path, tag: str, layers: list[Layer]) -> None:
    config = config_layer()
    manifest = manifest_of(layers, config)
    root = home / ".docker" / "models"
    write_files(root / "manifests" / "sha256", {digest(manifest).removeprefix("sha256:"): manifest})
    write_files(
        root / "blobs" / "sha256", {digest(each.data).removeprefix("sha256:"): each.data for each in (*layers, config)}
    )
    write_files(root, {"models.json": json.dumps({"models": [{"id": digest(manifest), "tags": [tag]}]}).encode()})


def test_what_docker_has_is_not_downloaded(store: Store, tmp_path: Path) -> None:
    docker_store(tmp_path / "home", "ai/local:latest", [GGUF])
    source = parse_source("oci:local", base=Path("/"))
    assert isinstance(source, RegistrySource)
    checkpoint = pull(store, source)  # docker.io cannot be reached from a test
    assert checkpoint.path.read_bytes() == GGUF.data
    theirs = tmp_path / "home/.docker/models/blobs/sha256" / digest(GGUF.data).removeprefix("sha256:")
    assert checkpoint.path.samefile(theirs)
    asyncio.run(store.remove(source))
    assert theirs.read_bytes() == GGUF.data


def test_dockers_own_damage_is_not_taken_over(registry: Program, store: Store, tmp_path: Path) -> None:
    registry.push("ai/mended", [GGUF])
    docker_store(tmp_path / "home", f"{registry.host}/ai/mended:latest", [GGUF])
    theirs = tmp_path / "home/.docker/models/blobs/sha256" / digest(GGUF.data).removeprefix("sha256:")
    theirs.write_bytes(GGUF.data[:-1] + b"\xff")
    assert pull(store, source_of(registry.host, "ai/mended")).path.read_bytes() == GGUF.data


def test_shape_is_known_from_headers_alone(registry: Program, store: Store, wire: Wire, tmp_path: Path) -> None:
    layer = Layer(big(9), f"{DOCKER}safetensors")
    config = json.dumps({"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64})
    rest = Layer(tar_of({"config.json": config.encode(), "tokenizer.json": b"{}"}), f"{DOCKER}vllm.config.tar")
    registry.push("ai/heads", [layer, rest])
    source = source_of(wire.host, "ai/heads")
    path = asyncio.run(store.skeleton(source, tmp_path, silent, subject="model m"))
    found = shape(path)
    assert (found.weights, found.cache_per_token) == (4_000_000, 2 * 2 * 64 * 2)
    assert wire.sent < 1_500_000
    assert store.find(source) is None


def wide(kind: str) -> Gguf:
    """`tiny`, wide enough for rows of whole K-quants."""
    sizes = {HIDDEN: 256, 32: 128, INTERMEDIATE: 256}
    small = tiny(kind=kind, embeddings=kind)
    tensors = {
        name: (each, tuple(sizes.get(size, size) for size in shape)) for name, (each, shape) in small.tensors.items()
    }
    return replace(small, tensors=tensors).with_metadata(
        llama__embedding_length=256, llama__feed_forward_length=256, tokenizer__ggml__pre="smollm"
    )


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "Q4_0"])
@pytest.mark.parametrize(("wanted", "bits"), [(None, {"Q4_K": 4, "Q6_K": 6, "Q4_0": 4}), (4, 4), (8, 8)])
def test_artifact_is_quantized_for_mlx_to_what_the_file_asks(
    registry: Program, store: Store, kind: str, wanted: int | None, bits: int | dict[str, int]
) -> None:
    registry.push("ai/quantized", [Layer(wide(kind).encode(), f"{DOCKER}gguf.v3")], tag=kind.lower())
    checkpoint = pull(store, source_of(registry.host, "ai/quantized", f":{kind.lower()}"))
    made = store.prepare(checkpoint, "mlx", Path(sys.executable), silent, subject="model m", bits=wanted)
    quantization = json.loads((asyncio.run(made) / "config.json").read_bytes())["quantization"]
    assert quantization == {"group_size": 32, "bits": bits if isinstance(bits, int) else bits[kind], "mode": "affine"}


def test_adapter_beside_a_model_is_found_in_its_artifact(registry: Program, store: Store) -> None:
    layers = [GGUF, Layer(tiny_adapter(rank=12).encode(), f"{DOCKER}gguf.v3.lora")]
    registry.push("ai/adapted", layers)
    checkpoint = pull(store, source_of(registry.host, "ai/adapted"))
    assert (checkpoint.kind, checkpoint.path.name) == ("gguf", "model.gguf")
    assert adapter_file(checkpoint, store.checkpoints) == checkpoint.path.with_name("adapter.gguf")
    assert rank(checkpoint, store.checkpoints) == 12
    registry.push("ai/alone", layers[1:])
    alone = pull(store, source_of(registry.host, "ai/alone"))
    assert rank(alone, store.checkpoints) == 12
    base = write_files(
        alone.path.parent.parent / "base",
        {"config.json": b'{"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}'},
    )
    made = store.prepare_adapter(alone, base, Path(sys.executable), silent, subject="adapter a")
    assert sorted(path.name for path in asyncio.run(made).iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


@pytest.mark.parametrize(("given", "expected"), [(4096, 4096), (None, None), (0, None), ("8k", None), (True, None)])
@pytest.mark.parametrize("media", [f"{DOCKER}model.config.v0.1+json", V2])
def test_length_that_an_artifact_was_packed_for_is_kept(
    registry: Program, store: Store, media: str, given: object, expected: int | None
) -> None:
    registry.push("ai/sized", [GGUF], config_layer(media, context_size=given))
    source = source_of(registry.host, "ai/sized")
    assert pull(store, source).context == expected
    found = store.find(source)
    assert found is not None
    assert found.context == expected


@pytest.mark.parametrize(
    ("layers", "config", "named", "error"),
    [
        ([Layer(b"x", "application/vnd.oci.image.layer.v1.tar")], IMAGE, "no model", UnsupportedModel),
        ([Layer(b"x", f"{DOCKER}dduf")], None, "diffusion", UnsupportedModel),
        ([Layer(b"x", f"{DOCKER}license")], None, "holds no", SourceNotFound),
        ([Layer(GGUF.data, GGUF.media, "../../evil.gguf")], V2, "evil", SourceError),
        ([Layer(GGUF.data, GGUF.media, "/etc/evil.gguf")], V2, "evil", SourceError),
        ([Layer(GGUF.data, GGUF.media, "a.gguf"), Layer(b"GGUFx", GGUF.media, "A.gguf")], V2, "same name", SourceError),
    ],
)  # fmt: skip
def test_what_is_no_model_or_means_harm_is_refused(
    registry: Program, store: Store, layers: list[Layer], config: str | None, named: str, error: type[SourceError]
) -> None:
    registry.push("ai/odd", layers, config_layer(config) if config else None)
    with pytest.raises(error, match=named):
        pull(store, source_of(registry.host, "ai/odd"))
    assert store.list() == ()


def test_missing_name_and_missing_registry_are_told_apart(registry: Program, store: Store) -> None:
    with pytest.raises(SourceNotFound, match="does not exist"):
        pull(store, source_of(registry.host, "ai/nothing"))
    with pytest.raises(TransferFailed, match="cannot be reached"):
        pull(store, source_of("127.0.0.1:9", "ai/nothing"))
