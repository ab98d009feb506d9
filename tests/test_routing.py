from __future__ import annotations

import asyncio

import pytest

from appliance.routing import Lease, Routing, normal_form

ROUTING = Routing(
    routes={"smollm2": None, "ai/qwen": None, "both": None, "hub": None},
    aliases={"hf.co/Org/Model-7B": "hub", "ai/smollm2": "smollm2", "gpt-4o-mini": "smollm2", "smol": "both"},
    globs=(("claude-*", "smollm2"), ("claude-3*", "both")),
)


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ("smollm2", "smollm2"),
        ("ai/smollm2", "smollm2"),
        ("gpt-4o-mini", "smollm2"),
        ("claude-opus", "smollm2"),
        ("claude-3-haiku", "smollm2"),  # the first glob in the file's order wins
        ("ai/smollm2:latest", "smollm2"),
        ("docker.io/ai/smollm2", "smollm2"),
        ("smollm2:latest", "smollm2"),
        ("qwen", "ai/qwen"),
        ("qwen:latest", "ai/qwen"),
        ("hf.co/Org/Model-7B", "hub"),
        ("huggingface.co/org/model-7b", "hub"),
        ("hf.co/org/model-7b:latest", "hub"),
        ("hf.co/org/other", None),
        ("SMOLLM2", None),
        ("smollm2:1b", None),
        ("", None),
    ],
)
def test_a_name_resolves_as_name_alias_glob_or_docker_spelling(asked: str, model: str | None) -> None:
    assert ROUTING.resolve(asked) == model


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("smollm2", "ai/smollm2:latest"),
        ("smollm2:360M-Q4", "ai/smollm2:360M-Q4"),
        ("ai/smollm2", "ai/smollm2:latest"),
        ("docker.io/ai/smollm2:latest", "ai/smollm2:latest"),
        ("org/model", "org/model:latest"),
        ("hf.co/Org/Model:Q4_K_M", "huggingface.co/org/model:q4_k_m"),
        ("localhost:5000/model", "localhost:5000/model:latest"),
    ],
)
def test_dockers_normal_form_has_a_namespace_and_a_tag(name: str, normal: str) -> None:
    assert normal_form(name) == normal


def test_a_lease_has_drained_when_every_request_has_ended() -> None:
    async def main() -> None:
        lease = Lease()
        await lease.drained()
        lease.acquire()
        lease.acquire()
        drained = asyncio.create_task(lease.drained())
        lease.release()
        await asyncio.sleep(0)
        assert not drained.done()
        lease.release()
        await drained
        assert lease.in_flight == 0

    asyncio.run(main())
