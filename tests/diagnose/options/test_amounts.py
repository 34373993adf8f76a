"""Amounts of memory as people type them; pydantic's ByteSize reads some of them as it should."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ByteSize, TypeAdapter

from awqscope.diagnose.options.amounts import parse_bytes, write_bytes
from awqscope.mixedprec.errors import InputError

SIZE = TypeAdapter(ByteSize)
UNITS = ("B", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB", "k", "M", "g", "T", "")


def test_sizes() -> None:
    assert parse_bytes("8GiB") == 8 * 2**30
    assert parse_bytes("500 MB") == 500_000_000
    assert parse_bytes("1.5k") == 1500
    assert parse_bytes("4.97 MB") == 4_970_000
    assert parse_bytes("4,966,784 bytes") == parse_bytes("4,966,784") == 4_966_784
    assert parse_bytes("2Gi") == 2**31


@given(
    number=st.integers(0, 10**6) | st.decimals(0, 1000, places=2).map(str),
    unit=st.sampled_from(UNITS),
    blank=st.sampled_from(("", " ")),
)
def test_what_bytesize_reads_is_read_alike(number: object, unit: str, blank: str) -> None:
    text = f"{number}{blank}{unit}"
    assert parse_bytes(text) == SIZE.validate_python(text)


@pytest.mark.parametrize("text", ["GiB", "8 GiB or so", "-1", "1.5.0k", "1,00 MB", "8 gbit", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no amount of memory: give it like 8GiB or 500MB"):
        parse_bytes(text)


@given(st.integers(0, 2**45))
def test_a_size_is_written_as_it_is_read(count: int) -> None:
    assert parse_bytes(write_bytes(count)) == count
    assert write_bytes(8 * 2**30) == "8GiB"
