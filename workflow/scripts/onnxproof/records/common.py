"""What records of several stages have in common."""

from typing import TypeAlias

#: The versions of Python and of distributions, by name.
Versions: TypeAlias = dict[str, str]
#: Measured values by the names in ``vocabulary.METRICS``; None where a value is not finite.
Metrics: TypeAlias = dict[str, float | None]
#: Limits by the names in ``vocabulary.METRICS``; None where a metric is not judged.
Limits: TypeAlias = dict[str, float | None]
