"""How far a long step is, told in its log now and then."""

import time
from collections.abc import Callable

from onnxproof.formatting import format_duration

EVERY_S = 20.0


class Progress:
    """Counts inputs, and tells how many are done and how long the others may take: every ``EVERY_S`` seconds.

    A short step tells nothing.
    """

    def __init__(
        self,
        name: str,
        total: int,
        show: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
        unit: str = "inputs",
    ) -> None:
        """Start the clock.

        Args:
            name: what the step is about, for the lines.
            total: how many inputs there are to be counted.
            show: given each line.
            clock: returns seconds.
            unit: what is counted, where that is no inputs.
        """
        self.name, self.total, self.show, self.clock, self.unit = name, total, show, clock, unit
        self.done = 0
        self.start = self.told = clock()

    def count(self, inputs: int) -> None:
        """Count further inputs that are done, and tell of it where it is time to."""
        self.done += inputs
        now = self.clock()
        if now - self.told < EVERY_S or self.done >= self.total:
            return
        self.told = now
        left = (now - self.start) / self.done * (self.total - self.done)
        self.show(f"{self.name}: {self.done} of {self.total} {self.unit} done, about {format_duration(left)} left")
