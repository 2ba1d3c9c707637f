"""Which partition an account belongs to. The rule is part of the stored data: it never changes."""

from __future__ import annotations

from zlib import crc32


def partition_of(account_id: str, partitions: int) -> int:
    """Return the partition, from 0 to `partitions` - 1, whose lane carries the account's commands.

    CRC-32 (ISO 3309) of the id's ASCII bytes, modulo the number of partitions: the same in every process and language.
    """
    return crc32(account_id.encode()) % partitions
