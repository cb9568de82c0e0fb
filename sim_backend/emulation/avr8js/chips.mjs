// Digital potentiometers on pins: what a chip makes of the levels and bytes at its pins, and what it may not be sent.
//
// Each model follows its chip's data sheet by the layout the catalogue names, not the firmware's tables.

class Chip {
  constructor(config, report) {
    Object.assign(this, config);
    this.report = (what) => report(`${config.name} ${config.label}: ${what}`);
    this.stuck = {};
    this.dead = false;
    this.powerOn();
  }

  powerOn() {
    this.codes = Array(this.wipers).fill(this.power_on);
    this.unlocked = this.unlock.length === 0;
    this.answer = null; // a code that goes out in the next window or transaction
  }

  held(wiper) {
    return this.stuck[wiper] ?? this.codes[wiper];
  }

  move(wiper, code) {
    if (!(wiper >= 0 && wiper < this.wipers)) this.report(`there is no wiper ${wiper}`);
    else if (code >= this.positions) this.report(`there is no code ${code}`);
    else if (!this.unlocked && this.guard) this.report('a write while it would be stored');
    else if (this.unlocked) this.codes[wiper] = code;
  }

  // Words that would wear or burn the chip, and those that unlock it. True if that was all.
  screen(bytes) {
    const head = (bytes[0] << 8) | (bytes[1] ?? 0);
    for (const { mask, value, why } of this.forbidden) {
      if (bytes.length && (head & mask) === value) this.report(`${hex(bytes)} ${why}`);
    }
    if (this.unlock.includes(hex(bytes))) {
      this.unlocked = true;
      return true;
    }
    return false;
  }
}

const hex = (bytes) => Buffer.from(bytes).toString('hex');

const number = (bytes) => bytes.reduce((sum, byte) => sum * 256 + byte, 0);

export class SpiChip extends Chip {
  constructor(config, report) {
    super(config, report);
    this.window = null;
  }

  select() {
    this.window = [];
  }

  // A byte goes in while another one comes out.
  exchange(byte, mode, hertz) {
    if (this.spi_mode !== null && mode !== this.spi_mode) this.report(`SPI mode ${mode} instead of ${this.spi_mode}`);
    if (this.max_hz !== null && hertz > this.max_hz) this.report(`a clock of ${hertz} Hz above ${this.max_hz}`);
    this.window.push(byte);
    return this.dead ? 0xff : this.reply();
  }

  reply() {
    const { name } = this.layout;
    const at = this.window.length - 1;
    const first = this.window[0];
    if (name === 'microchip' && (first & 0x0c) === 0x0c) {
      const wiper = this.layout.registers.indexOf(first >> 4);
      if (wiper < 0 || wiper >= this.wipers) return at === 0 ? 0xfc : 0x00;
      return at === 0 ? 0xfe | (this.held(wiper) >> 8) : this.held(wiper) & 0xff;
    }
    if (name === 'x9250' && at === 2 && (this.window[1] & 0xf0) === 0x90) return this.held(this.window[1] & 3);
    if (this.answer !== null && at < this.answer.length) return this.answer[at];
    return 0;
  }

  deselect() {
    const bytes = this.window;
    this.window = null;
    this.answer = null;
    if (this.dead || bytes.length === 0) return;
    if (bytes.length !== Math.ceil(this.bits / 8)) {
      this.report(`a window of ${bytes.length} bytes for a word of ${this.bits} bits`);
      return;
    }
    if (this.screen(bytes)) return;
    const word = number(bytes) % 2 ** this.bits;
    const { layout } = this;
    switch (layout.name) {
      case 'address_data':
        this.move(word >> layout.data_bits, word & (2 ** layout.data_bits - 1));
        break;
      case 'register': {
        const read = (layout.read_registers ?? []).indexOf(bytes[0]);
        if (read >= 0 && bytes[1] === layout.read_argument) this.answer = [0, this.held(read) << layout.shift];
        else if (bytes[0] !== 0) this.move(layout.registers.indexOf(bytes[0]), bytes[1] >> layout.shift);
        break;
      }
      case 'command10': {
        const data = word & 0x3ff;
        const command = (word >> 10) & 0xf;
        if (command === 1) this.move(0, data >> layout.shift);
        else if (command === 2) this.answer = Array.from(Buffer.from([(this.held(0) << layout.shift) >> 8, (this.held(0) << layout.shift) & 0xff]));
        else if (command !== 0) this.report(`command ${command}`);
        break;
      }
      case 'microchip':
        if ((bytes[0] & 0x0c) === 0) this.move(layout.registers.indexOf(bytes[0] >> 4), word & 0x1ff);
        else if ((bytes[0] & 0x0c) !== 0x0c) this.report('an increment or decrement');
        break;
      case 'x9250':
        if ((bytes[0] & 0xf0) !== 0x50 || (bytes[0] & 0x0f) !== this.identifier) this.report(`identifier ${bytes[0]}`);
        else if ((bytes[1] & 0xf0) === 0xa0) this.move(bytes[1] & 3, bytes[2]);
        else if ((bytes[1] & 0xf0) !== 0x90) this.report(`instruction ${bytes[1]}`);
        break;
      case 'max5481':
        if (bytes[0] === 0) this.move(0, (word >> 6) & 0x3ff);
        else this.report(`command ${bytes[0]}`);
        break;
      default:
        this.report(`no model for ${layout.name}`);
    }
  }
}

export class I2cChip extends Chip {
  constructor(config, report) {
    super(config, report);
    this.bytes = [];
  }

  start() {
    this.bytes = [];
    this.sent = 0;
    return !this.dead;
  }

