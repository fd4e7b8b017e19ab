"""Show the URL of a database without its password."""

import re
from urllib.parse import unquote_plus

SECRET_WORDS = re.compile(r"pass|pwd|token|secret|key|cred|auth", re.IGNORECASE)
"""A query argument whose name contains one of these is secret: `password`, `passwd`, `authToken`, `sslkey` ..."""

QUERY_ARGUMENT = re.compile(r"([?&;])([^=&;?]*)=")
HIDDEN = "***"
SHORTEST_REPLACED = 4
"""A shorter secret may be part of ordinary words, so a message that contains one is not shown at all."""


def shown_url(database: str) -> str:
    """Return the value of `--database` without secrets, for messages, logs and files.

    The user, the host and the arguments before the first secret one are kept. If the URL is ambiguous, everything
    between `://` and the last `@` is hidden too.
    """
    scheme, separator, rest = database.partition("://")
    if not separator:
        return database
    if rest.count("@") == 1 and (plain := _without_password(database)) is not None:
        return _without_secret_arguments(plain)
    before, at, after = rest.rpartition("@")
    if not at and ":" in rest and _without_password(database) is None:
        return f"{scheme}://{HIDDEN}"
    if at and _secret_argument(before) is not None:
        return f"{scheme}://{HIDDEN}"  # the @ may belong to the secret argument
    return _without_secret_arguments(f"{scheme}://{HIDDEN}@{after}" if at else database)


def scrubbed(message: str, database: str) -> str:
    """Return an error message of a driver or library with the secrets of the URL hidden."""
    if "://" not in database:
        return message
    message = message.replace(database, shown_url(database))
    for secret in sorted(_secrets(database), key=len, reverse=True):
        if secret in message and len(secret) < SHORTEST_REPLACED:
            return "the reason is not shown, as it may contain the password"
        message = message.replace(secret, HIDDEN)
    return message


def _without_password(database: str) -> str | None:
    """Return a URL with its password replaced by stars; None if SQLAlchemy is missing or finds no user before `@`."""
    try:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError
    except ModuleNotFoundError:  # labelling alone does not need it
        return None
    before = database.rpartition("@")[0]
    if _secret_argument(before) is not None:
        return None
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        return None
    if "@" in database and (url.username is None or "@" in f"{url.host}{url.database}"):
        return None
    return url.set(query={}).render_as_string(hide_password=True) + database[_query_start(database) :]


def _query_start(database: str) -> int:
    """Return the index at which the query begins, after user and password; the length if there is none."""
    start = database.find("?", database.rfind("@") + 1)
    return len(database) if start < 0 else start


def _secret_argument(text: str) -> re.Match | None:
    """Return the first argument that has a secret name, or contains one in its value (`odbc_connect`)."""
    for found in QUERY_ARGUMENT.finditer(text):
        value = unquote_plus(re.split("[&;]", text[found.end() :], maxsplit=1)[0])
        if SECRET_WORDS.search(unquote_plus(found[2])) or ("=" in value and SECRET_WORDS.search(value)):
            return found
    return None


def _without_secret_arguments(url: str) -> str:
    found = _secret_argument(url)
    return url if found is None else f"{url[: found.end()]}{HIDDEN}"


def _secrets(database: str) -> set[str]:
    """Return every part of a URL that may be its password or a part of it, both as written and decoded."""
    rest = database.partition("://")[2]
    user, _, password = rest.rpartition("@")[0].partition(":")
    texts = [password]
    found = _secret_argument(rest)
    if found is not None:
        texts.append(rest[found.end() :])
    if "@" in user or "/" in user:
        texts.append(user)
    pieces = {piece for text in texts for piece in (text, *re.split(r"[@/&;]", text))}
    return {form for piece in pieces for form in (piece, unquote_plus(piece)) if form}
