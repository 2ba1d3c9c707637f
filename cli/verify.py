"""`creditlane verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..audit.findings import CheckReport
from ..audit.whole import VerificationReport, verify
from ..schemas.control_characters import visible
from ..schemas.settings import load_settings
from .output import print_json, print_line, print_table, progress_bar


def verify_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every check.")] = False,
) -> None:
    """Prove the whole ledger: recompute every balance, number, reversal and state from the rows alone.

    It writes nothing, and a ledger in use is judged as it stood at one moment. Ends with 0 when there are no
    discrepancies, with 1 when there are. Needs CREDITLANE_DATABASE_URL.

    Example:  creditlane verify && echo "the books are right"
    """
    url = load_settings().require_database_url()
    with progress_bar("Verifying", "rows") as progress:
        report = verify(url, progress)
    if as_json:
        print_json(report)
    else:
        print_verification(report)
    raise typer.Exit(1 if report.discrepancies else 0)


def print_verification(report: VerificationReport) -> None:
    """Print what was proven, and every discrepancy's example."""
    counts = {
        "stores": report.stores,
        "accounts": report.accounts,
        "entries": report.entries,
        "other decisions": report.decisions,
        "checks": len(report.checks),
    }
    print_line("Verified " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))
    for check in report.failed:
        _print_check(check)
    print_line(f"{report.discrepancies:,} discrepancies")


def _print_check(check: CheckReport) -> None:
    print_line(f"{check.name}: {check.discrepancies:,} times not so: {check.claim}")
    rows = [
        (item.store_id, item.account_id, None if item.seq is None else str(item.seq), item.expected, item.found)
        for item in check.examples
    ]
    print_table(["store", "account", "seq", "expected", "found"], [[_cell(cell) for cell in row] for row in rows])


def _cell(value: str | None) -> str | None:
    return None if value is None else visible(value)
