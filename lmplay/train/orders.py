"""What the loop needs to know of those who may interrupt it. `control.Control` is one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lmplay.train.loop import Trainer


class StopTraining(Exception):
    """Leave the loop, having saved; the process ends with `exit_status`.

    `alone`: of several processes this one found that it must end while the others wait for it, and cannot save with
    them.
    """

    def __init__(self, reason: str, *, exit_status: int = 0, alone: bool = False) -> None:
        super().__init__(reason)
        self.alone = alone
        self.reason = reason
        self.exit_status = exit_status


class Orders(Protocol):
    """Who may ask something of a training."""

    stopping: bool
    """The end was asked for: nothing is waited for any more."""

    def obey(self, trainer: Trainer) -> None:
        """At a step boundary: carry out what is asked for. Raises `StopTraining` to end the run."""

    def heed(self) -> None:
        """While this process waits for something: raises `StopTraining`, once, after a signal or when the time is
        over.
        """

    def heed_stop(self) -> None:
        """Within something long: as `heed`, and for a request to stop."""
