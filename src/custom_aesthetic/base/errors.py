"""The one exception for what a user caused and can mend."""


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    The scripts print it as one line on stderr and end with status 2, without a traceback.
    """


class ImageError(ValueError):
    """An image that was given to the library and cannot be used; the message names it and says why."""
