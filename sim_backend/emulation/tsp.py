"""A sandboxed Lua for instruments that speak TSP: real Lua, the instrument's objects, no way out, and an end to loops.

TSP is Lua 5.0 with objects whose metatables carry ``Getters``, ``Setters``, ``Objects`` and ``luatype`` (Series 2600B
Reference Manual, 2600BS-901-01, section 6; the layout of the metatables as the keithley2600 package explores it).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lupa.lua51 import LuaRuntime, lua_type

from hilcl.sim_backend.emulation.instrument import wire_number

INSTRUCTION_LIMIT = 20_000_000
"""Virtual machine instructions one message may take, a call of the instrument counted as CALL_COST."""

CALL_COST = 200
SECONDS_LIMIT = 10.0
"""Processor seconds one message may take: for scripts that are slow in few instructions."""

MEMORY_LIMIT = 64 << 20
COLLECTION_COST = 200_000
OUTPUT_LIMIT = 4 << 20
"""Characters one message may print."""

PATTERN_EFFORT = 10**8
"""Bound of the steps a string pattern may take: subject length to the power of its repetitions."""


class TspError(Exception):
    """An entry for the error queue that does not end the script (section 8: only −286 does)."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(message)


class LuaError(Exception):
    """A syntax error (−285) or a run-time error (−286)."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(message)


@dataclass
class TspObject:
    """An object as scripts see it: attributes with getter and perhaps setter, functions, constants, parts, elements.

    ``handle`` is what a function gets when a script passes the object to it.
    """

    attributes: dict[str, tuple[Callable[[], Any], Callable[[Any], None] | None]] = field(default_factory=dict)
    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    parts: dict[str, "TspObject"] = field(default_factory=dict)
    elements: dict[int, Any] = field(default_factory=dict)
    element: Callable[[int], Any] | None = None
    handle: Any = None
    luatype: str = "object"


_PRELUDE = r"""
local host = ...
local sethook, raw_pcall, raw_loadstring = debug.sethook, pcall, loadstring
local raw_tostring, raw_error, raw_type, concat = tostring, error, type, table.concat
local raw_select, raw_setmetatable, raw_rawset = select, setmetatable, rawset
local collect, clock, sub, byte = collectgarbage, os.clock, string.sub, string.byte
local budget, deadline = 0, 0
local handles = raw_setmetatable({}, {__mode = "k"})
local STEP = 300

local function stop() raw_error("instruction limit reached", 0) end
local function spend(steps)
  budget = budget - steps
  if budget < 0 then stop() end
end
-- Lua may hold up to four times this before an allocation fails, so what crosses to the host always finds room:
-- there, a failed allocation would end the whole process.
local function room()
  if collect("count") > host.memory_limit then
    spend(host.collection_cost)
    collect("collect")
    if collect("count") > host.memory_limit then raw_error("not enough memory", 0) end
  end
end
local function watch()
  spend(STEP)
  if clock() > deadline then
    budget = -1
    stop()
  end
  room()
end

local function finish(ok, ...)
  if not ok then raw_error((...), 0) end
  return ...
end
local function unwrap(values)
  local plain = {}
  for index = 1, values.n do
    local value = values[index]
    plain[index] = (raw_type(value) == "table" and handles[value]) or value
  end
  return plain
end
local function callable(f)
  return function(...)
    spend(host.call_cost)
    room()
    local plain = unwrap({n = raw_select("#", ...), ...})
    return finish(f(unpack(plain, 1, raw_select("#", ...))))
  end
end

local function object(luatype, handle, getters, setters, objects, elements, element)
  local mt = {Getters = getters, Setters = setters, Objects = objects, luatype = luatype}
  mt.__index = function(_, key)
    local getter = getters[key]
    if getter then return getter() end
    if element and raw_type(key) == "number" then return element(key) end
    return objects[key]
  end
  mt.__newindex = function(t, key, value)
    local setter = setters[key]
    if setter then
      setter(value)
    elseif getters[key] or objects[key] ~= nil then
      raw_error("attribute '" .. raw_tostring(key) .. "' is read-only", 0)
    else
      raw_error("cannot set unknown attribute '" .. raw_tostring(key) .. "'", 0)
    end
  end
  local made = elements
  if handle ~= nil then handles[made] = handle end
  return raw_setmetatable(made, mt)
end

local function checked(...)
  if budget < 0 then stop() end
  return ...
end

pcall = function(f, ...) return checked(raw_pcall(f, ...)) end
loadstring = function(text, name)
  if raw_type(text) ~= "string" or sub(text, 1, 1) == "\27" then return nil, "text expected" end
  return raw_loadstring(text, raw_type(name) == "string" and name or "=TSP")
