"""The readers of one file each, by the kind of input. Compose files are read together, by `compose.read`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input, Tree, refused, tree
from appliance.migrate.readers import (
    docker_agent,
    docker_inspect,
    dockerfile,
    environment,
    helm,
    litellm,
    llama_swap,
    modelfile,
    runner,
    shell,
    systemd,
    vllm_config,
)

Reader = Callable[[Input, Reading], None]


def _document(read: Callable[[Input, Tree, Reading], None], *, needs: str | None = None) -> Reader:
    """A reader of text from one of a parsed document. `needs`: a key without which it is another kind of file."""

    def read_text(source: Input, reading: Reading) -> None:
        document = tree(source)
        if needs and not isinstance(document.data.get(needs), list | dict):
            raise refused(source.name, f"has no `{needs}`")
        read(source, document, reading)

    return read_text


READERS: Mapping[str, Reader] = {
    "docker-agent": _document(docker_agent.read),
    "docker-inspect": _document(docker_inspect.read, needs="items"),
    "dockerfile": dockerfile.read,
    "env": environment.read,
    "helm": _document(helm.read),
    "litellm": _document(litellm.read, needs="model_list"),
    "llama-swap": _document(llama_swap.read, needs="models"),
    "model-runner": _document(runner.read_saved, needs="items"),
    "modelfile": modelfile.read,
    "shell": shell.read,
    "systemd": systemd.read,
    "vllm-config": _document(vllm_config.read),
}
