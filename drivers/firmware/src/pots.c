/* Pots: codes into words, windows, transactions and counts, after the tables of wiring.h.
 *
 * Only volatile registers can be reached by these tables; nothing here stores a wiper. */
#include "bus.h"
#include "potboard.h"
#include "wiring.h"

#include <util/delay.h>

#define DIRECTION_US 3 /* from a new direction to the first count */

static union {
    struct pot_wire wire;
    uint32_t words[3];
} pot_at;
static struct pot_bus bus;
static uint8_t bus_index = UINT8_MAX;

#define wire (pot_at.wire)

static inline void look_up_bus(uint16_t pot)
{
    const uint8_t index = pgm_read_byte(&pot_wires[pot].group);
    if (index != bus_index) {
        bus_index = index;
        memcpy_P(&bus, &pot_buses[index], sizeof bus);
    }
}

static void look_up(uint16_t pot)
{
    /* In fours: byte by byte this would take longer than the chip does. */
    const uint32_t *from = (const uint32_t *)&pot_wires[pot];
    pot_at.words[0] = pgm_read_dword(from);
    pot_at.words[1] = pgm_read_dword(from + 1);
    pot_at.words[2] = pgm_read_dword(from + 2);
    look_up_bus(pot);
}

#if USES_SPI

/* Most pots take two bytes on SPI: these go the short way, from the tables to the bus without a copy. While one byte is
 * clocked out, what comes next is looked up. */

struct place {
    volatile uint8_t *port;
    uint8_t mask;
};

static inline struct place place_of(const struct pot_wire *at)
{
    uint32_t word = pgm_read_dword(at);
    return (struct place){(volatile uint8_t *)(uint16_t)word, (uint8_t)(word >> 16)};
}

static inline void spi_wait(void)
{
    while (!(SPSR & (1 << SPIF)))
        ;
}

static void write_short(const struct pot_wire *at, uint8_t count, const uint16_t *codes, uint16_t *held)
{
    SPCR = bus.spcr;
    SPSR = bus.spsr;
    const uint8_t shift = bus.shift;
    struct place place = place_of(at);
    uint16_t base = pgm_read_word(&at->base[0]);
    for (;;) {
        const uint16_t plain = *codes++;
        const uint16_t code = shift ? (uint16_t)(plain << shift) : plain;
        *place.port &= (uint8_t)~place.mask;
        SPDR = (uint8_t)(base | code >> 8);
        uint8_t second = (uint8_t)(base >> 8 | code);
        if (--count)
            base = pgm_read_word(&(++at)->base[0]);
        spi_wait();
        SPDR = second;
        *held++ = plain;
        struct place next = place_of(at);
        spi_wait();
        *place.port |= place.mask;
        if (!count)
            return;
        place = next;
    }
}

#define NO_ERROR 0x200 /* in a reply to a request the chip knew */

/* Write pots whose code and answer are the low bits of two bytes, and read each one back at once. Return how many held
 * their code. What is looked up after the last pot is not used. */
static NOINLINE uint8_t write_checked(const struct pot_wire *at, uint8_t count, const uint16_t *codes)
{
    SPCR = bus.spcr;
    SPSR = bus.spsr;
    const uint8_t mask = (uint8_t)(bus.mask >> 8 | NO_ERROR >> 8);
    struct place place = place_of(at);
    uint16_t base = pgm_read_word(&at->base[0]);
    for (uint8_t left = count; left; left--) {
        const uint16_t code = *codes++;
        const uint8_t low = (uint8_t)code, high = (uint8_t)(code >> 8);
        volatile uint8_t *const port = place.port;
        const uint8_t on = *port & (uint8_t)~place.mask, off = on | place.mask; /* no interrupt changes a port */
        *port = on;
        SPDR = (uint8_t)base | high;
        const uint8_t second = (uint8_t)(base >> 8) | low;
        const uint16_t request = pgm_read_word(&at->request[0]);
        at++;
        spi_wait();
        SPDR = second;
        place = place_of(at);
        spi_wait();
        *port = off;
        *port = on;
        SPDR = (uint8_t)request;
        base = pgm_read_word(&at->base[0]);
        const uint8_t right = high | NO_ERROR >> 8;
        spi_wait();
        const uint8_t answer = SPDR;
        SPDR = (uint8_t)(request >> 8);
        const uint8_t wrong = (answer & mask) ^ right;
        spi_wait();
        *port = off;
        if (wrong | (SPDR ^ low))
            return (uint8_t)(count - left);
    }
    return count;
}

