// The compiled firmware on an emulated AVR, with its pots, ADC, DACs and switches on its pins.
//
//   node machine.mjs AVR8JS_FOLDER MACHINE.json
//
// One command a line on standard input, one answer a line on standard output, all JSON. While it works on a command it
// may ask for the volts at the ADC's pins: {"ask": "volts", ...state}; the next line on standard input answers.

import { readFileSync, readSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { CounterChip, Dac, I2cChip, SpiChip } from './chips.mjs';
import { Usart } from './usart.mjs';

const [, , folder, configFile] = process.argv;
const avr = createRequire(import.meta.url)(folder);
const config = JSON.parse(readFileSync(configFile, 'utf8'));
const big = config.mcu === 'atmega2560';
const CLOCK = config.clock;
const SLEEP = 0x9588;
const SEI = 0x9478;
const MOST_REPORTS = 100;

// Lines.

let input = Buffer.alloc(0);

function readLine() {
  for (;;) {
    const end = input.indexOf(10);
    if (end >= 0) {
      const text = input.subarray(0, end).toString();
      input = input.subarray(end + 1);
      return JSON.parse(text);
    }
    const piece = Buffer.alloc(65536);
    let count;
    try {
      count = readSync(0, piece);
    } catch (error) {
      if (error.code === 'EAGAIN') continue;
      if (error.code !== 'EOF') throw error;
      count = 0;
    }
    if (count === 0) process.exit(0); // whoever started this has gone
    input = Buffer.concat([input, piece.subarray(0, count)]);
  }
}

function writeLine(value) {
  let data = Buffer.from(`${JSON.stringify(value)}\n`);
  while (data.length) {
    try {
      data = data.subarray(writeSync(1, data));
    } catch (error) {
      if (error.code === 'EPIPE') process.exit(0);
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

// Memory, ports, peripherals.

function loadHex(text, bytes) {
  let base = 0;
  for (const line of text.split('\n')) {
    if (line[0] !== ':') continue;
    const record = Buffer.from(line.slice(1).trim(), 'hex');
    const address = record.readUInt16BE(1);
    if (record[3] === 0) bytes.set(record.subarray(4, 4 + record[0]), base + address);
    else if (record[3] === 2) base = record.readUInt16BE(4) * 16;
    else if (record[3] === 4) base = record.readUInt16BE(4) * 65536;
  }
}

const program = new Uint16Array(big ? 0x20000 : 0x4000);
loadHex(readFileSync(config.hex, 'utf8'), new Uint8Array(program.buffer));
const cpu = new avr.CPU(program, big ? 8192 + 0x100 : 2048);
if (big) cpu.pc22Bits = true;
const memory = new avr.EEPROMMemoryBackend(1024);
const eeprom = new avr.AVREEPROM(cpu, memory);
const usart = new Usart(cpu, CLOCK, big ? 0x32 : 0x24);
const spi = new avr.AVRSPI(cpu, avr.spiConfig, CLOCK);
const twi = new avr.AVRTWI(cpu, avr.twiConfig, CLOCK);

const reports = [];

let restarting = false; // every pin floats at once, which no data sheet speaks of

function report(what) {
  if (!restarting && reports.length < MOST_REPORTS) reports.push(what);
}

// Timer 2, counting to OCR2A and interrupting: all the firmware uses of it.
const OCR2A = 0xb3;
const DIVIDERS = [0, 1, 8, 32, 64, 128, 256, 1024];
const compare = {
  address: big ? 0x1a : 0x0e, flagRegister: 0x37, flagMask: 2, enableRegister: 0x70, enableMask: 2,
};
const DIVIDERS_1 = [0, 1, 8, 64, 256, 1024, 0, 0];
let ticking = false;
let boot = 0; // what has been begun before a reset is not carried on

function tick() {
  const divider = DIVIDERS[cpu.data[0xb1] & 7];
  ticking = divider > 0;
  if (!ticking) return;
  const begun = boot;
  cpu.addClockEvent(() => {
    if (!ticking || boot !== begun) return;
    cpu.setInterruptFlag(compare);
    tick();
  }, divider * (cpu.data[OCR2A] + 1));
}

cpu.writeHooks[0xb1] = (value) => {
  cpu.data[0xb1] = value;
  if (!ticking) tick();
  return true;
};

// Timer 1, counting freely: all the firmware uses of it.
const TCNT1 = 0x84;
const TIFR1 = 0x36;
let counting = { from: 0, overflowed: 0 };
const counted = (from) => {
  const divider = DIVIDERS_1[cpu.data[0x81] & 7];
  return divider ? Math.floor((cpu.cycles - from) / divider) : 0;
};
cpu.writeHooks[TCNT1] = (value) => {
  const count = (cpu.data[TCNT1 + 1] << 8) | value;
  counting.from = cpu.cycles - count * (DIVIDERS_1[cpu.data[0x81] & 7] || 1);
  counting.overflowed = counted(counting.from) >> 16;
  return true;
};
cpu.readHooks[TCNT1] = () => {
  const count = counted(counting.from);
  cpu.data[TCNT1 + 1] = (count >> 8) & 0xff;
  return count & 0xff;
};
cpu.readHooks[TIFR1] = () => (Math.floor(counted(counting.from) / 65536) > counting.overflowed ? 1 : 0);
cpu.writeHooks[TIFR1] = (value) => {
  if (value & 1) counting.overflowed = Math.floor(counted(counting.from) / 65536);
  return true;
};

// Chips.

const chips = config.chips.map((each) => {
  const Kind = { spi: SpiChip, i2c: I2cChip, updown: CounterChip }[each.bus];
  return new Kind(each, report);
});
const dacs = config.dacs.map((each) => new Dac(each, report));
const selectable = [...chips.filter((chip) => chip.bus !== 'i2c'), ...dacs];
const byAddress = new Map(chips.filter((chip) => chip.bus === 'i2c').map((chip) => [chip.address, chip]));

const nanoseconds = () => (cpu.cycles * 1e9) / CLOCK;

const ports = {};
for (const letter of config.ports) {
  const port = new avr.AVRIOPort(cpu, avr[`port${letter}Config`]);
  const level = (bit) => port.pinState(bit) !== avr.PinState.Low; // pulled up until it is an output
  ports[letter] = { port, level };
  const watched = selectable.flatMap((chip) =>
    ['select', 'up', 'clock'].filter((pin) => chip.pins[pin]?.port === letter).map((pin) => ({ chip, pin, bit: chip.pins[pin].bit, was: true })),
  );
  port.addListener(() => {
    for (const watch of watched) {
      const now = level(watch.bit);
      if (now === watch.was) continue;
      watch.was = now;
      if (watch.chip instanceof CounterChip) watch.chip.pin(watch.pin, now, nanoseconds());
      else if (now) watch.chip.deselect();
      else watch.chip.select();
    }
  });
}

const isLow = (chip) => !ports[chip.pins.select.port].level(chip.pins.select.bit);

spi.onByte = (value) => {
  const selected = selectable.filter((chip) => !(chip instanceof CounterChip) && isLow(chip));
  if (selected.length !== 1) report(`${selected.length} chips were selected for an SPI byte`);
  const control = cpu.data[0x4c];
  const mode = (control >> 2) & 3; // CPOL, CPHA
  let reply = 0xff;
  for (const chip of selected) reply &= chip.exchange(value, mode, CLOCK / spi.clockDivider);
  cpu.addClockEvent(() => spi.completeTransfer(reply), spi.transferCycles);
};

// The bus takes nine clocks a byte.
const bits = (count) => Math.round((count * CLOCK) / twi.sclFrequency);
let addressed = null;
let writing = false;

twi.eventHandler = {
  start(repeated) {
    if (repeated && addressed !== null && writing) addressed.finish(true);
    addressed = null;
    cpu.addClockEvent(() => twi.completeStart(), bits(2));
  },
  stop() {
    if (addressed !== null && writing) addressed.finish(false);
    addressed = null;
    cpu.addClockEvent(() => twi.completeStop(), bits(2));
  },
  connectToSlave(address, write) {
    const chip = byAddress.get(address) ?? null;
    const good = chip !== null && chip.start();
    if (chip !== null && chip.max_hz !== null && twi.sclFrequency > chip.max_hz) report(`${chip.name} ${chip.label}: a clock of ${twi.sclFrequency} Hz`);
    addressed = good ? chip : null;
    writing = write;
    cpu.addClockEvent(() => twi.completeConnect(good), bits(9));
  },
  writeByte(value) {
    const good = addressed !== null && addressed.write(value);
    cpu.addClockEvent(() => twi.completeWrite(good), bits(9));
  },
  readByte() {
    const value = addressed === null ? 0xff : addressed.read();
    cpu.addClockEvent(() => twi.completeRead(value), bits(9));
  },
};

// ADC: rounding to the nearest code, as a converter whose first transition lies half a step above zero does.

let volts = null; // at the ADC's pins, until something changes
let seed = config.seed;

function normal() {
  const uniform = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed + 0.5) / 2 ** 32;
  };
  return Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

if (config.adc !== null) {
  const channels = { ...avr.atmega328Channels };
  if (big) for (let index = 0; index < 8; index++) channels[0x20 + index] = { type: 0, channel: 8 + index };
  const adc = new avr.AVRADC(cpu, { ...avr.adcConfig, numChannels: 16, adcInterrupt: big ? 0x3a : 0x2a, muxInputMask: big ? 0x3f : 0xf, muxChannels: channels });
  adc.onADCRead = (source) => {
    const channel = source.type === 0 ? config.adc.pins.indexOf(source.channel) : -1;
    if (channel < 0) report('the ADC was asked for a pin that is not wired');
    if (volts === null) {
      writeLine({ ask: 'volts', ...state() });
      ({ volts } = readLine());
    }
    const noise = config.adc.noise ? normal() * config.adc.noise : 0;
    const exact = ((volts[channel] ?? 0) / config.adc.span) * 1024 + noise;
    const code = Math.min(Math.max(roundEven(exact), 0), 1023);
    // A conversion begins with the next edge of the ADC's clock.
    const { sampleCycles, prescaler } = adc;
    cpu.addClockEvent(() => adc.completeADCRead(code), sampleCycles + prescaler - (cpu.cycles % prescaler));
  };
}

function roundEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return Math.round(value);
  return low % 2 ? low + 1 : low;
}

// What the circuit must know.

const pinOn = ({ port, bit }) => (ports[port].level(bit) ? 1 : 0);

function state() {
  return {
    codes: config.pots.map(([chip, wiper]) => chips[chip].held(wiper)),
    closed: config.switches.map((pin) => pinOn(pin) === config.switch_level && driven(pin)),
    levels: config.sources.map(({ dac, channel, volts: full }) => (dacs[dac].active[channel] ? (dacs[dac].codes[channel] / 4096) * full : 0)),
    cycles: cpu.cycles,
    awake: takeAwake(),
  };
}

function driven({ port, bit }) {
  const { DDR } = ports[port].port.portConfig;
  return Boolean(cpu.data[DDR] & (1 << bit));
}

// Running.

let sent = [];
let firstSent = 0;
let lastSent = 0;
let asleep = 0;
let awakeFrom = 0;

function takeAwake() {
  const awake = cpu.cycles - awakeFrom - asleep;
  awakeFrom = cpu.cycles;
  asleep = 0;
  return awake;
}

usart.onSent = (byte) => {
  if (sent.length === 0) firstSent = cpu.cycles;
  lastSent = cpu.cycles;
  sent.push(byte);
};

// Run to a cycle. Where `untilIdle`, go on until the firmware sleeps with nothing left to do. At most `most` cycles.
function run(cycle, untilIdle, most) {
  const end = cpu.cycles + most;
  for (;;) {
    const opcode = program[cpu.pc];
    if (opcode === SLEEP && cpu.nextInterrupt < 0) {
      if (cpu.cycles >= cycle && (!untilIdle || usart.quiet)) return true;
      const event = cpu.nextClockEvent;
      if (event === null) return true;
      if (event.cycles > cpu.cycles) {
        if (!untilIdle && event.cycles > cycle) {
          asleep += cycle - cpu.cycles;
          cpu.cycles = cycle;
          return true;
        }
        asleep += event.cycles - cpu.cycles;
        cpu.cycles = event.cycles;
      }
      // An interrupt returns to what follows the sleep; any other event leaves the processor asleep.
      const here = cpu.pc++;
      cpu.tick();
      if (cpu.pc === here + 1) cpu.pc = here;
      continue;
    }
    if (!untilIdle && cpu.cycles >= cycle) return true;
    if (cpu.cycles > end) return false;
    avr.avrInstruction(cpu);
    if (opcode !== SEI) cpu.tick(); // the instruction after sei comes before any interrupt
  }
}

function restart(power) {
  restarting = true;
  cpu.reset();
  cpu.data.fill(0, 0, 0x100);
  cpu.SP = cpu.data.length - 1;
  for (const { port } of Object.values(ports)) {
    port.lastValue = port.lastDdr = 0;
    port.writeGpio(0, 0);
    for (const listener of port.listeners) listener(0, 0);
  }
  // A write to the EEPROM goes on through a reset.
  if (cpu.cycles < eeprom.writeCompleteCycles) {
    cpu.data[0x3f] |= 2;
    cpu.addClockEvent(() => (cpu.data[0x3f] &= ~2), eeprom.writeCompleteCycles - cpu.cycles);
  }
  ticking = false;
  boot++;
  usart.reset();
  usart.queue = [];
  spi.reset();
  twi.busy = false;
  twi.updateStatus(0xf8);
  cpu.data[0xbc] = 0;
  if (power) {
    usart.overruns = 0;
    for (const chip of [...chips, ...dacs]) chip.powerOn();
  }
  restarting = false;
}

const commands = {
  // Deliver bytes and run until everything is done and the clock has reached `until`.
  feed({ data, until = 0, most = 16e9 }) {
    usart.receive(Buffer.from(data, 'hex'));
    return { done: run(until, true, most) };
  },
  run({ cycles }) {
    run(cpu.cycles + cycles, false, cycles + 1000);
    return {};
  },
  send({ data }) {
    usart.receive(Buffer.from(data, 'hex'));
    return {};
  },
  reset({ power = false }) {
    restart(power);
    return {};
  },
  baud({ baud }) {
    usart.hostBaud = baud;
    return {};
  },
  fault({ pot, code = null, dead = false }) {
    const [chip, wiper] = config.pots[pot];
    if (code === null) delete chips[chip].stuck[wiper];
    else chips[chip].stuck[wiper] = code;
    chips[chip].dead = dead;
    return {};
  },
};

restart(true);
for (;;) {
  const command = readLine();
  volts = null;
  sent = [];
  const result = commands[command.op](command);
  writeLine({
    ...result,
    ...state(),
    sent: Buffer.from(sent).toString('hex'),
    first_sent: firstSent,
    last_sent: lastSent,
    arrived: usart.arrivedAt ?? 0,
    overruns: usart.overruns,
    baud: usart.baud,
    reports: reports.splice(0),
  });
}
