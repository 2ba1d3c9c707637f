"""A usage file is read row by row, and what is wrong with it is named by line and column."""

from pathlib import Path

import pytest

from creditlane.local.demo_run import Usage, plan_of
from creditlane.local.usage_file import SAMPLE, UsageFile
from creditlane.schemas.errors import InvalidCommand

OWN = "customer_id,units,reference\n"
TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def usage_file(directory: Path, content: str | bytes, *, name: str = "usage.csv", accounts: int = 100) -> UsageFile:
    path = directory / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return UsageFile(path, accounts)


def test_each_row_names_its_customer(tmp_path: Path) -> None:
    usage = usage_file(tmp_path, OWN + 'ann,5,a\n"bob, the second",70,"b ""x"""\n')

    assert [tuple(row) for row in usage.rows()] == [(0, "ann", 5, "a"), (1, "bob, the second", 70, 'b "x"')]


def test_a_trace_without_customers_is_dealt_out_by_row(tmp_path: Path) -> None:
    usage = usage_file(tmp_path, TRACE + "t0,10,1\nt1,20,2\nt2,30,0", accounts=2)

    assert [(row.customer_id, row.units) for row in usage.rows()] == [
        ("customer_000", 11),
        ("customer_001", 22),
        ("customer_000", 30),
    ]
    assert "ContextTokens + GeneratedTokens from the account of customer i modulo 2" in usage.rule


def test_the_plan_adds_up_by_customer_and_leaves_zeros_out(tmp_path: Path) -> None:
    plan = plan_of(usage_file(tmp_path, TRACE + "t0,10,1\nt1,0,0\nt2,30,0\n", accounts=2))

    assert plan.customers == {"customer_000": Usage(debits=2, units=41)}
    assert (plan.debits, plan.empty_rows) == (2, 1)


def test_an_amount_may_be_larger_than_any_machine_word(tmp_path: Path) -> None:
    digits = "9" * 1_000

    assert next(usage_file(tmp_path, f"{OWN}ann,{digits},a\n").rows()).units == int(digits)


def test_empty_lines_windows_line_ends_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    usage = usage_file(tmp_path, b"\xef\xbb\xbf" + (OWN + "\nann,5,a\n\n").replace("\n", "\r\n").encode())

    assert [row.units for row in usage.rows()] == [5]


def test_the_same_content_has_the_same_name_and_other_content_another(tmp_path: Path) -> None:
    first = usage_file(tmp_path, OWN + "ann,5,a\n")
    again = usage_file(tmp_path, OWN + "ann,5,a\n")
    changed = usage_file(tmp_path, OWN + "ann,6,a\n")

    assert first.name == again.name
    assert first.name != changed.name


def test_a_trace_over_other_accounts_is_another_request(tmp_path: Path) -> None:
    names = {usage_file(tmp_path, TRACE + "t,1,1\n", accounts=accounts).name for accounts in (2, 3)}

    assert len(names) == 2


def test_a_name_of_any_characters_makes_a_plain_key(tmp_path: Path) -> None:
    usage = usage_file(tmp_path, OWN + "ann,5,a\n", name="reversal:é ü" + "x" * 100 + ".csv")

    assert usage.name.isascii()
    assert not usage.name.startswith("reversal:")
    assert len(usage.name) < 80


@pytest.mark.parametrize("units", ["-1", "1.5", "1e3", "", "٣", " 1", "+1", "01", "9" * 1_001])
def test_an_amount_that_is_none_is_named_by_line_and_column(units: str, tmp_path: Path) -> None:
    usage = usage_file(tmp_path, f"{OWN}ann,5,a\n\nann,{units},b\n")

    with pytest.raises(InvalidCommand, match=r"usage\.csv, line 4, column units: must be a whole number"):
        plan_of(usage)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",5,a", "line 2, column customer_id: must be a text of 1 to 255"),
        (f"{'x' * 256},5,a", "line 2, column customer_id: must be a text of 1 to 255"),
        ("a\0b,5,a", "line 2, column customer_id: must be a text of 1 to 255"),
        ("ann,5,", "line 2, column reference: must be a text of 1 to 255"),
        ("ann,5", "line 2: has 2 columns, must have 3"),
        ("ann,5,a,b", "line 2: has 4 columns, must have 3"),
        ('ann,5,"a', "line 2: begins what is no CSV in UTF-8"),
        ('ann,5,a\n\n"ann",5,"b\nann,5,c\n', "line 4: begins what is no CSV in UTF-8"),
    ],
)
def test_a_bad_row_says_what_is_wrong_with_it(row: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidCommand, match=message):
        plan_of(usage_file(tmp_path, OWN + row))


def test_the_token_columns_of_a_trace_are_named_too(tmp_path: Path) -> None:
    with pytest.raises(InvalidCommand, match=r"line 3, column GeneratedTokens: .* not 'many'"):
        plan_of(usage_file(tmp_path, TRACE + "t,1,1\nt,1,many\n"))


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("rows", [0, 1, 3_000])
def test_bytes_that_are_no_utf_8_are_named_by_their_line(rows: int, end: bytes, tmp_path: Path) -> None:
    content = OWN.encode() + b"ann,5,a\n" * rows + b'ann,5,"b\nZ\xfcrich"\n' + b"ann,5,c\n" * 3_000

    with pytest.raises(InvalidCommand, match=rf"usage\.csv, line {rows + 3}: is no CSV in UTF-8"):
        plan_of(usage_file(tmp_path, content.replace(b"\n", end)))


def test_a_file_in_utf_16_is_named_from_its_first_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidCommand, match=r"line 1: is no CSV in UTF-8; save the file as UTF-8"):
        usage_file(tmp_path, (OWN + "ann,5,a\n").encode("utf-16"))


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "units,customer_id,reference\n"])
def test_an_unknown_header_names_those_that_are_known(content: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidCommand, match="the header must be customer_id,units,reference or TIMESTAMP"):
        usage_file(tmp_path, content)


def test_the_sample_that_comes_along_is_whole() -> None:
    plan = plan_of(UsageFile(SAMPLE, accounts=100))

    assert (plan.debits, plan.empty_rows, len(plan.customers)) == (2_000, 0, 40)
    assert SAMPLE.stat().st_size < 100_000
