/* The microcontroller: serial port, ADC, outputs, time, and the main loop.
 *
 * The hardware watchdog stays off: old bootloaders do not survive its reset. Brown-out detection is a fuse. */
#include "bus.h"
#include "potboard.h"
#include "wiring.h"

#include <avr/eeprom.h>
#include <avr/interrupt.h>
#include <avr/sleep.h>
#include <avr/wdt.h>
#include <util/atomic.h>
#include <util/delay_basic.h>

#define BAUD_TRIAL 2000 /* milliseconds to be heard at a new baud rate, else the old one comes back */

void pots_start(void);

/* Serial port. The ring's indices wrap around by themselves. */

static volatile uint8_t ring[256];
static volatile uint8_t head;
static uint8_t tail;
static volatile bool lost;

static uint32_t baud = BAUD, next_baud;
static uint32_t baud_since;
static uint8_t signs_before;
static bool baud_on_trial, sending;

#ifndef USART_RX_vect
#define USART_RX_vect USART0_RX_vect
#endif

/* Put a received byte aside. */
static inline void take_byte(uint8_t flags)
{
    if (flags & (1 << DOR0))
        lost = true;
    uint8_t byte = UDR0, at = head, next = (uint8_t)(at + 1);
    if (next == tail) {
        lost = true;
    } else {
        ring[at] = byte;
        head = next;
    }
}

ISR(USART_RX_vect) { take_byte(UCSR0A); }

/* Within a frame bytes are taken straight from the receiver, which costs less than the interrupt does: at a megabaud that
 * leaves time to work on what has come. The receiver holds two bytes meanwhile. */

#define PATIENCE 50 /* polls: at 16 MHz more than 0.1 ms, longer than a byte takes at 115 200 baud */

static uint8_t patience;

static void receive_by_interrupt(bool on)
{
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        if (on)
            UCSR0B |= 1 << RXCIE0;
        else
            UCSR0B &= (uint8_t)~(1 << RXCIE0);
    }
}

void serial_poll(bool on)
{
    receive_by_interrupt(!on);
    patience = PATIENCE;
}

int16_t serial_next(void)
{
    const uint8_t flags = UCSR0A, at = tail;
    uint8_t byte;
    if (at != head) {
        if (flags & (1 << RXC0))
            take_byte(flags);
        if (lost)
            return SERIAL_STOP;
        byte = ring[at];
        tail = (uint8_t)(at + 1);
    } else if (!(flags & (1 << RXC0))) {
        return --patience ? SERIAL_NOTHING : SERIAL_STOP;
    } else if (flags & (1 << DOR0)) {
        take_byte(flags);
        return SERIAL_STOP;
    } else {
        byte = UDR0;
    }
    patience = PATIENCE;
    return byte;
}

static uint16_t divisor(uint32_t rate) { return (uint16_t)((F_CPU / 8 + rate / 2) / rate - 1); }

static void serial_start(uint32_t rate)
{
    baud = rate;
    UBRR0 = divisor(rate);
    UCSR0A = 1 << U2X0;
    UCSR0C = 1 << UCSZ01 | 1 << UCSZ00;
    UCSR0B = 1 << RXCIE0 | 1 << RXEN0 | 1 << TXEN0;
}

/* What is streamed is taken by the interrupt from where it lies. */
static const uint8_t *volatile stream;
static volatile uint8_t stream_at, stream_end;

#ifndef USART_UDRE_vect
#define USART_UDRE_vect USART0_UDRE_vect
#endif

static inline void put_byte(uint8_t byte)
{
    UDR0 = byte;
    UCSR0A = 1 << U2X0 | 1 << TXC0; /* the flag is cleared by a one */
}

ISR(USART_UDRE_vect)
{
    uint8_t at = stream_at;
    put_byte(stream[at]);
    at++;
    stream_at = at;
    if (at == stream_end)
        UCSR0B &= (uint8_t)~(1 << UDRIE0);
}

/* While readings are taken, waiting for them sends instead of the interrupt: that costs a third. */
static bool send_by_waiting;

static inline void send_if_ready(void)
{
    const uint8_t at = stream_at;
    if (UCSR0A & (1 << UDRE0) && at != stream_end) {
        put_byte(stream[at]);
        stream_at = (uint8_t)(at + 1);
    }
}

