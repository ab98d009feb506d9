"""Dockerfiles on Model Runner's image: the base that goes with Metal, and the variable that names MLX's device."""

from __future__ import annotations

import re

BASE = re.compile(
    r"(?P<head>\s*FROM\s+(?:--\S+\s+)*)(?P<image>\S*docker/model-runner)(?::(?P<tag>[\w.-]+))?(?P<rest>(?:@\S+)?\s*(?:AS\s+\S+\s*)?)",
    re.IGNORECASE,
)
TAG = "vllm-metal"
VARIABLE = "ENV METAL_DEVICE=default"


def rewritten(text: str) -> str:
    """The same text, where no base is Model Runner's or all is as it should be."""
    lines = text.splitlines(keepends=True)
    named = any(re.match(r"\s*ENV\s+.*METAL_DEVICE", line, re.IGNORECASE) for line in lines)
    result: list[str] = []
    for line in lines:
        match = BASE.fullmatch(line.rstrip("\r\n"))
        if match is None:
            result.append(line)
            continue
        rest = re.sub(r"@\S+", "", match["rest"])
        result.append(f"{match['head']}{match['image']}:{TAG}{rest}\n")
        if not named:
            result.append(f"{VARIABLE}\n")
            named = True
    return "".join(result)
