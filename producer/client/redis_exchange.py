"""What both faces say to Redis in the same words: limits, and the two ways an exchange can fail.

The clients speak RESP2 over redis-py's connections without its command layer. That pins the shape of every answer on
every version of server and library, and it keeps a command that was never sent apart from one whose answer was lost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from ...lanes.keys import Keys
from ...schemas.errors import CreditlaneError, OutcomeUnknown, Unavailable
from ...schemas.installation import Installation

#: How long one answer of Redis may take, in seconds; less where the caller's deadline is nearer.
ANSWER_TIMEOUT_SECONDS = 5.0
#: How long an exchange may take with all its attempts where its caller has no deadline, in seconds.
EXCHANGE_SECONDS = 10.0
#: How long the last words to Redis may take when a client is closed, in seconds.
CLOSE_SECONDS = 1.0
#: How long one blocking read lasts, in seconds; shorter than an answer may take, or a quiet stream would look dead.
BLOCK_SECONDS = 2.0
#: How often one exchange is tried before its failure is reported.
MAX_ATTEMPTS = 6
#: After how long no further attempt is begun, in seconds.
RETRY_SECONDS = 5.0
#: The first and the longest pause between two attempts, in seconds.
RETRY_PAUSES = (0.05, 0.5)

#: How long the key stays by which is found out whether Redis takes writes, in milliseconds.
WRITE_CHECK_MS = 1_000

#: How the message begins where Redis answers, with an error.
REFUSES = "Redis refuses"
#: Said of a Redis that answers, and refuses to be written to.
TAKES_NO_WRITES = "takes no writes: it is a replica, its memory is full, or it cannot save"
#: What is said of its refusals, by what they say: a code, or the text where the library keeps the code to itself.
_REFUSALS = (
    (re.compile("READONLY|read only|MASTER|good replicas|NOREPLICAS|MISCONF|OOM|maxmemory"), TAKES_NO_WRITES),
    (re.compile("LOADING|loading"), "is loading its data"),
    (
        re.compile("NOAUTH|WRONGPASS|NOPERM|Authentication|password|permissions"),
        "does not let us in, or not write: look at the user and the password in its URL",
    ),
    # Where another server of the cluster has the key, the library gives nothing but its slot and the address.
    (re.compile(r"MOVED|CROSSSLOT|hash to the same slot|: \d{1,5} \S*:\d+$"), "runs in cluster mode; take one without"),
    (re.compile("CLUSTERDOWN|cluster|slot"), "is part of a cluster that is down"),
)

#: One command to Redis: its name and its arguments.
Call = tuple[str | bytes | int, ...]

#: Most connections of one client; who finds all of them taken waits for one, as long as its deadline lets it.
MAX_CONNECTIONS = 32

#: What a URL may say to a pool of the library that makes its callers wait.
POOL_OPTIONS = frozenset({"timeout"})


def options_of_connection(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the library has read from a URL without what is for a pool of its own, which is not used."""
    return {name: value for name, value in options.items() if name not in POOL_OPTIONS}


#: How a server says that not the command is wrong but that it cannot take it: it has become a replica, it starts, it
#: has lost its own. Redis before version 7 wraps what a script meets into an error of the script.
_SERVER_CODES = re.compile(
    r"(?:^|-)(READONLY|LOADING|MASTERDOWN|UNBLOCKED|CLUSTERDOWN|NOREPLICAS|NOAUTH|MISCONF|TRYAGAIN)\b"
)
#: The same where the library makes a class of the code and keeps it out of the message.
_SERVER_ERRORS = (AuthenticationError, BusyLoadingError, ClusterDownError, ReadOnlyError, TryAgainError)


class ExchangeFailed(Exception):
    """Redis gave no answer, or none that counts; never reaches a caller, see `failure`.

    `sent`: the commands may have been run. `refused`: this server answered that it does not take them.
    """

    def __init__(self, cause: BaseException, *, sent: bool) -> None:
        super().__init__(str(cause) or type(cause).__name__)
        self.refused: bool = is_of_server(cause)
        self.sent = sent


def is_of_server(answer: Any) -> bool:
    """Whether this is the error of a server that another one, behind the same name, might not give."""
    if isinstance(answer, _SERVER_ERRORS):
        return True
    return isinstance(answer, ResponseError) and _SERVER_CODES.search(str(answer)) is not None


def refusal_of_server(answers: Sequence[Any]) -> ExchangeFailed | None:
    """Return the failure that answers stand for which hold an error of the server; None if they hold none."""
    refusals = [answer for answer in answers if is_of_server(answer)]
    if not refusals:
        return None
    return ExchangeFailed(refusals[0], sent=any(not isinstance(answer, Exception) for answer in answers))


def failure(error: ExchangeFailed, *, changes_something: bool) -> CreditlaneError:
    """Return the error a caller gets when every attempt has failed, the last one like this."""
    if error.sent and changes_something:
        return OutcomeUnknown(
            f"Redis did not answer ({error}), so whether it took the command is not known; "
            "send it again as it was, under the same idempotency key: it has one effect."
        )
    return Unavailable(f"{REFUSES}: {error}" if error.refused else f"Redis cannot be reached: {error}")


def refuse_errors(answers: Sequence[Any]) -> Sequence[Any]:
    """Return the answers, if none of them is an error.

    Raises:
        Unavailable: Redis refuses to work, for instance because it is out of memory or a replica.
    """
    for answer in answers:
        if isinstance(answer, Exception):
            raise Unavailable(f"{REFUSES}: {answer}")
    return answers


def refusal_meaning(message: str) -> str:
    """Return what is wrong with a Redis that refuses with this message, in words for anybody: it may name a user."""
    return next((meaning for said, meaning in _REFUSALS if said.search(message)), "answers with an error")


def refusal_in(error: Unavailable) -> str:
    """Return what is wrong with the Redis that refused, as `refusal_meaning` does.

    Raises:
        Unavailable: the error itself, if it is of a Redis that could not be reached.
    """
    if not str(error).startswith(REFUSES):
        raise error
    return refusal_meaning(str(error))


def mirrored_installation(answers: Sequence[Any]) -> Installation | None:
    """Return the installation in the answer to GET, or None if Redis does not know it."""
    if any("WRONGTYPE" in str(answer) for answer in answers if isinstance(answer, Exception)):
        return None
    (mirror,) = refuse_errors(answers)
    if mirror is None:
        return None
    try:
        return msgspec.json.decode(mirror, type=Installation)
    except msgspec.MsgspecError:
        # Postgres has the truth; a broken mirror is as good as none.
        return None


def mirror_call(key: str, installation: Installation) -> Call:
    """Return the call that informs Redis of the installation, unless it knows."""
    return ("SET", key, msgspec.json.encode(installation), "NX")


def write_check_calls(keys: Keys) -> list[Call]:
    """Return the calls that find out whether Redis takes writes: a PING is answered by a replica and a full one too."""
    return [("SET", keys.write_check, "1", "PX", WRITE_CHECK_MS)]


def wake_calls(keys: Keys) -> list[Call]:
    """Return the calls that wake whoever delivers webhooks, where something is due. One hint is as good as many."""
    return [("RPUSH", keys.wake_deliveries, "1"), ("LTRIM", keys.wake_deliveries, 0, 0)]
