/* Frames and requests. Every number that comes from the wire is checked before anything is done with it. */
#include "crc.h"
#include "potboard.h"
#include "wiring.h"

#define OVERHEAD 4 /* T, SEQ and two bytes of CRC */
#define GAP 50 /* milliseconds of silence after which the beginning of a frame is forgotten */
#define REPLY 0x80

#if FRAME_LIMIT > 253
#error "COBS blocks of 254 bytes are not written here"
#endif

enum opcode {
    NOTICE = 0x00,
    HELLO = 0x01,
    DESC = 0x02,
    COUNTERS = 0x03,
    STAGE = 0x10,
    COMMIT = 0x11,
    WRITE = 0x12,
    READ = 0x13,
    SCAN = 0x20,
    STEP = 0x21,
    SOURCE = 0x30,
    SWITCH = 0x31,
    WATCHDOG = 0x40,
    SAFE_STATE = 0x41,
    TEXT = 0x7E,
    EXIT = 0x7F,
};

enum verdict { VERIFIED, UNVERIFIABLE, UNCHECKED };

struct state state;
uint16_t refused_at;

static uint16_t shadow[POTS]; /* code last written, UNKNOWN where a counter has not been homed */
static uint16_t staged[POTS]; /* UNKNOWN: nothing */
static uint16_t wanted[POTS]; /* the codes of one request, checked */
#if SOURCES
static int64_t levels[SOURCES];
#endif
#if SWITCHES
static bool closed[SWITCHES];
#endif

/* The frame that comes in, decoded as it comes. */
static struct {
    uint8_t bytes[FRAME_LIMIT];
    uint8_t length;
    uint8_t run; /* bytes left in the COBS block */
    bool begun, dropping;
    uint16_t crc;
    uint16_t last; /* milliseconds; their lower half is enough */
} in;

/* The reply that goes out, encoded as it grows; it stays here to be repeated. Bytes before `block`, whose length is not
 * known yet, may be sent. */
static struct {
    uint8_t bytes[FRAME_LIMIT + 2]; /* with the length of the first block, and the delimiter at the end */
    uint8_t length;
    uint8_t block; /* where the length of the block belongs */
    uint8_t status;
    uint16_t sum; /* the reply's own CRC so far */
    bool too_long;
    bool streamed; /* may go while it grows */
    bool stored;
    uint8_t seq;
    uint16_t crc; /* of the request */
} out;

/* Groups of pots are few and asked for in turn, so the last one is kept. */
static struct pot_group group;

static uint16_t get16(const uint8_t *at) { return (uint16_t)((at[0] << 8) | at[1]); }

static uint32_t get32(const uint8_t *at) { return (uint32_t)get16(at) << 16 | get16(at + 2); }

static int64_t get64(const uint8_t *at) { return (int64_t)((uint64_t)get32(at) << 32 | get32(at + 4)); }

/* A zero ends a block. */
static NOINLINE void end_block(void)
{
    const uint8_t length = out.length;
    out.bytes[out.block] = (uint8_t)(length - out.block);
    out.block = length;
    if (out.streamed)
        serial_stream(out.bytes, length);
}

/* Let the reply go while it grows. */
static void stream_reply(void)
{
    out.streamed = true;
    serial_stream(out.bytes, out.block);
}

static inline void encode(uint8_t value)
{
    if (value == 0)
        end_block();
    else
        out.bytes[out.length] = value;
    out.length++;
}

static void put8(uint8_t value)
{
    if (out.length < FRAME_LIMIT - 1) {
        encode(value);
        out.sum = crc_update(out.sum, value);
    } else {
        out.too_long = true;
    }
}

static NOINLINE void put16(uint16_t value)
{
    if (out.length >= FRAME_LIMIT - 2) {
        put8((uint8_t)(value >> 8));
        put8((uint8_t)value);
        return;
    }
    encode((uint8_t)(value >> 8));
    encode((uint8_t)value);
    out.sum = crc_update(crc_update(out.sum, (uint8_t)(value >> 8)), (uint8_t)value);
}

static void put32(uint32_t value)
{
    put16((uint16_t)(value >> 16));
    put16((uint16_t)value);
}

static void put64(uint64_t value)
{
    put32((uint32_t)(value >> 32));
    put32((uint32_t)value);
}

static void put_text(char letter) { put8((uint8_t)letter); }

static uint8_t refuse(uint8_t status, uint16_t detail)
{
    refused_at = detail;
    return status;
}

static void count_up(uint16_t *counter)
{
    if (*counter != UINT16_MAX)
        ++*counter;
}

/* Pots. */

static NOINLINE void other_group_of(uint16_t pot)
{
    for (uint8_t index = 0; index < POT_GROUPS; index++) {
        memcpy_P(&group, &pot_groups[index], sizeof group);
        if (pot - group.first < group.count)
            return;
    }
}

static inline void group_of(uint16_t pot)
{
    if ((uint16_t)(pot - group.first) >= group.count)
        other_group_of(pot);
}

