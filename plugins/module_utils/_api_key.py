# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What an API key may be, and how it is read from a file."""

from __future__ import annotations

# What a plan works with before the fleet's key is made. No server is started with it.
TO_BE_MADE = "(to be made)"


class KeyFileError(Exception):
    """A key cannot be read; the message names the file and the remedy."""


def checked(key: str) -> str:
    """The key, if a client can send it. Raises KeyFileError for what no HTTP header may have, and for none at all."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise KeyFileError("an API key is one word of printable ASCII characters")
    return key


def read_key(path: str) -> str:
    """The key in a file, without the end of the line. Raises KeyFileError."""
    try:
        with open(path, encoding="utf-8") as file:
            return checked(file.read().strip())
    except KeyFileError as exc:
        raise KeyFileError(f"{path} holds no key: {exc}") from exc
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise KeyFileError(f"the API key's file {path} cannot be read ({reason}): only root may (become: true)") from exc
