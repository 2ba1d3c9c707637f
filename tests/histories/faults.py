"""Faults, and episodes of one or two of them at random, each followed by the proof that commands flow again."""

import random
from typing import Any

from .orders import Anomaly
from .probes import Probes
from .stack import Stack


class Episodes:
    def __init__(self, stack: Stack, probes: Probes, choose: random.Random, tell: Any) -> None:
        self.told: list[dict[str, Any]] = []
        self.anomalies: list[Anomaly] = []
