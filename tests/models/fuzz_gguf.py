"""Mutated GGUF files against the converter: `python -m tests.models.fuzz_gguf --files 100000 --seed 1`.

Every file must convert or be refused. Anything else, a traceback, more than 1 GiB of address space beyond what the
interpreter has, or more than ten seconds for one file, ends the run with the file kept and its name printed.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from random import Random

from appliance.models.convert.command import convert, convert_adapter
from appliance.models.convert.lora import Heads
from appliance.models.convert.refused import Refused
from appliance.models.shape import shape
from tests.models.gguf_builder import HEAD_DIM, HEADS, KV_HEADS, Gguf, tiny, tiny_adapter, tiny_encoder

ROOM = 1024**3
PATIENCE = 10.0


def originals() -> list[Gguf]:
    gemma3 = {"gemma3__attention__key_length": HEAD_DIM, "gemma3__attention__value_length": HEAD_DIM}
    return [
        tiny(),
        tiny(kind="Q5_1", embeddings="Q5_0", tied=False),
        tiny(architecture="qwen2", kind="F16").with_metadata(tokenizer__ggml__pre="qwen2"),
        tiny(architecture="phi3", spm=True).with_metadata(phi3__rope__dimension_count=HEAD_DIM),
        tiny(architecture="gemma3", spm=True).with_metadata(**gemma3, gemma3__attention__sliding_window=64),
        tiny_encoder(),
        tiny_encoder(kind="F16", spm=True, scores=1),
        tiny_encoder(architecture="nomic-bert"),
        tiny_adapter(),
    ]


def mutated(data: bytes, random: Random) -> bytes:
    """A few changes, most of them in the header, where what is read decides what is done."""
    header = max(data.rfind(b".weight") + 60, 64)
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 4, 16])):
        at = random.randrange(min(header, len(changed)) if random.random() < 0.95 else len(changed))
        match random.randrange(6):
            case 0:
                changed[at] ^= 1 << random.randrange(8)
            case 1:
                changed[at : at + 8] = random.choice(
                    [b"\xff" * 8, bytes(8), b"\x00" * 7 + b"\x80", b"\xff" * 7 + b"\x7f"]
                )
            case 2:
                changed[at : at + 4] = random.randbytes(4)
            case 3:
                del changed[at : at + random.choice([1, 4, 8, 64])]
            case 4:
                changed[at:at] = random.choice([random.randbytes(8), bytes(8), changed[: random.randrange(64)]])
            case _:
                del changed[random.randrange(len(changed)) :]
        if len(changed) < 2:
            break
    return bytes(changed)


def files(count: int, seed: int) -> Iterator[tuple[int, bytes]]:
    encoded = [each.encode() for each in originals()]
    for index in range(count):
        random = Random(f"{seed} {index}")  # noqa: S311 - each file can be made again by its number
        yield index, mutated(random.choice(encoded), random)


def fuzz(count: int, seed: int, *, kept: Path) -> Counter[str]:
    """How the files ended, by kind. Raises what should not have happened, with the file at `kept`."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as scratch:
        path, out = Path(scratch) / "m.gguf", Path(scratch) / "out"
        for index, data in files(count, seed):
            path.write_bytes(data)
            out.mkdir()
            started = time.monotonic()
            try:
                with Path(os.devnull).open("w") as quiet, redirect_stdout(quiet):
                    shape(path, "hf")
                    if b"adapter.type" in data:
                        convert_adapter(path, out, Heads(HEADS, KV_HEADS))
                    else:
                        convert(path, out, "hf" if index % 2 else "mlx", bits=(None, 4, 6, 8)[index % 4])
                outcomes["converted"] += 1
            except Refused as refused:
                outcomes[refused.kind] += 1
            except BaseException:
                shutil.copyfile(path, kept)
                print(f"file {index} of seed {seed}, kept as {kept}", file=sys.stderr)
                raise
            if (seconds := time.monotonic() - started) > PATIENCE:
                shutil.copyfile(path, kept)
                raise TimeoutError(f"file {index} of seed {seed} took {seconds:.1f} s, kept as {kept}")
            shutil.rmtree(out)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failure.gguf"))
    options = parser.parse_args()
    faulthandler.enable()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    outcomes = fuzz(options.files, options.seed, kept=options.keep)
    print(json.dumps({"files": options.files, "seed": options.seed, **outcomes}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
