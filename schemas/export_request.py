"""An export of entries: what is asked for and what was made."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from .identifiers import STORE_ID_PATTERN

ExportFormat = Literal["csv", "parquet"]

#: What ends the name of a file in which no cell is a formula, for programs that run them. The name alone says so.
SPREADSHEET_SUFFIX = "-spreadsheet.csv"

#: A moment, in UTC.
Moment = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]


class ExportRequest(BaseModel):
    """The entries of one store, from one moment on and before another.

    Raises:
        pydantic.ValidationError: a field breaks its rule.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    store: str = Field(pattern=STORE_ID_PATTERN)
    since: Moment
    until: Moment
    format: ExportFormat
    #: The directory in which a file, or of Parquet a directory of files, is made.
    directory: Path
    #: Put a ' before texts that a spreadsheet would take for formulas: customers choose them. Only for CSV.
    safe_for_spreadsheets: bool = False

    @property
    def target(self) -> Path:
        """What is made: there once all of it is written, and not before."""
        period = "-".join(map(_in_names, (self.since, self.until)))
        ending = SPREADSHEET_SUFFIX if self.safe_for_spreadsheets else ".csv"
        suffix = ending if self.format == "csv" else ""
        return self.directory.absolute() / f"entries-{self.store}-{period}{suffix}"

    @model_validator(mode="after")
    def _check_period(self) -> Self:
        if self.since >= self.until:
            raise ValueError("the period must begin before it ends")
        if self.safe_for_spreadsheets and self.format != "csv":
            raise ValueError("only a CSV file is read by spreadsheets as if it were typed in")
        return self


class Export(BaseModel):
    """An export that is finished."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    store: str
    since: datetime
    until: datetime
    format: ExportFormat
    output: Path
    rows: int


def _in_names(moment: datetime) -> str:
    """Return how the moment stands in the names of files."""
    return f"{moment:%Y%m%dT%H%M%S}{f'{moment.microsecond:06d}' if moment.microsecond else ''}Z"
