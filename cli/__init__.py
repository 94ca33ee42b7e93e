"""edgetune: labelled text in, a small, fast, proven model bundle out.

>>> import edgetune
>>> built = edgetune.build(base="sentence-transformers/all-MiniLM-L6-v2", data=rows, out="bundles/x")
>>> edgetune.load("bundles/x").predict(["card still has not arrived"])

Importing it loads neither torch nor ONNX Runtime: what it names is imported when it is first asked for. `edgetune.tune`
is a package and a function: a sub-package is an attribute of its parent, so the package itself can be called.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgetune.api.build import build as build
    from edgetune.api.build import tune as tune
    from edgetune.api.bundle import load as load
    from edgetune.api.bundle import predict as predict
    from edgetune.api.comparison import compare as compare

__version__ = "0.1.0"

_FUNCTIONS = {
    "build": "api.build",
    "compare": "api.comparison",
    "load": "api.bundle",
    "predict": "api.bundle",
    "tune": "api.build",
}
__all__ = ["build", "compare", "load", "predict", "tune"]


class _TunePackage(ModuleType):
    """The package `edgetune.tune`, which is called as the function `tune` of `edgetune.api.build`."""

    @property
    def __call__(self) -> Any:
        return _function("tune")

    @property
    def __signature__(self) -> Any:
        import inspect

        return inspect.signature(_function("tune"))


class _Package(ModuleType):
    """The package `edgetune`: imports its functions when they are asked for. Type checkers see them by name alone."""

    def __getattr__(self, name: str) -> Any:
        if name not in _FUNCTIONS:
            raise AttributeError(f"module 'edgetune' has no attribute {name!r}")
        if name == "tune":
            import importlib

            return importlib.import_module("edgetune.tune")
        return _function(name)

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system sets each sub-package as an attribute of its parent once it is imported.
        if name == "tune" and isinstance(value, ModuleType):
            value.__class__ = _TunePackage
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_FUNCTIONS})


def _function(name: str) -> Any:
    import importlib

    return getattr(importlib.import_module(f"edgetune.{_FUNCTIONS[name]}"), name)


sys.modules[__name__].__class__ = _Package