/* Codes as a request has them: count of them for pots from first on, width bytes each. */
struct codes {
    uint16_t first, count;
    uint8_t width;
    const uint8_t *bytes;
};

static inline uint16_t crc_code(uint16_t crc, uint16_t pot, uint16_t code)
{
    crc = crc_update(crc, (uint8_t)(pot >> 8));
    crc = crc_update(crc, (uint8_t)pot);
    crc = crc_update(crc, (uint8_t)(code >> 8));
    return crc_update(crc, (uint8_t)code);
}

/* The echo of the codes of a request that is still coming in, as far as they are here: it takes longer than all else that
 * is done with them, and nothing is done with it before the whole frame has been checked. */
static struct {
    const uint8_t *at; /* the next code; NULL: not begun */
    uint16_t pot, sum;
    bool wide;
} echo;

static inline void echo_code(void)
{
    const uint8_t *at = echo.at;
    const uint8_t high = echo.wide ? *at++ : 0;
    const uint8_t low = *at++;
    const uint16_t pot = echo.pot;
    echo.at = at;
    echo.sum = crc_code(echo.sum, pot, (uint16_t)(high << 8 | low));
    echo.pot = (uint16_t)(pot + 1);
}

/* Take codes out of a request into `to`, one place a pot, after all of them have been checked. */
static uint8_t take_codes(const struct codes *set, uint16_t *to)
{
    const uint8_t *at = set->bytes;
    const bool wide = set->width == 2;
    uint16_t pot = set->first, left = set->count;
    while (left) {
        if (pot >= POTS)
            return refuse(RANGE, pot);
        group_of(pot);
        const uint16_t highest = group.highest;
        uint16_t here = (uint16_t)(group.first + group.count - pot); /* in the same group */
        if (here > left)
            here = left;
        left = (uint16_t)(left - here);
        uint16_t *place = wanted + pot;
        pot = (uint16_t)(pot + here);
        if (wide) {
            for (; here; here--, at += 2) {
                const uint16_t code = get16(at);
                if (code > highest)
                    return refuse(RANGE, (uint16_t)(pot - here));
                *place++ = code;
            }
        } else {
            const uint8_t most = highest > UINT8_MAX ? UINT8_MAX : (uint8_t)highest;
            for (uint8_t few = (uint8_t)here; few; few--) {
                const uint8_t code = *at++;
                if (code > most)
                    return refuse(RANGE, (uint16_t)(pot - few));
                *place++ = code;
            }
        }
    }
    if (to != wanted)
        memcpy(to + set->first, wanted + set->first, set->count * sizeof *to);
    return OK;
}

static uint16_t crc_codes(uint16_t crc, const uint16_t *codes, uint16_t first, uint16_t length)
{
    for (uint16_t pot = first; length; pot++, codes++, length--)
        if (*codes != UNKNOWN)
            crc = crc_code(crc, pot, *codes);
    return crc;
}

/* Codes of pots from first on that are written one after the other. Where it has gaps, UNKNOWN ones are left out. */
struct run {
    const uint16_t *codes;
    uint16_t first, length;
    bool gaps;
};

#define CHUNK 16 /* pots that are read back at once */

/* Move on to the next pots of one group that can be done at once, and return how many: 0 when nothing is left. */
static inline uint8_t next_piece(struct run *left, uint8_t most)
{
    if (left->gaps)
        for (; left->length && *left->codes == UNKNOWN; left->length--) {
            left->codes++;
            left->first++;
        }
    if (left->length == 0)
        return 0;
    group_of(left->first);
    uint16_t room = (uint16_t)(group.first + group.count - left->first);
    if (room > left->length)
        room = left->length;
    const uint8_t at_most = room > most ? most : (uint8_t)room;
    uint8_t count = at_most;
    if (left->gaps)
        for (count = 1; count < at_most && left->codes[count] != UNKNOWN;)
            count++;
    return count;
}

static inline void go_on(struct run *left, uint8_t count)
{
    left->codes += count;
    left->first = (uint16_t)(left->first + count);
    left->length = (uint16_t)(left->length - count);
}

static NOINLINE uint8_t pot_failed(uint8_t status, uint16_t pot)
{
    make_safe(REASON_FAULT);
    return refuse(status, pot);
}

/* What the last write did. The echo of what has been verified is the CRC of what was written, and waits. */
static struct {
    uint16_t count, echo;
    uint8_t verdict;
} written;

/* Read back what can be read. */
static NOINLINE uint8_t check_codes(struct run left, bool verify)
{
    uint16_t held[CHUNK];
    written.count = 0;
    for (uint8_t count; (count = next_piece(&left, CHUNK)) != 0; go_on(&left, count)) {
        const uint16_t *found = left.codes;
        if (group.flags & READABLE) {
            const uint8_t done = pots_read(left.first, count, held);
            if (verify) {
                const uint16_t *code = left.codes;
                for (uint8_t index = 0; index < done; index++)
                    if (held[index] != *code++)
                        return pot_failed(VERIFY, (uint16_t)(left.first + index));
            }
            if (done < count)
                return pot_failed(BUS, (uint16_t)(left.first + done));
            found = held;
        } else if (verify) {
            written.verdict = UNVERIFIABLE;
        }
        written.count = (uint16_t)(written.count + count);
        if (!verify)
            written.echo = crc_codes(written.echo, found, left.first, count);
    }
    return OK;
}

