"""The quick dataclasses behave as the standard library's: each case is tried with both."""

import copy
import dataclasses
import math
import pickle

import pytest

from edgepack.trust import values


class Point:
    """A point."""

    x: float
    y: float
    name: str = "p"
    tags: list[str] = dataclasses.field(default_factory=list)
    seed: bytes = dataclasses.field(default=b"", repr=False, compare=False)


class Pair:
    """In order."""

    one: int
    two: int = 2


class Alone:
    only: object = None


class Nothing:
    """No fields."""


class Checked:
    """A field that is looked at."""

    size: int

    def __post_init__(self):
        if self.size < 0:
            raise ValueError("size must be >= 0")

    def __repr__(self):
        return f"<{self.size}>"


def decorated(make, kw_only=True):
    options = {"frozen": True, "slots": True} | ({"kw_only": True} if kw_only else {})

    def copy_of(cls):
        body = {
            key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")
        }
        return make(**options)(type(cls.__name__, cls.__bases__, body))

    return copy_of


BOTH = [values.dataclass, dataclasses.dataclass]


@pytest.fixture(params=BOTH, ids=["quick", "standard"])
def make(request):
    return decorated(request.param)


@pytest.fixture(params=BOTH, ids=["quick", "standard"])
def make_ordered(request):
    return decorated(request.param, kw_only=False)


def test_values(make):
    """Given values, defaults, and factories that make a new one each time."""
    point = make(Point)
    one, other = point(x=1.0, y=2.0), point(y=2.0, x=1.0, name="q", seed=b"s")
    assert (1.0, 2.0, "p", [], b"") == (one.x, one.y, one.name, one.tags, one.seed)
    assert "q" == other.name
    assert one.tags is not other.tags
    assert not hasattr(one, "__dict__")


def test_equality_and_hash(make):
    """By the fields that are compared; another class is another value."""
    pair, alone = make(Pair), make(Alone)
    assert pair(one=1) == pair(one=1, two=2)
    assert pair(one=1) != pair(one=2)
    assert pair(one=1) != make(Pair)(one=1)
    assert pair(one=1) != (1, 2)
    assert hash(pair(one=1)) == hash(pair(one=1, two=2))
    assert {pair(one=1): "found"}[pair(one=1)] == "found"
    assert alone(only=(1,)) == alone(only=(1,))
    assert alone(only=math.nan) != alone(only=float("nan"))
    nothing = make(Nothing)
    assert nothing() == nothing()
    point = make(Point)
    assert point(x=1.0, y=2.0, seed=b"1") == point(x=1.0, y=2.0, seed=b"2")
    with pytest.raises(TypeError, match="unhashable"):
        hash(point(x=1.0, y=2.0))


def test_text(make):
    """With every field but those that are kept out, or as the class says."""
    assert "Point(x=1.0, y=2, name='p', tags=[])" == repr(make(Point)(x=1.0, y=2, seed=b"secret"))
    assert "<3>" == repr(make(Checked)(size=3))
    assert "Nothing()" == repr(make(Nothing)())


def test_frozen(make):
    """Nothing can be set or deleted."""
    pair = make(Pair)(one=1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'one'"):
        pair.one = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'one'"):
        del pair.one
    with pytest.raises((AttributeError, TypeError)):
        pair.three = 3
    assert 1 == pair.one


@pytest.mark.parametrize("given", [{}, {"two": 1}, {"one": 1, "three": 3}])
def test_wrong_names(make, given):
    """What is missing or unknown is a TypeError."""
    with pytest.raises(TypeError):
        make(Pair)(**given)


def test_keyword_only(make):
    """Values in order are a TypeError."""
    with pytest.raises(TypeError):
        make(Pair)(1)


def test_in_order(make_ordered):
    """Values in order, by name, or some of each; never twice, never too many."""
    pair = make_ordered(Pair)
    assert pair(1, 3) == pair(1, two=3) == pair(two=3, one=1)
    assert ("one", "two") == pair.__match_args__
    for placed, given in [((1, 2, 3), {}), ((1,), {"one": 1}), ((), {})]:
        with pytest.raises(TypeError):
            pair(*placed, **given)


def test_checks(make):
    """`__post_init__` is called, also by `replace`."""
    checked = make(Checked)
    assert 3 == dataclasses.replace(checked(size=2), size=3).size
    with pytest.raises(ValueError, match="size must be"):
        dataclasses.replace(checked(size=2), size=-1)


def test_the_library_takes_them(make):
    """`fields`, `asdict`, `replace`, `copy` work."""
    point = make(Point)(x=1.0, y=2.0)
    assert dataclasses.is_dataclass(point)
    assert ["x", "y", "name", "tags", "seed"] == [item.name for item in dataclasses.fields(point)]
    assert {"x": 1.0, "y": 2.0, "name": "p", "tags": [], "seed": b""} == dataclasses.asdict(point)
    assert copy.deepcopy(point) == point
    assert "A point." == type(point).__doc__


@values.dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where pickle finds it."""

    name: str


def test_pickle():
    """Objects go to other processes and come back."""
    assert Stored(name="x") == pickle.loads(pickle.dumps(Stored(name="x")))


def test_everything_else_is_the_library_s_own():
    """Other options, and none."""

    @values.dataclass
    class Plain:
        x: int

    @values.dataclass(frozen=True, slots=True, order=True)
    class Ordered:
        x: int

    plain = Plain(1)
    plain.x = 2
    assert 2 == plain.x
    assert Ordered(1) < Ordered(2)


@pytest.mark.parametrize("option", [{"init": False, "default": 1}, {"hash": False}])
def test_what_it_cannot_do_is_refused_with_the_class(option):
    """Else a field would be missing, or a hash another one."""
    body = {"__annotations__": {"field": int}, "field": dataclasses.field(**option)}
    with pytest.raises(TypeError, match="Strange: init=False and hash= need the standard library"):
        values.dataclass(frozen=True, slots=True)(type("Strange", (), body))
