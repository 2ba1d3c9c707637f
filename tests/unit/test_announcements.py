"""What is announced is read across releases, both ways round, and only ever appended to."""

from __future__ import annotations

import msgspec
import pytest

from creditlane.producer.client.reply_stream import announcements_of
from creditlane.schemas.journal import (
    ANNOUNCEMENT_VERSION,
    Announcement,
    JournalRow,
    Refusal,
    Reply,
    encode_announcements,
)
from tests import release_0_1_0

ACCOUNT = "cca_" + "7" * 32
ROWS = [
    JournalRow(1, ACCOUNT, 4, 2, 1, 500, 900, 50, "order_1", "grant", None, 1_700_000_000_000_001, None, None),
    JournalRow(
        store_id=1,
        account_id=ACCOUNT,
        seq=-3,
        kind=3,
        side=-1,
        amount=901,
        balance_after=900,
        overdraft_limit=0,
        idempotency_key="order_2",
        reference="use",
        reversal_of=None,
        created_at_us=1_700_000_000_000_002,
        rejection="insufficient_balance",
        content='{"metadata":{"a":"b"}}',
        entries_before=4,
    ),
    JournalRow(
        store_id=1,
        account_id=ACCOUNT,
        seq=5,
        kind=4,
        side=-1,
        amount=500,
        balance_after=400,
        overdraft_limit=50,
        idempotency_key="",
        reference="grant",
        reversal_of=4,
        created_at_us=1_700_000_000_000_003,
        rejection=None,
        content=None,
        transaction_account=ACCOUNT,
        transaction_seq=9,
    ),
]
REFUSAL = Refusal("dead_lettered", "it cannot be decided", {"dead_letter": "d"})
REPLIES = [Reply(1, ROWS[0]), Reply(2, ROWS[1]), Reply(3, ROWS[2], replayed=True), Reply(4, None, refusal=REFUSAL)]
READ = [Announcement(reply.number, reply.row, reply.replayed, reply.refusal) for reply in REPLIES]
POLL_KEY = Announcement(0, ROWS[0], lane_entry="1700000000001-7")

#: The bytes of every version, oldest first: what is in a reply stream for `REPLIES`, and in a poll key for `POLL_KEY`.
#: A new version is added; the others are kept, for there are processes that write them. 1 only began to say what it is;
#: 2 has what is held after a decision, and knows dry runs.
GOLDEN = {
    **dict.fromkeys((0, 1), (release_0_1_0.REPLIES[1], release_0_1_0.POLL_KEY[1])),
    2: (
        (
            b'[[1,[1,"cca_77777777777777777777777777777777",4,2,1,500,900,50,"order_1","grant",null,1700000000000001,null,'
            b'null,null,null,null,0],false,null],[2,[1,"cca_77777777777777777777777777777777",-3,3,-1,901,900,0,"order_2",'
            b'"use",null,1700000000000002,"insufficient_balance","{\\"metadata\\":{\\"a\\":\\"b\\"}}",null,null,4,0],false,null],'
            b'[3,[1,"cca_77777777777777777777777777777777",5,4,-1,500,400,50,"","grant",4,1700000000000003,null,null,'
            b'"cca_77777777777777777777777777777777",9,null,0],true,null],[4,null,false,["dead_lettered",'
            b'"it cannot be decided",{"dead_letter":"d"}]]]'
        ),
        (
            b'[[0,[1,"cca_77777777777777777777777777777777",4,2,1,500,900,50,"order_1","grant",null,1700000000000001,null,'
            b'null,null,null,null,0],false,null,"1700000000001-7",false,[]]]'
        ),
    ),
}
#: What is announced of a dry run, by all that know any, and its bytes.
DRY_RUN = Announcement(5, ROWS[0], lane_entry="1700000000001-8", dry_run=True, further=(ROWS[2],))
DRY_RUN_BYTES = (
    b'[[5,[1,"cca_77777777777777777777777777777777",4,2,1,500,900,50,"order_1","grant",null,1700000000000001,null,'
    b'null,null,null,null,0],false,null,"1700000000001-8",true,[[1,"cca_77777777777777777777777777777777",5,4,-1,500,'
    b'400,50,"","grant",4,1700000000000003,null,null,"cca_77777777777777777777777777777777",9,null,0]]]]'
)


def test_what_is_written_is_these_bytes() -> None:
    """When they differ: append the field, with a default, raise `ANNOUNCEMENT_VERSION`, and add the bytes of it."""
    assert max(GOLDEN) == ANNOUNCEMENT_VERSION
    assert (encode_announcements(REPLIES), encode_announcements([POLL_KEY])) == GOLDEN[ANNOUNCEMENT_VERSION]


def test_what_is_written_of_a_dry_run_is_these_bytes() -> None:
    assert encode_announcements([DRY_RUN]) == DRY_RUN_BYTES
    assert announcements_of([b"a", DRY_RUN_BYTES, b"v", b"2"]) == [DRY_RUN]


@pytest.mark.parametrize("version", GOLDEN)
def test_what_any_release_wrote_is_read(version: int) -> None:
    """Release 0.1.0 writes no version; what it does not write has its default."""
    fields = [b"v", b"%d" % version] if version else []
    for value, expected in zip(GOLDEN[version], (READ, [POLL_KEY]), strict=True):
        assert announcements_of([b"a", value, *fields]) == expected
        assert announcements_of([*fields, b"a", value]) == expected


def test_what_a_later_release_appends_is_passed_over() -> None:
    """Given announcements with fields that nobody here knows, in the row as well, then all the others are read."""
    later = msgspec.json.decode(GOLDEN[ANNOUNCEMENT_VERSION][1])
    later[0][1] += ["new", {"in": "the row"}]
    assert len(later[0]) == len(Announcement.__struct_fields__)
    later[0] += [None, ["new"]]
    fields = [b"a", msgspec.json.encode(later), b"v", b"%d" % (ANNOUNCEMENT_VERSION + 1), b"b", b"of its own"]
    assert announcements_of(fields) == [POLL_KEY]


def test_release_0_1_0_reads_what_is_written_now() -> None:
    now = [b"%d" % ANNOUNCEMENT_VERSION, encode_announcements(REPLIES), encode_announcements([POLL_KEY])]
    for version_first in (False, True):
        read = []
        for value in now[1:]:
            fields = [b"v", now[0], b"a", value] if version_first else [b"a", value, b"v", now[0]]
            read += release_0_1_0.announcements_of(fields)
        fields = [(item.number, item.replayed, item.lane_entry) for item in read]
        assert fields == [(1, False, ""), (2, False, ""), (3, True, ""), (4, False, ""), (0, False, "1700000000001-7")]
        rows = [item.row and msgspec.structs.asdict(item.row) for item in read]
        known = set(release_0_1_0.JournalRow.__struct_fields__)
        assert rows == [
            item.row and {name: value for name, value in msgspec.structs.asdict(item.row).items() if name in known}
            for item in [*READ, POLL_KEY]
        ]
        assert read[3].refusal is not None
        assert msgspec.structs.asdict(read[3].refusal) == msgspec.structs.asdict(REFUSAL)
