"""Its flags: what it serves, and how it fails."""

from __future__ import annotations

import argparse
from pathlib import Path


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fake_engine", allow_abbrev=False)
    listen = parser.add_mutually_exclusive_group(required=True)
    listen.add_argument("--uds")
    listen.add_argument("--port", type=int)
    parser.add_argument("--name", required=True, help="the served model name")
    parser.add_argument("--task", choices=("any", "generate", "embed", "listen"), default="any")
    parser.add_argument("--load-seconds", type=float, default=0.0, help="time before it listens")
    parser.add_argument("--gate", type=Path, help="loads until this file exists")
    parser.add_argument("--never-ready", action="store_true", help="never listens")
    parser.add_argument("--hang-health", action="store_true", help="accepts /health and never answers")
    parser.add_argument("--fail-health", action="store_true", help="/health is 503")
    parser.add_argument("--bad-metrics", choices=("hang", "error", "garbage", "endless"), help="what /metrics does")
    parser.add_argument("--fail-probe", action="store_true", help="every generation is a 500")
    parser.add_argument("--events", type=int, help="tokens per answer; default: the words of the answer")
    parser.add_argument("--event-interval", type=float, default=0.0, help="seconds between tokens")
    parser.add_argument("--first-event", type=float, default=0.0, help="seconds before the first token: a long prefill")
    parser.add_argument("--crash-after-events", type=int, help="SIGKILL itself after this many tokens of one stream")
    parser.add_argument("--exit-code", type=int, default=0)
    parser.add_argument(
        "--exit-after", type=float, help="exit this long after listening, or loading with --never-ready"
    )
    parser.add_argument("--exit-at-start", action="store_true", help="exit with --exit-code instead of loading")
    parser.add_argument("--say", action="append", default=[], help="a line for stderr, before loading; repeatable")
    parser.add_argument("--chatter", type=int, default=0, help="this many log lines on stdout, before loading")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--spawn-child", action="store_true", help="a child in the same group that outlives it")
    parser.add_argument("--detach-child", action="store_true", help="a child in its own session that outlives it")
    parser.add_argument("--leak-shm", action="store_true", help="maps a /dev/shm segment that it never unlinks")
    parser.add_argument("--leak-tmp", action="store_true", help="leaves a file in the temporary directory")
    return parser.parse_args(argv)
