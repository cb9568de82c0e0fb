/* Frames and requests. Every number that comes from the wire is checked before anything is done with it. */
#include "potboard.h"
#include "wiring.h"

#define OVERHEAD 4 /* T, SEQ and two bytes of CRC */
#define LONGEST_ENCODED (FRAME_LIMIT + 1)
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
    uint8_t encoded;
    uint8_t run; /* bytes left in the COBS block */
    bool zero; /* the block stands for a zero byte, if another one follows */
    bool dropping;
    uint16_t crc;
    uint16_t last; /* milliseconds; their lower half is enough */
} in;

/* The reply that goes out; it stays here to be repeated. */
static struct {
    uint8_t bytes[FRAME_LIMIT];
    uint8_t length;
    uint16_t sum; /* the reply's own CRC so far */
    bool too_long;
    bool stored;
    uint8_t seq;
    uint16_t crc; /* of the request */
} out;

/* Groups of pots are few and asked for in turn, so the last one is kept. */
static struct pot_group group;

static uint16_t get16(const uint8_t *at) { return (uint16_t)((at[0] << 8) | at[1]); }

static uint32_t get32(const uint8_t *at) { return (uint32_t)get16(at) << 16 | get16(at + 2); }

static int64_t get64(const uint8_t *at) { return (int64_t)((uint64_t)get32(at) << 32 | get32(at + 4)); }

static void put8(uint8_t value)
{
    if (out.length < FRAME_LIMIT - 2) {
        out.bytes[out.length++] = value;
        out.sum = crc_update(out.sum, value);
    } else {
        out.too_long = true;
    }
}

