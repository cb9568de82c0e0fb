/* CRC-16/CCITT-FALSE by a table, which the preprocessor works out. */
#ifndef CRC_H
#define CRC_H

#include "platform.h"

#define CRC_START 0xFFFF

#define CRC_FOLDED(byte) ((byte) ^ (byte) >> 4)
#define CRC_ENTRY(byte) ((CRC_FOLDED(byte) << 12 ^ CRC_FOLDED(byte) << 5 ^ CRC_FOLDED(byte)) & 0xFFFFUL)
#define CRC_4(byte) CRC_ENTRY((byte) + 0UL), CRC_ENTRY((byte) + 1UL), CRC_ENTRY((byte) + 2UL), CRC_ENTRY((byte) + 3UL)
#define CRC_16(byte) CRC_4(byte), CRC_4((byte) + 4), CRC_4((byte) + 8), CRC_4((byte) + 12)
#define CRC_64(byte) CRC_16(byte), CRC_16((byte) + 16), CRC_16((byte) + 32), CRC_16((byte) + 48)

static const uint16_t crc_table[256] PROGMEM = {CRC_64(0), CRC_64(64), CRC_64(128), CRC_64(192)};

static inline uint16_t crc_update(uint16_t crc, uint8_t byte)
{
    return (uint16_t)(crc << 8) ^ pgm_read_word(&crc_table[(uint8_t)(crc >> 8) ^ byte]);
}

#endif
