"""What every driver over VISA has: one owner thread, a verified identity, checked messages, and bounded recovery."""

import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Generic, Protocol, Self, TypeVar

from hilcl.drivers.dialects import Dialect, error_code
from hilcl.drivers.owner_thread import OwnerThread
from hilcl.drivers.visa_session import Fault, LinkError, LinkOptions, VisaSession, patiently
from hilcl.errors import BoardError, InputError
from hilcl.events import Event, EventLog

T = TypeVar("T")

MOST_ERRORS = 32
"""Entries taken from an error queue before it is cleared as a whole: instruments keep about 10 to 100."""

SHOWN_ERRORS = 3
"""Entries of an error queue that a message shows."""

HAPPENED: Mapping[Fault, str] = {
    "absent": "nobody answered",
    "silent": "no answer came in time",
    "closed": "the connection broke",
    "garbage": "an answer was not the one expected",
}
"""Failures of a link, as events say it."""


@dataclass(frozen=True)
class Identity:
    """The four fields of an ``*IDN?`` answer (IEEE 488.2, section 10.14)."""

    maker: str
    model: str
    serial: str
    firmware: str

    @classmethod
    def parse(cls, answer: str) -> "Identity":
        """Return the identity in ``KEITHLEY INSTRUMENTS,MODEL 2450,04312345,1.7.12b``.

        Raises ValueError if the answer has fewer than four fields.
        """
        fields = [field.strip() for field in answer.split(",", 3)]
        if len(fields) < 4 or not fields[0] or not fields[1]:
            raise ValueError(answer)
        return cls(*fields)

    def __str__(self) -> str:
        return f"{self.maker},{self.model},{self.serial},{self.firmware}"


class ModelData(Protocol):
    """What is known of a model."""

    @property
    def name(self) -> str:
        """Name as it stands in ``*IDN?``, without "MODEL": ``"2602B"``."""
        ...


M_co = TypeVar("M_co", bound=ModelData, covariant=True)


