"""Being asked to stop: Ctrl-C, SIGTERM, SIGHUP, SIGUSR1."""

import signal
from contextlib import ExitStack
from multiprocessing import RawValue
from types import FrameType
from typing import Any

from arbitrary_nst.runtime.processes import SIGNALS, handled


class Interruption:
    """While it is entered, a signal is only remembered, in `signal`. A second Ctrl-C interrupts at once.

    Args:
        stop_signal: an integer in memory that processes share (`multiprocessing.RawValue`): where the signal is
            remembered, so that workers know of it too.
    """

    def __init__(self, stop_signal: Any = None) -> None:
        self._stop_signal = RawValue("i", 0) if stop_signal is None else stop_signal
        self._listening = ExitStack()

    @property
    def signal(self) -> int:
        """The last signal's number; 0: none came."""
        return self._stop_signal.value

    def __enter__(self) -> "Interruption":
        self._listening.enter_context(handled(SIGNALS, self._remember))
        return self

    def __exit__(self, *raised: object) -> None:
        self._listening.close()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._stop_signal.value = number
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
