/* Text mode: lines as from a terminal, one table of commands, and an error queue. */
#include "potboard.h"
#include "wiring.h"

#define DIGITS_OF(number) #number
#define DIGITS(number) DIGITS_OF(number)

#pragma GCC optimize("Os") /* nothing here is in a hurry */

#define LONGEST_LINE 80
#define QUEUE 16

enum error {
    NO_ERROR = 0,
    DATA_TYPE = -104,
    NOT_ALLOWED = -108,
    MISSING = -109,
    UNDEFINED = -113,
    EXECUTION = -200,
    CONFLICT = -221,
    OUT_OF_RANGE = -222,
    QUEUE_FULL = -350,
    OVERRUN = -363,
};

enum command {
    IDN,
    CLS,
    OPC,
    ERROR,
    VERSION_ASKED,
    CAPABILITY,
    COUNTERS_ASKED,
    BOOTS,
    BAUD_ASKED,
    POT,
    POT_ASKED,
    MEASURE,
    SOURCE_SET,
    SOURCE_ASKED,
    CLOSE,
    OPEN,
    CLOSED_ASKED,
    WATCHDOG_SET,
    BAUD_SET,
    SAFE_SET,
    SAFE_ASKED,
    SAFE_CLEAR,
    COMMANDS,
};

/* Mnemonics with their short forms in capitals, and a letter for each parameter: n a whole number, v volts. */
struct command_form {
    char name[20];
    char parameters[3];
};

static const struct command_form forms[COMMANDS] PROGMEM = {
    [IDN] = {"*IDN?", ""},
    [CLS] = {"*CLS", ""},
    [OPC] = {"*OPC?", ""},
    [ERROR] = {"SYSTem:ERRor?", ""},
    [VERSION_ASKED] = {"SYSTem:VERSion?", ""},
    [CAPABILITY] = {"SYSTem:CAPability?", ""},
    [COUNTERS_ASKED] = {"SYSTem:COUNters?", ""},
    [BOOTS] = {"SYSTem:BOOTs?", ""},
    [BAUD_ASKED] = {"SYSTem:BAUD?", ""},
    [POT] = {"POT", "nn"},
    [POT_ASKED] = {"POT?", "n"},
    [MEASURE] = {"MEASure?", "n"},
    [SOURCE_SET] = {"SOURce", "nv"},
    [SOURCE_ASKED] = {"SOURce?", "n"},
    [CLOSE] = {"ROUTe:CLOSe", "n"},
    [OPEN] = {"ROUTe:OPEN", "n"},
    [CLOSED_ASKED] = {"ROUTe:CLOSe?", "n"},
    [WATCHDOG_SET] = {"WATChdog", "n"},
    [BAUD_SET] = {"SYSTem:BAUD", "n"},
    [SAFE_SET] = {"SAFE", ""},
    [SAFE_ASKED] = {"SAFE?", ""},
    [SAFE_CLEAR] = {"SAFE:CLEar", ""},
};

struct error_text {
    int16_t code;
    char text[22];
};

static const struct error_text error_texts[] PROGMEM = {
    {NO_ERROR, "No error"},
    {DATA_TYPE, "Data type error"},
    {NOT_ALLOWED, "Parameter not allowed"},
    {MISSING, "Missing parameter"},
    {UNDEFINED, "Undefined header"},
    {EXECUTION, "Execution error"},
    {CONFLICT, "Settings conflict"},
    {OUT_OF_RANGE, "Data out of range"},
    {QUEUE_FULL, "Queue overflow"},
    {OVERRUN, "Input buffer overrun"},
};

static struct {
    uint8_t bytes[LONGEST_LINE];
    uint8_t length;
    bool dropping;
} line;

static struct {
    int16_t codes[QUEUE];
    uint8_t length;
} errors;

static void (*put)(char);
static bool printed;

static void say(char letter)
{
    put(letter);
    printed = true;
}

static void say_P(const char *text)
{
    for (char letter; (letter = (char)pgm_read_byte(text)) != 0; text++)
        say(letter);
}

static void say_number(uint32_t number)
{
    char digits[10];
    uint8_t count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    while (count)
        say(digits[--count]);
}