/* What a request has written, to be noted while its reply travels. */
static struct run unnoted;

/* Keep in mind what has been written, where pots_write has not done so. */
static void note_codes(const struct run *run)
{
    uint16_t *to = shadow + run->first;
    const uint16_t *codes = run->codes;
    for (uint16_t left = run->length; left; left--, codes++, to++)
        if (*codes != UNKNOWN)
            *to = *codes;
}

/* Write codes and, unless all of them could be verified on the way, read back what can be read. They are to be noted
 * afterwards. */
static uint8_t write_codes(const struct run *run, bool verify)
{
    struct run left = *run;
    bool held = verify; /* so far */
    written.count = 0;
    written.echo = CRC_START;
    written.verdict = verify ? VERIFIED : UNCHECKED;
    for (uint8_t count; (count = next_piece(&left, UINT8_MAX)) != 0; go_on(&left, count)) {
        uint16_t *at = shadow + left.first;
        uint8_t done = held && group.flags & READABLE ? pots_write_checked(left.first, count, left.codes) : 0;
        if (done < count) {
            held = false;
            done += pots_write((uint16_t)(left.first + done), (uint8_t)(count - done), left.codes + done, at + done);
        }
        if (done < count)
            return pot_failed(BUS, (uint16_t)(left.first + done));
        written.count = (uint16_t)(written.count + count);
    }
    settle_start();
    return held ? OK : check_codes(*run, verify);
}

uint8_t write_pot(uint16_t pot, uint16_t code)
{
    group_of(pot);
    if (code > group.highest)
        return refuse(RANGE, pot);
    const struct run run = {&code, pot, 1, false};
    const uint8_t status = write_codes(&run, true);
    if (status == OK)
        note_codes(&run);
    return status;
}

static void put_written(const struct run *run)
{
    put16(written.count);
    put8(written.verdict);
    if (written.verdict != UNCHECKED) {
        const uint16_t done = echo.at == NULL ? 0 : (uint16_t)(echo.pot - run->first);
        written.echo = done ? echo.sum : CRC_START;
        for (uint16_t at = done; at < run->length; at += 2) { /* two at a time, so that the line does not fall idle */
            const uint16_t few = at + 1 < run->length ? 2 : 1;
            written.echo = crc_codes(written.echo, run->codes + at, (uint16_t)(run->first + at), few);
            if (out.streamed)
                serial_stream(out.bytes, out.block);
        }
    }
    put16(written.echo);
}

uint8_t read_pot(uint16_t pot, uint16_t *code)
{
    group_of(pot);
    *code = UNKNOWN;
    if (group.flags & READABLE && pots_read(pot, 1, code) == 0) {
        *code = UNKNOWN;
        return refuse(BUS, pot);
    }
    return OK;
}

static void forget_stage(void)
{
    memset(staged, 0xFF, sizeof staged);
}

static uint8_t stage(const struct codes *set)
{
    uint8_t status = take_codes(set, staged);
    if (status != OK)
        return status;
    uint16_t count = 0;
    for (uint16_t pot = 0; pot < POTS; pot++)
        count = (uint16_t)(count + (staged[pot] != UNKNOWN));
    put16(count);
    return OK;
}

struct scan {
    uint8_t first, count, width;
    uint16_t averages;
    bool scatter;
};

#if ADC_MOST_BITS > 14
#error "a single reading fits each width of SCAN"
#endif

/* A width of SCAN: two bytes of seven bits each, none of which is zero. */
#define SEVENS 7

/* The request that is carried out, decoded. */
static struct {
    struct codes codes;
    struct scan scan;
    uint32_t settling;
    uint16_t crc;
    uint8_t verify;
    const uint8_t *pairs; /* levels or switches */
    uint8_t pair_count;
} request;

static uint8_t commit(uint16_t crc, bool verify)
{
    const struct run run = {staged, 0, POTS, true};
    if (crc_codes(CRC_START, staged, 0, POTS) != crc)
        return refuse(STAGE_CRC, UNKNOWN);
    const uint8_t status = write_codes(&run, verify);
    if (status != OK)
        return status;
    settle_wait(request.settling);
    put_written(&run);
    note_codes(&run);
    forget_stage();
    return OK;
}

static uint8_t read_pots(uint16_t first, uint16_t count, bool from_shadow)
{
    if (count == 0 || first > POTS || count > POTS - first)
        return refuse(RANGE, POTS);
    for (uint16_t pot = first; pot < first + count; pot++) {
        uint16_t code = shadow[pot];
        if (!from_shadow) {
            uint8_t status = read_pot(pot, &code);
            if (status != OK)
                return status;
        }
        put16(code);
    }
    return OK;
}

/* Sources and switches. */

#if SOURCES
static void get_source(uint8_t source, struct source *description)
{
    memcpy_P(description, &sources[source], sizeof *description);
}
#endif

