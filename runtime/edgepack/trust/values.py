# ruff: noqa: ANN001, ANN002, ANN003, ANN201, ANN202, N807  (the checker sees the standard library)
"""The standard library's frozen dataclasses, made in a twentieth of the time.

`dataclasses` writes and compiles the source of six methods for each class: 0.5 ms each, a quarter
of the time in which an agent starts. `dataclass(frozen=True, slots=True)`, keyword-only or not,
gets methods here that are the same functions for all classes. Everything else is the standard
library's own. Where objects are made many times a second, use that: its `__init__` is twice as
quick. Measured: docs/adr/0018.
"""

import dataclasses
from typing import TYPE_CHECKING

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from operator import attrgetter

    def dataclass(cls=None, /, **options):
        """`dataclasses.dataclass`."""
        if cls is None and options in _QUICK:
            return _value if "kw_only" in options else _positional_value
        return dataclasses.dataclass(cls, **options)

    _FROZEN = {"frozen": True, "slots": True}
    _QUICK = (_FROZEN, {**_FROZEN, "kw_only": True})
    _MISSING = dataclasses.MISSING

    def _value(cls, kw_only=True):
        if cls.__doc__ is None:
            cls.__doc__ = cls.__name__  # else a signature is made for it
        made = dataclasses.dataclass(
            init=False, repr=False, eq=False, slots=True, kw_only=kw_only, match_args=not kw_only
        )(cls)
        fields = dataclasses.fields(made)
        if any(not field.init or field.hash is not None for field in fields):
            raise TypeError(f"{cls.__qualname__}: init=False and hash= need the standard library")
        made.__edgepack_init__ = tuple(
            (field.name, getattr(made, field.name).__set__, field.default, field.default_factory)
            for field in fields
        )
        made.__edgepack_order__ = tuple(field.name for field in fields if not field.kw_only)
        compared = [field.name for field in fields if field.compare]
        made.__edgepack_key__ = _key(compared)
        for method in _METHODS:
            if method.__name__ not in cls.__dict__ or method is _METHODS[0]:
                setattr(made, method.__name__, method)
        return made

    def _positional_value(cls):
        return _value(cls, kw_only=False)

    def _key(names):
        """A function from an object to what it is compared by."""
        if len(names) > 1:
            return staticmethod(attrgetter(*names))
        return staticmethod(lambda value: tuple(getattr(value, name) for name in names))

    def __init__(self, /, *placed, **given):
        cls = self.__class__
        if placed:
            _take_placed(cls, placed, given)
        missing = []
        for name, store, default, factory in cls.__edgepack_init__:
            if name in given:
                store(self, given.pop(name))
            elif default is not _MISSING:
                store(self, default)
            elif factory is not _MISSING:
                store(self, factory())
            else:
                missing.append(name)
        if missing or given:
            what, names = ("misses", missing) if missing else ("has no", given)
            raise TypeError(f"{cls.__qualname__} {what} {', '.join(names)}")
        if hasattr(cls, "__post_init__"):
            self.__post_init__()

    def _take_placed(cls, placed, given):
        order = cls.__edgepack_order__
        if len(placed) > len(order):
            raise TypeError(f"{cls.__qualname__} takes {len(order)} values in order, got more")
        for name, value in zip(order, placed, strict=False):
            if name in given:
                raise TypeError(f"{cls.__qualname__} got {name} twice")
            given[name] = value

    def __repr__(self):
        shown = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if field.repr
        )
        return f"{self.__class__.__qualname__}({', '.join(shown)})"

    def __eq__(self, other):
        if other.__class__ is not self.__class__:
            return NotImplemented
        key = self.__edgepack_key__
        return key(self) == key(other)

    def __hash__(self):
        return hash(self.__edgepack_key__(self))

    def __setattr__(self, name, value):
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name):
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __getstate__(self):
        return [getattr(self, field.name) for field in dataclasses.fields(self)]

    def __setstate__(self, state):
        for field, value in zip(dataclasses.fields(self), state, strict=True):
            object.__setattr__(self, field.name, value)

    _METHODS = (
        __init__,
        __repr__,
        __eq__,
        __hash__,
        __setattr__,
        __delattr__,
        __getstate__,
        __setstate__,
    )