  write(byte) {
    this.bytes.push(byte);
    return true;
  }

  // What was written before a read chooses what is read.
  read() {
    const { layout } = this;
    const at = this.sent++;
    switch (layout.name) {
      case 'byte':
        return this.held(0);
      case 'register':
        if (layout.read === 'plain') return this.held(at) << layout.shift;
        if (this.answer === null) this.report('a read of nothing');
        return (this.answer ?? 0) & 0xff;
      case 'command10':
      case 'microchip':
        return at === 0 ? (this.answer ?? 0) >> 8 : (this.answer ?? 0) & 0xff;
      default:
        return 0xff;
    }
  }

  // The end of a written part: a stop, or a repeated start. `repeated` tells which.
  finish(repeated) {
    const { bytes, layout } = this;
    this.bytes = [];
    if (bytes.length === 0 || this.screen(bytes)) return;
    switch (layout.name) {
      case 'byte':
        if (bytes.length === 1) this.move(0, bytes[0]);
        else this.report(`${bytes.length} bytes`);
        break;
      case 'register': {
        const read = (layout.read_registers ?? []).indexOf(bytes[0]);
        if (layout.read === 'command' && read >= 0 && bytes.length === 2) this.answer = this.held(read) << layout.shift;
        else if (bytes.length === 2) this.move(layout.registers.indexOf(bytes[0]), bytes[1] >> layout.shift);
        else if (repeated && layout.read === 'register') {
          const wiper = layout.registers.indexOf(bytes[0]);
          if (wiper < 0) this.report(`register ${bytes[0]}`);
          else this.answer = this.held(wiper) << layout.shift;
        } else this.report(`${bytes.length} bytes`);
        break;
      }
      case 'command10': {
        const word = number(bytes);
        const command = (word >> 10) & 0xf;
        if (bytes.length !== 2) this.report(`${bytes.length} bytes`);
        else if (command === 1) this.move(0, (word & 0x3ff) >> layout.shift);
        else if (command === 2) this.answer = this.held(0) << layout.shift;
        else this.report(`command ${command}`);
        break;
      }
      case 'microchip': {
        const wiper = layout.registers.indexOf(bytes[0] >> 4);
        if ((bytes[0] & 0x0c) === 0x0c && bytes.length === 1 && repeated) this.answer = this.held(wiper);
        else if ((bytes[0] & 0x0c) === 0 && bytes.length === 2) this.move(wiper, ((bytes[0] & 3) << 8) | bytes[1]);
        else this.report(`the bytes ${hex(bytes)}`);
        break;
      }
      default:
        this.report(`no model for ${layout.name}`);
    }
  }
}

// Least times in nanoseconds. X9C102/103/104/503 data sheet FN8222, AC operating conditions: t_CI, t_DI, t_IL, t_IH,
// t_CYC; the AD5220 needs far less.
const X9C = { selected: 100, direction: 2900, low: 1000, high: 1000, cycle: 4000 };
const AD5220 = { selected: 20, direction: 10, low: 25, high: 25, cycle: 50 };

export class CounterChip extends Chip {
  constructor(config, report) {
    super(config, report);
    this.times = config.name.startsWith('X9C') ? X9C : AD5220;
    this.levels = { select: true, up: true, clock: true };
    this.since = { select: -Infinity, up: -Infinity, clock: -Infinity, fall: -Infinity };
    this.counted = true;
  }

  // A pin has taken a level, at so many nanoseconds.
  pin(name, level, now) {
    if (this.levels[name] === level) return;
    const { times, since } = this;
    const selected = !this.levels.select;
    if (name === 'select') {
      if (level && this.levels.clock && this.memory) this.report('it was deselected with the clock high and stores');
      if (level && !this.counted) this.report('it was selected for no count');
      this.counted = false;
    } else if (name === 'up' && selected) {
      this.report('a new direction while it was selected');
    } else if (name === 'clock' && selected) {
      if (!level) {
        if (now - since.select < times.selected) this.report('a count too soon after it was selected');
        if (now - since.up < times.direction) this.report('a count too soon after a new direction');
        if (now - since.clock < times.high) this.report('a clock too short while high');
        if (now - since.fall < times.cycle) this.report('counts too close');
        const next = this.codes[0] + (this.levels.up ? 1 : -1);
        if (!this.dead) this.codes[0] = Math.min(Math.max(next, 0), this.positions - 1);
        since.fall = now;
        this.counted = true;
      } else if (now - since.clock < times.low) this.report('a clock too short while low');
    }
    this.levels[name] = level;
    since[name] = now;
  }
}

// MCP4921/MCP4922 data sheet DS22250A, register 5-1: channel, buffer, gain, shutdown, 12 bits.
export class Dac {
  constructor(config, report) {
    Object.assign(this, config);
    this.report = (what) => report(`DAC ${config.label}: ${what}`);
    this.powerOn();
  }

  powerOn() {
    this.codes = [0, 0];
    this.active = [false, false];
  }

  select() {
    this.window = [];
  }

  exchange(byte, mode, hertz) {
    if (mode !== 0 && mode !== 3) this.report(`SPI mode ${mode}`);
    if (hertz > 20e6) this.report(`a clock of ${hertz} Hz`);
    this.window.push(byte);
    return 0xff;
  }

  deselect() {
    if (this.window.length !== 2) {
      this.report(`a window of ${this.window.length} bytes`);
      return;
    }
    const word = number(this.window);
    if (!(word & 0x2000)) this.report('the gain is 2');
    this.codes[word >> 15] = word & 0xfff;
    this.active[word >> 15] = Boolean(word & 0x1000);
  }
}
