"""Numbers and strings as a reader sees them; the only place where text from the data becomes markup."""

from __future__ import annotations

import math
import re
from typing import Any

from markupsafe import Markup

# A report of a file with one-megabyte cells must stay a report; nobody reads past this.
_TEXT_LIMIT = 200
_TITLE_LIMIT = 600

_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)


def visible(text: str, limit: int = _TEXT_LIMIT) -> str:
    """Text with what the eye would miss made visible, and its length bounded.

    Control characters become their Unicode pictures, line breaks ``↵``, direction overrides and zero-width
    characters their code point, lone surrogates (which no encoding can write) ``�``, and spaces at either end
    ``␣``, so that ``"a"`` and ``"a "`` differ on the page as they do in the data.

    >>> visible("two\\nlines ")
    'two↵lines␣'
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    text = _INVISIBLE.sub(_picture, text)
    body = text.strip(" ")
    left = len(text) - len(text.lstrip(" "))
    return "␣" * left + body + "␣" * (len(text) - left - len(body))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code in (0x0A, 0x2028, 0x2029):
        return "↵"
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    # Direction overrides and zero-width characters make two different labels look the same: name them.
    return "�" if 0xD800 <= code <= 0xDFFF else f"[U+{code:04X}]"


def label(name: str, css_class: str = "label") -> Markup:
    """A name from the data as markup: escaped, direction-isolated, cut by the style sheet, whole in its title."""
    if name == "":
        return Markup('<span class="empty">(empty)</span>')
    return Markup('<bdi class="{}" title="{}">{}</bdi>').format(css_class, visible(name, _TITLE_LIMIT), visible(name))


def labels(names: tuple[str, ...]) -> Markup:
    """Several names, comma-separated, no line starting with a comma; "none" where there are none."""
    if not names:
        return Markup('<span class="empty">none</span>')
    *before, last = (label(name) for name in names)
    return Markup("").join(Markup('<span class="item">{},</span> ').format(name) for name in before) + last


def nats(value: float | None) -> str:
    """A loss with three decimals, or two significant digits where those would all be zero."""
    return number(value, 3)


def bits(value: float | None) -> str:
    """Nats as bits."""
    return number(None if value is None else value / math.log(2), 3)


def number(value: Any, decimals: int = 3) -> str:
    """A plain decimal; ``–`` for None and NaN, ``∞`` for infinity.

    >>> number(0.25), number(0.00002), number(float("nan")), number(-0.5, 1)
    ('0.250', '2.0e-05', '–', '−0.5')
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(float(value))
    sign = "−" if value < 0 else ""
    if size and size < 0.5 * 10**-decimals:
        return f"{sign}{size:.1e}"
    return f"{sign}{size:,.{decimals}f}"


def signed(value: float, decimals: int = 3) -> str:
    """A number with its sign; what rounds to zero has none.

    >>> signed(0.5), signed(-0.25, 2), signed(1e-9)
    ('+0.500', '−0.25', '0.000')
    """
    if math.isnan(value):
        return "–"
    if abs(value) < 0.5 * 10**-decimals:
        return f"{0:.{decimals}f}"
    return ("−" if value < 0 else "+") + f"{abs(value):,.{decimals}f}"


def percent(value: float | None, decimals: int = 1) -> str:
    """A share as a percentage.

    >>> percent(0.985), percent(None)
    ('98.5\u202f%', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    return f"{100 * value:.{decimals}f}\u202f%"


def probability(value: float | None) -> str:
    """A probability with three decimals, small ones in scientific notation."""
    return number(value, 3)


def count(value: Any) -> str:
    """A whole number with thousands separated; a fractional count keeps one decimal.

    >>> count(60000), count(2.5)
    ('60,000', '2.5')
    """
    if value is None or math.isnan(value):
        return "–"
    whole = round(float(value))
    return f"{whole:,}" if abs(value - whole) < 1e-6 else f"{value:,.1f}"


def plural(value: float, one: str, many: str | None = None) -> str:
    """A count with its noun.

    >>> plural(1, "row"), plural(2, "class", "classes")
    ('1 row', '2 classes')
    """
    return f"{count(value)} {one if value == 1 else many or one + 's'}"
