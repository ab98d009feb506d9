"""The one exception of the converter: it ends the process, and the control process turns it into its own error."""

from __future__ import annotations

from typing import Literal

Kind = Literal["unsupported", "damaged", "full"]


class Refused(Exception):
    """This file cannot be converted. `kind` says whose fault it is: our reach, the file's bytes, or the disk's size."""

    def __init__(self, kind: Kind, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message
        self.hint = hint


def damaged(message: str) -> Refused:
    return Refused("damaged", message, hint="fetch or copy the file again")


def unsupported(message: str, *, hint: str | None = None) -> Refused:
    return Refused("unsupported", message, hint=hint)
