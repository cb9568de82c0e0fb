// USART0 of an AVR with its real buffers: two received bytes wait, one byte waits to be sent, a third received one is
// lost and sets DOR. Bytes come at the host's rate and go at the firmware's.

const UCSRA = 0xc0;
const UCSRB = 0xc1;
const UBRRL = 0xc4;
const UBRRH = 0xc5;
const UDR = 0xc6;
const RXC = 0x80;
const TXC = 0x40;
const UDRE = 0x20;
const DOR = 0x08;
const U2X = 0x02;
const RXEN = 0x10;
const BITS = 10;
const MISMATCH = 0.04; // of the rates, beyond which bytes are garbage

export class Usart {
  constructor(cpu, clock, vector) {
    this.cpu = cpu;
    this.clock = clock;
    this.hostBaud = 115200; // null: a line without a rate of its own, as USB has
    this.queue = [];
    this.onSent = () => {};
    const flag = (flagMask, enableMask, address, constant) => ({
      address, flagRegister: UCSRA, flagMask, enableRegister: UCSRB, enableMask, constant,
    });
    this.rxc = flag(RXC, 0x80, vector, true);
    this.udre = flag(UDRE, 0x20, vector + 2, true);
    this.overruns = 0;
    this.reset();
    cpu.writeHooks[UCSRA] = (value) => {
      let flags = cpu.data[UCSRA];
      if (value & TXC) flags &= ~TXC;
      cpu.data[UCSRA] = (flags & ~U2X) | (value & U2X);
      return true;
    };
    cpu.writeHooks[UCSRB] = (value) => {
      cpu.data[UCSRB] = value;
      cpu.updateInterruptEnable(this.rxc, value);
      cpu.updateInterruptEnable(this.udre, value);
      return true;
    };
    cpu.readHooks[UDR] = () => {
      const byte = this.fifo.shift() ?? 0;
      cpu.data[UCSRA] &= ~DOR;
      if (this.fifo.length === 0) cpu.clearInterrupt(this.rxc);
      return byte;
    };
    cpu.writeHooks[UDR] = (value) => {
      if (this.shifting === null) this.shift(value);
      else {
        this.waiting = value;
        cpu.clearInterrupt(this.udre);
      }
      return true;
    };
  }

  reset() {
    this.fifo = [];
    this.shifting = null;
    this.waiting = null;
    this.arriving = false;
    this.cpu.data[UCSRA] = UDRE;
    this.cpu.data[UCSRB] = 0;
  }

  get baud() {
    const divisor = ((this.cpu.data[UBRRH] << 8) | this.cpu.data[UBRRL]) + 1;
    return this.clock / ((this.cpu.data[UCSRA] & U2X ? 8 : 16) * divisor);
  }

  get garbles() {
    return this.hostBaud !== null && Math.abs(this.hostBaud / this.baud - 1) > MISMATCH;
  }

  get quiet() {
    return this.queue.length === 0 && !this.arriving && this.fifo.length === 0 && this.shifting === null;
  }

  // Bytes from the host, one after the other on the line.
  receive(bytes) {
    for (const byte of bytes) this.queue.push(byte);
    this.next();
  }

  next() {
    if (this.arriving || this.queue.length === 0) return;
    this.arriving = true;
    this.cpu.addClockEvent(() => this.arrive(), Math.round((BITS * this.clock) / (this.hostBaud ?? this.baud)));
  }

  arrive() {
    let byte = this.queue.shift();
    this.arriving = false;
    this.arrivedAt = this.cpu.cycles;
    if (this.cpu.data[UCSRB] & RXEN) {
      if (this.garbles) byte = (byte * 37 + 85) & 0xff;
      if (this.fifo.length === 2) {
        this.overruns++;
        this.cpu.data[UCSRA] |= DOR;
      } else this.fifo.push(byte);
      this.cpu.setInterruptFlag(this.rxc);
    }
    this.next();
  }

  shift(byte) {
    this.shifting = byte;
    this.cpu.addClockEvent(() => this.sent(), Math.round((BITS * this.clock) / this.baud));
  }

  sent() {
    const byte = this.shifting;
    this.shifting = null;
    this.onSent(this.garbles ? (byte * 37 + 85) & 0xff : byte);
    if (this.waiting !== null) {
      const next = this.waiting;
      this.waiting = null;
      this.cpu.setInterruptFlag(this.udre);
      this.shift(next);
    } else this.cpu.data[UCSRA] |= TXC;
  }
}
