"""Pydantic support, ``@app.task(pydantic=True)``: validate arguments into models, dump results to JSON data."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from beatd.exceptions import ConfigError, Fault


def with_models(
    fun: Callable[..., Any], *, strict: bool = False, context: Any = None, dump: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """Wrap ``fun``: arguments annotated with a model (also ``Model | None``) are validated into it.

    Invalid arguments fail the task with pydantic's ``ValidationError``. ``strict`` and ``context`` are passed to
    ``model_validate``, ``dump`` to ``model_dump``. Raises :class:`ConfigError` if pydantic is not installed.
    """
    signature, models = inspect.signature(fun), models_of(fun)

    def read(args: Any, kwargs: Any) -> inspect.BoundArguments:
        bound = signature.bind(*args, **kwargs)
        for name, model in models.items():
            if bound.arguments.get(name) is not None:
                bound.arguments[name] = model.model_validate(bound.arguments[name], strict=strict, context=context)
        return bound

    @functools.wraps(fun)
    def run(*args: Any, **kwargs: Any) -> Any:
        bound = read(args, kwargs)
        return plain(fun(*bound.args, **bound.kwargs), dump)

    @functools.wraps(fun)
    async def run_async(*args: Any, **kwargs: Any) -> Any:
        bound = read(args, kwargs)
        return plain(await fun(*bound.args, **bound.kwargs), dump)

    return run_async if inspect.iscoroutinefunction(fun) else run


def models_of(fun: Callable[..., Any]) -> dict[str, Any]:
    """Return the models of the arguments that are annotated with one, by the name of the argument."""
    base = _base_model()
    try:
        hints = typing.get_type_hints(fun)
    except (NameError, AttributeError, TypeError):  # names that are imported for type checkers only
        hints = {name: parameter.annotation for name, parameter in inspect.signature(fun).parameters.items()}
    return {name: model for name, hint in hints.items() if (model := _model_in(hint, base)) and name != "return"}


def plain(value: Any, dump: Mapping[str, Any] | None = None) -> Any:
    """Dump a model to JSON data; any other value is returned unchanged."""
    return value.model_dump(**{"mode": "json", **(dump or {})}) if isinstance(value, _base_model()) else value


def _model_in(hint: Any, base: type) -> Any:
    """Return the model of an annotation ``Model`` or ``Model | None``, else None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        hint = kinds[0] if len(kinds) == 1 else None
    return hint if isinstance(hint, type) and issubclass(hint, base) else None


@functools.cache
def _base_model() -> type[Any]:
    try:
        from pydantic import BaseModel  # noqa: PLC0415 - an optional dependency
    except ImportError:
        text = "pydantic=True needs pydantic: pip install pydantic"
        raise ConfigError([Fault("@app.task", None, "pydantic", text)]) from None
    base: type[Any] = BaseModel
    return base
