/* Pins and buses of the microcontroller. */
#include "bus.h"
#include "wiring.h"

#include <util/twi.h>

#define I2C_PATIENCE 4000 /* turns of a waiting loop: some milliseconds, far longer than any byte takes */

void pin_output(const struct pin *pin, bool level)
{
    if (pin->mask == 0)
        return;
    pin_set(pin, level); /* before it becomes an output, so that it never drives the other level */
    *(volatile uint8_t *)(pin->port - 1) |= pin->mask;
}

void bus_start(void)
{
#if USES_SPI
    /* SS must be an output, or a low level there would end the master mode. */
    static const struct pin outputs[] = {SPI_SS, SPI_MOSI, SPI_SCK};
    for (uint8_t index = 0; index < 3; index++)
        pin_output(&outputs[index], index == 0);
#endif
#if USES_I2C
    TWSR = 0;
    TWBR = I2C_TWBR;
    TWCR = 1 << TWEN;
#endif
}

void spi_window(const struct pin *select, uint8_t spcr, uint8_t spsr, uint8_t *bytes, uint8_t count)
{
    SPCR = spcr;
    SPSR = spsr;
    pin_set(select, false);
    for (; count; count--, bytes++) {
        SPDR = *bytes;
        while (!(SPSR & (1 << SPIF)))
            ;
        *bytes = SPDR;
    }
    pin_set(select, true);
}

#if USES_I2C

/* Let the bus do one thing and return its status, or 0 if it hangs. */
static uint8_t i2c_do(uint8_t what)
{
    TWCR = (uint8_t)(1 << TWINT | 1 << TWEN | what);
    for (uint16_t left = I2C_PATIENCE; left; left--)
        if (TWCR & (1 << TWINT))
            return TW_STATUS;
    return 0;
}

static bool i2c_start(uint8_t address_and_direction)
{
    uint8_t status = i2c_do(1 << TWSTA);
    if (status != TW_START && status != TW_REP_START)
        return false;
    TWDR = address_and_direction;
    status = i2c_do(0);
    return status == TW_MT_SLA_ACK || status == TW_MR_SLA_ACK;
}

static void i2c_stop(void)
{
    TWCR = 1 << TWINT | 1 << TWEN | 1 << TWSTO;
    for (uint16_t left = I2C_PATIENCE; left; left--)
        if (!(TWCR & (1 << TWSTO)))
            return;
    TWCR = 0; /* a bus that hangs: let go of it and begin anew */
    TWCR = 1 << TWEN;
}

bool i2c_transfer(uint8_t address, const uint8_t *out, uint8_t count, uint8_t *in, uint8_t wanted, bool stop)
{
    bool good = true;
    if (count) {
        good = i2c_start((uint8_t)(address << 1 | TW_WRITE));
        for (; good && count; count--) {
            TWDR = *out++;
            good = i2c_do(0) == TW_MT_DATA_ACK;
        }
        if (stop)
            i2c_stop();
    }
    if (good && wanted) {
        good = i2c_start((uint8_t)(address << 1 | TW_READ));
        for (; good && wanted; wanted--) {
            uint8_t status = i2c_do(wanted > 1 ? 1 << TWEA : 0);
            good = status == (wanted > 1 ? TW_MR_DATA_ACK : TW_MR_DATA_NACK);
            *in++ = TWDR;
        }
        stop = false;
    }
    if (!stop || !good)
        i2c_stop();
    return good;
}

#endif
