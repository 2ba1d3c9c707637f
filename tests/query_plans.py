"""Plans of Postgres, as `explain (format json)` gives them."""

from collections.abc import Iterator
from typing import Any


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a node of a plan and all nodes below it."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes_of(child)
