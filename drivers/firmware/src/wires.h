/* How the chips are wired: the types of the tables in wiring.h that only a microcontroller needs. */
#ifndef WIRES_H
#define WIRES_H

#include "platform.h"

#ifdef __AVR__
#include <avr/io.h>

struct pin {
    uint16_t port; /* address of PORTx; DDRx lies just below it */
    uint8_t mask;
};

#define PIN(letter, bit) {_SFR_ADDR(PORT##letter), 1 << (bit)}
#define NO_PIN {0, 0}

enum bus { SPI_BUS, I2C_BUS, COUNTER_BUS };

enum read_kind {
    NO_READ,
    READ_SAME, /* SPI: the reply comes on the clocks of the request */
    READ_NEXT, /* SPI: the reply comes in the next window */
    READ_COMBINED, /* I2C: the request, a repeated start, the reply */
    READ_SPLIT, /* I2C: the request, a stop, the reply */
};

/* What the pots of a group have in common. A code travels as base | code << shift in so many bytes. */
struct pot_bus {
    uint8_t bus;
    bool short_way; /* two bytes on SPI, and not unlocked each time */
    uint8_t spcr, spsr; /* SPI mode and clock */
    uint8_t bytes, shift;
    uint8_t read, request_bytes, reply_bytes;
    uint16_t mask;
    uint8_t reply_shift; /* of all the group's pots, where they go the short way */
    bool error_bit; /* bit 9 of a reply is low if the chip did not know the request */
    bool guard; /* unlock before every write, too */
    uint8_t unlock_bytes;
    uint16_t unlock;
    struct pin up_down, clock; /* of counters */
    uint8_t half_us; /* half of a counter's clock period, microseconds */
};

/* One pot, in whole words of four bytes. Words of chips have their most significant byte first. */
struct pot_wire {
    struct pin select; /* of an I2C chip the mask is its address */
    uint8_t group;
    uint8_t base[3];
    uint8_t reply_shift;
    uint8_t request[3];
    uint8_t unused;
};

struct source_wire { /* a channel of an MCP4921 or MCP4922 */
    struct pin select;
    uint8_t channel;
    int64_t full_scale; /* nanovolts */
};

struct adc_wire {
    uint8_t mux; /* of the internal ADC */
};

#endif
#endif
