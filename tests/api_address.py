"""Where an API process that was just started listens, from the first line that it prints."""

import re

_URL = re.compile(r'http://[^\s"]+')


def address_printed(line: str) -> str:
    """Return the URL in the line, which is JSON or for people to read."""
    found = _URL.search(line)
    assert found is not None, f"no address in {line!r}"
    return found[0]