uint8_t check_level(uint8_t source, int64_t nanovolts)
{
#if SOURCES
    if (source < SOURCES) {
        struct source description;
        get_source(source, &description);
        if (nanovolts == FLOATING ? description.owned_switch != NO_SWITCH
                                  : nanovolts >= description.lowest && nanovolts <= description.highest)
            return OK;
    }
#else
    (void)nanovolts;
#endif
    return refuse(RANGE, source);
}

void set_level(uint8_t source, int64_t nanovolts)
{
#if SOURCES
    struct source description;
    get_source(source, &description);
    set_switch(description.owned_switch, nanovolts != FLOATING);
    if (nanovolts != FLOATING)
        levels[source] = nanovolts;
#else
    (void)source;
    (void)nanovolts;
#endif
}

int64_t source_level(uint8_t source)
{
#if SOURCES
    return levels[source];
#else
    return source * 0;
#endif
}

bool source_connected(uint8_t source)
{
#if SOURCES
    struct source description;
    get_source(source, &description);
    return description.owned_switch == NO_SWITCH || switch_closed(description.owned_switch);
#else
    return source != source;
#endif
}

bool switch_closed(uint8_t number)
{
#if SWITCHES
    return number < SWITCHES && closed[number];
#else
    return number != number;
#endif
}

void set_switch(uint8_t number, bool to_closed)
{
#if SWITCHES
    if (number < SWITCHES)
        closed[number] = to_closed;
#else
    (void)number;
    (void)to_closed;
#endif
}

/* What is to be open is opened first, so that two sources never meet on the way. */
void apply_outputs(void)
{
#if SWITCHES
    for (uint8_t number = 0; number < SWITCHES; number++)
        if (!closed[number])
            switch_set(number, false);
#endif
#if SOURCES
    for (uint8_t source = 0; source < SOURCES; source++)
        source_set(source, levels[source]);
#endif
#if SWITCHES
    for (uint8_t number = 0; number < SWITCHES; number++)
        if (closed[number])
            switch_set(number, true);
#endif
    settle_start();
}

static uint8_t check_levels(const uint8_t *at, uint8_t count)
{
    for (; count; count--, at += 9) {
        uint8_t status = check_level(at[0], get64(at + 1));
        if (status != OK)
            return status;
    }
    return OK;
}

static void drive(const uint8_t *at, uint8_t count)
{
    if (count == 0)
        return;
    for (; count; count--, at += 9)
        set_level(at[0], get64(at + 1));
    apply_outputs();
}

static uint8_t set_switches(const uint8_t *at, uint8_t count)
{
    for (uint8_t index = 0; index < count; index++)
#if SWITCHES
        if (at[2 * index] >= SWITCHES)
#endif
            return refuse(RANGE, at[2 * index]);
    for (uint8_t index = 0; index < count; index++)
        set_switch(at[2 * index], at[2 * index + 1]);
    apply_outputs();
    return OK;
}

static void outputs_off(void)
{
#if SOURCES
    memset(levels, 0, sizeof levels);
#endif
#if SWITCHES
    memset(closed, 0, sizeof closed);
#endif
    apply_outputs();
}

/* A chip that does not answer cannot be helped here: the outputs are off, and the next write tells. */
void make_safe(uint8_t reason)
{
    outputs_off();
    for (uint16_t pot = 0; pot < POTS; pot++) {
        group_of(pot);
        if (pots_write(pot, 1, &group.safe, shadow + pot) == 0)
            shadow[pot] = group.safe;
    }
    state.latched = reason;
}

/* ADC. */

void adc_group_of(uint8_t channel, struct adc_group *found)
{
#if ADCS
    for (uint8_t index = 0; index < ADC_GROUPS; index++) {
        memcpy_P(found, &adc_groups[index], sizeof *found);
        if (channel - found->first < found->count)
            return;
    }
#else
    (void)channel;
    (void)found;
#endif
}

#if ADCS
/* Whether sums of several readings fit two bytes, or twice seven bits; single ones do. */
static NOINLINE uint8_t check_sums(const struct scan *scan)
{
    const uint32_t room = UINT32_C(1) << (scan->width == SEVENS ? 14 : 16);
    const struct adc_group *adc = adc_groups;
    for (uint8_t channel = scan->first; channel < scan->first + scan->count; adc++) {
        const uint8_t after = (uint8_t)(pgm_read_byte(&adc->first) + pgm_read_byte(&adc->count));
        if (channel >= after)
            continue;
        if (scan->averages * ((UINT32_C(1) << pgm_read_byte(&adc->bits)) - 1) >= room)
            return refuse(RANGE, channel);
        channel = after;
    }
    return OK;
}
#endif

