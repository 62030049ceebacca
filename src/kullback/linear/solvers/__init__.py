"""Solvers of the linear models, by name."""

from kullback.errors import InputError
from kullback.linear.solvers.base import (
    Callback,
    IterationRecord,
    Point,
    Problem,
    Solver,
    SolverResult,
)
from kullback.linear.solvers.lbfgs import lbfgs

SOLVERS: dict[str, Solver] = {"lbfgs": lbfgs}


def find_solver(name: str) -> Solver:
    """Return the solver called `name`.

    Raises:
        InputError: for an unknown name; the message lists the known ones.
    """
    try:
        return SOLVERS[name]
    except (KeyError, TypeError):
        known = ", ".join(sorted(SOLVERS))
        raise InputError(f"solver {name!r} is unknown; choose one of: {known}") from None


__all__ = [
    "SOLVERS",
    "Callback",
    "IterationRecord",
    "Point",
    "Problem",
    "Solver",
    "SolverResult",
    "find_solver",
]
