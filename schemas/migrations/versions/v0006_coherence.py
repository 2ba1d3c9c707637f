"""What lets workers notice each other, and where a decision that moved nothing stands among an account's entries."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns; nothing is rewritten or read, and no index is built."""
    op.add_column(
        "leases",
        sa.Column(
            "reached",
            sa.BigInteger,
            nullable=False,
            server_default=sa.text("0"),
            comment="grows with every transaction of another lane that moved accounts of this one",
        ),
    )
    op.add_column(
        "workers",
        sa.Column("lease_seconds", sa.Float, comment="how long it may be silent, as it is set up; null before 0006"),
    )
    op.add_column(
        "workers",
        sa.Column(
            "stuck",
            sa.Boolean,
            nullable=False,
            server_default=sa.text("false"),
            comment="it shows life but does not get on, so it owns nothing",
        ),
    )
    op.add_column(
        "journal",
        sa.Column(
            "entries_before",
            sa.BigInteger,
            comment="of a decision that moved nothing: entries the account had by then; null before 0006",
        ),
    )
    # Of the rows that are there the column is null, so there is nothing to look for, however long that would take.
    op.execute(
        "alter table journal add constraint journal_entries_before_decision "
        "check (seq < 0 or entries_before is null) not valid"
    )
