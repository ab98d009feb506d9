"""model-runner.yaml as frozen values. A field's docstring is its reference entry; its default lives here alone."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from appliance.config.scalars import (
    Argument,
    Budget,
    Count,
    Day,
    Duration,
    Flag,
    Integer,
    Number,
    Secret,
    Size,
    Text,
    parse_version,
)

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
SHA256 = r"^[0-9a-f]{64}$"
ROUTE = r"^/"
DOMAIN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"

Name = Annotated[str, StringConstraints(strict=True, pattern=NAME)]
"""A name that is also safe as a file name and in a URL path."""


Domain = Annotated[str, StringConstraints(strict=True, pattern=DOMAIN)]
"""The name of one host."""


class Strict(BaseModel):
    """The base of everything in the file: unknown keys are errors, values never change, equality is by value."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class Server(Strict):
    """Where the gateway listens and what it accepts."""

    host: Text = "127.0.0.1"
    """Address to listen on. Any address other than loopback is refused unless `auth.keys` has a key."""

    port: Annotated[Integer, Field(ge=0, le=65535)] = 8000
    """TCP port. 0 lets the system choose one; `status` shows it."""

    metrics: Flag = False
    """Serve Prometheus metrics at `/metrics`. Off by default: they name every model and key."""

    max_body: Size = Field(default=32 * 1024 * 1024, validate_default=False)
    """Largest request body accepted, as a size. 32 MiB holds a long context with several images."""

    media_domains: tuple[Domain, ...] = ()
    """Hosts that engines may fetch images, audio and video from when a request names them by URL. Empty: such URLs are
    refused, since whoever asks could have this machine open any address it reaches; `data:` URLs always pass."""

    log: Literal["auto", "pretty", "json"] = "auto"
    """Log format on stderr. `auto` is pretty on a terminal and JSON otherwise."""

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Limits(Strict):
    """What one key may ask for. null: no limit."""

    requests_per_minute: Count | None = None
    """Requests admitted per minute, as a token bucket that holds one minute's worth."""

    tokens_per_minute: Count | None = None
    """Prompt and completion tokens per minute, counted from the engines' own usage."""

    concurrent: Count | None = None
    """Requests in flight at once."""


class Key(Strict):
    """One client key. Only its hash is in the file; `appliance key create NAME` prints the key once and writes this."""

    name: Name
    """Who holds the key: appears in logs and metrics instead of the key."""

    sha256: Annotated[str, StringConstraints(strict=True, pattern=SHA256)]
    """SHA-256 of the key, in hexadecimal."""

    models: tuple[Text, ...] = ("*",)
    """Globs of the model names this key may use."""

    scopes: tuple[Literal["inference", "metrics", "admin"], ...] = ("inference",)
    """What the key may do: `inference` asks models, `metrics` reads `/metrics`, `admin` uses `/admin`."""

    limits: Limits = Limits()
    """Rate and concurrency limits of this key."""

    priority: Count = 1
    """Turns in each round while requests wait for a busy model: a key of 3 is served three for each one of a key of 1.
    Every key has a turn in every round, so nobody waits for ever."""

    expires: Day | None = None
    """Last day (UTC) on which the key is accepted. null: never expires."""


class Auth(Strict):
    """Who may ask. No keys: everybody who can reach the port, which is loopback only."""

    keys: tuple[Key, ...] = ()
    """The accepted keys."""


class Memory(Strict):
    """What all engines together may take."""

    budget: Budget = Field(default=0.75, validate_default=False)
    """A share of physical memory (`75%`) or a size (`24GiB`). Three quarters leave the system room."""


class Rollout(Strict):
    """How a model moves to a new revision, and how long each step may take."""

    strategy: Literal["auto", "surge", "recreate"] = "auto"
    """`surge` starts the new engine first, `recreate` stops the old one first. `auto`: surge if memory holds both."""

    ready_timeout: Duration = timedelta(minutes=10)
    """From starting the engine to its readiness. Ten minutes covers a large checkpoint read from a slow disk."""

    drain_timeout: Duration = timedelta(minutes=5)
    """How long requests in flight may take to finish before their engine is stopped."""

    probe: Flag = True
    """Prove a new engine with one real generated token before any traffic reaches it."""


class Queue(Strict):
    """Requests that wait for a busy model. They are served in turn, key by key."""

    concurrent: Count | None = None
    """Requests that the engine is given at once; further ones wait in the gateway. null: a quarter more than its
    `max_num_seqs` (256 where the file sets none), so that its batch stays full and little waits out of turn."""

    length: Count = 512
    """Requests that may wait; further ones get 503 and a time to come back. Each holds its body in memory: 512 of long
    chats are some 100 MB. One key takes at most half of what is left."""


class Sampling(Strict):
    """Defaults for sampling, used where a request is silent."""

    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    """0 is greedy. null: the checkpoint's own default."""
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    """Nucleus sampling: the share of probability kept. null: the checkpoint's own default."""
    top_k: Annotated[Integer, Field(ge=-1)] | None = None
    """The number of tokens kept; -1 keeps all. null: the checkpoint's own default."""
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    """Tokens less likely than this share of the likeliest are dropped. null: the checkpoint's own default."""
    max_tokens: Count | None = None
    """Most tokens to generate. null: what the context leaves."""


