"""`creditlane export`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from ..lanes.encoding import describe
from ..schemas.errors import ConfigurationError
from ..schemas.export_request import Export, ExportFormat, ExportRequest
from ..schemas.settings import Settings, load_operator_settings
from .jobs import run_now
from .moment_options import METAVAR, moment_option
from .output import print_json, print_line, progress_bar


def export_command(
    store: Annotated[str, typer.Option("--store", help="The store whose entries are exported.")],
    since: Annotated[
        datetime,
        typer.Option(
            "--from", parser=moment_option, metavar=METAVAR, help="The first moment, in UTC unless it says otherwise."
        ),
    ],
    until: Annotated[
        datetime,
        typer.Option(
            "--to", parser=moment_option, metavar=METAVAR, help="The first moment left out; it must have passed."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", file_okay=False, help="The directory to write into.")] = Path(),
    export_format: Annotated[ExportFormat, typer.Option("--format", help="One CSV file, or Parquet files.")] = "csv",
    safe_for_spreadsheets: Annotated[
        bool,
        typer.Option("--safe-for-spreadsheets", help="CSV: put a ' before texts that a spreadsheet would run."),
    ] = False,
    by_jobs: Annotated[
        bool, typer.Option("--by-jobs", help="Have a process of `jobs work --queue jobs` write it, on its own disk.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write the entries of a period to files, in the order of time, with amounts exact to the last digit.

    The files have their name once they are whole. Interrupted, the same command goes on where it was. The period is
    that of the entries' created_at. Parquet needs the extra `parquet`. Needs CREDITLANE_DATABASE_URL.

    Every text is written as it is; customers choose some of them, and a spreadsheet runs one that begins with =.

    Example:  creditlane export --store store_default --from 2026-01-01 --to 2026-02-01 --format csv --output exports
    """
    try:
        request = ExportRequest(
            store=store,
            since=since,
            until=until,
            format=export_format,
            directory=output.absolute(),
            safe_for_spreadsheets=safe_for_spreadsheets,
        )
    except ValidationError as error:
        raise ConfigurationError(describe(error, whole="export")) from None
    export = _exported(load_operator_settings(), request, by_jobs=by_jobs)
    if as_json:
        print_json(export)
    else:
        print_line(f"{export.rows:,} entries in {export.output}")


def _exported(settings: Settings, request: ExportRequest, *, by_jobs: bool) -> Export:
    from ..worker.jobs.status import reached_postgres
    from ..worker.jobs.tasks.resumable_export import start_export, write_export

    with reached_postgres(settings) as connection:
        started = start_export(connection, request)
        if not by_jobs:
            with progress_bar("Exporting", "percent of the period") as progress:
                return write_export(settings, started, lambda _rows, share: progress(round(100 * share), 100))
    run = run_now(settings, "export", {"store_id": started.store_id, "export_id": str(started.export_id)})
    if run.status != "done":
        raise ConfigurationError(f"The export has failed: {run.error}")
    return Export(
        **request.model_dump(exclude={"directory", "safe_for_spreadsheets"}),
        output=request.target,
        rows=(run.outcome or {})["rows"],
    )
