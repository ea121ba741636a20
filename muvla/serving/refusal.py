"""The error of a request that a server refuses, or of an answer that a server breaks."""

from __future__ import annotations

from muvla.errors import MuvlaError

# Statuses of HTTP. Websocket wires send the text alone.
BAD_INPUT, NO_KEY, CONFLICT, TOO_LARGE, TOO_MANY, BROKEN, UNAVAILABLE = 400, 401, 409, 413, 429, 500, 503


class Refused(MuvlaError):
    """A request that is not carried out. The memory of its session stays as it is.

    Args:
        field: field of the message, header or option that is wrong.
        got: as in `MuvlaError`.
        expected: as in `MuvlaError`.
        remedy: as in `MuvlaError`.
        status: status of HTTP.
    """

    def __init__(self, field: str, *, got, expected: str, remedy: str, status: int = BAD_INPUT):
        super().__init__(field, got=got, expected=expected, remedy=remedy)
        self.status = status


class BrokenAnswer(MuvlaError):
    """A server did not answer in time, or answered something that its wire does not allow."""
