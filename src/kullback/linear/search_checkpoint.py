"""The state of an unfinished search over penalties in a file: every fit that is done, with all that is known of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kullback.linear.certificate import Certificate
from kullback.linear.checkpoint import Checkpoint, records_as_array, records_of
from kullback.linear.path_point import PathPoint


class SearchCheckpoint(Checkpoint):
    """A file that holds the fits of a search that are done; see `Checkpoint` for the arguments.

    Fits are known by their fold (0 for a path without folds) and the place of their C. Threads may add at once.
    """

    def __init__(self, path: str | PathLike[str], identity: Mapping[str, str]) -> None:
        super().__init__(path, identity)
        self._lock = threading.Lock()
        self._points: dict[tuple[int, int], PathPoint] = {}
        found = self._read()
        if found is None:
            return
        arrays, about = found
        try:
            for key, told in json.loads(about["points"]).items():
                fold, place = (int(number) for number in key.split("/"))
                self._points[fold, place] = PathPoint(
                    arrays[f"{key}/weights"],
                    arrays[f"{key}/intercept"],
                    records_of(arrays[f"{key}/history"]),
                    Certificate(**told.pop("certificate")),
                    **told,
                )
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged() from error

    def of_fold(self, fold: int) -> list[PathPoint]:
        """The fits of a fold that are done, from the first C on."""
        points: list[PathPoint] = []
        while (fold, len(points)) in self._points:
            points.append(self._points[fold, len(points)])
        return points

    def add(self, fold: int, place: int, point: PathPoint) -> None:
        """Take in a fit that is done, and write the file if it is time to."""
        with self._lock:
            self._points[fold, place] = point
            if self.due:
                self.save_all()

    def save_all(self) -> None:
        """Replace the file by one with every fit so far."""
        arrays: dict[str, NDArray[Any]] = {}
        told = {}
        for (fold, place), point in self._points.items():
            key = f"{fold}/{place}"
            arrays[f"{key}/weights"] = np.ascontiguousarray(point.weights)
            arrays[f"{key}/intercept"] = np.ascontiguousarray(point.intercept)
            arrays[f"{key}/history"] = records_as_array(point.history)
            told[key] = {
                "certificate": asdict(point.certificate),
                **{
                    name: getattr(point, name)
                    for name in ("converged", "ended", "solver", "solver_reason", "base", "score")
                },
            }
        self._write(arrays, points=json.dumps(told))

    def finish(self, *, done: bool) -> None:
        """Delete the file of a search that is done; write that of one that was stopped."""
        if done:
            self.remove()
        else:
            self.save_all()
