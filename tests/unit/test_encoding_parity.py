"""The fast reader of credits and debits lets through only what the models let through, and reads the same in it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from creditlane.lanes.encoding import PlainCommand, _command_of, _plain_command_of
from creditlane.schemas.errors import UndecodableCommand

ANN = "cca_" + "a" * 32

GOOD: dict[str, Any] = {
    "v": 1,
    "kind": "debit",
    "store_id": "store_default",
    "account_id": ANN,
    "idempotency_key": "key",
    "amount": "5",
    "reference": "r",
}
STRINGS = [
    "",
    " ",
    "0",
    "1",
    "01",
    "+1",
    "-1",
    "1.0",
    "1e3",
    "1_0",
    " 1",
    "1\n",
    "\u0661",
    "\u00b2",
    "\uff11",
    "9" * 1_000,
    "9" * 1_001,
    "k" * 255,
    "k" * 256,
    "\U0001f600" * 255,
    "\U0001f600" * 256,
    "a\0b",
    "\0",
    "\u2028\ufeff",
    "reversal:",
    "reversal",
    "Reversal:x",
    ANN,
    ANN + "\n",
    ANN.upper(),
    "cca_" + "\uff41" * 32,
    "cct_" + "a" * 32 + "1",
    "store_default",
    "store_default\n",
    "store_",
    "store_" + "x" * 58,
    "store_" + "x" * 59,
    "store_\u00e9",
    "debit",
    "credit",
    "Debit",
    "freeze",
    "open_account",
]
VALUES = [
    None,
    True,
    False,
    0,
    1,
    2,
    -1,
    1.0,
    1.5,
    1e3,
    float("nan"),
    float("inf"),
    2**63,
    2**64,
    10**400,
    [],
    {},
    ["5"],
]

values = st.one_of(st.sampled_from(STRINGS), st.sampled_from(VALUES), st.text(max_size=20), st.integers(), st.floats())
#: Which fields to replace, drop or add, and whether JSON escapes every character.
changes = st.dictionaries(
    st.sampled_from([*GOOD, "note", "callback_url", "version", "V", "amount\0"]), values, max_size=3
)


def fast_and_slow(data: bytes) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return what the fast reader and what the models read, None for nothing."""
    fast = _plain_command_of(data)
    try:
        slow = _command_of(data)
    except UndecodableCommand:
        slow = None
    return (
        {name: getattr(fast, name) for name in PlainCommand.__struct_fields__} if fast else None,
        {name: getattr(slow, name, None) for name in PlainCommand.__struct_fields__} if slow else None,
    )


def text_of(pairs: list[tuple[str, Any]], *, ascii_only: bool) -> bytes:
    """Return a JSON object with these pairs, the same name as often as it is there."""
    dump = json.JSONEncoder(ensure_ascii=ascii_only).encode
    members = ",".join(f"{dump(name)}:{dump(value)}" for name, value in pairs)
    return f"{{{members}}}".encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_every_hostile_value_in_every_field(name: str, ascii_only: bool) -> None:
    """Given a good command with one field replaced, then what the fast reader lets through both read alike."""
    let_through = 0
    for value in [*STRINGS, *VALUES, "\ud800", "\udc00x"]:
        fast, slow = fast_and_slow(text_of(list({**GOOD, name: value}.items()), ascii_only=ascii_only))
        if fast is not None:
            let_through += 1
            assert fast == slow, (name, value)

    assert let_through > 0


@settings(max_examples=500, deadline=None)
@given(changes=changes, repeated=changes, dropped=st.sets(st.sampled_from(list(GOOD)), max_size=1), data=st.data())
def test_the_fast_reader_adds_nothing(
    changes: dict[str, Any], repeated: dict[str, Any], dropped: set[str], data: st.DataObject
) -> None:
    """Given hostile JSON, also with names that come twice, when the fast reader lets it through, then the models do too
    and read the same."""
    pairs = [(name, value) for name, value in {**GOOD, **changes}.items() if name not in dropped]
    pairs = data.draw(st.permutations([*pairs, *repeated.items()]))

    fast, slow = fast_and_slow(text_of(pairs, ascii_only=data.draw(st.booleans())))

    assert fast is None or fast == slow


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 300), junk=st.binary(max_size=3), cut=st.integers(0, 3))
def test_damaged_bytes_are_judged_alike(position: int, junk: bytes, cut: int) -> None:
    """Given a good command with some bytes replaced, then what the fast reader lets through the models read alike."""
    good = json.dumps({**GOOD, "idempotency_key": 'k\u00e9y \\ " \U0001f600'}).encode()
    position %= len(good)

    fast, slow = fast_and_slow(good[:position] + junk + good[position + cut :])

    assert fast is None or fast == slow


@given(
    key=st.text(min_size=1, max_size=255).filter(lambda key: not key.startswith("reversal:") and "\0" not in key),
    amount=st.integers(1, 10**1_000 - 1),
    ascii_only=st.booleans(),
)
def test_the_fast_reader_misses_nothing_that_clients_send(key: str, amount: int, ascii_only: bool) -> None:
    """Given a credit or debit as a client writes it, then the fast reader takes it: the models cost thrice that."""
    fast, slow = fast_and_slow(
        text_of(list({**GOOD, "idempotency_key": key, "amount": str(amount)}.items()), ascii_only=ascii_only)
    )

    assert fast is not None
    assert fast == slow


@pytest.mark.parametrize("url", ["https://example.com/", "ftp://example.com/", None])
def test_the_fast_reader_leaves_callbacks_to_the_models(url: str | None) -> None:
    """Given a callback, good, bad or null, then the fast reader, which has no field for it, does not drop it."""
    fast, _ = fast_and_slow(text_of(list({**GOOD, "callback_url": url}.items()), ascii_only=True))

    assert fast is None


@pytest.mark.parametrize("name", GOOD)
def test_of_a_name_that_comes_twice_both_take_the_later(name: str) -> None:
    """Given a field twice, then the fast reader and the models take the same one of the two."""
    another = {"kind": "credit", "amount": "7", "account_id": "cca_" + "b" * 32, "store_id": "store_b", "v": 2}
    earlier = (name, another.get(name, "another"))
    rest = [(other, value) for other, value in GOOD.items() if other != name]

    fast, slow = fast_and_slow(text_of([*rest, earlier, (name, GOOD[name])], ascii_only=True))

    good, _ = fast_and_slow(text_of(list(GOOD.items()), ascii_only=True))
    assert slow == good is not None
    # The fast reader may give up at the earlier one; it must not take it.
    assert fast in (None, good)
