"""For the documentation site: a link to a file of the repository that is no page becomes its name, if it is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """mkdocs calls this for each page, before it looks at links."""
    documents = Path(config["docs_dir"])
    here = (documents / page.file.src_uri).parent

    def named(match: re.Match[str]) -> str:
        target = (here / match[2]).resolve()
        outside = not target.is_relative_to(documents.resolve())
        return f"`{match[1].strip('`')}`" if outside and target.exists() else match[0]

    return _LINK.sub(named, markdown)