/* Hand what is left to the interrupt, or take it from there. */
static void send_waiting(bool on)
{
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        send_by_waiting = on;
        if (!on && stream_at != stream_end)
            UCSR0B |= 1 << UDRIE0;
        else
            UCSR0B &= (uint8_t)~(1 << UDRIE0);
    }
}

void serial_stream(const uint8_t *bytes, uint8_t end)
{
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        stream = bytes;
        stream_end = end;
    }
    sending = true;
    if (send_by_waiting)
        send_if_ready();
    else
        send_waiting(false);
}

void serial_flush(void)
{
    while (stream_at != stream_end)
        ;
    stream_at = stream_end = 0;
}

void serial_send(uint8_t byte)
{
    serial_flush();
    while (!(UCSR0A & (1 << UDRE0)))
        ;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE) { put_byte(byte); }
    sending = true;
}

bool serial_baud(uint32_t rate)
{
    if (rate < 9600 || rate > 1000000)
        return false;
    int32_t off = (int32_t)(F_CPU / 8 / (divisor(rate) + 1UL)) - (int32_t)rate;
    if (off * 40 > (int32_t)rate || off * 40 < -(int32_t)rate)
        return false;
    next_baud = rate == baud ? 0 : rate;
    return true;
}

uint32_t serial_baud_now(void) { return baud; }

/* Change the rate when the last byte has left, and change it back if nobody is heard. */
static void serve_baud(uint32_t now)
{
    if (next_baud) {
        serial_flush();
        while (sending && !(UCSR0A & (1 << TXC0)))
            ;
        sending = false;
        baud_on_trial = next_baud != BAUD;
        baud_since = now;
        signs_before = state.signs;
        serial_start(next_baud);
        next_baud = 0;
    } else if (baud_on_trial && state.signs != signs_before) {
        baud_on_trial = false;
    } else if (baud_on_trial && now - baud_since > BAUD_TRIAL) {
        baud_on_trial = false;
        serial_start(BAUD);
    }
}

/* Time. */

static volatile uint32_t ticks;

ISR(TIMER2_COMPA_vect) { ticks++; }

uint32_t milliseconds(void)
{
    uint32_t now;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE) { now = ticks; }
    return now;
}

static void wait_us(uint32_t microseconds)
{
    /* Four cycles a turn. */
    const uint8_t turns = F_CPU / 4000000UL;
    for (; microseconds >= 1000; microseconds -= 1000)
        _delay_loop_2(1000U * turns);
    if (microseconds)
        _delay_loop_2((uint16_t)microseconds * turns);
}

/* Timer 1 measures up to 32 ms of what passes meanwhile. */

void settle_start(void)
{
    TCCR1B = 1 << CS11;
    TCNT1 = 0;
    TIFR1 = 1 << TOV1;
}

void settle_wait(uint32_t microseconds)
{
    uint16_t gone = TCNT1;
    if (TIFR1 & (1 << TOV1))
        gone = UINT16_MAX;
    gone /= F_CPU / 8 / 1000000UL;
    if (microseconds > gone)
        wait_us(microseconds - gone);
}

/* ADC. The next conversion runs while the last one is worked on. */

#if ADCS

static uint8_t channels_left;
static uint16_t averages_left, averages_each;
static const struct adc_wire *channel_next;

/* Select what is to be read next. False if nothing is. */
static inline bool select_next(void)
{
    uint16_t left = averages_left;
    if (left == 0) {
        const uint8_t channels = channels_left;
        if (channels == 0)
            return false;
        const struct adc_wire *wire = channel_next;
        const uint8_t mux = pgm_read_byte(&wire->mux);
        ADMUX = (uint8_t)(ADC_REFERENCE | (mux & 7));
#ifdef MUX5
        ADCSRB = (uint8_t)(mux & 8 ? 1 << MUX5 : 0);
#endif
        channel_next = wire + 1;
        channels_left = (uint8_t)(channels - 1);
        left = averages_each;
    }
    averages_left = left - 1;
    return true;
}

static inline void convert(void) { ADCSRA = 1 << ADEN | 1 << ADSC | ADC_PRESCALER; }

static inline void wait_converted(void)
{
    while (ADCSRA & (1 << ADSC))
        send_if_ready();
}

