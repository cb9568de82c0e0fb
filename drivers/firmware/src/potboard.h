/* The pot board, version 1.1 of its protocol (docs/potboard-protocol.md): what the files share.
 *
 * protocol.c and text.c know the protocol and no hardware; they call the functions under "The board", which pots.c
 * and avr.c provide on a microcontroller. */
#ifndef POTBOARD_H
#define POTBOARD_H

#include "platform.h"

#ifndef PROTOCOL_MAJOR
#define PROTOCOL_MAJOR 1
#endif
#define PROTOCOL_MINOR 1

#define FRAME_LIMIT 250
#define RECEIVE_WINDOW 255 /* bytes that may wait; a ring of 256 */

#define UNKNOWN 0xFFFF /* code of a pot that cannot be told; detail of a refusal that is about no pot or channel */
#define NO_SWITCH 0xFF
#define FLOATING INT64_MIN

enum status {
    OK,
    LENGTH,
    RANGE,
    OPCODE,
    STAGE_CRC,
    VERIFY,
    BUS,
    BUSY,
    SAFE,
    VERSION,
    OVERFLOW,
    GREETING,
};

enum reason { REASON_NONE, REASON_HOST, REASON_WATCHDOG, REASON_FAULT };

/* Flags of a group of pots, as DESC reports them. */
enum { READABLE = 1, NONVOLATILE = 2, COUNTER = 8 };

/* Tables of wiring.h, in program memory. */

struct pot_group {
    uint16_t first, count, highest, power_on, safe;
    uint8_t flags;
    char chip[12];
};

struct adc_group {
    uint8_t first, count, bits;
    uint32_t zero;
    int64_t span; /* nanovolts over 2^bits codes */
    uint32_t conversion; /* microseconds for one reading */
};

struct source {
    uint8_t owned_switch;
    int64_t lowest, highest; /* nanovolts */
};

/* What the main loop calls. Milliseconds may wrap around. */

void potboard_start(uint16_t boots);
void potboard_bytes(const uint8_t *bytes, uint8_t count, uint32_t now);
void potboard_receive(void); /* the rest of a frame that has begun, as its bytes come */
void potboard_lost(void); /* bytes were lost before the next one */
void potboard_tick(uint32_t now);

/* The board. */

/* Runs of pots of one group. They return for how many the chips answered: fewer than count if the next one did not.
 * held: where counters stand, or UNKNOWN; it becomes what has been written. */
uint8_t pots_write(uint16_t first, uint8_t count, const uint16_t *codes, uint16_t *held);
/* Each pot is read back at once: for how many that was right. 0 where it is not the quick way. */
uint8_t pots_write_checked(uint16_t first, uint8_t count, const uint16_t *codes);
uint8_t pots_read(uint16_t first, uint8_t count, uint16_t *codes);
void pots_unlock(void);
/* Readings of channels one after the other, each so many times: as many as are begun are fetched. */
void adc_begin(uint8_t first, uint8_t count, uint16_t averages);
uint16_t adc_next(void); /* waits for it */
void source_set(uint8_t source, int64_t nanovolts);
void switch_set(uint8_t number, bool closed);
void settle_start(void); /* now something has changed */
void settle_wait(uint32_t microseconds); /* until so long after it */
uint32_t milliseconds(void);
/* Instead of potboard_bytes within a frame: a byte, or nothing so far, or a stop when it is the main loop's turn. */
enum { SERIAL_NOTHING = -1, SERIAL_STOP = -2 };
void serial_poll(bool on);
int16_t serial_next(void);
void serial_send(uint8_t byte); /* waits until it can */
void serial_stream(const uint8_t *bytes, uint8_t end); /* bytes up to end may go; end grows, until they are flushed */
void serial_flush(void); /* waits until what was streamed has gone */
bool serial_baud(uint32_t baud); /* whether it can; it changes once everything has been sent */
uint32_t serial_baud_now(void);

/* Between protocol.c and text.c. */

extern struct state {
    uint16_t boots;
    uint16_t crc_errors, overflows, replays, expiries;
    uint16_t watchdog; /* milliseconds, 0: not armed */
    uint32_t heard; /* milliseconds of the last sign of life */
    uint8_t signs; /* of life, so far; wraps around */
    uint8_t latched;
    bool binary, greeted;
} state;

extern uint16_t refused_at; /* detail of the last status that was not OK */

uint8_t write_pot(uint16_t pot, uint16_t code);
uint8_t read_pot(uint16_t pot, uint16_t *code);
uint8_t check_level(uint8_t source, int64_t nanovolts);
void set_level(uint8_t source, int64_t nanovolts);
bool source_connected(uint8_t source);
int64_t source_level(uint8_t source);
bool switch_closed(uint8_t number);
void set_switch(uint8_t number, bool closed);
void apply_outputs(void);
void make_safe(uint8_t reason);
void adc_group_of(uint8_t channel, struct adc_group *group);

void text_start(void);
void text_byte(uint8_t byte, uint32_t now);
void text_line(const uint8_t *line, uint8_t length, void (*print)(char));
void text_forget(void); /* the beginning of a line */

#endif
