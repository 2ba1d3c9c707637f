"""Give back what requests left behind that nobody repeated; to be run every minute."""

from typing import Any

from django.core.management import BaseCommand

from ...selling import settle


class Command(BaseCommand):
    """Settles once."""

    def handle(self, **_options: Any) -> None:
        settle()
