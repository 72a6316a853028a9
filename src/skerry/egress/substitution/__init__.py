"""Secrets in requests: where placeholders may stand, what they become, what is refused. No I/O, no clock."""

from skerry.egress.substitution.apply import apply
from skerry.egress.substitution.bindings import Bindings
from skerry.egress.substitution.budgets import Budgets
from skerry.egress.substitution.issued import Issued
from skerry.egress.substitution.model import Carried, Denial, Stray, Substituted
from skerry.egress.substitution.placeholders import Placeholders, Strays

__all__ = [
    "Bindings",
    "Budgets",
    "Carried",
    "Denial",
    "Issued",
    "Placeholders",
    "Stray",
    "Strays",
    "Substituted",
    "apply",
]
