"""`spurbench build`: the stages of each class, their store, and what they will cost."""

from spurbench.api import build as _build
from spurbench.core.callable import callable_package

callable_package(__name__, _build)
