/* The protocol on a host: chips in memory, time and bytes handed in by the caller. */
#include "potboard.h"
#include "wiring.h"

#include <stdlib.h>

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

uint8_t pots_write(uint16_t first, uint8_t count, const uint16_t *codes, uint16_t *before)
{
    for (uint8_t index = 0; index < count; index++) {
        if (dead[first + index])
            return index;
        held[first + index] = before[index] = codes[index];
    }
    return count;
}

/* Of every other pot this is the quick way. */
uint8_t pots_write_checked(uint16_t first, uint8_t count, const uint16_t *codes)
{
    uint16_t noted;
    for (uint8_t index = 0; index < count; index++) {
        const uint8_t pot = (uint8_t)(first + index);
        if (pots_write(pot, first & 1 ? 0 : 1, codes + index, &noted) == 0 || stuck[pot] >= 0)
            return index;
    }
    return count;
}

uint8_t pots_read(uint16_t first, uint8_t count, uint16_t *codes)
{
    for (uint8_t index = 0; index < count; index++) {
        uint16_t pot = (uint16_t)(first + index);
        if (dead[pot])
            return index;
        codes[index] = stuck[pot] >= 0 ? (uint16_t)stuck[pot] : held[pot];
    }
    return count;
}

void pots_unlock(void) {}

/* As many readings as are asked for are to be fetched. */
static uint8_t adc_channel, adc_channels;
static uint16_t adc_averages, adc_left;

void adc_begin(uint8_t first, uint8_t count, uint16_t averages)
{
    if (adc_channels)
        abort();
    adc_channel = first;
    adc_channels = count;
    adc_averages = adc_left = averages;
}

uint16_t adc_next(void)
{
    if (adc_channels == 0)
        abort();
    uint16_t code = adc_codes[adc_channel];
    if (--adc_left == 0) {
        adc_left = adc_averages;
        adc_channel++;
        adc_channels--;
    }
    return code;
}

void source_set(uint8_t source, int64_t nanovolts) { driven[source] = nanovolts; }

void switch_set(uint8_t number, bool closed) { closed_switches[number] = closed; }

void settle_start(void) {}

void settle_wait(uint32_t microseconds) { (void)microseconds; }

uint32_t milliseconds(void) { return clock_ms; }

/* Bytes that come one by one within a frame, with work ahead between them. */
static const uint8_t *coming;
static size_t coming_left;
static bool pause;

void serial_poll(bool on) { pause = on; }

int16_t serial_next(void)
{
    pause = !pause;
    if (!pause)
        return SERIAL_NOTHING;
    if (coming_left == 0)
        return SERIAL_STOP;
    coming_left--;
    return *coming++;
}

void serial_send(uint8_t byte)
{
    serial_flush();
    if (sent_length < MOST_SENT)
        sent[sent_length++] = byte;
}

/* What has been streamed must not change any more: it is compared when it is flushed. */
static uint8_t streamed[256];
static const uint8_t *stream;
static uint8_t stream_at;

void serial_stream(const uint8_t *bytes, uint8_t end)
{
    stream = bytes;
    for (; stream_at < end; stream_at++) {
        streamed[stream_at] = bytes[stream_at];
        if (sent_length < MOST_SENT)
            sent[sent_length++] = bytes[stream_at];
    }
}

void serial_flush(void)
{
    if (stream_at && memcmp(stream, streamed, stream_at))
        abort();
    stream_at = 0;
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
    coming = bytes;
    coming_left = length;
    while (coming_left) {
        uint8_t most = (uint8_t)(1 + coming_left % 5 * 9); /* as they come: one, or several at once */
        uint8_t count = (uint8_t)(coming_left < most ? coming_left : most);
        coming += count;
        coming_left -= count;
        potboard_bytes(coming - count, count, now);
        potboard_receive();
    }
    if (answer != NULL)
        memcpy(answer, sent, sent_length);
    return sent_length;
}
