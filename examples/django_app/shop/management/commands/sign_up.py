"""Sign a customer up."""

from typing import Any

from django.core.management import BaseCommand, CommandParser

from ...selling import sign_up


class Command(BaseCommand):
    """Prints a new token for the customer."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")

    def handle(self, **options: Any) -> None:
        self.stdout.write(sign_up(options["name"]))
