"""How a long run tells what it does, to whoever wants to hear it."""

from __future__ import annotations

from collections.abc import Iterable


class Listener:
    """Hears notes and progress. This one keeps silent; a subclass overrides what it wants to hear."""

    def note(self, sentence: str) -> None:
        """Something about the data or the model that a person should know."""

    def stage(self, name: str, unit: str = "") -> None:
        """A new stage of the work begins: what it does, and what `advance` counts in it."""

    def advance(self, done: int, share: float | None = None, remark: str = "") -> None:
        """So many units are done, which is that share of the whole in [0, 1], if it can be told; how it goes."""


class Notes:
    """Passes notes on as they come, each sentence once, and keeps them."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._seen: dict[str, None] = {}

    def say(self, sentences: Iterable[str]) -> None:
        """Pass on the sentences that were not said before."""
        for sentence in sentences:
            if sentence not in self._seen:
                self._seen[sentence] = None
                self._listener.note(sentence)

    @property
    def said(self) -> tuple[str, ...]:
        """All notes so far, in order."""
        return tuple(self._seen)
