"""A package that is a function too.

``spurbench.build(...)`` is the function and ``spurbench.build.plan`` a module. Importing any module
of a package binds the package's name in its parent, so a plain function of that name would be there
or not by what was imported before. The package itself can be called instead, whoever imports what.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def callable_package(name: str, function: Callable[..., Any]) -> None:
    """Let the package ``name``, which is being imported, be called as ``function``."""

    class Package(ModuleType):
        __call__ = staticmethod(function)

    sys.modules[name].__class__ = Package
