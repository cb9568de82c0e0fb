/* The firmware in simavr: `runner ELF MCU CLOCK BAUD PORTS SECONDS` feeds standard input to its serial port.
 *
 * Prints what happens at its pins, one event a line: `pin B 2 0`, `spi a5`, `out 61`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <simavr/avr_ioport.h>
#include <simavr/avr_spi.h>
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>

static void quiet(avr_t *avr, const int level, const char *format, va_list arguments)
{
    (void)avr;
    (void)level;
    (void)format;
    (void)arguments;
}

static void on_out(avr_irq_t *irq, uint32_t value, void *parameter)
{
    (void)irq;
    (void)parameter;
    printf("out %02x\n", value & 0xFF);
}

static void on_spi(avr_irq_t *irq, uint32_t value, void *parameter)
{
    (void)irq;
    printf("spi %02x\n", value & 0xFF);
    avr_raise_irq((avr_irq_t *)parameter, 0);
}

static void on_pin(avr_irq_t *irq, uint32_t value, void *parameter)
{
    (void)irq;
    const char *name = parameter;
    printf("pin %c %c %u\n", name[0], name[1], value & 1);
}

int main(int count, char **arguments)
{
    if (count != 7)
        return 2;
    static uint8_t input[65536];
    size_t length = fread(input, 1, sizeof input, stdin), at = 0;
    elf_firmware_t firmware;
    memset(&firmware, 0, sizeof firmware);
    avr_global_logger_set(quiet);
    if (elf_read_firmware(arguments[1], &firmware))
        return 2;
    avr_t *avr = avr_make_mcu_by_name(arguments[2]);
    if (avr == NULL || avr_init(avr))
        return 2;
    avr_load_firmware(avr, &firmware);
    avr->frequency = (uint32_t)atol(arguments[3]);
    uint32_t flags = 0;
    avr_ioctl(avr, AVR_IOCTL_UART_GET_FLAGS('0'), &flags);
    flags &= ~(uint32_t)(AVR_UART_FLAG_STDIO | AVR_UART_FLAG_POLL_SLEEP);
    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    avr_irq_t *uart = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT);
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), on_out, NULL);
    avr_irq_t *spi = avr_io_getirq(avr, AVR_IOCTL_SPI_GETIRQ(0), SPI_IRQ_INPUT);
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_SPI_GETIRQ(0), SPI_IRQ_OUTPUT), on_spi, spi);
    static char names[26][8][2];
    for (const char *port = arguments[5]; *port; port++)
        for (int bit = 0; bit < 8; bit++) {
            char *name = names[*port - 'A'][bit];
            name[0] = *port;
            name[1] = (char)('0' + bit);
            avr_irq_t *irq = avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ(*port), bit);
            if (irq != NULL)
                avr_irq_register_notify(irq, on_pin, name);
        }
    /* The firmware boots first; then a byte every ten bit times. */
    avr_cycle_count_t next = avr->frequency / 20, step = avr->frequency * 10 / (uint32_t)atol(arguments[4]);
    avr_cycle_count_t end = (avr_cycle_count_t)(atof(arguments[6]) * avr->frequency);
    while (avr->cycle < end) {
        int state = avr_run(avr);
        if (state == cpu_Done || state == cpu_Crashed)
            return 3;
        if (at < length && avr->cycle >= next) {
            avr_raise_irq(uart, input[at++]);
            next += step;
        }
    }
    printf("end\n");
    return 0;
}
