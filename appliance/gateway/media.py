"""Media that a request names by URL. The engine would fetch them, from wherever this machine can reach, so a URL has to
be on a host of `server.media_domains`, or carry its data with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from appliance.errors import RequestError

KEYS = frozenset(("image_url", "audio_url", "video_url", "file_url", "input_audio", "input_image", "input_video"))
"""Under these a content part has a URL, or an object with one as `url`."""
BESIDE = frozenset(("tools", "functions", "tool_choice", "response_format", "text", "metadata", "chat_template_kwargs"))
"""Fields of a request that hold schemas and notes: what looks like a part in there is none."""

_DOUBTFUL = re.compile(r"""[^\x21-\x7e]|["<>@\\^`{|}]""")
"""What two parsers of URLs could disagree on."""


def check(request: Mapping[str, Any], domains: tuple[str, ...]) -> None:
    """Raises RequestError for the first URL that no engine may fetch."""
    for name, value in request.items():
        if name in BESIDE or not isinstance(value, list | dict):
            continue
        for url in _urls(value):
            if not _allowed(url, domains):
                raise _refused(url, name)


def _urls(value: Any) -> Iterator[str]:
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(each for each in value if isinstance(each, list | dict))
            continue
        for name, each in value.items():
            if name in KEYS:
                found = each.get("url") if isinstance(each, dict) else each
                if isinstance(found, str):
                    yield found
            if isinstance(each, list | dict):
                pending.append(each)


def _allowed(url: str, domains: tuple[str, ...]) -> bool:
    if url[:5].lower() == "data:":
        return True
    if not domains or _DOUBTFUL.search(url):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and parts.hostname in domains


def _refused(url: str, param: str) -> RequestError:
    return RequestError(
        f"`{url[:100]}` may not be fetched: send the data itself as a `data:` URL, or have its host listed in "
        "`server.media_domains`",
        status=400,
        code="media_url_refused",
        param=param,
    )