static uint8_t check_scan(const struct scan *scan, uint8_t before)
{
    if (scan->count == 0 || scan->first > ADCS || scan->count > ADCS - scan->first)
        return refuse(RANGE, ADCS);
#if ADCS
    if (scan->averages > 1 && scan->width != 4 && scan->width != 8) {
        const uint8_t status = check_sums(scan);
        if (status != OK)
            return status;
    }
#endif
    const bool sevens = scan->width == SEVENS;
    const uint8_t each = (uint8_t)(sevens ? 2 : scan->width + (scan->scatter ? 8 : 0));
    if (before + 3 + sevens + scan->count * each > FRAME_LIMIT - OVERHEAD)
        return refuse(LENGTH, UNKNOWN);
    return OK;
}

static void put_sums(const struct scan *scan)
{
    uint32_t total = 0;
    uint64_t squares = 0;
    for (uint16_t left = scan->averages; left; left--) {
        uint16_t code = adc_next();
        total += code;
        if (scan->scatter)
            squares += (uint32_t)code * code;
    }
    if (scan->width == 8)
        put32(0);
    if (scan->width >= 4)
        put16((uint16_t)(total >> 16));
    put16((uint16_t)total);
    if (scan->scatter) {
        /* The sum of (code − mean)² in whole numbers, rounded. */
        squares = scan->averages * squares - (uint64_t)total * total;
        put64((squares + scan->averages / 2) / scan->averages);
    }
}

/* Sums without a zero byte: the length of their block is known before them, so each of them may go at once. */
static void put_sevens(const struct scan *scan)
{
    uint8_t left = scan->count;
    out.bytes[out.block] = (uint8_t)(2 * left + 1);
    for (; left; left--) {
        uint16_t total = adc_next();
        for (uint16_t more = scan->averages; --more;)
            total = (uint16_t)(total + adc_next());
        const uint8_t length = out.length;
        const uint8_t high = (uint8_t)(0x80 | total >> 7), low = (uint8_t)(0x80 | total);
        out.bytes[length] = high;
        out.bytes[length + 1] = low;
        out.length = (uint8_t)(length + 2);
        serial_stream(out.bytes, (uint8_t)(length + 2));
        out.sum = crc_update(crc_update(out.sum, high), low);
    }
    put8(0);
}

/* Take the readings that have been begun. */
static void scan_channels(const struct scan *scan)
{
    put8(scan->width);
    put8(scan->scatter);
    if (scan->width == SEVENS)
        put_sevens(scan);
    else
        for (uint8_t left = scan->count; left; left--)
            put_sums(scan);
}

/* Requests: decoded first, then carried out. */

static uint8_t decode_codes(const uint8_t *at, uint8_t length)
{
    if (request.codes.width != 1 && request.codes.width != 2)
        return RANGE;
    if (length == 0 || (length & (request.codes.width - 1)))
        return LENGTH;
    request.codes.bytes = at;
    request.codes.count = request.codes.width == 2 ? length / 2 : length;
    return OK;
}

static uint8_t decode_write(const uint8_t *at, uint8_t length)
{
    if (length < 8)
        return LENGTH;
    request.codes.first = get16(at);
    request.codes.width = at[2];
    request.verify = at[3];
    request.settling = get32(at + 4);
    uint8_t status = decode_codes(at + 8, (uint8_t)(length - 8));
    if (status != OK)
        return status;
    return request.verify > 1 ? RANGE : OK;
}

static uint8_t decode_scan(const uint8_t *at, uint8_t length)
{
    if (length != 6)
        return LENGTH;
    request.scan.first = at[0];
    request.scan.count = at[1];
    request.scan.averages = get16(at + 2);
    request.scan.width = at[4];
    request.scan.scatter = at[5];
    if ((at[4] != 2 && at[4] != 4 && at[4] != 8 && at[4] != SEVENS) || request.scan.averages == 0 || at[5] > 1 ||
        (at[4] == SEVENS && at[5]))
        return RANGE;
    return OK;
}

static uint8_t decode_step(const uint8_t *at, uint8_t length)
{
    if (length < 9)
        return LENGTH;
    uint16_t count = get16(at);
    request.pair_count = at[2];
    uint8_t status = decode_scan(at + 3, 6);
    if (status != OK)
        return status;
    request.pairs = at + 9;
    if (length - 9 < 9 * request.pair_count)
        return LENGTH;
    uint8_t before = (uint8_t)(9 + 9 * request.pair_count);
    status = decode_write(at + before, (uint8_t)(length - before));
    if (status != OK)
        return status;
    return request.codes.count == count ? OK : LENGTH;
}

static uint8_t decode_pairs(const uint8_t *at, uint8_t length, uint8_t size)
{
    if (length < 4 || (length - 4) % size)
        return LENGTH;
    request.settling = get32(at);
    request.pairs = at + 4;
    request.pair_count = (uint8_t)((length - 4) / size);
    return OK;
}

