"""What the content store, the puller and the builder refuse.

ImageError (reason)
├─ InvalidImageName   the text is no image reference
├─ ImageNotFound      neither here nor, if it was asked, in the registry
├─ PullFailed         the registry could not give it; the message is one line as the kubelet shows it
├─ ArchiveRefused     a layer or layout that is broken or hostile; nothing of it was kept
├─ DockerfileError    cannot be parsed; names the line
├─ BuildFailed        a step failed; carries the end of its output
├─ BaseFailed         a base image could not be made from packages
└─ StoreBusy          another process holds what must be held alone
"""

from __future__ import annotations

from typing import ClassVar

from dure.core.errors import DureError


class ImageError(DureError):
    """Root of the images context; `reason` is what a container's waiting state shows."""

    reason: ClassVar[str] = "ErrImagePull"


class InvalidImageName(ImageError):
    reason = "InvalidImageName"


class ImageNotFound(ImageError):
    pass


class PullFailed(ImageError):
    pass


class ArchiveRefused(ImageError):
    pass


class DockerfileError(ImageError):
    """`line` counts from 1; 0 when no line is to blame."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(f"dockerfile parse error on line {line}: {message}" if line else message)
        self.line = line


class BuildFailed(ImageError):
    """`line` is the instruction's line, `output` the last lines it printed."""

    def __init__(self, message: str, *, line: int = 0, output: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.output = output


class BaseFailed(ImageError):
    pass


class StoreBusy(ImageError):
    pass