static void put16(uint16_t value)
{
    put8((uint8_t)(value >> 8));
    put8((uint8_t)value);
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

static void other_group_of(uint16_t pot)
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

/* Take codes out of a request into `to`, one place a pot, after all of them have been checked. */
static uint8_t take_codes(const struct codes *set, uint16_t *to)
{
    if (set->first >= POTS)
        return refuse(RANGE, set->first);
    const uint8_t *at = set->bytes;
    const uint16_t end = (uint16_t)(set->first + set->count);
    for (uint16_t pot = set->first; pot < end; pot++) {
        uint16_t code = *at++;
        if (set->width == 2)
            code = (uint16_t)(code << 8 | *at++);
        if (pot >= POTS)
            return refuse(RANGE, pot);
        group_of(pot);
        if (code > group.highest)
            return refuse(RANGE, pot);
        wanted[pot] = code;
    }
    if (to != wanted)
        memcpy(to + set->first, wanted + set->first, set->count * sizeof *to);
    return OK;
}

static inline uint16_t crc_code(uint16_t crc, uint16_t pot, uint16_t code)
{
    crc = crc_update(crc, (uint8_t)(pot >> 8));
    crc = crc_update(crc, (uint8_t)pot);
    crc = crc_update(crc, (uint8_t)(code >> 8));
    return crc_update(crc, (uint8_t)code);
}

/* What the last write_pots did. */
static struct {
    uint16_t count, echo;
    uint8_t verdict;
} written;

/* Write a run of codes back to back, leaving out UNKNOWN ones, then read back what can be read. */
static uint8_t write_pots(const uint16_t *codes, uint16_t first, uint16_t length, bool verify)
{
    const uint16_t end = (uint16_t)(first + length);
    const uint16_t *code = codes;
    for (uint16_t pot = first; pot < end; pot++, code++) {
        if (*code == UNKNOWN)
            continue;
        if (!pot_write(pot, *code, shadow[pot])) {
            make_safe(REASON_FAULT);
            return refuse(BUS, pot);
        }
        shadow[pot] = *code;
    }
    uint16_t count = 0, echo = CRC_START;
    uint8_t verdict = verify ? VERIFIED : UNCHECKED;
    code = codes;
    for (uint16_t pot = first; pot < end; pot++, code++) {
        uint16_t held = *code;
        if (held == UNKNOWN)
            continue;
        group_of(pot);
        if (group.flags & READABLE) {
            held = pot_read(pot);
            if (held != *code && (verify || held == UNKNOWN)) {
                make_safe(REASON_FAULT);
                return refuse(held == UNKNOWN ? BUS : VERIFY, pot);
            }
        } else if (verify) {
            verdict = UNVERIFIABLE;
        }
        count++;
        echo = crc_code(echo, pot, held);
    }
    written.count = count;
    written.echo = echo;
    written.verdict = verdict;
    return OK;
}

uint8_t write_pot(uint16_t pot, uint16_t code)
{
    group_of(pot);
    if (code > group.highest)
        return refuse(RANGE, pot);
    return write_pots(&code, pot, 1, true);
}

static void put_written(void)
{
    put16(written.count);
    put8(written.verdict);
    put16(written.echo);
}

uint8_t read_pot(uint16_t pot, uint16_t *code)
{
    group_of(pot);
    *code = UNKNOWN;
    if (group.flags & READABLE) {
        *code = pot_read(pot);
        if (*code == UNKNOWN)
            return refuse(BUS, pot);
    }
    return OK;
}

static void forget_stage(void)
{
    memset(staged, 0xFF, sizeof staged);
}

static uint16_t stage_crc(void)
{
    uint16_t crc = CRC_START;
    for (uint16_t pot = 0; pot < POTS; pot++) {
        if (staged[pot] == UNKNOWN)
            continue;
        crc = crc_code(crc, pot, staged[pot]);
    }
    return crc;
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

static uint8_t commit(uint16_t crc, bool verify)
{
    uint8_t status = OK;
    if (stage_crc() != crc)
        status = refuse(STAGE_CRC, UNKNOWN);
    else
        status = write_pots(staged, 0, POTS, verify);
    forget_stage();
    return status;
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
        pot_write(pot, group.safe, shadow[pot]);
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

struct scan {
    uint8_t first, count, width;
    uint16_t averages;
    bool scatter;
};

static uint8_t check_scan(const struct scan *scan, uint8_t before)
{
    if (scan->count == 0 || scan->first > ADCS || scan->count > ADCS - scan->first)
        return refuse(RANGE, ADCS);
#if ADCS
    uint8_t last = UINT8_MAX;
    for (uint8_t channel = scan->first; channel < scan->first + scan->count; channel++) {
        struct adc_group adc;
        if (last != UINT8_MAX && channel <= last)
            continue;
        adc_group_of(channel, &adc);
        last = (uint8_t)(adc.first + adc.count - 1);
        uint32_t largest = (uint32_t)scan->averages * ((UINT32_C(1) << adc.bits) - 1);
        if (scan->width == 2 && largest > UINT16_MAX)
            return refuse(RANGE, channel);
    }
#endif
    uint16_t bytes = (uint16_t)(before + 3 + scan->count * (scan->width + (scan->scatter ? 8 : 0)));
    if (bytes > FRAME_LIMIT - OVERHEAD)
        return refuse(LENGTH, UNKNOWN);
    return OK;
}

static void scan_channels(const struct scan *scan)
{
    put8(scan->width);
    put8(scan->scatter);
    /* The next conversion runs while the last one is worked on. */
    adc_start(scan->first);
    for (uint8_t index = 0; index < scan->count; index++) {
        uint32_t total = 0;
        uint64_t squares = 0;
        for (uint16_t left = scan->averages; left; left--) {
            uint16_t code = adc_result();
            if (left > 1)
                adc_start((uint8_t)(scan->first + index));
            else if (index + 1 < scan->count)
                adc_start((uint8_t)(scan->first + index + 1));
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
}

/* Requests: decoded first, then carried out. */

static struct {
    struct codes codes;
    struct scan scan;
    uint32_t settling;
    uint16_t crc;
    uint8_t verify;
    const uint8_t *pairs; /* levels or switches */
    uint8_t pair_count;
} request;

static uint8_t decode_codes(const uint8_t *at, uint8_t length)
{
    if (request.codes.width != 1 && request.codes.width != 2)
        return RANGE;
    if (length == 0 || length % request.codes.width)
        return LENGTH;
    request.codes.bytes = at;
    request.codes.count = length / request.codes.width;
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
    if ((at[4] != 2 && at[4] != 4 && at[4] != 8) || request.scan.averages == 0 || at[5] > 1)
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

static uint8_t write_wanted(void)
{
    const struct codes *set = &request.codes;
    return write_pots(wanted + set->first, set->first, set->count, request.verify);
}

/* Carry out what the latched safe state refuses. */
static uint8_t move(uint8_t opcode)
{
    if (state.latched != REASON_NONE)
        return refuse(SAFE, state.latched);
    uint8_t status = OK;
    switch (opcode) {
    case COMMIT:
        status = commit(request.crc, request.verify);
        break;
    case WRITE:
        status = take_codes(&request.codes, wanted);
        if (status == OK)
            status = write_wanted();
        break;
    case STEP:
        status = take_codes(&request.codes, wanted);
        if (status == OK)
            status = check_levels(request.pairs, request.pair_count);
        if (status == OK)
            status = check_scan(&request.scan, 5);
        if (status == OK)
            status = write_wanted();
        if (status == OK)
            drive(request.pairs, request.pair_count);
        break;
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
    wait_us(request.settling);
    if (opcode == COMMIT || opcode == WRITE || opcode == STEP)
        put_written();
    if (opcode == STEP)
        scan_channels(&request.scan);
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
        if (status == OK)
            scan_channels(&request.scan);
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
    out.length = 0;
    out.too_long = false;
    out.sum = CRC_START;
    put8(opcode | REPLY);
    put8(seq);
    put8(status);
}

static void answer(uint16_t crc)
{
    uint8_t opcode = in.bytes[0], seq = in.bytes[1];
    serial_send(0); /* travels while the request is carried out */
    if (seq && out.stored && out.seq == seq && out.crc == crc) {
        count_up(&state.replays);
        send_frame(out.bytes, out.length);
    } else if (seq == 0 && opcode != HELLO) {
        /* Nothing that could be repeated, so what is stored stays. */
        refused_at = UNKNOWN;
        uint8_t status = decode(opcode, in.bytes + 2, (uint8_t)(in.length - OVERHEAD));
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
            begin_reply(opcode, seq, status);
            put16(refused_at);
        }
        out.bytes[out.length++] = (uint8_t)(out.sum >> 8);
        out.bytes[out.length++] = (uint8_t)out.sum;
        out.stored = seq != 0;
        out.seq = seq;
        out.crc = crc;
        send_frame(out.bytes, out.length);
    }
    if (opcode == EXIT && seq && out.bytes[2] == OK) {
        state.binary = false;
        text_forget();
    }
}

static void forget_frame(void)
{
    in.length = in.encoded = in.run = 0;
    in.zero = in.dropping = false;
    in.crc = CRC_START;
}

static void report_overflow(void)
{
    count_up(&state.overflows);
    refused_at = UNKNOWN;
    serial_send(0);
    send_refusal(NOTICE, 0, OVERFLOW);
    forget_frame();
    in.dropping = true;
}

static void end_of_frame(void)
{
    if (!in.dropping && in.encoded) {
        /* The CRC over data and CRC is 0, because it is sent most significant byte first. */
        if (in.run == 0 && in.length >= OVERHEAD && in.crc == 0) {
            answer(get16(in.bytes + in.length - 2));
            state.heard = milliseconds();
        } else {
            count_up(&state.crc_errors);
        }
    }
    forget_frame();
}

/* Take bytes up to the first delimiter, and return how many those are. */
static uint8_t binary_bytes(const uint8_t *bytes, uint8_t count, uint16_t now)
{
    if ((uint16_t)(now - in.last) > GAP && (in.encoded || in.dropping)) {
        if (!in.dropping)
            count_up(&state.crc_errors);
        forget_frame();
    }
    in.last = now;
    const uint8_t *at = bytes, *end = bytes + count;
    while (at < end) {
        uint8_t byte = *at++;
        if (byte == 0) {
            end_of_frame();
            break;
        }
        if (in.dropping)
            continue;
        if (in.encoded == LONGEST_ENCODED) {
            report_overflow();
            continue;
        }
        in.encoded++;
        bool data = in.run != 0;
        if (data) {
            in.run--;
        } else {
            in.run = (uint8_t)(byte - 1);
            data = in.zero; /* the zero byte that the last block stands for */
            in.zero = byte != 0xFF;
            byte = 0;
        }
        if (data) {
            in.bytes[in.length++] = byte;
            in.crc = crc_update(in.crc, byte);
        }
    }
    return (uint8_t)(at - bytes);
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
            pot_write(pot, group.power_on, UNKNOWN);
            shadow[pot] = group.power_on;
        }
    }
}

void potboard_bytes(const uint8_t *bytes, uint8_t count, uint32_t now)
{
    while (count) {
        uint8_t taken = 1;
        if (state.binary) {
            taken = binary_bytes(bytes, count, (uint16_t)now);
        } else if (*bytes == 0) {
            state.binary = true;
            forget_frame();
            text_forget();
        } else {
            text_byte(*bytes, now);
        }
        bytes += taken;
        count = (uint8_t)(count - taken);
    }
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