static uint8_t decode(uint8_t opcode, const uint8_t *at, uint8_t length)
{
    uint8_t status;
    switch (opcode) {
    case HELLO:
        return length < 2 ? LENGTH : OK;
    case DESC:
        return length != 2 ? LENGTH : at[0] > 2 ? RANGE : OK;
    case COUNTERS:
    case EXIT:
        return length ? LENGTH : OK;
    case STAGE:
        if (length < 3)
            return LENGTH;
        request.codes.first = get16(at);
        request.codes.width = at[2];
        return decode_codes(at + 3, (uint8_t)(length - 3));
    case COMMIT:
        if (length != 7)
            return LENGTH;
        request.crc = get16(at);
        request.verify = at[2];
        request.settling = get32(at + 3);
        return request.verify > 1 ? RANGE : OK;
    case WRITE:
        return decode_write(at, length);
    case READ:
        return length != 5 ? LENGTH : at[4] > 1 ? RANGE : OK;
    case SCAN:
        return decode_scan(at, length);
    case STEP:
        return decode_step(at, length);
    case SOURCE:
        return decode_pairs(at, length, 9);
    case SWITCH:
        status = decode_pairs(at, length, 2);
        for (uint8_t index = 0; status == OK && index < request.pair_count; index++)
            if (request.pairs[2 * index + 1] > 1)
                status = RANGE;
        return status;
    case WATCHDOG:
        return length != 2 ? LENGTH : OK;
    case SAFE_STATE:
        return length != 1 ? LENGTH : at[0] > 2 ? RANGE : OK;
    case TEXT:
        return OK;
    default:
        return OPCODE;
    }
}

static uint8_t hello(uint8_t major)
{
    static const char identity[] PROGMEM = IDENTITY;
    if (major != PROTOCOL_MAJOR)
        return refuse(VERSION, PROTOCOL_MAJOR << 8 | PROTOCOL_MINOR);
    state.greeted = true;
    forget_stage();
    out.stored = false;
    put8(PROTOCOL_MAJOR);
    put8(PROTOCOL_MINOR);
    put16(state.boots);
    put16(POTS);
    put8(POT_GROUPS);
    put8(ADCS);
    put8(ADC_GROUPS);
    put8(SOURCES);
    put8(SWITCHES);
    put16(FRAME_LIMIT);
    put16(RECEIVE_WINDOW);
    put8(state.latched);
    for (uint8_t index = 0; index < sizeof identity - 1; index++)
        put8(pgm_read_byte(&identity[index]));
    return OK;
}

static uint8_t describe(uint8_t kind, uint8_t index)
{
    if (kind == 0 && index < POT_GROUPS) {
        memcpy_P(&group, &pot_groups[index], sizeof group);
        put8(kind);
        put16(group.first);
        put16(group.count);
        put16(group.highest);
        put16(group.power_on);
        put16(group.safe);
        put8(group.flags);
        for (const char *letter = group.chip; *letter; letter++)
            put_text(*letter);
        return OK;
    }
#if ADCS
    if (kind == 1 && index < ADC_GROUPS) {
        struct adc_group adc;
        memcpy_P(&adc, &adc_groups[index], sizeof adc);
        put8(kind);
        put8(adc.first);
        put8(adc.count);
        put8(adc.bits);
        put32(adc.zero);
        put64((uint64_t)adc.span);
        put32(adc.conversion);
        return OK;
    }
#endif
#if SOURCES
    if (kind == 2 && index < SOURCES) {
        struct source description;
        get_source(index, &description);
        put8(kind);
        put8(description.owned_switch);
        put64((uint64_t)description.lowest);
        put64((uint64_t)description.highest);
        return OK;
    }
#endif
    return refuse(RANGE, index);
}

static void begin_scan(const struct scan *scan) { adc_begin(scan->first, scan->count, scan->averages); }

/* Carry out a WRITE, or a STEP with levels and a scan. */
static uint8_t write_or_step(bool step)
{
    const struct codes *set = &request.codes;
    uint8_t status = take_codes(set, wanted);
    if (status == OK && step)
        status = check_levels(request.pairs, request.pair_count);
    if (status == OK && step)
        status = check_scan(&request.scan, 5);
    if (status != OK)
        return status;
    const struct run run = {wanted + set->first, set->first, set->count, false};
    status = write_codes(&run, request.verify);
    if (status != OK)
        return status;
    if (step)
        drive(request.pairs, request.pair_count);
    settle_wait(request.settling);
    if (step) {
        begin_scan(&request.scan);
        stream_reply(); /* all that could be refused has been checked */
    }
    put_written(&run);
    if (step)
        scan_channels(&request.scan);
    unnoted = run;
    return OK;
}

/* Carry out what the latched safe state refuses. */
static uint8_t move(uint8_t opcode)
{
    if (state.latched != REASON_NONE)
        return refuse(SAFE, state.latched);
    uint8_t status = OK;
    switch (opcode) {
    case COMMIT:
        return commit(request.crc, request.verify);
    case WRITE:
    case STEP:
        return write_or_step(opcode == STEP);
    case SOURCE:
        status = check_levels(request.pairs, request.pair_count);
        if (status == OK)
            drive(request.pairs, request.pair_count);
        break;
    default:
        status = set_switches(request.pairs, request.pair_count);
        break;
    }
    if (status != OK)
        return status;
    settle_wait(request.settling);
    return OK;
}

