"""What is set aside of a balance, and what a balance may not go above."""

import sqlalchemy as sa
from alembic import op

revision = "0008_since_0007"
down_revision = "0007"

_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add columns, constraints of new rows, and a table; nothing that is there is rewritten or read."""
    # First: every batch begins at `installation`, so that none is between tables when the others are wanted.
    _keep_lanes_from_older_workers()
    op.add_column(
        "journal",
        sa.Column("held_after", sa.Numeric, comment="what is set aside of the balance after it; null for nothing"),
    )
    # Of the rows that are there the column is null, so there is nothing to look for, however long that would take.
    op.execute(
        "alter table journal add constraint journal_held_is_covered "
        "check (held_after > 0 and held_after = trunc(held_after) "
        "and balance_after - held_after >= -coalesce(overdraft_limit, 0)) not valid"
    )
    op.execute(
        "alter table journal add constraint journal_debit_within_asked check "
        "(content is null or kind <> 3 or not content ? 'asked' or (content ->> 'asked')::numeric >= amount) not valid"
    )
    op.add_column(
        "accounts",
        sa.Column("max_balance", sa.Numeric, comment="what no credit may take the balance above; null: nothing"),
    )
    op.execute(
        "alter table accounts add constraint accounts_max_balance_whole "
        "check (max_balance >= 0 and max_balance = trunc(max_balance)) not valid"
    )
    op.drop_constraint("kind_and_side_range", "journal", type_="check")
    # Only wider than it was, so the rows that are there need not be read.
    op.execute(
        "alter table journal add constraint journal_kind_and_side_range "
        "check (kind between 1 and 14 and side between -1 and 1) not valid"
    )
    _create_holds()


def _keep_lanes_from_older_workers() -> None:
    op.add_column(
        "installation",
        sa.Column(
            "required_release",
            sa.SmallInteger,
            nullable=False,
            server_default=sa.text("0"),
            comment="workers of older releases get no lanes; only ever raised",
        ),
    )
    op.add_column(
        "workers",
        sa.Column("release", sa.SmallInteger, comment="the number of its release; null: that of 0.1.0, which is 0"),
    )
    # Older workers know nothing of it, so it is no error: the lane stays as it was, and they have one less. Who raises
    # the release holds the row that this waits for, and looks at the leases after that. It runs as the owner, so that
    # no role needs a right for it that its processes had no use for before; and nobody else may put it on a table of
    # their own, where it would read what they have made of those names.
    op.execute("""
        create function leases_not_to_older_workers() returns trigger language plpgsql
        security definer set search_path = pg_catalog, pg_temp as $$
        declare
            required smallint;
            found smallint;
        begin
            execute format('select required_release from %I.installation for share', tg_table_schema) into required;
            execute format('select coalesce(release, 0) from %I.workers where worker_id = $1', tg_table_schema)
                into found using new.worker_id;
            if found < required then
                return null;
            end if;
            return new;
        end $$
    """)
    op.execute("revoke all on function leases_not_to_older_workers() from public")
    op.execute("""
        create trigger leases_not_to_older_workers before update of worker_id on leases for each row
        when (new.worker_id is not null and new.worker_id is distinct from old.worker_id)
        execute function leases_not_to_older_workers()
    """)


def _create_holds() -> None:
    op.create_table(
        "holds",
        sa.Column("store_id", sa.Integer, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False, comment="1 open, 2 captured, 3 voided, 4 expired"),
        sa.Column(
            "seq", sa.BigInteger, nullable=False, comment="of the decision that made it, which is -seq in the journal"
        ),
        sa.Column("created_at", _moment, nullable=False),
        sa.Column("expires_at", _moment, nullable=False, comment="when what is left of it is released by itself"),
        sa.Column("ended_at", _moment, comment="when it was used up, voided or had expired; null while it is open"),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("amount", sa.Numeric, nullable=False),
        sa.Column(
            "captured", sa.Numeric, nullable=False, server_default=sa.text("0"), comment="what its captures took"
        ),
        sa.Column("remaining", sa.Numeric, nullable=False, comment="what is set aside by it now"),
        sa.Column("reference", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("store_id", "account_id", "seq", name="holds_pkey"),
        sa.CheckConstraint("seq > 0", name="seq_above_zero"),
        sa.CheckConstraint("status between 1 and 4", name="status_range"),
        sa.CheckConstraint("amount > 0 and amount = trunc(amount)", name="amount_whole_and_positive"),
        sa.CheckConstraint("captured >= 0 and captured = trunc(captured)", name="captured_whole"),
        sa.CheckConstraint("remaining between 0 and amount and remaining = trunc(remaining)", name="remaining_whole"),
        sa.CheckConstraint("(status = 1) = (remaining > 0)", name="open_while_remaining"),
        sa.CheckConstraint("(status = 1) = (ended_at is null)", name="ended_when_not_open"),
        sa.CheckConstraint("status <> 2 or captured > 0", name="captured_takes"),
        sa.CheckConstraint("expires_at > created_at", name="expires_after_created"),
        sa.Index("holds_open_idx", "store_id", "account_id", "seq", postgresql_where=sa.text("status = 1")),
        sa.Index(
            "holds_expiry_idx", "expires_at", "store_id", "account_id", "seq", postgresql_where=sa.text("remaining > 0")
        ),
        comment="What is set aside of balances: open ones, and what became of the others. An ended one never changes.",
    )
    # The state machine: whoever writes, nothing comes back to life, and what is open keeps its amount.
    op.execute("""
        create function holds_only_open_ones_change() returns trigger language plpgsql as $$
        begin
            raise exception 'hold % of account % has ended and cannot change', old.seq, old.account_id
                using errcode = 'check_violation', constraint = 'holds_only_open_ones_change';
        end $$
    """)
    op.execute("""
        create trigger holds_only_open_ones_change before update on holds for each row
        when (old.status <> 1 or new.amount <> old.amount or new.captured < old.captured
              or new.remaining > old.remaining)
        execute function holds_only_open_ones_change()
    """)
