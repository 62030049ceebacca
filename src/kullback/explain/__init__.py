"""Why a score went up or down: gradient accounts, and what a loss's minimiser means."""

from __future__ import annotations

from kullback.explain.account import GradientAccount, gradient_account, untrained_account
from kullback.explain.account_text import account_sentence
from kullback.explain.meaning import minimiser_meaning

__all__ = [
    "GradientAccount",
    "account_sentence",
    "gradient_account",
    "minimiser_meaning",
    "untrained_account",
]
