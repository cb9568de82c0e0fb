/* Pins and buses of the microcontroller. */
#ifndef BUS_H
#define BUS_H

#include "wires.h"

void bus_start(void);
void pin_output(const struct pin *pin, bool level);

static inline void pin_set(const struct pin *pin, bool level)
{
    volatile uint8_t *port = (volatile uint8_t *)pin->port;
    if (level)
        *port |= pin->mask;
    else
        *port &= (uint8_t)~pin->mask;
}

/* One chip-select window: bytes out, and what comes back in their place. */
void spi_window(const struct pin *select, uint8_t spcr, uint8_t spsr, uint8_t *bytes, uint8_t count);

/* Write and then read, with a repeated start or with a stop between them. False if a chip did not acknowledge. */
bool i2c_transfer(uint8_t address, const uint8_t *out, uint8_t count, uint8_t *in, uint8_t wanted, bool stop);

#endif