class Adapter(Strict):
    """A LoRA adapter served under its own name."""

    name: Name
    """The name clients ask for."""
    source: Text
    """Where the adapter's bytes are; the same forms as a model's `source`. A directory as PEFT writes it, a GGUF, or an
    artifact of `oci:` that has a LoRA layer."""


class Model(Strict):
    """One model: where its weights are, how it runs, and what clients may call it."""

    source: Text
    """`hf:org/name@revision#FILES`, `oci:org/name:tag`, `pypi:NAME==VERSION`, `url:https://…#sha256=…`, or a path to a
    directory or a GGUF file."""

    backend: Name | None = None
    """The backend of this model. null: the file's own `backend`."""

    aliases: tuple[Text, ...] = ()
    """Further names clients may ask for; `*` and `?` match as in a shell."""

    task: Literal["generate", "embed", "score"] | None = None
    """What the model is for: `embed` serves `/v1/embeddings`, `score` serves `/v1/rerank` and `/v1/score`. null: as its
    checkpoint tells."""

    quantize: Literal[4, 6, 8] | None = None
    """Bits of a weight that a GGUF file, from whatever source, is quantized to anew when it is converted for MLX. null:
    as close to the file as MLX can hold it."""

    load: Literal["startup", "on_demand"] = "startup"
    """When the engine is started: with the appliance, or at the first request."""

    idle_unload: Duration | None = None
    """Stop the engine after this long without a request. null: never."""

    engine: dict[Name, Argument] = Field(default_factory=dict)
    """The backend's own arguments in snake_case, checked against that backend before anything starts."""

    queue: Queue = Queue()
    """What happens while more is asked than the engine can do."""

    sampling: Sampling = Sampling()
    """Sampling defaults of this model."""

    adapters: tuple[Adapter, ...] = ()
    """LoRA adapters served on this model."""

    env: dict[Text, Secret] = Field(default_factory=dict)
    """Environment variables of this engine only. A value may be `${env:NAME}` or `${file:path}`."""

    rollout: Rollout = Rollout()
    """How this model is replaced."""


class Metal(Strict):
    """The Metal plug-in."""

    device: Literal["default", "gpu", "cpu"] = "default"
    """MLX's device. `METAL_DEVICE` sets it from the environment."""

    plugin: Literal["auto", "builtin", "upstream"] = "auto"
    """Which vLLM plug-in drives MLX. `builtin` is this package's own, and what `auto` takes everywhere. `upstream`, the
    releases of vllm-metal, is refused for now: no checksum of one could be verified."""


class Environment(Strict):
    """The Python environment that engines run in."""

    python: Path | None = None
    """An interpreter that already has vLLM. null: the appliance provisions and pins an environment of its own."""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Which build of vLLM to provision on Linux. `auto` takes CUDA where an NVIDIA driver answers."""

    warm: Flag = True
    """Keep a process that has imported vLLM and fork engines from it, in a quarter of the time. CPUs on Linux only; it
    takes 550 MB, part of which its engines share."""


class Backend(Strict):
    """Any OpenAI-compatible server as an engine."""

    command: Annotated[tuple[Text, ...], Field(min_length=1)]
    """The argument list, never a shell line. `{model}`, `{port}`, `{socket}` and `{name}` are replaced."""

    health: Annotated[str, StringConstraints(strict=True, pattern=ROUTE)] = "/health"
    """The path that answers 200 once the server is ready."""

    env: dict[Text, Secret] = Field(default_factory=dict)
    """Environment variables of every engine of this backend."""


class HuggingFace(Strict):
    """Access to the Hugging Face hub."""

    token: Secret | None = None
    """Access token for gated models: `${env:NAME}` or `${file:path}`. `HF_TOKEN` sets it from the environment."""


class Appliance(Strict):
    """The whole file."""

    version: Annotated[Literal[1], BeforeValidator(parse_version)] = 1
    """The format's version."""

    profile: Text | None = None
    """A profile merged beneath this file: the name of one that ships with the appliance, or a path."""

    backend: Name = "auto"
    """The default backend: `vllm`, `vllm-metal` (vLLM over MLX), or a name from `backends`. `auto` is `vllm-metal` on
    Apple Silicon and `vllm` elsewhere."""

    server: Server = Server()
    """The gateway."""
    auth: Auth = Auth()
    """Client keys."""
    memory: Memory = Memory()
    """The memory budget."""
    environment: Environment = Environment()
    """The engines' Python environment."""
    models: dict[Name, Model] = Field(default_factory=dict)
    """The models, by the name clients ask for."""
    metal: Metal = Metal()
    """The Metal plug-in."""
    backends: dict[Name, Backend] = Field(default_factory=dict)
    """Further backends, by name."""
    huggingface: HuggingFace = HuggingFace()
    """The Hugging Face hub."""
