from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilcl.sim_backend.emulation.tsp import LuaError, TspError, TspInterpreter, TspObject


class Host:
    """An instrument with one attribute, for scripts to play with."""

    def __init__(self, limit: int = 300_000) -> None:
        self.errors: list[TspError] = []
        self.level = 0.0
        self.calls: list[tuple[object, ...]] = []
        self.lua = TspInterpreter(on_error=self.errors.append, precision=lambda: 6, instruction_limit=limit)
        self.lua.define(
            "box",
            TspObject(
                attributes={"level": (lambda: self.level, self.set_level), "count": (lambda: 3, None)},
                functions={"call": self.call, "two": lambda: (1, 2), "bad": self.bad, "nothing": lambda: None},
                constants={"ON": 1},
                parts={"part": TspObject(handle="the part")},
                elements={1: TspObject(constants={"X": 7})},
                luatype="box_type",
            ),
        )

    def set_level(self, value: object) -> None:
        if not isinstance(value, float | int) or value > 10:
            raise TspError(1102, "Parameter too big")
        self.level = value

    def call(self, *arguments: object) -> int:
        self.calls.append(arguments)
        return len(arguments)

    def bad(self) -> None:
        raise RuntimeError("the circuit is on fire")

    def run(self, code: str) -> str | None:
        return self.lua.run(code)

    def failure(self, code: str) -> str:
        with pytest.raises(LuaError) as caught:
            self.run(code)
        self.lua.taken()
        return f"{caught.value.code} {caught.value.message}"


def test_print_writes_numbers_as_the_instrument_does() -> None:
    assert Host().run("print(1, 'a', true, nil, -2.5e-9)") == "1.00000e+00\ta\ttrue\tnil\t-2.50000e-09"
    assert Host().run("print(1) print(2)") == "1.00000e+00\n2.00000e+00"
    assert Host().run("x = 1") is None


def test_objects() -> None:
    host = Host()
    assert host.run("box.level = 2 print(box.level, box.count, box.ON, box[1].X)") == (
        "2.00000e+00\t3.00000e+00\t1.00000e+00\t7.00000e+00"
    )
    assert host.run("print(box.two())") == "1.00000e+00\t2.00000e+00"
    assert host.run("print(box.nothing())") == ""
    host.run("box.call(1, 'x', box.part, nil)")
    assert host.calls == [(1, "x", "the part", None)]


def test_objects_can_be_explored() -> None:
    host = Host()
    assert host.run("m = getmetatable(box) print(m.luatype, m.Setters.count, type(m.Getters.count))") == (
        "box_type\tnil\tfunction"
    )
    assert host.run("print(type(m.Objects.part), type(box.call))") == "table\tfunction"


def test_an_error_of_the_instrument_is_queued_and_the_script_goes_on() -> None:
    host = Host()
    assert host.run("box.level = 11 print(box.level)") == "0.00000e+00"
    assert [(error.code, error.message) for error in host.errors] == [(1102, "Parameter too big")]


def test_an_unexpected_failure_reaches_the_host_even_from_a_protected_call() -> None:
    host = Host()
    with pytest.raises(RuntimeError, match="on fire"):
        host.run("pcall(box.bad)")
    assert host.run("print(1)") == "1.00000e+00"


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("x = = 1", "-285 TSP Syntax error at line 1"),
        ("\n\nfoo.bar = 1", "-286 TSP Runtime error at line 3: attempt to index global 'foo'"),
        ("box.count = 1", "attribute 'count' is read-only"),
        ("box.typo = 1", "cannot set unknown attribute 'typo'"),
        ("error({})", "error object is a table value"),
        ("loadstring('\\27Lua')()", "attempt to call"),
    ],
)
def test_failures(code: str, failure: str) -> None:
    assert failure in Host().failure(code)


FORBIDDEN = (
    "os", "io", "require", "package", "debug", "dofile", "loadfile", "load", "python", "coroutine", "getfenv",
    "setfenv", "newproxy", "module", "string.dump", "xpcall",
)  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
def test_there_is_no_way_out(name: str) -> None:
    assert Host().run(f"print({name})") == "nil"


def test_the_metatable_of_strings_is_out_of_reach() -> None:
    assert Host().run("print(getmetatable(''))") == "false"


@pytest.mark.parametrize(
    "code",
    [
        "while true do end",
        "repeat until false",
        "while true do pcall(function() while true do end end) end",
        "local function f() return f() end f()",
        "while true do box.call() end",
        "while true do print('x') end",
        "while true do string.rep('x', 1e6) end",
        "s = string.rep('a', 1e4) while true do string.gsub(s, 'a', 'b') end",
        "t = {} while true do table.insert(t, 1, 1) end",
        "loadstring('while true do end')()",
    ],
)
def test_endless_scripts_end(code: str) -> None:
    host = Host()
    assert "instruction limit reached" in host.failure(code)
    assert host.run("print('alive')") == "alive"


@pytest.mark.parametrize(
    "code",
    [
        "s = string.rep('x', 1e9)",
        "s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = {i} end",
        "local t = {} for i = 1, 1e9 do t[i] = string.rep('y', 1e5) .. i end",
    ],
)
def test_memory_is_bounded(code: str) -> None:
    host = Host(limit=100_000_000)
    assert "not enough memory" in host.failure(code) or "instruction limit" in host.failure(code)
    if not host.lua.exhausted:
        assert host.run("print('alive')") == "alive"


def test_memory_kept_by_globals_is_told() -> None:
    host = Host(limit=100_000_000)
    host.failure("t = {} while true do t[#t + 1] = string.rep('y', 1e5) .. #t end")
    assert host.lua.exhausted


def test_expensive_patterns_are_refused() -> None:
    code = "string.find(string.rep('a', 1000), string.rep('.-', 20) .. 'b')"
    assert "pattern too expensive" in Host().failure(code)
    assert Host().run("print(string.find('smua.source', '%.'))") == "5.00000e+00\t5.00000e+00"


def test_output_is_bounded() -> None:
    host = Host(limit=100_000_000)
    assert "output queue overflow" in host.failure("s = string.rep('x', 1e6) while true do print(s) end")


@given(st.text(max_size=80))
@settings(max_examples=200)
def test_any_text_is_a_chunk_or_a_lua_error(code: str) -> None:
    with suppress(LuaError):
        Host().run(code.encode("utf-8").decode("latin-1"))
