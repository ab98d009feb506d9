"""Proxies, certificates, and the clock that certificates are checked by."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import appliance
from appliance.doctor.commands import ask
from appliance.doctor.finding import Finding
from appliance.doctor.scene import Scene

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
LOOPBACK = ("localhost", "127.0.0.1")
DAY = 86400.0


def check_proxies(scene: Scene) -> Iterator[Finding]:
    yield from judge_proxies(scene.environ)


def judge_proxies(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Never shows a proxy's address: it may hold a password."""
    found = {name: environ[name] for name in PROXIES if environ.get(name)}
    for name, address in found.items():
        if not _is_address(address):
            yield Finding(
                "proxy",
                "problem",
                f"{name} is no address of a proxy",
                "downloads of engines and weights go through it",
                f"export {name}=http://HOST:PORT, or unset it",
            )
    exempt = {each.strip() for name in ("NO_PROXY", "no_proxy") for each in environ.get(name, "").split(",")}
    if found and not exempt & {*LOOPBACK, "*"}:
        yield Finding(
            "proxy",
            "warning",
            f"{', '.join(found)} is set, and NO_PROXY does not name this machine",
            "clients here ask the proxy for http://127.0.0.1, and get its error page",
            f"export NO_PROXY={','.join(LOOPBACK)},::1",
        )
    if environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        yield Finding(
            "proxy",
            "warning",
            "HF_HUB_OFFLINE is set",
            "`hf:` sources that are not on this machine cannot be fetched",
            "unset it, or `appliance pull` while it is unset",
        )


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        _ = parts.port  # raises where it is no number
    except ValueError:
        return False
    return bool(parts.hostname) and not any(map(str.isspace, text))


def check_certificates(scene: Scene) -> Iterator[Finding]:
    for name in CERTIFICATES:
        if (value := scene.environ.get(name)) and (problem := _unusable(Path(value).expanduser())):
            yield Finding(
                "certificates",
                "problem",
                f"{name} names `{value}`, which {problem}",
                "every encrypted download fails with a certificate error",
                f"unset {name}, or let it name a file of certificates in PEM",
            )


def _unusable(path: Path) -> str | None:
    if not path.exists():
        return "does not exist"
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=str(path)) if path.is_file() else context.load_verify_locations(
            capath=str(path)
        )
    except (OSError, ssl.SSLError):
        return "holds no certificate that can be read"
    return None


def check_clock(scene: Scene) -> Iterator[Finding]:
    package = Path(appliance.__file__)
    newest = max((path.stat().st_mtime for path in (package, scene.file) if path.exists()), default=0.0)
    yield from judge_clock(time.time(), newest, ask("timedatectl", "show", "--property=NTPSynchronized", "--value"))


def judge_clock(now: float, newest: float, synchronised: str | None) -> Iterator[Finding]:
    """`newest` is the latest time of something that lies in the past; `synchronised` is what systemd says."""
    if now < newest - DAY:
        yield Finding(
            "clock",
            "problem",
            f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(now))}, and files here are newer",
            "certificates and keys with an end date are judged by it",
            "set the clock; `timedatectl set-ntp true` keeps it right on Linux",
        )
    elif synchronised == "no":
        yield Finding(
            "clock",
            "warning",
            "the clock is not kept by a time server",
            "a clock that is hours off makes certificates and expiring keys invalid",
            "`timedatectl set-ntp true`",
        )