static uint8_t execute(uint8_t opcode, uint8_t seq, const uint8_t *at, uint8_t length)
{
    refused_at = UNKNOWN;
    uint8_t status = decode(opcode, at, length);
    if (status != OK)
        return status;
    if ((opcode == HELLO) != (seq == 0))
        return RANGE;
    if (!state.greeted && opcode != HELLO)
        return GREETING;
    switch (opcode) {
    case HELLO:
        return hello(at[0]);
    case DESC:
        return describe(at[0], at[1]);
    case COUNTERS:
        put16(state.crc_errors);
        put16(state.overflows);
        put16(state.replays);
        put16(state.expiries);
        return OK;
    case STAGE:
        return stage(&request.codes);
    case READ:
        return read_pots(get16(at), get16(at + 2), at[4]);
    case SCAN:
        status = check_scan(&request.scan, 0);
        if (status == OK) {
            begin_scan(&request.scan);
            stream_reply();
            scan_channels(&request.scan);
        }
        return status;
    case WATCHDOG:
        state.watchdog = get16(at);
        put16(state.watchdog);
        put8(state.latched);
        return OK;
    case SAFE_STATE:
        if (at[0] == 0)
            outputs_off();
        else if (at[0] == 1)
            make_safe(REASON_HOST);
        else
            state.latched = REASON_NONE;
        put8(state.latched);
        return OK;
    case TEXT:
        text_line(at, length, put_text);
        return OK;
    case EXIT:
        state.watchdog = 0;
        outputs_off();
        serial_baud(BAUD);
        return OK;
    default:
        return move(opcode);
    }
}

/* Frames. */

/* Send what follows the opening delimiter. */
static void send_frame(const uint8_t *bytes, uint8_t length)
{
    uint8_t start = 0;
    for (;;) {
        uint8_t end = start;
        while (end < length && bytes[end] != 0)
            end++;
        serial_send((uint8_t)(end - start + 1));
        for (; start < end; start++)
            serial_send(bytes[start]);
        if (end == length)
            break;
        start++;
    }
    serial_send(0);
}

/* A refusal beside the stored reply, which stays as it is. */
static void send_refusal(uint8_t opcode, uint8_t seq, uint8_t status)
{
    uint8_t bytes[7] = {opcode | REPLY, seq, status, (uint8_t)(refused_at >> 8), (uint8_t)refused_at};
    uint16_t crc = CRC_START;
    for (uint8_t index = 0; index < 5; index++)
        crc = crc_update(crc, bytes[index]);
    bytes[5] = (uint8_t)(crc >> 8);
    bytes[6] = (uint8_t)crc;
    send_frame(bytes, sizeof bytes);
}

static void begin_reply(uint8_t opcode, uint8_t seq, uint8_t status)
{
    serial_flush();
    out.block = 0;
    out.length = 1;
    out.status = status;
    out.too_long = out.streamed = false;
    out.sum = CRC_START;
    put16((uint16_t)((opcode | REPLY) << 8 | seq));
    put8(status);
}

static void end_reply(void)
{
    const uint16_t sum = out.sum;
    encode((uint8_t)(sum >> 8));
    encode((uint8_t)sum);
    encode(0);
    out.bytes[out.block] = 0; /* no further block, but the delimiter */
}

static void answer(uint16_t crc)
{
    uint8_t opcode = in.bytes[0], seq = in.bytes[1];
    serial_send(0); /* travels while the request is carried out */
    if (seq && out.stored && out.seq == seq && out.crc == crc) {
        count_up(&state.replays);
        serial_stream(out.bytes, out.length);
    } else if (seq == 0 && opcode != HELLO) {
        /* Nothing that could be repeated, so what is stored stays. */
        refused_at = UNKNOWN;
        uint8_t status = decode(opcode, in.bytes + 2, (uint8_t)(in.length - OVERHEAD));
        if (opcode == COMMIT)
            forget_stage();
        send_refusal(opcode, seq, status == OK ? RANGE : status);
    } else if (seq == 0 && (in.length < OVERHEAD + 2 || in.bytes[2] != PROTOCOL_MAJOR)) {
        refused_at = in.length < OVERHEAD + 2 ? UNKNOWN : PROTOCOL_MAJOR << 8 | PROTOCOL_MINOR;
        send_refusal(opcode, seq, in.length < OVERHEAD + 2 ? LENGTH : VERSION);
    } else {
        begin_reply(opcode, seq, OK);
        uint8_t status = execute(opcode, seq, in.bytes + 2, (uint8_t)(in.length - OVERHEAD));
        if (status == OK && out.too_long) {
            status = LENGTH;
            refused_at = UNKNOWN;
        }
        if (status != OK) {
            if (opcode == COMMIT)
                forget_stage();
            begin_reply(opcode, seq, status);
            put16(refused_at);
        }
        end_reply();
        out.stored = seq != 0;
        out.seq = seq;
        out.crc = crc;
        serial_stream(out.bytes, out.length);
        note_codes(&unnoted);
        unnoted.length = 0;
    }
    if (opcode == EXIT && seq && out.status == OK) {
        state.binary = false;
        text_forget();
    }
}

