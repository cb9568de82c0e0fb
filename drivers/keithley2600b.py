"""Keithley Series 2600B (and 2600A) over TSP, one or two channels.

Commands: "Series 2600B Reference Manual", 2600BS-901-01 Rev. B (May 2013), section 7, under the names given with each
property; ``{c}`` is the channel, a or b. Ranges: section 2, available ranges; levels reach 101 % of a range, readings
102 %. Resolution: data sheet of the series, page 10, whose coarsest step, 10 µV on the 6 V range, stands for all.
"""

from collections.abc import Sequence

from hilcl.drivers.dialects import Tsp
from hilcl.drivers.properties import choice, integer, number, switch
from hilcl.drivers.smu import Smu, SmuChannel, SmuModel, SmuReading, parsed, reading_of

_LOW = (0.1, 1.0, 6.0, 40.0)
_HIGH = (0.2, 2.0, 20.0, 200.0)
_FROM_100_NANO = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_FROM_NANO = (1e-9, 1e-8, *_FROM_100_NANO)
_ONE, _TWO = ("a",), ("a", "b")
_NPLC = (0.001, 25.0)
MODELS = {
    model.name: model
    for model in (
        *(
            SmuModel(f"26{kind}{suffix}", channels, _LOW, (*_FROM_100_NANO, 3.0), 40.4, 3.03, _NPLC, 2e-6)
            for kind, channels in (("01", _ONE), ("02", _TWO), ("04", _TWO))
            for suffix in "AB"
        ),
        *(
            SmuModel(f"26{kind}{suffix}", channels, _HIGH, (*_FROM_100_NANO, 1.5), 202.0, 1.515, _NPLC, 2e-6)
            for kind, channels in (("11", _ONE), ("12", _TWO), ("14", _TWO))
            for suffix in "AB"
        ),
        *(
            SmuModel(f"26{kind}{suffix}", channels, _HIGH, (*_FROM_NANO, 1.5), 202.0, 1.515, _NPLC, 2e-6)
            for kind, channels in (("34", _TWO), ("35", _ONE), ("36", _TWO))
            for suffix in "AB"
        ),
    )
}


