"""structlog, once: pretty for a person, JSON for a machine, on stderr either way."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.tracebacks import ExceptionDictTransformer


def configure(form: Literal["auto", "pretty", "json"]) -> None:
    """`auto` is pretty on a terminal and JSON otherwise. Libraries on the standard logging speak from WARNING up.

    Tracebacks come without the values of variables, which structlog shows by default: a request's hold its key.
    """
    pretty = sys.stderr.isatty() if form == "auto" else form == "pretty"
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty),
            structlog.processors.StackInfoRenderer(),
            *([] if pretty else [structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))]),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
            if pretty
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
