"""Exceptions for mistakes that a user can correct."""


class UserError(Exception):
    """A mistake that the user can correct: the message says what is wrong, where, and what to do.

    The scripts print it as one line on stderr and exit with status 2, without a traceback.
    """


class ImageError(ValueError):
    """Raised if an image passed to the library cannot be used; the message names the image and says why.

    `reason` says why alone.
    """

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = message if reason is None else reason
