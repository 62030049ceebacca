"""Ctrl-C at a chosen place of one of many fits."""

import os
import signal
import time

from kullback.linear import interruption


def at_fit(number, do, iteration=0):
    """A callback that does something at an iteration of the n-th fit."""
    begun = [0]

    def callback(record):
        begun[0] += record.iteration == 0
        if begun[0] == number and record.iteration == iteration:
            do()

    return callback


def press():
    """Press Ctrl-C, and wait until the main thread has heard of it."""
    before = interruption._last
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(100):
        if interruption._last != before:
            return
        time.sleep(0.01)
