/* What differs between the microcontroller and a host that runs the same protocol code in tests. */
#ifndef PLATFORM_H
#define PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVR__

#include <avr/pgmspace.h>
#include <util/crc16.h>

static inline uint16_t crc_update(uint16_t crc, uint8_t byte) { return _crc_xmodem_update(crc, byte); }

#else

#define PROGMEM
#define PSTR(text) (text)
#define memcpy_P memcpy
#define pgm_read_byte(address) (*(const uint8_t *)(address))
#define pgm_read_word(address) (*(const uint16_t *)(address))

static inline uint16_t crc_update(uint16_t crc, uint8_t byte)
{
    crc ^= (uint16_t)(byte << 8);
    for (uint8_t bit = 0; bit < 8; bit++)
        crc = (uint16_t)(crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1);
    return crc;
}

#endif

#define CRC_START 0xFFFF

#endif
