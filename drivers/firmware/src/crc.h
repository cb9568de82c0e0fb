/* CRC-16/CCITT-FALSE by a table, which the preprocessor works out. */
#ifndef CRC_H
#define CRC_H

#include "platform.h"

#define CRC_START 0xFFFF

#define CRC_FOLDED(byte) ((byte) ^ (byte) >> 4)
#define CRC_HIGH(byte) ((CRC_FOLDED(byte) << 4 ^ CRC_FOLDED(byte) >> 3) & 0xFF)
#define CRC_LOW(byte) ((CRC_FOLDED(byte) << 5 ^ CRC_FOLDED(byte)) & 0xFF)
#define CRC_4(part, byte) part((byte) + 0U), part((byte) + 1U), part((byte) + 2U), part((byte) + 3U)
#define CRC_16(part, byte) \
    CRC_4(part, byte), CRC_4(part, (byte) + 4), CRC_4(part, (byte) + 8), CRC_4(part, (byte) + 12)
#define CRC_64(part, byte) \
    CRC_16(part, byte), CRC_16(part, (byte) + 16), CRC_16(part, (byte) + 32), CRC_16(part, (byte) + 48)
#define CRC_256(part) CRC_64(part, 0), CRC_64(part, 64), CRC_64(part, 128), CRC_64(part, 192)

/* All the high bytes, then all the low ones, each on a page of its own. */
static const uint8_t crc_table[512] PROGMEM __attribute__((aligned(256))) = {CRC_256(CRC_HIGH), CRC_256(CRC_LOW)};

static inline uint16_t crc_update(uint16_t crc, uint8_t byte)
{
#ifdef __AVR__
    /* Eleven cycles, where the compiler needs eighteen: most of what the board computes is this. */
    __asm__("mov r30, %B[crc]\n\t"
            "eor r30, %[byte]\n\t"
            "ldi r31, hi8(%[table])\n\t"
            "lpm %B[crc], Z\n\t"
            "eor %B[crc], %A[crc]\n\t"
            "inc r31\n\t"
            "lpm %A[crc], Z"
            : [crc] "+r"(crc)
            : [byte] "r"(byte), [table] "i"(crc_table)
            : "r30", "r31");
    return crc;
#else
    const uint8_t index = (uint8_t)(crc >> 8) ^ byte;
    return (uint16_t)((crc_table[index] ^ (crc & 0xFF)) << 8 | crc_table[256 + index]);
#endif
}

#endif
