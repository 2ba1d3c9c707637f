"""How release 0.1.0 reads announcements: its own code, as tagged, and bytes that it wrote. They never change."""

from __future__ import annotations

from typing import Any

import msgspec


class JournalRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    store_id: int
    account_id: str
    seq: int
    kind: int
    side: int
    amount: int | None
    balance_after: int
    overdraft_limit: int
    idempotency_key: str
    reference: str | None
    reversal_of: int | None
    created_at_us: int
    rejection: str | None
    content: str | None
    transaction_account: str | None = None
    transaction_seq: int | None = None
    entries_before: int | None = None


class Refusal(msgspec.Struct, frozen=True, array_like=True, gc=False):
    code: str
    message: str
    details: dict[str, Any] = {}


class Reply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    number: int
    row: JournalRow | None
    replayed: bool = False
    refusal: Refusal | None = None


class Announcement(Reply, frozen=True):
    lane_entry: str = ""


decode_announcements = msgspec.json.Decoder(list[Announcement]).decode


def announcements_of(fields: list[bytes]) -> list[Announcement]:
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if name == b"a":
            return decode_announcements(value)
    return []


_ACCOUNT = b"cca_" + b"7" * 32
#: A credit, a refused debit, the second entry of a reversal that was made before, and a dead letter.
_RESULTS = (
    b'[1,[1,"%b",4,2,1,500,900,50,"order_1","grant",null,1700000000000001,null,null,null,null,null]' % _ACCOUNT,
    b'[2,[1,"%b",-3,3,-1,901,900,0,"order_2","use",null,1700000000000002,"insufficient_balance",'
    rb'"{\"metadata\":{\"a\":\"b\"}}",null,null,4]' % _ACCOUNT,
    b'[3,[1,"%b",5,4,-1,500,400,50,"","grant",4,1700000000000003,null,null,"%b",9,null]' % (_ACCOUNT, _ACCOUNT),
    b'[4,null,false,["dead_lettered","it cannot be decided",{"dead_letter":"d"}]',
)
#: The entry of a reply stream with these four, and that of a poll key with the first.
REPLIES = [
    b"a",
    b"[%b,false,null],%b,false,null],%b,true,null],%b]]" % _RESULTS,
]
POLL_KEY = [b"a", b'[%b,false,null,"1700000000001-7"]]' % _RESULTS[0].replace(b"[1,", b"[0,", 1)]