class Keithley2600BChannel(SmuChannel):
    """One channel, ``smua`` or ``smub``."""

    output = switch(
        "smu{c}.source.output = {v}", "smu{c}.source.output", "Output on or off (smuX.source.output).", words=("0", "1")
    )
    off_state = choice(
        "smu{c}.source.offmode = {v}",
        "smu{c}.source.offmode",
        "What the terminals are when the output is off (smuX.source.offmode): 2 is OUTPUT_HIGH_Z, the relay open.",
        {"himp": "2", "normal": "0", "zero": "1"},
    )
    source_function = choice(
        "smu{c}.source.func = {v}",
        "smu{c}.source.func",
        "What is sourced (smuX.source.func): 1 is OUTPUT_DCVOLTS, 0 is OUTPUT_DCAMPS.",
        {"volts": "1", "amps": "0"},
    )
    source_volts = number(
        "smu{c}.source.levelv = {v}",
        "smu{c}.source.levelv",
        "V",
        "Level of the voltage source (smuX.source.levelY).",
        within="volts",
    )
    source_amps = number(
        "smu{c}.source.leveli = {v}",
        "smu{c}.source.leveli",
        "A",
        "Level of the current source (smuX.source.levelY).",
        within="amps",
    )
    source_volts_range = number(
        "smu{c}.source.rangev = {v}",
        "smu{c}.source.rangev",
        "V",
        "Range of the voltage source; setting it ends autoranging (smuX.source.rangeY).",
        within="volt_range",
    )
    source_amps_range = number(
        "smu{c}.source.rangei = {v}",
        "smu{c}.source.rangei",
        "A",
        "Range of the current source; setting it ends autoranging (smuX.source.rangeY).",
        within="amp_range",
    )
    amps_limit = number(
        "smu{c}.source.limiti = {v}",
        "smu{c}.source.limiti",
        "A",
        "Current limit of the voltage source (smuX.source.limitY).",
        within="amp_limit",
    )
    volts_limit = number(
        "smu{c}.source.limitv = {v}",
        "smu{c}.source.limitv",
        "V",
        "Voltage limit of the current source (smuX.source.limitY).",
        within="volt_limit",
    )
    tripped = switch(None, "smu{c}.source.compliance", "Whether the source is at its limit (smuX.source.compliance).")
    sense_amps_range = number(
        "smu{c}.measure.rangei = {v}",
        "smu{c}.measure.rangei",
        "A",
        "Range of current readings while volts are sourced (smuX.measure.rangeY).",
        within="amp_range",
    )
    sense_volts_range = number(
        "smu{c}.measure.rangev = {v}",
        "smu{c}.measure.rangev",
        "V",
        "Range of voltage readings while current is sourced (smuX.measure.rangeY).",
        within="volt_range",
    )
    nplc = number(
        "smu{c}.measure.nplc = {v}",
        "smu{c}.measure.nplc",
        "line cycles",
        "Integration time of this channel (smuX.measure.nplc).",
        within="nplc",
    )
    count = integer(
        "smu{c}.measure.count = {v}",
        "smu{c}.measure.count",
        "Readings of one call (smuX.measure.count).",
        within=(1, 100000),
    )
    four_wire = switch(
        "smu{c}.sense = {v}", "smu{c}.sense", "Four-wire sensing, 1 is SENSE_REMOTE (smuX.sense).", words=("0", "1")
    )
    autozero = choice(
        "smu{c}.measure.autozero = {v}",
        "smu{c}.measure.autozero",
        "When zero and reference are read (smuX.measure.autozero): 2 is AUTOZERO_AUTO, 0 AUTOZERO_OFF.",
        {"auto": "2", "once": "1", "off": "0"},
    )
    average = switch(
        "smu{c}.measure.filter.enable = {v}",
        "smu{c}.measure.filter.enable",
        "The instrument's own filter (smuX.measure.filter.enable).",
        words=("0", "1"),
    )
    append_amps = switch(
        "smu{c}.nvbuffer1.appendmode = {v}",
        "smu{c}.nvbuffer1.appendmode",
        "Whether current readings are added to those before (bufferVar.appendmode).",
        words=("0", "1"),
    )
    append_volts = switch(
        "smu{c}.nvbuffer2.appendmode = {v}",
        "smu{c}.nvbuffer2.appendmode",
        "Whether voltage readings are added to those before (bufferVar.appendmode).",
        words=("0", "1"),
    )
    prompts = switch(
        "localnode.prompts = {v}", "localnode.prompts", "Prompts between answers (localnode.prompts).", words=("0", "1")
    )
    shown_errors = switch(
        "localnode.showerrors = {v}",
        "localnode.showerrors",
        "Errors sent unasked (localnode.showerrors).",
        words=("0", "1"),
    )
    precision = integer(
        "format.asciiprecision = {v}",
        "format.asciiprecision",
        "Digits of printed numbers (format.asciiprecision).",
        within=(1, 16),
    )
    data_format = choice(
        "format.data = {v}",
        "format.data",
        "How numbers are coded (format.data): 1 is ASCII.",
        {"ascii": "1", "single": "2", "double": "3"},
    )

    def setup(self) -> list[list[str]]:
        """Set all that matters except function, level and output; both functions keep their own settings."""
        kind, settings = type(self), self.settings
        return [
            [
                self.put(kind.prompts, False),
                self.put(kind.shown_errors, False),
                self.put(kind.data_format, "ascii"),
                self.put(kind.precision, 16),
                self.put(kind.nplc, settings.nplc),
                self.put(kind.autozero, "auto" if settings.autozero else "once"),
                self.put(kind.average, False),
                self.put(kind.count, 1),
                # A buffer has to be empty before it is told how to store.
                f"smu{self.name}.nvbuffer1.clear()",
                f"smu{self.name}.nvbuffer2.clear()",
                self.put(kind.append_amps, False),
                self.put(kind.append_volts, False),
                self.put(kind.four_wire, settings.four_wire),
            ],
            [
                self.put(kind.source_volts_range, self.volts_range),
                self.put(kind.source_amps_range, self.float_range),
                self.put(kind.amps_limit, settings.limit_amperes),
                self.put(kind.volts_limit, settings.floating_limit),
                self.put(kind.sense_amps_range, self.amps_range),
                self.put(kind.sense_volts_range, self.floating_range),
            ],
        ]

    def select_volts(self, volts: float) -> list[str]:
        """Source volts; both quantities are measured whatever is sourced."""
        return [self.put(type(self).source_volts, volts), self.put(type(self).source_function, "volts")]

    def select_float(self) -> list[str]:
        """Source no current."""
        return [self.put(type(self).source_amps, self.trim), self.put(type(self).source_function, "amps")]


class Keithley2600B(Smu):
    """Driver of the Series 2600B: both channels are set, and read, in one chunk of Lua, and integrate at once."""

    family = "Keithley Series 2600B"
    makers = ("KEITHLEY",)
    dialect = Tsp()
    models = MODELS
    channel_class = Keithley2600BChannel

    def _measure(self, channels: Sequence[SmuChannel]) -> list[SmuReading]:
        # smuX.measure.iv() returns current, then voltage (section 7, smuX.measure.Y()). It waits for its channel;
        # smuX.measure.overlappediv() does not, and puts them into buffers in that order.
        if len(channels) == 1:
            commands = [f"local i{c.name}, v{c.name} = smu{c.name}.measure.iv()" for c in channels]
            places = [(f"v{c.name}", f"i{c.name}") for c in channels]
        else:
            buffers = [(f"smu{c.name}.nvbuffer1", f"smu{c.name}.nvbuffer2") for c in channels]
            commands = [
                f"smu{c.name}.measure.overlappediv({amps}, {volts})"
                for c, (amps, volts) in zip(channels, buffers, strict=True)
            ]
            commands.append("waitcomplete()")
            places = [(f"{volts}.readings[1]", f"{amps}.readings[1]") for amps, volts in buffers]
        questions = [
            text
            for c, (volts, amps) in zip(channels, places, strict=True)
            for text in (volts, amps, f"smu{c.name}.source.compliance")
        ]
        answers = self._take(commands, questions, channels)
        readings = []
        for index, channel in enumerate(channels):
            volts, amperes, compliance = answers[3 * index : 3 * index + 3]
            limited = Keithley2600BChannel.tripped.decode(channel, compliance)

            def parse(volts: str = volts, amperes: str = amperes, limited: bool = limited) -> SmuReading:
                return reading_of(volts, amperes, limited)

            readings.append(parsed(channel, f"{volts}, {amperes}", parse))
        return readings
