"""The names of everything Creditlane keeps in Redis.

    <prefix>:installation               string  {"partitions": 64}, a mirror of the table `installation`
    <prefix>:{p17}:commands             stream  the lane: accepted commands, in order, until they are decided
    <prefix>:{p17}:backlog              hash    how many commands and bytes each store has on the lane
    <prefix>:{p17}:fence                string  epoch of the lane's latest owner; an older owner cannot delete
    <prefix>:{p17}:result:<store>:<key> stream  one entry, the result of a command that asked to be polled; expires
    <prefix>:{p17}:result::<store>:<id> stream  one entry, the result of the dry run of this lane entry; expires
    <prefix>:replies:<producer>         stream  results for one producer process, one entry a batch; expires
    <prefix>:wake:deliveries            list    at most one element: there are rows in the outbox; a hint, no more
    <prefix>:refused-jobs               hash    how many jobs on each queue of RQ were none of ours
    <prefix>:rate:<store>               string  when the store's bucket of requests is full, in microseconds; expires
    <prefix>:asking                     string  the stores that asked the HTTP API last, and when; expires
    <prefix>:held-turn                  string  a worker is at what is held back of the lanes, or they rest; expires
    <prefix>:others-at-work             string  some worker had something else to do lately; expires
    <prefix>:write-check                string  written to find out whether Redis takes writes; expires

The braces make all keys of a partition one slot of a Redis Cluster.
"""

from __future__ import annotations

#: Field of a lane's stream entry: the encoded command.
COMMAND_FIELD = b"c"
#: Field of a lane's stream entry: "<producer>/<number>", where to announce the result and under which number.
REPLY_FIELD = b"r"
#: Field of a lane's stream entry: present when the result shall be kept under its poll key.
KEEP_FIELD = b"k"
#: Field of a reply stream's or poll key's entry: the encoded announcements.
ANNOUNCEMENT_FIELD = b"a"
#: Field of the same entry: the version that they were encoded in; not there: version 0.
VERSION_FIELD = b"v"


class Keys:
    """Builds key names under one prefix."""

    def __init__(self, prefix: str = "creditlane") -> None:
        self.prefix = prefix

    @property
    def installation(self) -> str:
        """Name of the mirror of the installation's facts."""
        return f"{self.prefix}:installation"

    def lane(self, partition: int) -> str:
        """Name of the partition's lane."""
        return f"{self.prefix}:{{p{partition}}}:commands"

    def backlog(self, partition: int) -> str:
        """Name of what each store has on the partition's lane."""
        return f"{self.prefix}:{{p{partition}}}:backlog"

    def fence(self, partition: int) -> str:
        """Name of the partition's fence."""
        return f"{self.prefix}:{{p{partition}}}:fence"

    def result(self, partition: int, store_id: str, idempotency_key: str) -> str:
        """Name of the poll key of one command."""
        return f"{self.prefix}:{{p{partition}}}:result:{store_id}:{idempotency_key}"

    def dry_run_result(self, partition: int, store_id: str, lane_entry: str) -> str:
        """Name of the poll key of one dry run: that of its key belongs to the command itself. No store has no name."""
        return f"{self.prefix}:{{p{partition}}}:result::{store_id}:{lane_entry}"

    def replies(self, producer_id: str) -> str:
        """Name of the reply stream of one producer process."""
        return f"{self.prefix}:replies:{producer_id}"

    @property
    def wake_deliveries(self) -> str:
        """Name of the list on which whoever delivers webhooks waits for a hint that there are some to send."""
        return f"{self.prefix}:wake:deliveries"

    @property
    def refused_jobs(self) -> str:
        """Name of the hash that counts jobs in RQ that were none of ours, by their queue."""
        return f"{self.prefix}:refused-jobs"

    def rate(self, store_id: str) -> str:
        """Name of what is left of the requests that a store may make."""
        return f"{self.prefix}:rate:{store_id}"

    @property
    def asking(self) -> str:
        """Name of which stores asked the HTTP API last."""
        return f"{self.prefix}:asking"

    @property
    def held_turn(self) -> str:
        """Name of what says that a worker is at what is held back, or that the lanes rest after it."""
        return f"{self.prefix}:held-turn"

    @property
    def others_at_work(self) -> str:
        """Name of what says that some worker had something to do lately that is not held back."""
        return f"{self.prefix}:others-at-work"

    @property
    def write_check(self) -> str:
        """Name of the key that is written to find out whether Redis takes writes."""
        return f"{self.prefix}:write-check"
