/* Pots: codes into words, windows, transactions and counts, after the tables of wiring.h.
 *
 * Only volatile registers can be reached by these tables; nothing here stores a wiper. */
#include "bus.h"
#include "potboard.h"
#include "wiring.h"

#include <util/delay.h>

#define DIRECTION_US 3 /* from a new direction to the first count */

static struct pot_wire wire;
static struct pot_bus bus;
static uint8_t bus_index = UINT8_MAX;

static void look_up(uint16_t pot)
{
    memcpy_P(&wire, &pot_wires[pot], sizeof wire);
    if (wire.group != bus_index) {
        bus_index = wire.group;
        memcpy_P(&bus, &pot_buses[bus_index], sizeof bus);
    }
}

#if USES_SPI || USES_I2C

static bool transfer(uint8_t *bytes, uint8_t count)
{
#if USES_I2C
    if (bus.bus == I2C_BUS)
        return i2c_transfer(wire.address, bytes, count, NULL, 0, true);
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
    uint32_t word = (uint32_t)code << bus.shift;
    uint8_t bytes[3];
    for (uint8_t index = bus.bytes; index--; word >>= 8)
        bytes[index] = (uint8_t)(wire.base[index] | (uint8_t)word);
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

bool pot_write(uint16_t pot, uint16_t code, uint16_t held)
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

bool pot_read(uint16_t pot, uint16_t *code)
{
#if USES_SPI || USES_I2C
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
        if (!i2c_transfer(wire.address, wire.request, bus.request_bytes, reply, bus.reply_bytes,
                          bus.read == READ_SPLIT))
            return false;
        break;
#endif
    default:
        return false;
    }
    uint32_t value = 0;
    for (uint8_t index = 0; index < bus.reply_bytes; index++)
        value = value << 8 | reply[index];
    if (bus.error_bit && !(value & 0x200))
        return false;
    *code = (uint16_t)(value >> wire.reply_shift) & bus.mask;
    return true;
#else
    (void)pot;
    (void)code;
    return false;
#endif
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
