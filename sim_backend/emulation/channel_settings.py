"""Settings that a scanner keeps once for the front terminals and once for each channel, with a trailing ``(@list)``."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hilcl.sim_backend.emulation.scpi import Argument, ScpiError
from hilcl.sim_backend.emulation.scpi_instrument import Request, Setting

FRONT = 0


class ChannelSettings:
    """Values by setting and channel. ``default_channels`` says which channels a command without a list means."""

    def __init__(
        self,
        settings: Sequence[Setting],
        channels: Iterable[int],
        default_channels: Callable[[], tuple[int, ...]],
        round_value: Callable[[str, Any], Any] = lambda _, value: value,
        wrote: Callable[[str, int], None] = lambda _, __: None,
    ) -> None:
        self._settings = {setting.name: setting for setting in settings}
        self._channels = (FRONT, *channels)
        self._default_channels = default_channels
        self._round, self._wrote = round_value, wrote
        self._values: dict[tuple[str, int], Any] = {}
        self.reset()

    def reset(self) -> None:
        """Return every channel to the defaults."""
        self._values = {
            (name, channel): setting.reset for name, setting in self._settings.items() for channel in self._channels
        }

    def __getitem__(self, key: tuple[str, int]) -> Any:
        return self._values[key]

    def __setitem__(self, key: tuple[str, int], value: Any) -> None:
        self._values[key] = value

    def split(self, arguments: Sequence[Argument]) -> tuple[list[Argument], tuple[int, ...]]:
        """Return the arguments before a trailing channel list, and its channels or those that are meant without one.

        Raises ScpiError −222 for a channel there is not.
        """
        if arguments and arguments[-1].kind == "channels":
            channels = arguments[-1].channels
            if not channels or any(channel not in self._channels[1:] for channel in channels):
                raise ScpiError(-222)
            return list(arguments[:-1]), channels
        return list(arguments), self._default_channels()

    def write(self, name: str, request: Request) -> None:
        """Carry out the command of a setting."""
        arguments, channels = self.split(request.arguments)
        if len(arguments) != 1:
            raise ScpiError(-109 if not arguments else -108)
        setting = self._settings[name]
        value = self._round(name, setting.kind.parse(arguments[0], setting.reset))
        for channel in channels:
            self._values[name, channel] = value
            self._wrote(name, channel)

    def ask(self, name: str, request: Request, digits: int | None) -> str:
        """Answer the query of a setting: one value per channel."""
        arguments, channels = self.split(request.arguments)
        setting = self._settings[name]
        if len(arguments) > 1:
            raise ScpiError(-108)
        if arguments:
            return setting.kind.show(setting.kind.named(arguments[0], setting.reset), digits)
        return ",".join(setting.kind.show(self._values[name, channel], digits) for channel in channels)
