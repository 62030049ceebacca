"""Solvers of the linear models, by name."""

from kullback.errors import InputError
from kullback.linear.solvers.base import (
    Apply,
    Callback,
    IterationRecord,
    Point,
    Problem,
    Solver,
    SolverResult,
)
from kullback.linear.solvers.lbfgs import lbfgs, preconditioned_lbfgs

SOLVERS: dict[str, Solver] = {"lbfgs": lbfgs, "preconditioned": preconditioned_lbfgs}


def find_solver(name: str) -> Solver:
    """Return the solver called `name`.

    Raises:
        InputError: for an unknown name; the message lists the known ones.
    """
    try:
        return SOLVERS[name]
    except (KeyError, TypeError):
        known = ", ".join(["auto", *sorted(SOLVERS)])
        raise InputError(f"solver {name!r} is unknown; choose one of: {known}") from None


__all__ = [
    "SOLVERS",
    "Apply",
    "Callback",
    "IterationRecord",
    "Point",
    "Problem",
    "Solver",
    "SolverResult",
    "find_solver",
]