static void push(int16_t code)
{
    if (errors.length == QUEUE)
        errors.codes[QUEUE - 1] = QUEUE_FULL;
    else
        errors.codes[errors.length++] = code;
}

static void say_error(void)
{
    int16_t code = NO_ERROR;
    struct error_text entry;
    uint8_t index = 0;
    if (errors.length) {
        code = errors.codes[0];
        errors.length--;
        memmove(errors.codes, errors.codes + 1, errors.length * sizeof errors.codes[0]);
    }
    do
        memcpy_P(&entry, &error_texts[index++], sizeof entry);
    while (entry.code != code);
    if (code < 0)
        say('-');
    say_number((uint32_t)(code < 0 ? -code : code));
    say(',');
    say('"');
    for (const char *letter = entry.text; *letter; letter++)
        say(*letter);
    say('"');
}

#if ADCS || SOURCES
/* Print volts with so many significant digits, as C's %g does: whole nanovolts and (rest / 2^bits) of one. */
static void say_volts(bool negative, uint64_t nanovolts, uint32_t rest, uint8_t bits, uint8_t significant)
{
    char digits[40];
    int8_t count = 0, point; /* digits before the decimal point; may be negative */
    char reversed[20];
    uint8_t whole = 0;
    for (; nanovolts; nanovolts /= 10)
        reversed[whole++] = (char)('0' + nanovolts % 10);
    point = (int8_t)(whole - 9);
    while (whole)
        digits[count++] = reversed[--whole];
    uint64_t left = rest;
    while (count <= significant && left) {
        left *= 10;
        char digit = (char)('0' + (left >> bits));
        left &= (UINT64_C(1) << bits) - 1;
        if (count == 0 && digit == '0')
            point--;
        else
            digits[count++] = digit;
    }
    if (count == 0) {
        say('0');
        return;
    }
    if (count > significant) {
        bool more = left != 0;
        for (int8_t index = (int8_t)(significant + 1); index < count; index++)
            more = more || digits[index] != '0';
        char next = digits[significant];
        bool odd = (digits[significant - 1] - '0') & 1;
        count = (int8_t)significant;
        if (next > '5' || (next == '5' && (more || odd))) {
            int8_t index = (int8_t)(count - 1);
            while (index >= 0 && digits[index] == '9')
                digits[index--] = '0';
            if (index >= 0) {
                digits[index]++;
            } else {
                digits[0] = '1';
                point++;
            }
        }
    }
    while (count > 1 && digits[count - 1] == '0')
        count--;
    if (negative)
        say('-');
    if (point < -3) {
        say(digits[0]);
        if (count > 1)
            say('.');
        for (int8_t index = 1; index < count; index++)
            say(digits[index]);
        say('e');
        say('-');
        uint8_t exponent = (uint8_t)(1 - point);
        if (exponent < 10)
            say('0');
        say_number(exponent);
        return;
    }
    if (point <= 0) {
        say('0');
        say('.');
        for (; point < 0; point++)
            say('0');
        for (int8_t index = 0; index < count; index++)
            say(digits[index]);
        return;
    }
    for (int8_t index = 0; index < point; index++)
        say(index < count ? digits[index] : '0');
    if (count > point)
        say('.');
    for (int8_t index = point; index < count; index++)
        say(digits[index]);
}

#endif

/* Parsing. */

static bool is_space(uint8_t byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r') || (byte >= 0x1C && byte <= 0x1F) || byte == 0x85 ||
           byte == 0xA0;
}

static bool is_digit(uint8_t byte) { return byte >= '0' && byte <= '9'; }

static uint8_t upper(uint8_t byte) { return byte >= 'a' && byte <= 'z' ? (uint8_t)(byte - 'a' + 'A') : byte; }

struct span {
    const uint8_t *at;
    uint8_t length;
};

static struct span strip(struct span text)
{
    while (text.length && is_space(text.at[text.length - 1]))
        text.length--;
    while (text.length && is_space(text.at[0])) {
        text.at++;
        text.length--;
    }
    return text;
}

