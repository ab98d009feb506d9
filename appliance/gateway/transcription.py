"""Audio to text: a form with a file in it, whose `model` is one of its fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from starlette.types import Receive

from appliance.errors import RequestError
from appliance.gateway import body as bodies
from appliance.gateway.call import Call
from appliance.gateway.passthrough import EVENTS, relay
from appliance.gateway.proxy import Proxy
from appliance.gateway.question import Question
from appliance.routing import Route

PATH = "/v1/audio/transcriptions"
FIELDS = 64
"""Parts of one form: OpenAI's has a dozen fields."""
NAME_BYTES = 1024


async def transcribe(call: Call, receive: Receive, proxy: Proxy) -> None:
    boundary = _boundary(call.headers.get(b"content-type", b""))
    pieces = await bodies.pieces(receive, call.headers, proxy.max_body)
    call.received = sum(map(len, pieces))
    form = read(pieces, boundary)
    stream = EVENTS if form.stream else None
    question = Question(
        PATH,
        form.model,
        partial(_with_name, pieces, form),
        partial(relay, call, form.model, silence=proxy.silence(call, stream)),
        stream,
        content_type=call.headers[b"content-type"],
    )
    await proxy.ask(call, receive, question)


@dataclass(frozen=True, slots=True)
class Form:
    model: str
    stream: bool
    start: int
    end: int
    """Where in the body the model's name is."""


def read(pieces: Sequence[bytes], boundary: bytes) -> Form:
    """The two fields that matter. Raises RequestError for what is no form, or has no model or two."""
    from python_multipart.exceptions import FormParserError

    try:
        reader = _Reader(boundary)
        for piece in pieces:
            reader.feed(piece)
    except FormParserError as error:
        raise _invalid(f"the body is not a valid form: {error}") from None
    if not reader.complete:
        raise _invalid("the form ends in the middle")
    if (found := reader.fields.get(b"model")) is None:
        raise _invalid("`model` is missing: name the model to ask; GET /v1/models lists them", "model")
    value, start, end = found
    try:
        model = value.decode()
    except UnicodeDecodeError:
        raise _invalid("`model` must be text", "model") from None
    stream, *_ = reader.fields.get(b"stream", (b"",))
    return Form(model, stream.strip().lower() in {b"true", b"1"}, start, end)


class _Reader:
    """Values of the short fields, each with its place in the whole body; a file's bytes are only passed over."""

    def __init__(self, boundary: bytes) -> None:
        from python_multipart.multipart import MultipartParser, parse_options_header

        self._options = parse_options_header
        self._at = 0
        self._header = self._name = self._disposition = b""
        self._value = bytearray()
        self._begin = 0
        self._count = 0
        self.complete = False
        self.fields: dict[bytes, tuple[bytes, int, int]] = {}
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part,
                "on_header_field": self._on_header,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, piece: bytes) -> None:
        self._parser.write(piece)
        self._at += len(piece)

    def _part(self) -> None:
        self._count += 1
        if self._count > FIELDS:
            raise _invalid(f"the form has more than {FIELDS} fields")
        self._name = self._disposition = b""
        self._value.clear()
        self._begin = -1

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition += data[start:end]

    def _on_header_end(self) -> None:
        self._header = b""

    def _on_headers(self) -> None:
        _, options = self._options(self._disposition)
        self._name = b"" if b"filename" in options else options.get(b"name", b"")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name not in (b"model", b"stream"):
            return
        if self._begin < 0:
            self._begin = self._at + start
        self._value += data[start:end]
        if len(self._value) > NAME_BYTES:
            raise _invalid(f"`{self._name.decode()}` is longer than {NAME_BYTES} bytes", self._name.decode())

    def _on_part_end(self) -> None:
        if self._name not in (b"model", b"stream"):
            return
        if self._name in self.fields:
            raise _invalid(f"`{self._name.decode()}` is there twice", self._name.decode())
        self.fields[self._name] = (bytes(self._value), self._begin, self._begin + len(self._value))

    def _on_end(self) -> None:
        self.complete = True


def _with_name(pieces: Sequence[bytes], form: Form, route: Route) -> tuple[bytes | memoryview, ...]:
    """The client's own bytes, but for the name that the engine knows the model by."""
    if form.model == route.served:
        return tuple(pieces)
    before, after = _slices(pieces, 0, form.start), _slices(pieces, form.end, None)
    return (*before, route.served.encode(), *after)


def _slices(pieces: Sequence[bytes], start: int, end: int | None) -> list[memoryview]:
    """The bytes from `start` to `end`, without a copy."""
    found, at = [], 0
    for piece in pieces:
        stop = len(piece) if end is None else max(0, end - at)
        if part := memoryview(piece)[max(0, start - at) : stop]:
            found.append(part)
        at += len(piece)
    return found


def _boundary(content_type: bytes) -> bytes:
    from python_multipart.multipart import parse_options_header

    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise _invalid("send a form: `content-type: multipart/form-data` with its boundary")
    return options[b"boundary"]


def _invalid(message: str, param: str | None = None) -> RequestError:
    return RequestError(message, status=400, param=param, code="invalid_value" if param else "invalid_form")
