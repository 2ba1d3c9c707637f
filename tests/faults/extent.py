"""How long the fault tests take: short in every test run, long in `make faults`."""

import os

LONG = os.environ.get("CREDITLANE_TEST_LONG") == "1"
#: Every fault is repeated with each of these; the seed decides the commands and where the fault strikes.
SEEDS = range(10) if LONG else range(1)
#: Commands that stand on the lanes before a worker starts.
BACKLOG = 1_500 if LONG else 150
#: Commands that a worker decides in one transaction: few, so that a fault strikes among many batches.
BATCH_LIMIT = 100 if LONG else 30
