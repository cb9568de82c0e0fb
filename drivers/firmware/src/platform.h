/* What differs between the microcontroller and a host that runs the same protocol code in tests. */
#ifndef PLATFORM_H
#define PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What is long and seldom stays out of what is short and often, which then saves no registers for it. */
#define NOINLINE __attribute__((noinline))

#ifdef __AVR__

#include <avr/pgmspace.h>

#else

#define PROGMEM
#define PSTR(text) (text)
#define memcpy_P memcpy
#define pgm_read_byte(address) (*(const uint8_t *)(address))
#define pgm_read_word(address) (*(const uint16_t *)(address))

#endif

#endif
