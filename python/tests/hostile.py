"""About sixty values that break programs which touch them carelessly, each made anew by a function."""

import datetime
import decimal
import enum
import fractions
import pathlib
import types
import uuid
import weakref

import kastor


class Angry(Exception):
    """What the raising values raise: it must never reach the program."""


class AngryBase(BaseException):
    """The same, beyond `except Exception`."""


def raising(*methods, error=Angry, base=object, **namespace):
    def method(*_, **__):
        raise error("a hostile value was touched")

    return type("Hostile", (base,), {name: method for name in methods} | namespace)


def deep_list(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def deep_dict(levels):
    value = {}
    for _ in range(levels):
        value = {"k": value}
    return value


def cyclic_list():
    value = [1]
    value.append(value)
    return value


def cyclic_dict():
    value = {}
    value["self"] = value
    return value


def lazy_proxy():
    """As lazy translation strings and ORM proxies are: everything is forwarded to something that is not there."""

    class Proxy:
        def __getattribute__(self, name):
            raise Angry(name)

        def __class__(self):
            raise Angry("class")

    return Proxy()


def lying_class():
    class Liar:
        __class__ = str

        def __str__(self):
            raise Angry

    return Liar()


def changing_list():
    class Changing(list):
        def __iter__(self):
            self.clear()
            return super().__iter__()

        def __len__(self):
            return 10**9

    return Changing([1, 2, 3])


class Emits:
    """Emits telemetry where nobody expects it: when it dies, is hashed, compared or shown."""

    tele = kastor.enable()

    def __del__(self):
        with self.tele("emitted.by.del"):
            self.tele.count("emitted")

    def __repr__(self):
        with self.tele("emitted.by.repr"):
            return "emits"

    def __hash__(self):
        with self.tele("emitted.by.hash"):
            return 5

    def __eq__(self, other):
        with self.tele("emitted.by.eq"):
            return False


class Colour(enum.Enum):
    RED = 1
    ODD = object()


class Text(str):
    __slots__ = ()

    def __str__(self):
        raise Angry

    __repr__ = __hash__ = __eq__ = __len__ = __iter__ = encode = __format__ = __str__


class Bytes(bytes):
    def __bytes__(self):
        raise Angry

    __len__ = __iter__ = __repr__ = __hash__ = __eq__ = decode = __bytes__


def big_text():
    """4 MiB and not 1 GiB: seventy values times a hundred entry points have to fit a small machine."""
    return "x" * (4 << 20)


VALUES = {
    "none": lambda: None,
    "true": lambda: True,
    "zero": lambda: 0,
    "huge int": lambda: 10**5000,
    "i64 edge": lambda: -(2**63) - 1,
    "u64 edge": lambda: 2**64,
    "nan": lambda: float("nan"),
    "infinity": lambda: float("-inf"),
    "minus zero": lambda: -0.0,
    "subnormal": lambda: 5e-324,
    "complex": lambda: 1j,
    "decimal nan": lambda: decimal.Decimal("sNaN"),
    "decimal": lambda: decimal.Decimal("1e999999"),
    "fraction": lambda: fractions.Fraction(1, 3),
    "empty text": lambda: "",
    "big text": big_text,
    "lone surrogate": lambda: "\ud800",
    "surrogates reversed": lambda: "\udc00\ud800",
    "zero byte": lambda: "a\0b",
    "controls": lambda: "".join(map(chr, [*range(32), *range(127, 160)])),
    "bidi": lambda: "\u202e\u2066\u200b\ufeff",
    "astral": lambda: "\U0010ffff" * 300,
    "bytes": lambda: b"\xff\xfe\0",
    "bytearray": lambda: bytearray(b"\xff"),
    "memoryview": lambda: memoryview(b"\xff"),
    "released memoryview": lambda: (lambda view: (view.release(), view)[1])(memoryview(b"x")),
    "str subclass": lambda: Text("text"),
    "bytes subclass": lambda: Bytes(b"x"),
    "raising str": lambda: raising("__str__")(),
    "raising repr": lambda: raising("__repr__", "__str__", "__format__")(),
    "raising hash": lambda: raising("__hash__")(),
    "raising eq": lambda: raising("__eq__", "__ne__", "__lt__")(),
    "raising len": lambda: raising("__len__", "__iter__", "__getitem__")(),
    "raising bool": lambda: raising("__bool__")(),
    "raising int": lambda: raising("__int__", "__index__", "__float__", "__complex__")(),
    "raising getattr": lambda: raising("__getattr__")(),
    "raising getattribute": lambda: raising("__getattribute__")(),
    "raising beyond exception": lambda: raising("__str__", "__repr__", "__hash__", "__eq__", "__float__", error=AngryBase)(),
    "int subclass": lambda: raising("__int__", "__index__", "__float__", "__repr__", "__add__", base=int)(3),
    "float subclass": lambda: raising("__float__", "__int__", "__repr__", base=float)(1.5),
    "list subclass": lambda: raising("__len__", "__iter__", "__repr__", base=list)([1]),
    "dict subclass": lambda: raising("__len__", "__iter__", "items", "keys", "__getitem__", base=dict)(a=1),
    "tuple subclass": lambda: raising("__len__", "__iter__", "__repr__", base=tuple)((1,)),
    "changing list": changing_list,
    "cyclic list": cyclic_list,
    "cyclic dict": cyclic_dict,
    "deep list": lambda: deep_list(20_000),
    "deep dict": lambda: deep_dict(10_000),
    "long list": lambda: list(range(100_000)),
    "mixed dict": lambda: {1: 2, None: 3, ("a",): [4], "k": {"k": object()}},
    "set": lambda: {1, "a", None},
    "lazy proxy": lazy_proxy,
    "lying class": lying_class,
    "emits": Emits,
    "enum": lambda: Colour.RED,
    "enum of an object": lambda: Colour.ODD,
    "path": lambda: pathlib.PurePosixPath("a/\udcff"),
    "uuid": lambda: uuid.UUID(int=2**128 - 1),
    "datetime": lambda: datetime.datetime.max,
    "aware datetime": lambda: datetime.datetime.min.replace(tzinfo=datetime.timezone.max),
    "odd timezone": lambda: datetime.datetime(2020, 1, 1, tzinfo=raising("utcoffset", "tzname", "dst", base=datetime.tzinfo)()),
    "timedelta": lambda: datetime.timedelta.max,
    "dead weak proxy": lambda: weakref.proxy(raising()()),
    "class": lambda: raising("__repr__"),
    "module": lambda: types.ModuleType("m\ud800"),
    "lambda": lambda: lambda: None,
    "generator": lambda: (i for i in range(3)),
    "exhausted generator": lambda: (lambda g: (list(g), g)[1])(i for i in range(3)),
    "exception": lambda: raising("__str__", "__repr__", base=Exception)(),
    "not implemented": lambda: NotImplemented,
    "ellipsis": lambda: ...,
}