class VisaInstrument(Generic[M_co]):
    """An instrument on one VISA link.

    All traffic is done by one thread of its own, so that instruments work in parallel and none is used by two callers
    at once; ``submit`` hands that thread work and returns a future, the other methods wait. A link failure inside a
    step closes the session, opens another, verifies that the same instrument answers, brings it back to the state
    wanted, and does the step again, ``LinkOptions.retries`` times; then the instrument is made safe and BoardError is
    raised.
    """

    family: ClassVar[str]
    """What the driver is for, in messages: ``"Keithley 2400 series"``."""
    makers: ClassVar[tuple[str, ...]]
    """Beginnings of the maker field of ``*IDN?``, upper case."""
    dialect: ClassVar[Dialect]
    models: Mapping[str, M_co]

    def __init__(
        self,
        name: str,
        resource: str,
        *,
        link: LinkOptions | None = None,
        model: str | None = None,
        serial: str | None = None,
    ) -> None:
        if model is not None and model.upper() not in self.models:
            raise InputError(
                f"{name}: the {self.family} driver knows no model {model!r}, only {', '.join(self.models)}"
            )
        self.name, self.resource = name, resource
        self.link = LinkOptions() if link is None else link
        self._expected_model = None if model is None else model.upper()
        self._expected_serial = serial
        self._session: VisaSession | None = None
        self._identity: Identity | None = None
        self._model: M_co | None = None
        self._since_clean: list[str] = []
        self._found_errors: tuple[str, ...] = ()
        self._closed = False
        self._events = EventLog(name)
        self._owner = OwnerThread(name)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def label(self) -> str:
        """Name for messages."""
        return self.name

    @property
    def address(self) -> str:
        """Nothing: the instrument itself has no channel suffix."""
        return ""

    @property
    def identity(self) -> str:
        """Maker, model, serial number and firmware as the instrument reports them, empty before ``open``."""
        return "" if self._identity is None else str(self._identity)

    @property
    def model(self) -> M_co:
        """Data of the model that answered, or of the expected one before ``open``."""
        if self._model is not None:
            return self._model
        if self._expected_model is not None:
            return self.models[self._expected_model]
        raise BoardError(f"{self.name} has not been opened yet: open it first")

    @property
    def found_errors(self) -> tuple[str, ...]:
        """Errors that were in the instrument's queue before this session; they are none of ours."""
        return self._found_errors

    def open(self) -> Self:
        """Connect, verify the identity, empty the error queue and prepare the instrument; no output changes.

        Raises InputError if nothing answers, or another instrument than the expected one does; BoardError if what
        answers cannot be understood. Then the connection is closed again.
        """
        self.run(self._open)
        return self

    def take_events(self) -> list[Event]:
        """Return what went wrong with the link and was put right since the last call."""
        return self._events.take()

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Let the owner thread do ``work``, which may call any method of the driver, and return its future."""
        return self._owner.submit(work)

    def run(self, work: Callable[[], T]) -> T:
        """Let the owner thread do ``work``, which may call any method of the driver, and wait for it."""
        return self._owner.run(work)

    def exchange(self, commands: list[str], questions: list[str], timeout: float = 0.0) -> list[str]:
        """Send one message of commands and questions and return the answers; ``timeout`` seconds come on top.

        Raises BoardError with the messages since the last clean check if the error queue was not empty.
        """
        return self.run(lambda: self._step(lambda: self._exchange(commands, questions, timeout)))

    def make_safe(self) -> None:
        """Nothing to be made safe; sources do more."""

    def close(self) -> None:
        """Make the instrument safe and let go of it; may be called twice."""
        if self._closed:
            return
        try:
            self.make_safe()
        finally:
            self._closed = True
            self.run(self._drop_session)
            self._owner.close()

    def abandon(self) -> None:
        """Let go of an instrument that could not be opened, without talking to it; may be called twice."""
        if not self._closed:
            self._closed = True
            self.run(self._drop_session)
            self._owner.close()

    # What drivers fill in; called by the owner thread.

    def _check_language(self) -> None:
        """Check that the instrument speaks the driver's language, before anything else is asked."""

    def _prepare(self) -> None:
        """Bring a newly connected instrument to a known state without changing an output."""

    def _restore(self) -> None:
        """Bring the instrument back to the state wanted after the link was lost."""
        self._prepare()

    def _stop_safe(self) -> None:
        """Do what can be done before the step is given up."""

    # The owner thread's work.

    def _open(self) -> None:
        if self._session is not None:
            return
        try:
            self._connect()
            self._prepare()
        except LinkError as error:
            self._forget_session()
            if error.fault == "absent":
                raise InputError(str(error)) from error
            raise
        except BaseException:
            self._forget_session()
            raise

    def _forget_session(self) -> None:
        """Be as before ``open``: nothing was changed, so there is nothing to be made safe."""
        self._drop_session()
        self._identity = None

    def _connect_afresh(self) -> None:
        try:
            self._connect()
        except BaseException:
            self._drop_session()
            raise

    def _connect(self) -> None:
        """Open a session, see who answers, and empty the error queue."""
        self._session = VisaSession(self.name, self.resource, self.link)
        self._verify(self._session.query("*IDN?"))
        self._check_language()
        self._found_errors = tuple(self._drain())
        self._since_clean.clear()

    def _verify(self, answer: str) -> None:
        """Raise unless the answer to ``*IDN?`` is that of the instrument expected, or of the one met before."""
        try:
            identity = Identity.parse(answer)
        except ValueError as cause:
            raise LinkError(
                f"{self.name} ({self.resource}) answered {answer[:80]!r} to '*IDN?', which is no identity: check the "
                "resource, the baud rate and the terminations, and that no other program uses the instrument",
                "garbage",
            ) from cause
        before = self._identity
        if before is not None and (identity.model, identity.serial) != (before.model, before.serial):
            raise BoardError(
                f"{self.name}: {identity} answers at {self.resource} after the link was lost, where {before} was "
                "before: "
                "check the connections before going on"
            )
        model = self._match(identity)
        if model is None:
            wanted = self._expected_model or self.family
            raise InputError(
                f"{self.name}: {identity} answers at {self.resource}, but a {wanted} is expected there: correct the "
                "resource or the driver in the file"
            )
        if self._expected_serial is not None and identity.serial != self._expected_serial:
            raise InputError(
                f"{self.name}: the {identity.model} at {self.resource} has serial number {identity.serial}, but "
                f"{self._expected_serial} is expected: correct the resource or the serial number in the file"
            )
        self._identity, self._model = identity, model

    def _match(self, identity: Identity) -> M_co | None:
        """Return the data of the model that answered, None if it is not the expected one or one of this driver's."""
        if not identity.maker.upper().startswith(self.makers):
            return None
        name = re.sub(r"^MODEL\s+", "", identity.model.upper())
        known = max((key for key in self.models if name.startswith(key)), key=len, default=None)
        if known is None or (self._expected_model is not None and known != self._expected_model):
            return None
        return self.models[known]

    def _step(self, work: Callable[[], T]) -> T:
        """Do work, again on a fresh, verified and restored session when the link fails; bounded, then stop safe."""
        failure: LinkError | None = None
        for attempt in range(self.link.retries + 1):
            try:
                if self._session is None:
                    self._reconnect()
                return work()
            except LinkError as error:
                self._drop_session()
                failure = error
                if attempt < self.link.retries:
                    self._events.note(HAPPENED[error.fault], "connected anew, verified, and did it again")
        try:
            self._stop_safe()
        except BoardError as unsafe:
            raise BoardError(f"{failure}; moreover {unsafe}") from failure
        raise BoardError(f"{failure} (tried {self.link.retries + 1} times)") from failure

    def _reconnect(self) -> None:
        if self._identity is None:
            raise BoardError(f"{self.name} has not been opened yet: open it first")
        lost = list(self._since_clean)
        try:
            patiently(self._connect_afresh, self.link.patience)
            if self._found_errors:
                # The instrument did not fall silent, it refused what it was told; doing that again would not help.
                raise BoardError(self._complaint(list(self._found_errors), lost))
            self._restore()
        except BaseException:
            self._drop_session()
            raise

    def _exchange(self, commands: list[str], questions: list[str], timeout: float = 0.0) -> list[str]:
        """Send one compound message on the open session and check the error queue with it."""
        session = self._open_session()
        message = self.dialect.join(commands, questions)
        self._since_clean.append(message)
        answer = session.query(message, self.link.timeout + timeout)
        fields = [field.strip() for field in self.dialect.split(answer, len(questions))]
        code = error_code(fields[-1])
        if len(fields) != len(questions) + 1 or code is None:
            raise LinkError(
                f"{self.name} ({self.resource}) answered {answer[:80]!r} to {message[:120]!r}, which is no answer to "
                "that: "
                "check that no other program uses the instrument",
                "garbage",
            )
        if code:
            self._refused(fields[-1], code)
        self._since_clean.clear()
        return fields[:-1]

    def _refused(self, first: str, code: int) -> None:
        """Empty the error queue and raise with what was in it."""
        # A dialect may answer with a count instead of an entry; the entries are then all still in the queue.
        errors = [first] if "," in first else []
        sent = list(self._since_clean)
        errors += self._drain()
        self._since_clean.clear()
        raise BoardError(self._complaint(errors or [str(code)], sent))

    def _complaint(self, errors: list[str], sent: list[str]) -> str:
        messages = " then ".join(repr(message) for message in sent) or "nothing"
        more = f" and {len(errors) - SHOWN_ERRORS} more" if len(errors) > SHOWN_ERRORS else ""
        return (
            f"{self.name} ({self.resource}) refused what it was told: {'; '.join(errors[:SHOWN_ERRORS])}{more} "
            f"(sent since the last clean check: {messages}): check the limits and ranges in the file against the "
            "instrument's"
        )

    def _drain(self) -> list[str]:
        """Empty the error queue and return its entries, oldest first."""
        session = self._open_session()
        errors: list[str] = []
        for _ in range(MOST_ERRORS):
            answer = session.query(self.dialect.next_error)
            code = error_code(answer)
            if code is None:
                raise LinkError(
                    f"{self.name} ({self.resource}) answered {answer[:80]!r} to {self.dialect.next_error!r}, which "
                    "is no "
                    "error entry: check that no other program uses the instrument",
                    "garbage",
                )
            if code == 0:
                return errors
            errors.append(" ".join(answer.split("\t")))
        # IEEE 488.2, 10.3; every family clears its error queue by it.
        session.write("*CLS")
        if error_code(session.query(self.dialect.next_error)) == 0:
            return errors
        raise BoardError(
            f"{self.name} ({self.resource}) still has errors in its queue after {MOST_ERRORS} were taken, the last "
            f"{errors[-1]!r}: switch the instrument off and on"
        )

    def _open_session(self) -> VisaSession:
        if self._session is None:
            raise BoardError(f"{self.name} has not been opened yet: open it first")
        return self._session

    def _drop_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
