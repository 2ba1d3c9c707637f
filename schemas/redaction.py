"""Passwords in text: taken out before anybody sees it, whatever has put them there.

Done here alone. Errors and log streams send their text through `redacted`. It knows the forms in which URLs and
key=value strings hold passwords, and the secrets that this process was given, so that a part of one is found, too:
drivers repeat the piece of a URL that they stumble over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote

REDACTED = "***"
#: Shorter pieces of a password are too common in other text to be searched for.
LEAST_CHARACTERS = 4
#: What the variables are called whose whole value is secret, and those whose value is a URL that may hold a secret.
_SECRET_NAME = re.compile(r"CREDITLANE_[A-Z_]*(?:KEYS?|SECRETS?|PASSWORDS?|TOKENS?)")
_URL_NAME = re.compile(r"CREDITLANE_[A-Z_]*URL")

_SCHEME = r"(?:postgres(?:ql)?|rediss?|valkeys?|unix)(?:\+[a-z0-9]+)?"
#: From the first colon after the user to the last @ before a blank: who forgot to escape a @ has more than one.
_IN_URL = re.compile(rf"({_SCHEME}:?/{{1,3}}[^\s:/@]*):[^\s]*@", re.IGNORECASE)
_IN_PAIR = re.compile(r"\b(pass(?:word|wd|file)?|sslpassword)\s*=\s*(?:'(?:\\.|[^'\\])*'|[^\s&'\"]+)", re.IGNORECASE)
#: Where a URL that was not escaped may be cut, so that a message has one piece.
_CUTS = re.compile(r"[\s/?#@:%\[\]&=,;'\"\\]+")
#: The parts of a URL that are no secrets, though a password may be the same word.
_OPEN_WORDS = frozenset({"creditlane", "postgres", "postgresql", "redis", "rediss", "valkey", "unix", "localhost"})

#: Longest first. Replaced and never changed: other threads read it.
_known: tuple[str, ...] = ()
_any_known: re.Pattern[str] | None = None


def redacted(text: str) -> str:
    """Return the text without passwords."""
    if "@" in text:
        text = _IN_URL.sub(rf"\1:{REDACTED}@", text)
    if "=" in text:
        text = _IN_PAIR.sub(rf"\1={REDACTED}", text)
    # The search for a part of a text is much faster than a pattern, and nearly always in vain.
    if _any_known and any(value in text for value in _known):
        return _any_known.sub(REDACTED, text)
    return text


def keep_secret(*values: str) -> None:
    """Let `redacted` take these values out from now on, in this process."""
    global _any_known, _known  # noqa: PLW0603  # what a process must not show is one for all of it
    new = {value for value in values if len(value) >= LEAST_CHARACTERS} - set(_known)
    if not new:
        return
    _known = tuple(sorted({*_known, *new}, key=len, reverse=True))
    pieces = "|".join(map(re.escape, _known))
    # Whole words: a password may be part of one that means something else.
    _any_known = re.compile(rf"(?<!\w)(?:{pieces})(?!\w)")


def keep_environment_secret(environment: Mapping[str, str]) -> None:
    """Let `redacted` take out what is secret in the CREDITLANE_ variables, however badly they are written."""
    for name, value in environment.items():
        if _SECRET_NAME.fullmatch(name):
            keep_secret(*(part for part in re.split(r"[\s,]+", value) if part))
        elif _URL_NAME.fullmatch(name):
            keep_secret(*secrets_of_url(value))


def secrets_of_url(url: str) -> set[str]:
    """Return the passwords of a URL or a key=value string, and the pieces in which a message could have them."""
    rest = url.partition("://")[2] or url.partition("//")[2]
    found = {match.group().partition("=")[2].strip().strip("'") for match in _IN_PAIR.finditer(url)}
    user, colon, after = rest.rpartition("@")[0].partition(":")
    if colon:
        found.add(after)
    open_words = _OPEN_WORDS | {user}
    return {each for each in _forms(found) if each not in open_words}


def _forms(passwords: Iterable[str]) -> Iterator[str]:
    for password in passwords:
        for form in (password, unquote(password)):
            yield form
            yield json.dumps(form)[1:-1]
            yield from filter(None, _CUTS.split(form))
