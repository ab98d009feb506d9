"""The errors a person or a client can meet, branched by what the caller should do.

    ApplianceError                exit 1, printed as `error: … / hint: …`
    ├── ConfigError               edit the file (or the variable, or the flag); carries every problem at once
    ├── Conflict                  somebody else holds what is needed: a port, a state directory, a running engine
    │   └── Stale                 what the caller looked at has changed since: look again
    ├── SourceError               a model's bytes
    │   ├── SourceNotFound        name another source
    │   ├── TransferFailed        try again; what has arrived is kept
    │   ├── FilesChanged          somebody writes to them: what is there is not what was asked for, or not yet
    │   └── UnsupportedModel      this architecture or quantization cannot be served
    ├── ProvisionError            an engine environment could not be installed or is not what it should be
    ├── ServiceError              launchd or systemd cannot be used, or refused
    ├── EngineError
    │   ├── StartupFailed         the same result every time: failed until the spec changes
    │   ├── InsufficientMemory    not within the budget, as things are
    │   ├── EngineCrashed         may work next time: backoff
    │   └── NotReady              ask again later
    └── RequestError              the client's to mend; carries the HTTP status

Anything else that escapes is a bug: exit 3 with a report to paste.
"""

from __future__ import annotations


class ApplianceError(Exception):
    """An expected failure: `message` says where and what, `hint` what to do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(ApplianceError):
    """The configuration cannot be used. `message` is the rendered list of problems, one block each."""


class Conflict(ApplianceError):
    """Something needed is held by somebody else."""


class Stale(Conflict):
    """What the caller decided by is not what is there any more."""


class SourceError(ApplianceError):
    """A model's bytes cannot be had or cannot be used."""


class SourceNotFound(SourceError):
    """Nothing is there under this name."""


class TransferFailed(SourceError):
    """The transfer broke off; what has arrived is kept and the next try goes on from it."""


class FilesChanged(SourceError):
    """The files at a path are not those that were asked for any more. Once they are whole, they will be asked for."""


class UnsupportedModel(SourceError):
    """The checkpoint is sound but its architecture or quantization cannot be served."""


class ProvisionError(ApplianceError):
    """An engine environment could not be installed, or does not do what it was installed for."""


class ServiceError(ApplianceError):
    """What supervises services on this machine cannot be used, or refused what it was asked for."""


class EngineError(ApplianceError):
    """About one engine."""


class StartupFailed(EngineError):
    """The engine never became ready and would fail the same way again."""


class InsufficientMemory(EngineError):
    """The engine would take more memory than the budget leaves. `available` is how many bytes it could have."""

    def __init__(self, message: str, *, hint: str | None = None, available: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.available = available


class EngineCrashed(EngineError):
    """An engine that was ready, or on its way, exited unasked."""


class NotReady(EngineError):
    """The engine exists but cannot take a request now."""

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class RequestError(ApplianceError):
    """A request that cannot be served as sent. `type` and `code` are OpenAI's words for it; `reason` is for the log."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str = "invalid_request_error",  # noqa: A002 - OpenAI's field name
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.type = type
        self.code = code
        self.param = param
        self.retry_after = retry_after