/* Return how many answered. */
static uint8_t read_short(const struct pot_wire *at, uint8_t count, uint16_t *codes)
{
    SPCR = bus.spcr;
    SPSR = bus.spsr;
    const uint8_t shift = bus.reply_shift;
    const uint16_t mask = bus.mask;
    const bool again = bus.read == READ_NEXT, error_bit = bus.error_bit;
    struct place place = place_of(at);
    uint16_t request = pgm_read_word(&at->request[0]);
    for (uint8_t left = count;;) {
        *place.port &= (uint8_t)~place.mask;
        SPDR = (uint8_t)request;
        uint8_t second = (uint8_t)(request >> 8);
        if (--left)
            request = pgm_read_word(&(++at)->request[0]);
        spi_wait();
        uint8_t high = SPDR;
        SPDR = second;
        struct place next = place_of(at);
        spi_wait();
        *place.port |= place.mask;
        uint8_t low = SPDR;
        if (again) {
            *place.port &= (uint8_t)~place.mask;
            SPDR = 0;
            spi_wait();
            high = SPDR;
            SPDR = 0;
            spi_wait();
            *place.port |= place.mask;
            low = SPDR;
        }
        uint16_t value = (uint16_t)(high << 8 | low);
        if (error_bit && !(value & 0x200))
            return (uint8_t)(count - left - 1);
        if (shift)
            value >>= shift;
        *codes++ = value & mask;
        if (!left)
            return count;
        place = next;
    }
}

#endif

#if USES_SPI || USES_I2C

static bool transfer(uint8_t *bytes, uint8_t count)
{
#if USES_I2C
    if (bus.bus == I2C_BUS)
        return i2c_transfer(wire.select.mask, bytes, count, NULL, 0, true);
#endif
#if USES_SPI
    spi_window(&wire.select, bus.spcr, bus.spsr, bytes, count);
#endif
    return true;
}

static bool unlock(void)
{
    uint8_t bytes[2] = {(uint8_t)(bus.unlock >> 8), (uint8_t)bus.unlock};
    return bus.unlock_bytes == 0 || transfer(bytes, bus.unlock_bytes);
}

static bool write_word(uint16_t code)
{
    /* Codes take up the last two bytes of a word at most. */
    uint16_t word = bus.shift ? (uint16_t)(code << bus.shift) : code;
    uint8_t last = (uint8_t)(bus.bytes - 1);
    uint8_t *bytes = wire.base;
    bytes[last] |= (uint8_t)word;
    if (last)
        bytes[last - 1] |= (uint8_t)(word >> 8);
    return transfer(bytes, bus.bytes);
}

#endif

#if USES_COUNTERS

static void wait_half(void)
{
    for (uint8_t left = bus.half_us; left; left--)
        _delay_us(1);
}

/* A falling clock counts. The chip is deselected while the clock is low: an X9C would store its wiper if it were high. */
static void count(bool up, uint16_t pulses)
{
    if (pulses == 0)
        return;
    pin_set(&bus.up_down, up);
    _delay_us(DIRECTION_US);
    pin_set(&wire.select, false);
    for (; pulses; pulses--) {
        wait_half();
        pin_set(&bus.clock, false);
        wait_half();
        if (pulses > 1)
            pin_set(&bus.clock, true);
    }
    pin_set(&wire.select, true);
    wait_half();
    pin_set(&bus.clock, true);
}

static void write_counter(uint16_t code, uint16_t held)
{
    if (held == UNKNOWN) {
        held = bus.mask; /* the end stop, reached from anywhere */
        count(true, held);
    }
    if (code >= held)
        count(true, (uint16_t)(code - held));
    else
        count(false, (uint16_t)(held - code));
}