/* Return whether a header is a mnemonic: capitals always, the small letters of a node all or none. */
static bool matches(struct span header, const char *name)
{
    uint8_t at = header.length && header.at[0] == ':';
    while (*name) {
        if (*name >= 'a' && *name <= 'z') {
            const char *end = name;
            while (*end >= 'a' && *end <= 'z')
                end++;
            if (at < header.length && upper(header.at[at]) == upper((uint8_t)*name))
                for (; name < end; name++, at++)
                    if (at == header.length || upper(header.at[at]) != upper((uint8_t)*name))
                        return false;
            name = end;
        } else if (at < header.length && upper(header.at[at]) == (uint8_t)*name) {
            at++;
            name++;
        } else {
            return false;
        }
    }
    return at == header.length;
}

/* A whole number of up to nine digits. */
static bool parse_number(struct span field, int32_t *number)
{
    bool negative = false;
    if (field.length && (field.at[0] == '+' || field.at[0] == '-')) {
        negative = field.at[0] == '-';
        field.at++;
        field.length--;
    }
    if (field.length == 0 || field.length > 9)
        return false;
    *number = 0;
    for (uint8_t index = 0; index < field.length; index++) {
        if (!is_digit(field.at[index]))
            return false;
        *number = *number * 10 + (field.at[index] - '0');
    }
    if (negative)
        *number = -*number;
    return true;
}

#define TOO_LARGE INT64_MAX

/* Volts as [+-]digits[.digits][E[+-]dd], or FLOAT; nanovolts, rounded, TOO_LARGE beyond 1 GV. */
static bool parse_volts(struct span field, int64_t *nanovolts)
{
    static const char word[] PROGMEM = "FLOAT";
    uint8_t at = 0;
    while (at < field.length && at < 5 && upper(field.at[at]) == pgm_read_byte(&word[at]))
        at++;
    if (at == 5 && field.length == 5) {
        *nanovolts = FLOATING;
        return true;
    }
    at = 0;
    bool negative = false, point = false, any = false, sticky = false;
    if (field.length && (field.at[0] == '+' || field.at[0] == '-'))
        negative = field.at[at++] == '-';
    uint64_t value = 0;
    int16_t exponent = 9;
    for (; at < field.length && (is_digit(field.at[at]) || (field.at[at] == '.' && !point)); at++) {
        if (field.at[at] == '.') {
            point = true;
            continue;
        }
        any = true;
        if (value < UINT64_C(100000000000000000)) {
            value = value * 10 + (uint64_t)(field.at[at] - '0');
            exponent = (int16_t)(exponent - point);
        } else {
            sticky = sticky || field.at[at] != '0';
            exponent = (int16_t)(exponent + !point);
        }
    }
    if (!any)
        return false;
    if (at < field.length && upper(field.at[at]) == 'E') {
        bool down = false;
        at++;
        if (at < field.length && (field.at[at] == '+' || field.at[at] == '-'))
            down = field.at[at++] == '-';
        uint8_t digits = (uint8_t)(field.length - at);
        if (digits < 1 || digits > 2)
            return false;
        uint8_t power = 0;
        for (; at < field.length; at++) {
            if (!is_digit(field.at[at]))
                return false;
            power = (uint8_t)(power * 10 + field.at[at] - '0');
        }
        exponent = (int16_t)(down ? exponent - power : exponent + power);
    }
    if (at < field.length)
        return false;
    if (value == 0)
        exponent = 0;
    for (; exponent > 0; exponent--) {
        if (value > UINT64_C(1000000000000000000) / 10) {
            *nanovolts = TOO_LARGE;
            return true;
        }
        value *= 10;
    }
    uint8_t last = 0;
    for (; exponent < 0; exponent++) {
        sticky = sticky || last != 0;
        last = (uint8_t)(value % 10);
        value /= 10;
    }
    if (last > 5 || (last == 5 && (sticky || (value & 1))))
        value++;
    *nanovolts = value > UINT64_C(1000000000000000000) ? TOO_LARGE : (int64_t)value;
    if (negative && *nanovolts != TOO_LARGE)
        *nanovolts = -*nanovolts;
    return true;
}

/* Commands. */

static int16_t of_status(uint8_t status)
{
    return status == OK ? NO_ERROR : status == RANGE ? OUT_OF_RANGE : EXECUTION;
}

