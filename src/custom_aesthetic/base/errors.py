"""The one exception for what a user caused and can mend."""


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    The scripts print it as one line on stderr and end with status 2, without a traceback.
    """
