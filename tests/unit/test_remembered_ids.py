"""What is remembered of the ids on a lane is bounded in bytes: whoever writes there may send names of any length."""

import pytest

from creditlane.lanes import encoding
from creditlane.lanes.encoding import MAX_COMMAND_BYTES, decode_command, encode_command
from creditlane.schemas.commands import Debit
from creditlane.schemas.errors import UndecodableCommand
from creditlane.worker.lanes import entries
from creditlane.worker.lanes.entries import parse_entry

ANN = "cca_" + "a" * 32
LONG = "a" * (MAX_COMMAND_BYTES // 2)
GOOD = encode_command(Debit(account_id=ANN, amount=5, reference="r", idempotency_key="k"), "store_default")


@pytest.mark.parametrize(("name", "id_"), [("_is_account_id", ANN), ("_is_store_id", "store_default")])
def test_an_id_that_is_too_long_is_no_more_remembered_than_it_is_one(name: str, id_: str) -> None:
    decode_command(GOOD)
    remembered = getattr(encoding, name).cache_info
    before = remembered().currsize

    with pytest.raises(UndecodableCommand):
        decode_command(GOOD.replace(id_.encode(), id_.encode() + LONG.encode()))

    assert remembered().currsize == before > 0


def test_a_producer_with_a_long_name_is_no_more_remembered_than_it_is_answered() -> None:
    parse_entry(0, b"1-1", [b"c", GOOD, b"r", b"producer/1"])
    remembered = entries._producer_id.cache_info
    before = remembered().currsize

    entry = parse_entry(0, b"1-1", [b"c", GOOD, b"r", LONG.encode() + b"/1"])

    assert entry.producer_id is None
    assert remembered().currsize == before > 0