static void say_capability(void)
{
    say_P(PSTR("protocol=" DIGITS(PROTOCOL_MAJOR) "." DIGITS(PROTOCOL_MINOR) ",pots="));
    say_number(POTS);
    say_P(PSTR(",adcs="));
    say_number(ADCS);
    say_P(PSTR(",sources="));
    say_number(SOURCES);
    say_P(PSTR(",switches="));
    say_number(SWITCHES);
    say_P(PSTR(",frame="));
    say_number(FRAME_LIMIT);
}

static void say_counters(void)
{
    say_number(state.crc_errors);
    say(',');
    say_number(state.overflows);
    say(',');
    say_number(state.replays);
    say(',');
    say_number(state.expiries);
}

static int16_t ask(uint8_t command, uint32_t number)
{
    static const char identity[] PROGMEM = IDENTITY;
    switch (command) {
    case IDN:
        say_P(identity);
        return NO_ERROR;
    case ERROR:
        say_error();
        return NO_ERROR;
    case VERSION_ASKED:
        say_P(PSTR("1999.0"));
        return NO_ERROR;
    case CAPABILITY:
        say_capability();
        return NO_ERROR;
    case COUNTERS_ASKED:
        say_counters();
        return NO_ERROR;
    case BOOTS:
        say_number(state.boots);
        return NO_ERROR;
    case BAUD_ASKED:
        say_number(serial_baud_now());
        return NO_ERROR;
    case SAFE_ASKED:
        say_number(state.latched);
        return NO_ERROR;
    case OPC:
        say('1');
        return NO_ERROR;
    case POT_ASKED: {
        uint16_t code;
        if (number >= POTS)
            return OUT_OF_RANGE;
        if (read_pot((uint16_t)number, &code) != OK)
            return EXECUTION;
        if (code == UNKNOWN)
            say_P(PSTR("-1"));
        else
            say_number(code);
        return NO_ERROR;
    }
#if ADCS
    case MEASURE: {
        struct adc_group adc;
        if (number >= ADCS)
            return OUT_OF_RANGE;
        adc_group_of((uint8_t)number, &adc);
        adc_begin((uint8_t)number, 1, 1);
        int32_t code = (int32_t)(adc_next() - (int32_t)adc.zero);
        uint64_t product = (uint64_t)(code < 0 ? -code : code) * (uint64_t)adc.span;
        uint32_t mask = (uint32_t)((UINT32_C(1) << adc.bits) - 1);
        say_volts(code < 0, product >> adc.bits, (uint32_t)product & mask, adc.bits, 9);
        return NO_ERROR;
    }
#endif
#if SOURCES
    case SOURCE_ASKED:
        if (number >= SOURCES)
            return OUT_OF_RANGE;
        if (source_connected((uint8_t)number)) {
            int64_t level = source_level((uint8_t)number);
            say_volts(level < 0, (uint64_t)(level < 0 ? -level : level), 0, 0, 10);
        } else {
            say_P(PSTR("FLOAT"));
        }
        return NO_ERROR;
#endif
#if SWITCHES
    case CLOSED_ASKED:
        if (number >= SWITCHES)
            return OUT_OF_RANGE;
        say(switch_closed((uint8_t)number) ? '1' : '0');
        return NO_ERROR;
#endif
    default:
        return OUT_OF_RANGE; /* of something the board has none of */
    }
}

