"""What the runner remembers of each request between two steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .step import Span


@dataclass(eq=False)
class Request:
    """`tokens` are the prompt and what is known of the output; `length` also counts tokens that MLX is still computing.

    With asynchronous scheduling the next step is built before the last one's tokens have arrived here.
    """

    id: str
    tokens: list[int]
    prompt_length: int
    blocks: list[int]
    computed: int
    sampling: Any = None  # vllm.SamplingParams
    pooling: Any = None  # vllm.PoolingParams
    adapter: Any = None  # vllm.lora.request.LoRARequest
    length: int = 0
    prompt_logprobs: list[Any] = field(default_factory=list)
    preemptions: int = 0

    def __post_init__(self) -> None:
        self.length = len(self.tokens)

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt_length :]

    def span(self, count: int, block_size: int) -> Span:
        """The next `count` tokens."""
        blocks = -(-(self.computed + count) // block_size)
        return Span(self.computed, count, self.blocks[:blocks])

    def completes(self, count: int) -> bool:
        """Whether a token is sampled after these; a prefill chunk before the last yields none."""
        return self.computed + count >= self.length

    def resume(self, tokens: list[int]) -> None:
        """Computed again from its tokens, after a preemption. What was in flight for it then is no longer wanted."""
        self.tokens = list(tokens)
        self.length = len(tokens)
        self.preemptions += 1
        self.prompt_logprobs.clear()


class Requests:
    """All requests that the scheduler has told of and not yet called finished."""

    def __init__(self) -> None:
        self._by_id: dict[str, Request] = {}

    def __getitem__(self, name: str) -> Request:
        return self._by_id[name]

    def get(self, name: str) -> Request | None:
        return self._by_id.get(name)

    def __len__(self) -> int:
        return len(self._by_id)

    def update(self, scheduled: Any) -> None:
        """Bring them up to a SchedulerOutput: finished ones out, new ones in, the rest forward."""
        for name in scheduled.finished_req_ids:
            self._by_id.pop(name, None)
        for new in scheduled.scheduled_new_reqs:
            self._by_id[new.req_id] = _request(new)
        self._advance(scheduled.scheduled_cached_reqs)

    def _advance(self, cached: Any) -> None:
        for row, name in enumerate(cached.req_ids):
            request = self._by_id[name]
            request.computed = cached.num_computed_tokens[row]
            blocks = _blocks(cached.new_block_ids[row])
            if name in cached.resumed_req_ids:
                request.blocks = blocks
                request.resume(cached.all_token_ids[name])
            else:
                request.blocks.extend(blocks)


def _request(new: Any) -> Request:
    return Request(
        id=new.req_id,
        tokens=list(new.prompt_token_ids),
        prompt_length=len(new.prompt_token_ids),
        blocks=_blocks(new.block_ids),
        computed=new.num_computed_tokens,
        sampling=new.sampling_params,
        pooling=new.pooling_params,
        adapter=new.lora_request,
    )


def _blocks(groups: Any) -> list[int]:
    """Of the one group of layers that there is. None where nothing is new, and no group without attention."""
    return list(groups[0]) if groups else []
