"""Entries, the boards that rank them, and the page."""

from spurbench.api import leaderboard as _leaderboard
from spurbench.core.callable import callable_package

callable_package(__name__, _leaderboard)
