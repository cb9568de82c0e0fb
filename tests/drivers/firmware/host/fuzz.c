/* Bytes of chance against the protocol, under sanitizers: `fuzz RUNS SEED`.
 *
 * Half of the input is noise; the rest is frames with a right CRC around payloads of chance, so that the fuzzing
 * reaches what lies behind the decoder. */
#include <stdio.h>
#include <stdlib.h>

#include "crc.h"
#include "potboard.h"
#include "wiring.h"

void host_start(uint16_t boots);
void host_fault(uint16_t pot, int32_t code, bool is_dead);
uint16_t host_code(uint16_t pot);
size_t host_feed(const uint8_t *bytes, size_t length, uint32_t now, uint8_t *answer);

static uint64_t seed;

static uint32_t chance(uint32_t limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)((seed >> 16) % limit);
}

static size_t frame(uint8_t *out)
{
    static const uint8_t opcodes[] = {1, 2, 3, 0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x30, 0x31, 0x40, 0x41, 0x7E, 0x7F};
    static const char *const lines[] = {"*IDN?", "POT 1,2", "POT? 0", "SOUR 0,1.5e-3", "MEAS? 1", "SYST:ERR?", "SAFE:CLE"};
    uint8_t bytes[300];
    size_t length = 0, limit = chance(20) ? 40 : 256;
    bytes[length++] = chance(8) ? opcodes[chance(sizeof opcodes)] : (uint8_t)chance(256);
    bytes[length++] = bytes[0] == 1 ? 0 : (uint8_t)chance(256);
    if (bytes[0] == 0x7E && chance(2)) {
        const char *line = lines[chance(sizeof lines / sizeof *lines)];
        memcpy(bytes + length, line, strlen(line));
        length += strlen(line);
    } else {
        for (size_t left = chance((uint32_t)limit); left; left--)
            bytes[length++] = (uint8_t)(chance(3) ? chance(4) : chance(256));
    }
    uint16_t crc = CRC_START;
    for (size_t index = 0; index < length; index++)
        crc = crc_update(crc, bytes[index]);
    bytes[length++] = (uint8_t)(crc >> 8);
    bytes[length++] = (uint8_t)crc;
    size_t at = 0, start = 0;
    out[at++] = 0;
    for (;;) {
        size_t end = start;
        while (end < length && bytes[end] && end - start < 254)
            end++;
        out[at++] = (uint8_t)(end - start + 1);
        memcpy(out + at, bytes + start, end - start);
        at += end - start;
        if (end == length)
            break;
        start = end - start < 254 ? end + 1 : end;
    }
    out[at++] = 0;
    return at;
}

int main(int count, char **arguments)
{
    long runs = count > 1 ? atol(arguments[1]) : 10000;
    seed = (uint64_t)(count > 2 ? atol(arguments[2]) : 1) * 0x9E3779B97F4A7C15u + 1;
    uint8_t input[1024];
    uint32_t now = 0;
    unsigned long answered = 0;
    for (long run = 0; run < runs; run++) {
        if (run % 50 == 0) {
            host_start((uint16_t)(run + 1));
            host_feed((const uint8_t *)"\0\0", 2, now, NULL);
        }
        size_t length = 0;
        if (chance(4)) {
            length = frame(input);
            if (chance(10) == 0)
                input[chance((uint32_t)length)] ^= (uint8_t)(1 << chance(8));
        } else {
            for (size_t left = chance(600); left; left--)
                input[length++] = (uint8_t)chance(256);
        }
        now += chance(70);
        if (chance(50) == 0)
            host_fault((uint16_t)chance(POTS), (int32_t)chance(3) - 1, chance(2));
        answered += host_feed(input, length, now, NULL) > 0;
        for (uint16_t pot = 0; pot < POTS; pot++) {
            struct pot_group group = pot_groups[0];
            for (uint8_t index = 0; index < POT_GROUPS; index++)
                if (pot >= pot_groups[index].first)
                    group = pot_groups[index];
            if (host_code(pot) > group.highest) {
                printf("pot %d holds %d\n", pot, host_code(pot));
                return 1;
            }
        }
    }
    printf("%ld inputs, %lu answered\n", runs, answered);
    return answered * 4 < (unsigned long)runs;
}
