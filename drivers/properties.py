"""Instrument properties as declared data: each says its command, query, unit, valid range and source."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, Self, TypeVar, overload

from hilcl.drivers.visa_session import LinkError
from hilcl.errors import InputError

T = TypeVar("T")
Bounds = tuple[float, float]


class Addressed(Protocol):
    """What owns properties: an instrument, or one channel of it."""

    @property
    def label(self) -> str:
        """Name for messages: ``"smu1 channel b"``."""
        ...

    @property
    def address(self) -> str:
        """What stands for ``{c}`` in commands: ``"b"``."""
        ...

    @property
    def model(self) -> Any:
        """Model data; bounds given by name are its attributes."""
        ...

    def exchange(self, commands: list[str], questions: list[str]) -> list[str]:
        """Send one compound message and return one answer per question, the error queue checked."""
        ...


class Property(Generic[T]):
    """One setting or reading of an instrument.

    ``write`` and ``query`` are message templates: ``{c}`` is the channel, ``{v}`` the value; None where the property
    can only be read or only be set. ``within`` is (lowest, highest) or the name of the model's attribute that holds
    it. Reading the attribute asks the instrument, assigning it tells the instrument; both check the error queue.
    ``command``, ``question`` and ``decode`` give the same as parts of a compound message.
    """

    def __init__(
        self,
        write: str | None,
        query: str | None,
        unit: str,
        doc: str,
        *,
        encode: Callable[[T], str],
        parse: Callable[[str], T],
        within: str | Bounds | None = None,
    ) -> None:
        self.write, self.query, self.unit, self.within = write, query, unit, within
        self.__doc__ = doc
        self.name = "property"
        self._encode, self._parse = encode, parse

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def bounds(self, owner: Addressed) -> Bounds | None:
        """Return the (lowest, highest) value valid for the owner's model, None where there is no such thing."""
        if isinstance(self.within, str):
            low, high = getattr(owner.model, self.within)
            return float(low), float(high)
        return self.within

    def command(self, owner: Addressed, value: T) -> str:
        """Return the message part that sets the property.

        Raises InputError for a value the model cannot take, before anything is sent.
        """
        if self.write is None:
            raise InputError(f"{owner.label}: {self.name} can only be read")
        bounds = self.bounds(owner)
        if bounds is not None and isinstance(value, (int, float)) and not bounds[0] <= value <= bounds[1]:
            unit = f" {self.unit}" if self.unit else ""
            raise InputError(
                f"{owner.label}: {self.name} must lie between {bounds[0]:g} and {bounds[1]:g}{unit}, "
                f"but {value:g}{unit} was asked for"
            )
        try:
            text = self._encode(value)
        except (KeyError, TypeError, ValueError) as cause:
            raise InputError(f"{owner.label}: {self.name} cannot be {value!r}") from cause
        return self.write.format(c=owner.address, v=text)

    def question(self, owner: Addressed) -> str:
        """Return the message part that asks for the property."""
        if self.query is None:
            raise InputError(f"{owner.label}: {self.name} can only be set")
        return self.query.format(c=owner.address)

    def decode(self, owner: Addressed, answer: str) -> T:
        """Return the value an answer stands for.

        Raises LinkError for an answer that is none: the link is out of step.
        """
        try:
            return self._parse(answer)
        except (KeyError, OverflowError, ValueError) as cause:  # int() of an infinite number overflows
            raise LinkError(
                f"{owner.label} answered {answer!r} to {self.question(owner)!r}, which is no {self.name}: "
                "check that nothing else talks to the instrument",
                "garbage",
            ) from cause

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...

    @overload
    def __get__(self, owner: Addressed, kind: type) -> T: ...

    def __get__(self, owner: Addressed | None, kind: type) -> Self | T:
        if owner is None:
            return self
        return self.decode(owner, owner.exchange([], [self.question(owner)])[0])

    def __set__(self, owner: Addressed, value: T) -> None:
        owner.exchange([self.command(owner, value)], [])


def declared(kind: type) -> dict[str, "Property[Any]"]:
    """Return the properties a class declares, those of its bases first."""
    found: dict[str, Property[Any]] = {}
    for base in reversed(kind.__mro__):
        found.update({name: value for name, value in vars(base).items() if isinstance(value, Property)})
    return found


def number(
    write: str | None,
    query: str | None,
    unit: str,
    doc: str,
    *,
    within: str | Bounds | None = None,
    per_channel: bool = False,
) -> Property[float]:
    """Declare a real number, sent with all its digits so that nothing is lost on the wire."""
    parse = _alike(float) if per_channel else float
    return Property(write, query, unit, doc, encode=lambda value: repr(float(value)), parse=parse, within=within)


def integer(
    write: str | None, query: str | None, doc: str, *, within: str | Bounds | None = None, unit: str = ""
) -> Property[int]:
    """Declare a count; answers such as ``+1.00000000E+01`` are understood."""
    return Property(
        write,
        query,
        unit,
        doc,
        encode=lambda value: str(int(value)),
        parse=lambda text: int(float(text)),
        within=within,
    )


def switch(
    write: str | None,
    query: str | None,
    doc: str,
    *,
    words: tuple[str, str] = ("OFF", "ON"),
    per_channel: bool = False,
) -> Property[bool]:
    """Declare something that is on or off; ``words`` are what is sent for False and True."""
    parse = _alike(_boolean) if per_channel else _boolean
    return Property(write, query, "", doc, encode=lambda value: words[bool(value)], parse=parse)


def choice(
    write: str | None,
    query: str | None,
    doc: str,
    words: Mapping[str, str],
    *,
    answers: Mapping[str, str] | None = None,
    per_channel: bool = False,
) -> Property[str]:
    """Declare one of several words: our name to what is sent, and to what is answered where that differs.

    Answers match in any case, quoted or not, short or long form.
    """
    replies = {_bare(text): name for name, text in (words if answers is None else answers).items()}

    def parse(text: str) -> str:
        bare = _bare(text)
        for reply, name in replies.items():
            if bare == reply or (not _is_number(reply) and bare.startswith(reply)):
                return name
        raise ValueError(text)

    parse_all = _alike(parse) if per_channel else parse
    return Property(write, query, "", doc, encode=lambda value: words[value], parse=parse_all)


def text(write: str | None, query: str | None, doc: str) -> Property[str]:
    """Declare free text; quotes around an answer are dropped."""
    return Property(write, query, "", doc, encode=str, parse=lambda answer: answer.strip().strip("\"'"))


def _alike(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return a parser of one answer per channel, separated by commas, which must all be the same."""

    def parse_all(answer: str) -> T:
        values = [parse(part) for part in answer.split(",")]
        if any(value != values[0] for value in values):
            raise ValueError(answer)
        return values[0]

    return parse_all


def _boolean(answer: str) -> bool:
    word = answer.strip().lower()
    if word in {"on", "true"}:
        return True
    if word in {"off", "false"}:
        return False
    return bool({0: 0, 1: 1}[int(float(word))])


def _bare(answer: str) -> str:
    stripped = answer.strip().replace('"', "").replace("'", "").upper()
    return f"{float(stripped):g}" if _is_number(stripped) else stripped


def _is_number(answer: str) -> bool:
    try:
        float(answer)
    except ValueError:
        return False
    return True
