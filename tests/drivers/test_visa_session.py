"""The session: real sockets, bounded waits, and every way a link can fail."""

import os
import pty
import socket
import threading
import tty
from pathlib import Path

import pytest

from hilcl.drivers import visa_session
from hilcl.drivers.visa_session import LinkError, LinkOptions, VisaSession
from hilcl.errors import InputError
from tests.drivers.support.wire import Hear, Wire

QUICK = LinkOptions(timeout=0.5)


def nobody() -> str:
    """A port that was free a moment ago and nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"TCPIP0::127.0.0.1::{server.getsockname()[1]}::SOCKET"


def test_lines_go_out_and_come_in_without_their_ends() -> None:
    with (
        Wire([Hear("A?", "1"), Hear("B"), Hear("C?", " two\r")]) as wire,
        VisaSession("dut", wire.resource, LinkOptions()) as session,
    ):
        assert session.query("A?") == "1"
        session.write("B")
        assert session.query("C?") == "two"


def test_small_messages_are_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    links: list[socket.socket] = []
    real = visa_session._set_no_delay

    def seen(link: socket.socket) -> None:
        links.append(link)
        real(link)

    monkeypatch.setattr(visa_session, "_set_no_delay", seen)
    with Wire([]) as wire, VisaSession("dut", wire.resource, LinkOptions()):
        assert [link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for link in links] == [1]


def test_nobody_listening_is_said_at_once_with_the_resource_and_the_remedy() -> None:
    resource = nobody()
    with pytest.raises(
        LinkError, match=f"dut: nothing answers at {resource}.*check that the instrument is on"
    ) as caught:
        VisaSession("dut", resource, LinkOptions()).query("*IDN?")
    assert caught.value.fault == "absent"


@pytest.mark.parametrize("resource", ["nonsense", "TCPIP0::127.0.0.1::SOCKET::5025", "", "GPIB0::INTFC"])
def test_what_is_no_resource_is_the_users_mistake(resource: str) -> None:
    with pytest.raises((InputError, LinkError), match="dut: "):
        VisaSession("dut", resource, QUICK)


def test_a_missing_back_end_is_named() -> None:
    with pytest.raises(InputError, match=r"back end '/no/such/libvisa.so@ivi' cannot be used.*'@py'"):
        VisaSession("dut", "TCPIP0::127.0.0.1::1::SOCKET", LinkOptions(backend="/no/such/libvisa.so@ivi"))


def test_a_serial_port_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="cannot be opened") as caught:
        VisaSession("dut", f"ASRL{tmp_path / 'tty'}::INSTR", QUICK)
    assert caught.value.fault == "absent"


def test_a_serial_port_is_spoken_to_like_a_socket() -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    heard: list[bytes] = []

    def serve() -> None:
        with open(ours, "r+b", buffering=0, closefd=False) as line:
            for answer in (b"1.5\n", b""):
                question = b""
                while not question.endswith(b"\n"):
                    question += line.read(1)
                heard.append(question)
                line.write(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with VisaSession("dut", f"ASRL{os.ttyname(theirs)}::INSTR", QUICK) as session:
            assert session.query("A?") == "1.5"
            with pytest.raises(LinkError, match="gave no answer in time") as caught:
                session.query("B?")
            assert caught.value.fault == "silent"
        thread.join(20)
        assert heard == [b"A?\n", b"B?\n"]
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("say", ["", "1.5,2", "1.5\n3"])
def test_the_end_of_the_stream_is_noticed_not_waited_for(say: str) -> None:
    patient = LinkOptions(timeout=3600)
    with Wire([Hear("A?", say, then="mid-line")]) as wire, VisaSession("dut", wire.resource, patient) as session:
        if "\n" in say:
            assert session.query("A?") == "1.5"
            with pytest.raises(LinkError):
                session.query("B?")
        else:
            with pytest.raises(LinkError, match=r"closed the connection before it answered.*'A\?'") as caught:
                session.query("A?")
            assert caught.value.fault == "closed"


def test_a_connection_closed_between_queries_is_noticed() -> None:
    with (
        Wire([Hear("A?", "1", then="hang up")]) as wire,
        VisaSession("dut", wire.resource, LinkOptions(timeout=3600)) as session,
    ):
        assert session.query("A?") == "1"
        with pytest.raises(LinkError) as caught:
            session.query("B?")
        assert caught.value.fault == "closed"


def test_silence_is_a_time_out_and_poisons_the_session() -> None:
    with Wire([Hear("A?")]) as wire, VisaSession("dut", wire.resource, QUICK) as session:
        with pytest.raises(LinkError, match=r"gave no answer in time.*'A\?'") as caught:
            session.query("A?")
        assert caught.value.fault == "silent"
        with pytest.raises(LinkError, match="not in step any more"):
            session.query("B?")


def test_half_an_answer_is_a_time_out_that_shows_the_half() -> None:
    said = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"1.2")
                said.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            VisaSession("dut", f"TCPIP0::127.0.0.1::{port}::SOCKET", QUICK) as session,
            pytest.raises(LinkError, match=r"stopped in the middle of its answer, after b'1.2'"),
        ):
            session.query("A?")
        said.set()
        thread.join(20)


def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one() -> None:
    with Wire([Hear("A?", "1\n2")]) as wire, VisaSession("dut", wire.resource, LinkOptions()) as session:
        assert session.query("A?") == "1"
        with pytest.raises(LinkError, match="unasked") as caught:
            session.query("B?")
        assert caught.value.fault == "garbage"


def test_an_answer_without_an_end_is_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visa_session, "LONGEST_ANSWER", 1000)
    with (
        Wire([Hear("A?", "x" * 5000, then="mid-line")]) as wire,
        VisaSession("dut", wire.resource, LinkOptions()) as session,
        pytest.raises(LinkError),
    ):
        session.query("A?")


def test_terminations_of_two_characters_may_come_in_two_packets() -> None:
    crlf = LinkOptions(read_termination="\r\n")
    with Wire([Hear("A?", "1\r"), Hear("B?", "2\r")]) as wire, VisaSession("dut", wire.resource, crlf) as session:
        assert session.query("A?") == "1"
        assert session.query("B?") == "2"


def test_bytes_that_are_no_text_are_shown_not_raised() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"\xff\xfe\n")
                connection.recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        with VisaSession("dut", f"TCPIP0::127.0.0.1::{port}::SOCKET", LinkOptions()) as session:
            assert session.query("A?") == r"\xff\xfe"
        thread.join(20)


def test_a_session_may_be_closed_twice() -> None:
    with Wire([]) as wire:
        session = VisaSession("dut", wire.resource, LinkOptions())
        session.close()
        session.close()


@pytest.mark.parametrize(
    "options",
    [{"timeout": 0.0}, {"open_timeout": -1.0}, {"retries": -1}, {"read_termination": ""}, {"write_termination": ""}],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        LinkOptions(**options)  # type: ignore[arg-type]
