"""The records of a fit, those of the fits that it continues included."""

from __future__ import annotations

import dataclasses

from kullback.linear.solvers import IterationRecord


class Course:
    """Records of a fit, counted from the first.

    Args:
        earlier: those of a fit that this one continues.

    Attributes:
        history: the records so far.
    """

    def __init__(self, earlier: list[IterationRecord]) -> None:
        self.history = list(earlier)
        self._before = earlier[-1] if earlier else None

    @property
    def done(self) -> int:
        """Iterations so far."""
        return self.history[-1].iteration if self.history else 0

    def add(self, record: IterationRecord) -> IterationRecord | None:
        """Take in the next record, and return it as it is counted; None for a start that is known already."""
        if self._before is not None:
            if record.iteration == 0:
                return None
            iteration, seconds = self._before.iteration + record.iteration, self._before.seconds + record.seconds
            record = dataclasses.replace(record, iteration=iteration, seconds=seconds)
        self.history.append(record)
        return record
