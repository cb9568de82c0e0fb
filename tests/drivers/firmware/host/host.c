/* The protocol on a host: chips in memory, time and bytes handed in by the caller. */
#include "potboard.h"
#include "wiring.h"

#define MOST_SENT 65536

static uint16_t held[POTS];
static int32_t stuck[POTS];
static bool dead[POTS];
static uint16_t adc_codes[ADCS + 1];
static int64_t driven[SOURCES + 1];
static bool closed_switches[SWITCHES + 1];
static uint8_t sent[MOST_SENT];
static size_t sent_length;
static uint32_t clock_ms;

bool pot_write(uint16_t pot, uint16_t code, uint16_t before)
{
    (void)before;
    if (dead[pot])
        return false;
    held[pot] = code;
    return true;
}

uint16_t pot_read(uint16_t pot)
{
    if (dead[pot])
        return UNKNOWN;
    return stuck[pot] >= 0 ? (uint16_t)stuck[pot] : held[pot];
}

void pots_unlock(void) {}

static uint8_t adc_channel;

void adc_start(uint8_t channel) { adc_channel = channel; }

uint16_t adc_result(void) { return adc_codes[adc_channel]; }

void source_set(uint8_t source, int64_t nanovolts) { driven[source] = nanovolts; }

void switch_set(uint8_t number, bool closed) { closed_switches[number] = closed; }

void wait_us(uint32_t microseconds) { (void)microseconds; }

uint32_t milliseconds(void) { return clock_ms; }

void serial_send(uint8_t byte)
{
    if (sent_length < MOST_SENT)
        sent[sent_length++] = byte;
}

bool serial_baud(uint32_t baud) { return baud == 115200 || baud == 1000000; }

uint32_t serial_baud_now(void) { return 115200; }

/* What the caller uses. */

void host_start(uint16_t boots)
{
    for (uint16_t pot = 0; pot < POTS; pot++)
        held[pot] = 0;
    memset(stuck, 0xFF, sizeof stuck);
    memset(dead, 0, sizeof dead);
    clock_ms = 0;
    potboard_start(boots);
}

void host_adc(uint8_t channel, uint16_t code) { adc_codes[channel] = code; }

void host_fault(uint16_t pot, int32_t code, bool is_dead)
{
    stuck[pot] = code;
    dead[pot] = is_dead;
}

uint16_t host_code(uint16_t pot) { return stuck[pot] >= 0 ? (uint16_t)stuck[pot] : held[pot]; }

bool host_switch(uint8_t number) { return closed_switches[number]; }

int64_t host_source(uint8_t source) { return driven[source]; }

uint8_t host_latched(void) { return state.latched; }

void host_tick(uint32_t now)
{
    clock_ms = now;
    potboard_tick(now);
}

/* Take bytes, and return how many were sent in answer to `answer`. */
size_t host_feed(const uint8_t *bytes, size_t length, uint32_t now, uint8_t *answer)
{
    host_tick(now);
    sent_length = 0;
    while (length) {
        uint8_t count = (uint8_t)(length < 200 ? length : 200);
        potboard_bytes(bytes, count, now);
        bytes += count;
        length -= count;
    }
    if (answer != NULL)
        memcpy(answer, sent, sent_length);
    return sent_length;
}
