"""Requests to an Immich server: the API key goes to the given address only, and is never shown.

Written from Immich's OpenAPI description.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import printable

KEY_VARIABLE = "IMMICH_API_KEY"
PERMISSIONS = "asset.read, asset.update, asset.upload, album.read, album.create, albumAsset.create"
"""What the key must allow; `asset.upload` is what Immich wants for looking up checksums."""

_SECONDS = 30.0
_PAUSES = (1.0, 3.0, 9.0)
"""Seconds before each further attempt."""
_MOST_BYTES = 64 * 2**20
_TOO_MANY = 429


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key would go along to another address."""

    def redirect_request(self, *_: Any) -> None:
        return None


class ImmichClient:
    """Sends requests to one Immich server with one key."""

    def __init__(self, address: str, key: str, *, wait: Callable[[float], None] = time.sleep) -> None:
        """`address` is as in a browser, `http://photos.local:2283`. Raises UserError for an invalid one."""
        self.address = check_address(address)
        self._headers = {"x-api-key": check_key(key), "Accept": "application/json", "Content-Type": "application/json"}
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._wait = wait

    def request(self, method: str, path: str, body: Any = None, *, repeatable: bool = True) -> Any:
        """Return the server's JSON, None where it sends none; `path` begins with a slash.

        What is `repeatable` is tried again where the server does not answer or is overloaded. Raises UserError if it
        cannot be reached, refuses, redirects, or answers something else than JSON.
        """
        pauses = _PAUSES if repeatable else ()
        for pause in (*pauses, None):
            try:
                return self._once(method, path, body)
            except urllib.error.HTTPError as error:
                with error:
                    if pause is None or (error.code < 500 and error.code != _TOO_MANY):
                        raise UserError(self._refusal(error, method, path)) from None
            except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
                if pause is None:
                    reason = printable(str(getattr(error, "reason", error)) or type(error).__name__)
                    raise UserError(
                        f"Immich at {self.address} does not answer ({reason}); check --immich and the network"
                    ) from None
            self._wait(pause)
        raise AssertionError("the last attempt returns or raises")

    def _once(self, method: str, path: str, body: Any) -> Any:
        content = None if body is None else json.dumps(body).encode("utf-8")
        request = urllib.request.Request(f"{self.address}/api{path}", content, self._headers, method=method)
        with self._opener.open(request, timeout=_SECONDS) as response:
            answer = response.read(_MOST_BYTES + 1)
        if not answer:
            return None
        try:
            if len(answer) > _MOST_BYTES:
                raise ValueError
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise self.not_immich() from None

    def not_immich(self) -> UserError:
        """Return the error for an answer that Immich would not give."""
        return UserError(f"{self.address} does not answer as Immich does; check --immich")

    def _refusal(self, error: urllib.error.HTTPError, method: str, path: str) -> str:
        if 300 <= error.code < 400:
            target = printable(error.headers.get("Location") or "elsewhere")
            return (
                f"{self.address} redirects to {target}, and the key is not sent there; give that address if it is right"
            )
        if error.code in (401, 403):
            return (
                f"Immich at {self.address} refuses the key for {method} {path}; check {KEY_VARIABLE}, and that the key "
                f"allows {PERMISSIONS}"
            )
        return f"Immich at {self.address} refuses {method} {path}: {error.code} {_message(error)}"


def check_address(address: str) -> str:
    """Return an address without its path `/api`; UserError if it is none."""
    try:
        parts = urlsplit(address)
        named = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        named = False
    if not named or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise UserError(f"--immich={printable(address)} is no address; give it as http://photos.local:2283")
    if parts.username is not None:
        raise UserError(f"--immich: give the address without a user name; the key is read from {KEY_VARIABLE}")
    return address.rstrip("/").removesuffix("/api")


def check_key(key: str) -> str:
    """Return the key; UserError, which does not show it, if it cannot be one."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(
            f"--immich needs an API key in the environment variable {KEY_VARIABLE}; make one in Immich under Account "
            "Settings, API Keys"
        )
    return key


def _message(error: urllib.error.HTTPError) -> str:
    """Return what the server says, on one line; the reason of the status if it says nothing."""
    try:
        said = json.loads(error.read(_MOST_BYTES))["message"]
        return printable("; ".join(said) if isinstance(said, list) else str(said))
    except (OSError, HTTPException, ValueError, TypeError, KeyError, RecursionError):
        return printable(str(error.reason))