end
local function patterned(f)
  return function(subject, pattern, ...)
    if raw_type(subject) == "string" and raw_type(pattern) == "string" then
      local repetitions = 0
      for index = 1, #pattern do
        local code = byte(pattern, index)
        if code == 42 or code == 43 or code == 45 then repetitions = repetitions + 1 end
      end
      local effort = (#subject + 1) ^ (repetitions + 1)
      if effort > host.pattern_effort then raw_error("pattern too expensive", 0) end
      spend(effort / 10)
    end
    return f(subject, pattern, ...)
  end
end
for _, name in ipairs({"find", "match", "gmatch", "gsub"}) do string[name] = patterned(string[name]) end
string.gfind = string.gmatch
local rep = string.rep
string.rep = function(text, count)
  if raw_type(text) == "string" and raw_type(count) == "number" then spend(#text * math.max(count, 0) / 10) end
  return rep(text, count)
end
for _, name in ipairs({"insert", "remove"}) do
  local raw = table[name]
  table[name] = function(t, ...)
    if raw_type(t) == "table" then spend(#t / 10) end
    return raw(t, ...)
  end
end
print = function(...)
  spend(host.call_cost)
  room()
  local parts = {}
  for index = 1, raw_select("#", ...) do
    local value = raw_select(index, ...)
    if raw_type(value) == "number" then
      parts[index] = host.number(value)
    else
      parts[index] = raw_tostring(value)
    end
  end
  local line = concat(parts, "\t")
  room()
  if not host.emit(line) then raw_error("output queue overflow", 0) end
end
collectgarbage = function() return 0 end
for _, name in ipairs({
  "coroutine", "debug", "dofile", "gcinfo", "getfenv", "io", "load", "loadfile", "module", "newproxy", "os", "package",
  "python", "require", "setfenv", "xpcall",
}) do
  _G[name] = nil
end
string.dump = nil
getmetatable("").__metatable = false

local function guarded(f, ...)
  budget, deadline = host.limit, clock() + host.seconds
  sethook(watch, "", STEP)
  local ok, message = raw_pcall(f, ...)
  sethook()
  if not ok then
    if raw_type(message) ~= "string" then message = "(error object is a " .. raw_type(message) .. " value)" end
    message = sub(message, 1, 200)
  end
  local most = ok and host.memory_limit or host.memory_limit * 3 / 4
  if collect("count") > most then
    collect("collect")
    if collect("count") > most then return "full", "not enough memory" end
  end
  return ok and "done" or "run", message
end
local function run(code)
  local f, message = raw_loadstring(code, "=TSP")
  if not f then return "syntax", message end
  return guarded(f)
end
local function compile(code, name)
  local f, message = raw_loadstring(code, "=" .. name)
  if not f then return nil, message end
  return f, nil
end
local function define(name, value) raw_rawset(_G, name, value) end
return object, callable, run, guarded, compile, define
"""


class TspInterpreter:
    """One Lua state with an instrument's objects in it.

    ``on_error`` gets the errors that do not end a script. ``precision`` returns the significant digits of printed
    numbers, None for all.
    """

    def __init__(
        self,
        *,
        on_error: Callable[[TspError], None],
        precision: Callable[[], int | None],
        instruction_limit: int = INSTRUCTION_LIMIT,
    ) -> None:
        self._on_error = on_error
        self._precision = precision
        self._printed: list[str] = []
        self._printed_length = 0
        self._fault: Exception | None = None
        self.exhausted = False
        """Whether the script has filled the memory for good: the interpreter must not be used again."""
        self._lua = LuaRuntime(
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
            encoding="latin-1",
            max_memory=4 * MEMORY_LIMIT,
            attribute_filter=_no_attributes,
        )
        host = self._lua.table_from(
            {
                "call_cost": CALL_COST,
                "collection_cost": COLLECTION_COST,
                "limit": instruction_limit,
                "memory_limit": MEMORY_LIMIT / 1024,
                "seconds": SECONDS_LIMIT,
                "pattern_effort": PATTERN_EFFORT,
                "number": self.number,
                "emit": self.emit,
            }
        )
        prelude = self._lua.eval("function(code, name) return loadstring(code, name) end")(_PRELUDE, "=prelude")
        object_, callable_, run, guarded, compile_, define = prelude(host)
        self._object, self._callable, self._run = object_, callable_, run
        self._guarded, self._compile, self._define = guarded, compile_, define

    def number(self, value: float) -> str:
        """Return a number as ``print`` writes it: ``1.00000e+00``."""
        if math.isnan(value):
            return "nan"
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return wire_number(value, self._precision()).replace("E", "e").removeprefix("+")

    def emit(self, text: str) -> bool:
        """Add one line to the output; False where there is no room for it."""
        self._printed_length += len(text) + 1
        if self._printed_length > OUTPUT_LIMIT:
            return False
        self._printed.append(text)
        return True

    def define(self, name: str, value: Any) -> None:
        """Make a global: an object, a function, a compiled chunk or a plain value."""
        # A chunk stays Lua's own: what goes wrong in it is the script's error, and so is calling itself without end.
        self._define(name, value if lua_type(value) == "function" else self._lua_value(value))

    def run(self, code: str) -> str | None:
        """Run a chunk and return what it printed.

        Raises LuaError for syntax and run-time errors; ``taken`` has what was printed before.
        """
        return self._finish(*self._run(code))

    def compile(self, code: str, name: str) -> Any:
        """Return a chunk as a Lua function; raises LuaError for a syntax error."""
        function, message = self._compile(code, name)
        if function is None:
            raise LuaError(-285, f"TSP Syntax error at {_place(message)}")
        return function

    def call(self, function: Any) -> str | None:
        """Run a compiled chunk and return what it printed; raises LuaError."""
        return self._finish(*self._guarded(function))

    def taken(self) -> str | None:
        """Return and forget what has been printed so far."""
        printed, self._printed, self._printed_length = self._printed, [], 0
        return "\n".join(printed) if printed else None

    def values(self, table: Any) -> list[float]:
        """Return the numbers of a Lua list; raises TspError −104 where it is none."""
        try:
            return [float(table[index]) for index in range(1, len(table) + 1)]
        except (TypeError, ValueError, KeyError) as cause:
            raise TspError(-104, "Data type error") from cause

    def _finish(self, outcome: str, message: Any) -> str | None:
        fault, self._fault = self._fault, None
        if fault is not None:
            self.taken()
            raise fault
        if outcome == "syntax":
            raise LuaError(-285, f"TSP Syntax error at {_place(message)}")
        if outcome in {"run", "full"}:
            self.exhausted = outcome == "full"
            raise LuaError(-286, f"TSP Runtime error at {_place(message)}")
        return self.taken()

    def _lua_value(self, value: Any) -> Any:
        if isinstance(value, TspObject):
            return self._lua_object(value)
        if callable(value):
            return self._callable(self._guard(value))
        return value

    def _lua_object(self, made: TspObject) -> Any:
        table = self._lua.table
        getters, setters, objects, elements = table(), table(), table(), table()
        for name, (get, set_) in made.attributes.items():
            getters[name] = self._callable(self._guard(get))
            if set_ is not None:
                setters[name] = self._callable(self._guard(set_))
        for name, function in made.functions.items():
            objects[name] = self._callable(self._guard(function))
        for name, constant in made.constants.items():
            objects[name] = constant
        for name, part in made.parts.items():
            objects[name] = self._lua_object(part)
        for index, element in made.elements.items():
            elements[index] = self._lua_value(element)
        at = None if made.element is None else self._callable(self._guard(made.element))
        return self._object(made.luatype, made.handle, getters, setters, objects, elements, at)

    def _guard(self, function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
        """Return ``function`` as Lua calls it: no exception passes through Lua, where a script could catch it."""

        def guarded(*arguments: Any) -> tuple[Any, ...]:
            try:
                result = function(*arguments)
            except TspError as error:
                self._on_error(error)
                return (True,)
            except LuaError as fault:
                return (False, fault.message)
            except TypeError:
                return (False, "wrong arguments")
            except Exception as cause:  # noqa: BLE001
                # What fails behind the instrument, such as the circuit, is handed on when the script has ended.
                self._fault = cause
                return (False, "internal error")
            if result is None:
                return (True,)
            values = result if isinstance(result, tuple) else (result,)
            return (True, *(self._lua_value(value) if isinstance(value, TspObject) else value for value in values))

        return guarded


def _no_attributes(owner: object, name: object, setting: bool) -> object:
    raise AttributeError("scripts have no access to the host")


def _place(message: object) -> str:
    """Return ``line 1: text`` out of Lua's ``TSP:1: text``."""
    text = str(message)
    if text.startswith("TSP:"):
        line, _, rest = text.removeprefix("TSP:").partition(":")
        return f"line {line}:{rest}"
    return f"line 1: {text}"
