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
static uint32_t baud_since, heard_before;
static bool baud_on_trial, sending;

#ifndef USART_RX_vect
#define USART_RX_vect USART0_RX_vect
#endif

ISR(USART_RX_vect)
{
    if (UCSR0A & (1 << DOR0))
        lost = true;
    uint8_t byte = UDR0, after = (uint8_t)(head + 1);
    if (after == tail) {
        lost = true;
    } else {
        ring[head] = byte;
        head = after;
    }
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

void serial_send(uint8_t byte)
{
    while (!(UCSR0A & (1 << UDRE0)))
        ;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        UDR0 = byte;
        UCSR0A = 1 << U2X0 | 1 << TXC0; /* the flag is cleared by a one */
    }
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
        while (sending && !(UCSR0A & (1 << TXC0)))
            ;
        sending = false;
        baud_on_trial = next_baud != BAUD;
        baud_since = now;
        heard_before = state.heard;
        serial_start(next_baud);
        next_baud = 0;
    } else if (baud_on_trial && state.heard != heard_before) {
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

void wait_us(uint32_t microseconds)
{
    /* Four cycles a turn. */
    const uint8_t turns = F_CPU / 4000000UL;
    for (; microseconds >= 1000; microseconds -= 1000)
        _delay_loop_2(1000U * turns);
    if (microseconds)
        _delay_loop_2((uint16_t)microseconds * turns);
}

/* ADC, sources, switches. */

void adc_start(uint8_t channel)
{
#if ADCS
    uint8_t mux = pgm_read_byte(&adc_wires[channel].mux);
    ADMUX = (uint8_t)(ADC_REFERENCE | (mux & 7));
#ifdef MUX5
    ADCSRB = (uint8_t)(mux & 8 ? 1 << MUX5 : 0);
#endif
    ADCSRA = 1 << ADEN | 1 << ADSC | ADC_PRESCALER;
#else
    (void)channel;
#endif
}

uint16_t adc_result(void)
{
    while (ADCSRA & (1 << ADSC))
        ;
    return ADC;
}

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
    adc_start(0); /* the first conversion takes twice as long */
    adc_result();
#endif
    serial_start(BAUD);
    set_sleep_mode(SLEEP_MODE_IDLE);
    for (;;) {
        sei();
        if (lost) {
            lost = false;
            potboard_lost();
        }
        uint32_t now = milliseconds();
        for (uint8_t until; (until = head) != tail;) {
            /* What lies in one piece, up to the ring's end. */
            uint8_t count = (uint8_t)(until > tail ? until - tail : -tail);
            potboard_bytes((const uint8_t *)ring + tail, count, now);
            tail = (uint8_t)(tail + count);
        }
        now = milliseconds();
        potboard_tick(now);
        serve_baud(now);
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