#endif

static bool write_long_way(uint16_t pot, uint16_t code, uint16_t held)
{
    look_up(pot);
#if USES_COUNTERS
    if (bus.bus == COUNTER_BUS) {
        write_counter(code, held);
        return true;
    }
#else
    (void)held;
#endif
#if USES_SPI || USES_I2C
    return !(bus.guard && !unlock()) && write_word(code);
#else
    return true;
#endif
}

uint8_t pots_write_checked(uint16_t first, uint8_t count, const uint16_t *codes)
{
    look_up_bus(first);
#if USES_SPI
    if (bus.short_way && bus.read == READ_SAME && bus.error_bit && !bus.shift && !bus.reply_shift)
        return write_checked(&pot_wires[first], count, codes);
#else
    (void)count;
    (void)codes;
#endif
    return 0;
}

NOINLINE uint8_t pots_write(uint16_t first, uint8_t count, const uint16_t *codes, uint16_t *held)
{
    look_up_bus(first);
#if USES_SPI
    if (bus.short_way) {
        write_short(&pot_wires[first], count, codes, held);
        return count;
    }
#endif
    for (uint8_t index = 0; index < count; index++) {
        if (!write_long_way((uint16_t)(first + index), codes[index], held[index]))
            return index;
        held[index] = codes[index];
    }
    return count;
}

/* Return the last two bytes of a reply: no code lies before them. UNKNOWN if the chip did not answer. */
static uint16_t ask_long_way(uint16_t pot)
{
    uint8_t reply[3] = {0, 0, 0};
    look_up(pot);
    switch (bus.read) {
#if USES_SPI
    case READ_SAME:
        memcpy(reply, wire.request, bus.reply_bytes);
        spi_window(&wire.select, bus.spcr, bus.spsr, reply, bus.reply_bytes);
        break;
    case READ_NEXT:
        spi_window(&wire.select, bus.spcr, bus.spsr, wire.request, bus.request_bytes);
        spi_window(&wire.select, bus.spcr, bus.spsr, reply, bus.reply_bytes);
        break;
#endif
#if USES_I2C
    case READ_COMBINED:
    case READ_SPLIT:
        if (!i2c_transfer(wire.select.mask, wire.request, bus.request_bytes, reply, bus.reply_bytes,
                          bus.read == READ_SPLIT))
            return UNKNOWN;
        break;
#endif
    default:
        return UNKNOWN;
    }
    uint8_t last = (uint8_t)(bus.reply_bytes - 1);
    uint16_t value = (uint16_t)(reply[last] | (last ? reply[last - 1] << 8 : 0));
    if (bus.error_bit && !(value & 0x200))
        return UNKNOWN;
    return (uint16_t)(value >> wire.reply_shift) & bus.mask;
}

uint8_t pots_read(uint16_t first, uint8_t count, uint16_t *codes)
{
    look_up_bus(first);
#if USES_SPI
    if (bus.short_way)
        return read_short(&pot_wires[first], count, codes);
#endif
    for (uint8_t index = 0; index < count; index++) {
        codes[index] = ask_long_way((uint16_t)(first + index));
        if (codes[index] == UNKNOWN)
            return index;
    }
    return count;
}

/* After power-on some chips take no wiper write, or store each one, until they are told. */
void pots_unlock(void)
{
    for (uint16_t pot = 0; pot < POTS; pot++) {
        look_up(pot);
#if USES_SPI || USES_I2C
        if (bus.bus != COUNTER_BUS)
            unlock();
#endif
    }
}

/* Deselect every chip and give counters a high clock, before anything else moves. */
void pots_start(void)
{
    for (uint16_t pot = 0; pot < POTS; pot++) {
        look_up(pot);
        if (bus.bus == COUNTER_BUS) {
            pin_output(&bus.up_down, true);
            pin_output(&bus.clock, true);
        }
        if (bus.bus != I2C_BUS)
            pin_output(&wire.select, true);
    }
}
