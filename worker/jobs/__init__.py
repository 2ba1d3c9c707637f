"""What runs beside the lanes, on RQ: rounds of deliveries, and work at its due time.

`queues` and `process` are RQ, `waker` and `scheduler` decide what is to be done, `runs` sees to it that it is done
once. The other modules are the work itself.
"""

from __future__ import annotations
