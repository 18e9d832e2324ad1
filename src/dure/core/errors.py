"""The error tree of the platform; each family is rendered once, at its edge.

DureError
├─ ApiError (status, reason, details)  BadRequest Unauthorized Forbidden NotFound AlreadyExists Conflict ...
├─ TransportError    no answer: the request, and whether it may be repeated
├─ TerminalError     a reconciler says: no use trying until the object changes
└─ ConfigError       start-up only; the CLI prints one line with the mend and exits 2

The Status shape is Kubernetes' `meta/v1.Status`.
"""

from __future__ import annotations

from typing import Any, ClassVar


class DureError(Exception):
    """Root of every error the platform raises on purpose."""


class ConfigError(DureError):
    """The platform cannot start as asked; `mend` is the command or change that helps."""

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend


class TerminalError(DureError):
    """A reconciler gives up on a key until its object changes."""


class TransportError(DureError):
    """No answer came. `repeatable` says whether the request surely had no effect."""

    def __init__(self, message: str, *, repeatable: bool = False) -> None:
        super().__init__(message)
        self.repeatable = repeatable


class ApiError(DureError):
    """An answer of the API other than success, as a `meta/v1.Status`."""

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
        code: int | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or {}
        self.retry_after = retry_after
        self.code = code if code is not None else self.status
        self.reason_text = reason if reason is not None else self.reason

    def to_status(self) -> dict[str, Any]:
        """The `Status` object a client receives."""
        details = dict(self.details)
        if self.retry_after is not None:
            details["retryAfterSeconds"] = self.retry_after
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason_text,
        }
        if details:
            status["details"] = details
        status["code"] = self.code
        return status


class BadRequest(ApiError):
    status, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    status, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    status, reason = 403, "Forbidden"


class NotFound(ApiError):
    status, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    status, reason = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    status, reason = 406, "NotAcceptable"


class AlreadyExists(ApiError):
    status, reason = 409, "AlreadyExists"


class Conflict(ApiError):
    status, reason = 409, "Conflict"


class Expired(ApiError):
    """The revision asked for is older than the last compaction: list again."""

    status, reason = 410, "Expired"


class RequestEntityTooLarge(ApiError):
    status, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    status, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    """The object breaks a rule of its kind; `details.causes` names each field."""

    status, reason = 422, "Invalid"


class TooManyRequests(ApiError):
    status, reason = 429, "TooManyRequests"


class InternalError(ApiError):
    status, reason = 500, "InternalError"


class Unavailable(ApiError):
    status, reason = 503, "ServiceUnavailable"


class Timeout(ApiError):
    status, reason = 504, "Timeout"


_BY_REASON: dict[str, type[ApiError]] = {cls.reason: cls for cls in ApiError.__subclasses__()}
_BY_CODE: dict[int, type[ApiError]] = {cls.status: cls for cls in reversed(ApiError.__subclasses__())}


def error_from_status(body: dict[str, Any], code: int = 500) -> ApiError:
    """The typed error for a `Status` a server sent; unknown reasons keep their code."""
    code = int(body.get("code") or code)
    reason = str(body.get("reason") or "")
    cls = _BY_REASON.get(reason) or _BY_CODE.get(code) or ApiError
    details = body.get("details") or {}
    return cls(
        str(body.get("message") or f"the server answered {code}"),
        details=details,
        retry_after=details.get("retryAfterSeconds"),
        code=code,
        reason=reason or None,
    )
