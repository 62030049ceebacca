"""Reading a loss back from its spelling: ``parse_loss(str(loss)) == loss``."""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Iterator

from kullback.errors import InputError, SpellingError
from kullback.losses.base import Loss
from kullback.losses.weighted_sum import WeightedSum

# Every loss by its name; filled by kullback.losses with all that it exports, and by register_loss.
CATALOGUE: dict[str, type[Loss]] = {}


def parse_loss(spelling: str | Loss) -> Loss:
    """A loss from text such as ``"cross_entropy(label_smoothing=0.1)"``; a loss is returned as it is.

    Sums are spelled as they are written: ``"0.7 * cross_entropy + 0.3 * brier"``.

    Only literal settings are read; nothing is ever executed.

    Raises:
        SpellingError: for an unknown name or setting (with the closest known one), or text that cannot be read.

    >>> parse_loss("cross_entropy(class_weight=[1, 2])").class_weight
    (1.0, 2.0)
    """
    if isinstance(spelling, Loss):
        return spelling
    if not isinstance(spelling, str):
        raise SpellingError(f"expected a loss or its spelling, got {type(spelling).__name__}")
    text = spelling.strip()
    expression = _expression(text)
    if isinstance(expression, ast.BinOp | ast.UnaryOp):
        try:
            return WeightedSum(tuple(_terms(expression, text, 1.0)))
        except SpellingError:
            raise
        except InputError as error:
            raise SpellingError(f"{spelling!r}: {error}") from None
    name, parenthesis, _ = text.partition("(")
    kind = CATALOGUE.get(name.strip())
    if name.strip() == "heads":
        raise SpellingError(f"{spelling!r} is one loss per output, and no loss: read it with Heads.parse")
    if kind is None:
        raise SpellingError(f"unknown loss {name.strip()!r}{_closest(name, CATALOGUE)}; known: {', '.join(CATALOGUE)}")
    settings = _settings(text, kind) if parenthesis else {}
    try:
        return kind(**settings)
    except InputError as error:
        raise SpellingError(f"{spelling!r}: {error}") from None


def register_loss(kind: type[Loss]) -> type[Loss]:
    """Make a user's own loss class known to `parse_loss` by its ``name``; usable as a class decorator.

    Raises:
        InputError: if the class has no name of its own, or the name is taken or not an identifier.
    """
    name = getattr(kind, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"{kind.__name__}.name = {name!r} is not a name; give the class one like 'my_loss'")
    taken = CATALOGUE.get(name)
    if taken is not None and taken.__module__ != kind.__module__:
        raise InputError(f"a loss named {name!r} exists already ({taken.__module__}.{taken.__qualname__})")
    CATALOGUE[name] = kind
    return kind


def _expression(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _terms(node: ast.expr, text: str, factor: float) -> Iterator[tuple[float, Loss]]:
    """The factors and losses of a sum such as ``0.7 * cross_entropy + 0.3 * brier``."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield from _terms(node.left, text, factor)
        yield from _terms(node.right, text, factor if isinstance(node.op, ast.Add) else -factor)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _number(node.left), _number(node.right)
        if (left is None) == (right is None):
            raise SpellingError(f"{text!r}: a product is a number times a loss, like 0.7 * cross_entropy")
        yield from _terms(node.right if right is None else node.left, text, factor * (left or right or 0.0))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        divisor = _number(node.right)
        if not divisor:
            raise SpellingError(f"{text!r}: a loss is divided by a number other than 0, like cross_entropy / 2")
        yield from _terms(node.left, text, factor * (1.0 / divisor))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield from _terms(node.operand, text, -factor)
    elif isinstance(node, ast.Name | ast.Call):
        yield factor, parse_loss(ast.get_source_segment(text, node) or "")
    else:
        raise SpellingError(f"cannot read {text!r}; a sum of losses is spelled like 0.7 * cross_entropy + 0.3 * brier")


def _number(node: ast.expr) -> float | None:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _settings(text: str, kind: type[Loss]) -> dict[str, object]:
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    call = _expression(text)
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise SpellingError(f"cannot read {text!r}; a loss is spelled like {kind.name}({known[0]}=…)")
    if call.args:
        raise SpellingError(f"{text!r}: settings are named; {kind.name} takes {', '.join(known)}")
    settings: dict[str, object] = {}
    for keyword in call.keywords:
        if keyword.arg not in known:
            hint = _closest(str(keyword.arg), known)
            raise SpellingError(
                f"{text!r}: {kind.name} has no setting {keyword.arg!r}{hint}; known: {', '.join(known)}"
            )
        try:
            settings[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise SpellingError(
                f"{text!r}: the value of {keyword.arg} is not a number, text or a list of numbers"
            ) from None
    return settings


def _closest(word: str, known: object) -> str:
    near = difflib.get_close_matches(word.strip().lower().replace("-", "_"), list(known), n=1)  # type: ignore[call-overload]
    return f" (did you mean {near[0]!r}?)" if near else ""
