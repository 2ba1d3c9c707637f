"""URLs of webhooks: the form they must have. Which addresses may be reached is judged in `networks`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from .events import MAX_URL_CHARACTERS

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_PORT = r"6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}"
_REST = r"[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%|{}-]"
#: Scheme, host, port, path and query of RFC 3986, whose strictest readers agree on what is the host: no userinfo, no
#: fragment, nothing that would have to be escaped. Other parts of the world write their hosts as xn--.
URL_PATTERN = (
    rf"^[Hh][Tt][Tt][Pp][Ss]?://(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]{{2,45}}\])(?::(?:{_PORT}))?"
    rf"(?:[/?]{_REST}*)?$"
)

#: What is said of a URL of another form.
URL_FORM = (
    "must be an absolute http or https URL with a host and without userinfo and fragment, in ASCII: "
    "a host like xn--… and everything else percent-encoded"
)

_matches = re.compile(URL_PATTERN).fullmatch


def is_target_url(text: str) -> bool:
    """Return whether the text has the form of a webhook's URL."""
    return len(text) <= MAX_URL_CHARACTERS and _matches(text) is not None


def _whole(url: str) -> str:
    if not is_target_url(url):
        raise PydanticCustomError("url_form", URL_FORM)
    return url


#: A URL as it is given by a caller.
TargetUrl = Annotated[
    str,
    Field(max_length=MAX_URL_CHARACTERS, json_schema_extra={"pattern": URL_PATTERN}),
    AfterValidator(_whole),
]