static void forget_frame(void)
{
    in.length = in.run = 0;
    in.begun = in.dropping = false;
    in.crc = CRC_START;
    echo.at = NULL;
}

static NOINLINE void report_overflow(void)
{
    count_up(&state.overflows);
    refused_at = UNKNOWN;
    serial_send(0);
    send_refusal(NOTICE, 0, OVERFLOW);
    forget_frame();
    in.dropping = true;
}

static NOINLINE void end_of_frame(void)
{
    if (in.begun) {
        /* The CRC over data and CRC is 0, because it is sent most significant byte first. */
        if (in.run == 0 && in.length >= OVERHEAD && in.crc == 0) {
            answer(get16(in.bytes + in.length - 2));
            state.heard = milliseconds();
            state.signs++;
        } else {
            count_up(&state.crc_errors);
        }
    }
    forget_frame();
}

static void frame_byte(uint8_t byte)
{
    if (byte == 0) {
        end_of_frame();
    } else if (in.dropping) {
        return;
    } else if (in.length == FRAME_LIMIT) {
        report_overflow();
    } else if (!in.begun) {
        in.begun = true;
        in.run = (uint8_t)(byte - 1);
    } else {
        if (in.run) {
            in.run--;
        } else {
            in.run = (uint8_t)(byte - 1);
            byte = 0; /* that the last block stands for, now that another one follows */
        }
        in.bytes[in.length++] = byte;
        in.crc = crc_update(in.crc, byte);
    }
}

/* Work on what has come of a frame: what is left to do when it is complete is less then. The last two bytes so far may
 * be its CRC. */
static void work_ahead(void)
{
    const uint8_t opcode = in.bytes[0], length = in.length;
    if (echo.at != NULL) {
        if (echo.at + echo.wide < in.bytes + length - 2)
            echo_code();
        return;
    }
    uint8_t head = 2;
    if (opcode == STEP && length > 4 && in.bytes[4] <= FRAME_LIMIT / 9 - 2)
        head = (uint8_t)(2 + 9 + 9 * in.bytes[4]);
    else if (opcode != WRITE)
        return;
    const uint8_t *at = in.bytes + head;
    if (length < head + 8 || (at[2] != 1 && at[2] != 2))
        return;
    echo.pot = get16(at);
    echo.wide = at[2] == 2;
    echo.sum = CRC_START;
    echo.at = at + 8;
}

/* What the main loop calls. */

void potboard_start(uint16_t boots)
{
    memset(&state, 0, sizeof state);
    state.boots = boots;
    out.stored = false;
    forget_frame();
    forget_stage();
    text_start();
    outputs_off();
    pots_unlock();
    /* A restart does not reset the chips, so they are brought to the codes the host is told. Counters stay where they
     * are, unknown, until the first write homes them. */
    for (uint16_t pot = 0; pot < POTS; pot++) {
        group_of(pot);
        shadow[pot] = UNKNOWN;
        if (!(group.flags & COUNTER)) {
            if (pots_write(pot, 1, &group.power_on, shadow + pot) == 0)
                shadow[pot] = group.power_on;
        }
    }
}

void potboard_bytes(const uint8_t *bytes, uint8_t count, uint32_t now)
{
    if ((uint16_t)((uint16_t)now - in.last) > GAP && (in.begun || in.dropping)) {
        if (!in.dropping)
            count_up(&state.crc_errors);
        forget_frame();
    }
    in.last = (uint16_t)now;
    for (const uint8_t *end = bytes + count; bytes < end; bytes++) {
        if (state.binary) {
            frame_byte(*bytes);
        } else if (*bytes == 0) {
            state.binary = true;
            forget_frame();
            text_forget();
        } else {
            text_byte(*bytes, now);
        }
    }
}

/* As frame_byte, with what changes kept in registers, and work between the bytes. */
void potboard_receive(void)
{
    if (!in.begun || !state.binary)
        return;
    serial_poll(true);
    uint16_t crc = in.crc;
    uint8_t length = in.length, run = in.run;
    int16_t came = SERIAL_STOP;
    while (length != FRAME_LIMIT && (came = serial_next()) != SERIAL_STOP && came != 0) {
        if (came == SERIAL_NOTHING) {
            in.length = length;
            work_ahead();
            continue;
        }
        uint8_t byte = (uint8_t)came;
        if (run) {
            run--;
        } else {
            run = (uint8_t)(byte - 1);
            byte = 0;
        }
        in.bytes[length++] = byte;
        crc = crc_update(crc, byte);
    }
    in.crc = crc;
    in.length = length;
    in.run = run;
    serial_poll(false);
    if (came == 0)
        end_of_frame();
}

void potboard_lost(void)
{
    if (state.binary)
        report_overflow();
}

void potboard_tick(uint32_t now)
{
    if (state.watchdog && now - state.heard > state.watchdog && (int32_t)(now - state.heard) > 0) {
        state.watchdog = 0;
        count_up(&state.expiries);
        make_safe(REASON_WATCHDOG);
        serial_baud(BAUD);
    }
}