void adc_begin(uint8_t first, uint8_t count, uint16_t averages)
{
    channel_next = adc_wires + first;
    channels_left = count;
    averages_each = averages;
    averages_left = 0;
    if (select_next())
        convert();
    send_waiting(true);
}

uint16_t adc_next(void)
{
    /* A conversion keeps its channel from one clock of the ADC after its start: then the next one can be selected, and
     * can start as soon as this one is over. */
    __builtin_avr_delay_cycles(1U << ADC_PRESCALER);
    const bool more = select_next();
    wait_converted();
    if (more)
        convert();
    else
        send_waiting(false);
    return ADC; /* stays until the next conversion is over */
}

#else

void adc_begin(uint8_t first, uint8_t count, uint16_t averages)
{
    (void)first;
    (void)count;
    (void)averages;
}

uint16_t adc_next(void) { return 0; }

#endif

/* Sources, switches. */

void source_set(uint8_t source, int64_t nanovolts)
{
#if SOURCES
    struct source_wire wire;
    memcpy_P(&wire, &source_wires[source], sizeof wire);
    uint16_t code = (uint16_t)(((uint64_t)nanovolts * 4096 + (uint64_t)wire.full_scale / 2) / (uint64_t)wire.full_scale);
    if (code > 4095)
        code = 4095;
    /* MCP4922: channel, unbuffered reference, gain 1, active. */
    uint16_t word = (uint16_t)(wire.channel << 15 | 0x3000 | code);
    uint8_t bytes[2] = {(uint8_t)(word >> 8), (uint8_t)word};
    spi_window(&wire.select, SOURCE_SPCR, SOURCE_SPSR, bytes, 2);
#else
    (void)source;
    (void)nanovolts;
#endif
}

void switch_set(uint8_t number, bool closed)
{
#if SWITCHES
    struct pin pin;
    memcpy_P(&pin, &switch_pins[number], sizeof pin);
    pin_set(&pin, closed == SWITCH_ACTIVE_HIGH);
#else
    (void)number;
    (void)closed;
#endif
}

static void outputs_start(void)
{
#if SWITCHES
    for (uint8_t number = 0; number < SWITCHES; number++) {
        struct pin pin;
        memcpy_P(&pin, &switch_pins[number], sizeof pin);
        pin_output(&pin, !SWITCH_ACTIVE_HIGH);
    }
#endif
#if SOURCES
    for (uint8_t source = 0; source < SOURCES; source++) {
        struct source_wire wire;
        memcpy_P(&wire, &source_wires[source], sizeof wire);
        pin_output(&wire.select, true);
    }
#endif
}

/* How often the board has started, counted in EEPROM from 1. */
static uint16_t count_boots(void)
{
    uint16_t boots = eeprom_read_word((const uint16_t *)0);
    boots = boots == UINT16_MAX ? 1 : (uint16_t)(boots + 1);
    eeprom_update_word((uint16_t *)0, boots);
    return boots;
}

int main(void)
{
    MCUSR = 0;
    wdt_disable();
    outputs_start();
    pots_start();
    bus_start();
    TCCR2A = 1 << WGM21;
    OCR2A = F_CPU / 128 / 1000 - 1;
    TIMSK2 = 1 << OCIE2A;
    TCCR2B = 1 << CS22 | 1 << CS20;
    potboard_start(count_boots());
#if ADCS
    adc_begin(0, 1, 1); /* the first conversion takes twice as long */
    adc_next();
#endif
    serial_start(BAUD);
    set_sleep_mode(SLEEP_MODE_IDLE);
    uint32_t served = 0;
    for (;;) {
        sei();
        if (lost) {
            lost = false;
            potboard_lost();
        }
        uint32_t now = milliseconds();
        uint8_t until = head;
        if (until != tail) {
            /* What lies in one piece, up to the ring's end. */
            uint8_t count = (uint8_t)(until > tail ? until - tail : -tail);
            potboard_bytes((const uint8_t *)ring + tail, count, now);
            tail = (uint8_t)(tail + count);
            potboard_receive();
            now = milliseconds();
        }
        if (now != served || next_baud) {
            served = now;
            potboard_tick(now);
            serve_baud(now);
        }
        /* The instruction after sei still runs, so no byte can slip in before the sleep. */
        cli();
        if (tail == head && !lost) {
            sleep_enable();
            sei();
            sleep_cpu();
            sleep_disable();
        }
    }
}