static int16_t obey(uint8_t command, const uint32_t *numbers, int64_t nanovolts)
{
    switch (command) {
    case CLS:
        errors.length = 0;
        return NO_ERROR;
    case POT:
        if (numbers[0] >= POTS || numbers[1] >= UNKNOWN)
            return OUT_OF_RANGE;
        return of_status(write_pot((uint16_t)numbers[0], (uint16_t)numbers[1]));
    case SOURCE_SET: {
        if (numbers[0] > UINT8_MAX)
            return OUT_OF_RANGE;
        uint8_t status = check_level((uint8_t)numbers[0], nanovolts);
        if (status == OK) {
            set_level((uint8_t)numbers[0], nanovolts);
            apply_outputs();
        }
        return of_status(status);
    }
#if SWITCHES
    case CLOSE:
    case OPEN:
        if (numbers[0] >= SWITCHES)
            return OUT_OF_RANGE;
        set_switch((uint8_t)numbers[0], command == CLOSE);
        apply_outputs();
        return NO_ERROR;
#endif
    case WATCHDOG_SET:
        if (numbers[0] > UINT16_MAX)
            return OUT_OF_RANGE;
        state.watchdog = (uint16_t)numbers[0];
        return NO_ERROR;
    case BAUD_SET:
        return serial_baud(numbers[0]) ? NO_ERROR : OUT_OF_RANGE;
    case SAFE_SET:
        make_safe(REASON_HOST);
        return NO_ERROR;
    case SAFE_CLEAR:
        state.latched = REASON_NONE;
        return NO_ERROR;
    default:
        return OUT_OF_RANGE;
    }
}

static int16_t carry_out(struct span text)
{
    text = strip(text);
    while (text.length && text.at[text.length - 1] == ';')
        text.length--;
    text = strip(text);
    if (text.length == 0)
        return NO_ERROR;
    struct span header = {text.at, 0};
    while (header.length < text.length && text.at[header.length] != ' ')
        header.length++;
    struct span tail = strip((struct span){text.at + header.length, (uint8_t)(text.length - header.length)});

    struct command_form form;
    uint8_t command = 0;
    for (;; command++) {
        if (command == COMMANDS)
            return UNDEFINED;
        memcpy_P(&form, &forms[command], sizeof form);
        if (matches(header, form.name))
            break;
    }
    uint8_t given = tail.length ? 1 : 0;
    for (uint8_t at = 0; at < tail.length; at++)
        given = (uint8_t)(given + (tail.at[at] == ','));
    uint8_t wanted = (uint8_t)strlen(form.parameters);
    if (given != wanted)
        return given < wanted ? MISSING : NOT_ALLOWED;

    uint32_t numbers[2] = {0, 0};
    int64_t nanovolts = 0;
    bool negative = false;
    for (uint8_t index = 0; index < wanted; index++) {
        uint8_t end = 0;
        while (end < tail.length && tail.at[end] != ',')
            end++;
        struct span field = strip((struct span){tail.at, end});
        if (form.parameters[index] == 'n') {
            int32_t number;
            if (!parse_number(field, &number))
                return DATA_TYPE;
            negative = negative || number < 0;
            numbers[index] = (uint32_t)number;
        } else if (!parse_volts(field, &nanovolts)) {
            return DATA_TYPE;
        }
        if (end < tail.length) {
            tail.at += end + 1;
            tail.length = (uint8_t)(tail.length - end - 1);
        }
    }
    if (negative)
        return OUT_OF_RANGE;
    bool moving = command == POT || command == SOURCE_SET || command == CLOSE || command == OPEN;
    if (moving && state.latched != REASON_NONE)
        return CONFLICT;
    return form.name[strlen(form.name) - 1] == '?' ? ask(command, numbers[0]) : obey(command, numbers, nanovolts);
}

void text_line(const uint8_t *bytes, uint8_t length, void (*print)(char))
{
    put = print;
    printed = false;
    int16_t error = carry_out((struct span){bytes, length});
    if (error != NO_ERROR)
        push(error);
}

/* Lines from the wire. */

static void print_serial(char letter) { serial_send((uint8_t)letter); }

void text_forget(void)
{
    line.length = 0;
    line.dropping = false;
}

void text_start(void)
{
    text_forget();
    errors.length = 0;
}

void text_byte(uint8_t byte, uint32_t now)
{
    if (byte != '\n') {
        if (line.dropping)
            return;
        if (line.length == LONGEST_LINE) {
            line.dropping = true;
            return;
        }
        line.bytes[line.length++] = byte;
        return;
    }
    state.heard = now;
    state.signs++;
    if (line.dropping) {
        push(OVERRUN);
    } else {
        uint8_t length = line.length;
        text_line(line.bytes, length, print_serial);
        if (printed)
            serial_send('\n');
        state.heard = milliseconds();
    }
    text_forget();
}
