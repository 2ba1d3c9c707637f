"""What the tests of upgrades share."""

from .processes import running
from .releases import current, previous

__all__ = ["current", "previous", "running"]
