"""Pins the images that the Dockerfile and the compose file name to their digests: `pin_images.py FILE …`.

Asks the registries through `docker buildx imagetools inspect`, so it needs Docker and a network. A digest names one
image for ever; the tag beside it says to people which. Run it again to move on to what the tags mean by then.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

#: `FROM name:tag` and `image: name:tag`, with the digest that may be there already. What is built here has no digest.
_IMAGE = re.compile(
    r"^(?P<before>FROM +|\s*image: *)(?P<name>(?!creditlane:)[^\s@]+)(?P<digest>@sha256:[0-9a-f]{64})?", re.MULTILINE
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of(image: str) -> str:
    """Return the digest that the tag stands for now.

    Raises:
        RuntimeError: the registry cannot be asked.
    """
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        raise RuntimeError(f"{image}: {reason}") from None
    if not _DIGEST.fullmatch(done.stdout.strip()):
        raise RuntimeError(f"{image}: docker printed no digest: {done.stdout.strip()!r}")
    return done.stdout.strip()


def pinned(text: str) -> str:
    """Return the file with the digest of today behind every tag."""
    return _IMAGE.sub(lambda found: f"{found['before']}{found['name']}@{digest_of(found['name'])}", text)


def main() -> int:
    """Pin the images of the files of the arguments; return the exit code. No file is changed unless all can be."""
    try:
        texts = {path: pinned(path.read_text()) for path in map(Path, sys.argv[1:])}
    except RuntimeError as error:
        print(f"nothing was pinned: {error}")
        return 1
    for path, text in texts.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
