"""How much of a weights file has to be there before its tensors' names, types and shapes are known."""

from __future__ import annotations

from pathlib import Path

from appliance.models.convert.gguf_file import LARGEST_HEADER, read_header
from appliance.models.convert.refused import Refused
from appliance.models.safetensors_header import LARGEST
from appliance.models.say import Failed


def write_head(path: Path, data: bytes, size: int) -> int | None:
    """Make `path` as long as the real file, with `data` at its start and a hole behind it.

    Returns how many bytes are needed from the start, or None where these are enough. Raises Failed for a header that is
    longer than any can be. The hole reads as zeros, which never make up the end of a GGUF's header, since a tensor has
    a dimension.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(data)
        stream.truncate(size)
    if len(data) >= size:
        return None
    if path.suffix == ".safetensors":
        needed = 8 + int.from_bytes(data[:8], "little")
        return _bounded(path, needed, min(size, LARGEST)) if needed > len(data) else None
    try:
        read_header(path, vocabulary=False)
    except Refused as refused:
        if refused.kind == "unsupported":
            return None  # whoever reads it next says why
        return _bounded(path, min(4 * len(data), size), min(size, LARGEST_HEADER))
    return None


def _bounded(path: Path, needed: int, most: int) -> int:
    if needed > most:
        raise Failed("damaged", f"`{path.name}` has a header of more than {most} bytes, or a damaged one")
    return needed
