/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A 16550A UART. What is sent is out at once; what is received waits in the FIFO of 16 bytes (1 when it is off). */
#include "dev/platform.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define COM1_PORT 0x3f8
#define COM1_IRQ 4
#define FIFO_SIZE 16

enum { REG_DATA, REG_IER, REG_IIR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_RDI 1
#define IER_THRI 2
#define IER_RLSI 4
#define IER_MSI 8
#define IIR_NONE 1
#define IIR_MSI 0
#define IIR_THRI 2
#define IIR_RDI 4
#define IIR_RLSI 6
#define IIR_TIMEOUT 0xc
#define IIR_FIFO 0xc0
#define FCR_ENABLE 1
#define FCR_CLEAR_RX 2
#define LCR_DLAB 0x80
#define LCR_BREAK 0x40
#define MCR_LOOP 0x10
#define LSR_DATA 1
#define LSR_OVERRUN 2
#define LSR_SENT 0x60 /* THRE and TEMT */
#define MSR_READY 0xb0 /* DCD DSR CTS: someone listens */

struct serial {
	struct vm *vm;
	struct bus_region region;
	pthread_mutex_t lock; /* everything below; out() is called under it so that bytes keep their order */
	void (*out)(void *ctx, const void *data, size_t len);
	void *out_ctx;
	void (*room)(void *ctx);
	void *room_ctx;
	uint8_t ier, lcr, mcr, scr, fcr, msr;
	uint16_t divisor;
	int overrun, thr_empty_pending, line;
	uint8_t fifo[FIFO_SIZE];
	unsigned head, count;
	int want_room; /* input was refused */
};

static unsigned fifo_size(const struct serial *s)
{
	return s->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned trigger(const struct serial *s)
{
	static const uint8_t level[4] = {1, 4, 8, 14};
	return s->fcr & FCR_ENABLE ? level[s->fcr >> 6] : 1;
}

static uint8_t modem_status(const struct serial *s)
{
	if (!(s->mcr & MCR_LOOP))
		return MSR_READY | (s->msr & 0xf);
	/* DTR RTS OUT1 OUT2 come back as DSR CTS RI DCD. */
	return (uint8_t)((s->mcr & 2) << 3 | (s->mcr & 1) << 5 | (s->mcr & 0xc) << 4 | (s->msr & 0xf));
}

static unsigned identify(const struct serial *s)
{
	if (s->ier & IER_RLSI && s->overrun)
		return IIR_RLSI;
	if (s->ier & IER_RDI && s->count)
		/* Below the trigger level the interrupt is the time-out's, which is due since no byte is on its way. */
		return s->count >= trigger(s) ? IIR_RDI : IIR_TIMEOUT;
	if (s->ier & IER_THRI && s->thr_empty_pending)
		return IIR_THRI;
	if (s->ier & IER_MSI && s->msr & 0xf)
		return IIR_MSI;
	return IIR_NONE;
}

static void update_irq(struct serial *s)
{
	int level = identify(s) != IIR_NONE;
	if (level != s->line) {
		s->line = level;
		vm_irq_line(s->vm, COM1_IRQ, level);
	}
}

static int receive(struct serial *s, uint8_t b)
{
	if (s->count >= fifo_size(s))
		return 0;
	s->fifo[(s->head + s->count++) % FIFO_SIZE] = b;
	return 1;
}

static uint8_t take(struct serial *s)
{
	uint8_t b = 0;
	if (s->count) {
		b = s->fifo[s->head];
		s->head = (s->head + 1) % FIFO_SIZE;
		s->count--;
	}
	return b;
}

static uint8_t reg_read(struct serial *s, unsigned reg)
{
	unsigned id;
	uint8_t v;

	switch (reg) {
	case REG_DATA:
		return s->lcr & LCR_DLAB ? (uint8_t)s->divisor : take(s);
	case REG_IER:
		return s->lcr & LCR_DLAB ? (uint8_t)(s->divisor >> 8) : s->ier;
	case REG_IIR:
		id = identify(s);
		if (id == IIR_THRI)
			s->thr_empty_pending = 0;
		return (uint8_t)(id | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0));
	case REG_LCR:
		return s->lcr;
	case REG_MCR:
		return s->mcr;
	case REG_LSR:
		v = (uint8_t)(LSR_SENT | (s->count ? LSR_DATA : 0) | (s->overrun ? LSR_OVERRUN : 0));
		s->overrun = 0;
		return v;
	case REG_MSR:
		v = modem_status(s);
		s->msr &= 0xf0;
		return v;
	default:
		return s->scr;
	}
}

static void send_byte(struct serial *s, uint8_t b)
{
	if (s->mcr & MCR_LOOP)
		s->overrun |= !receive(s, b);
	else if (s->out)
		s->out(s->out_ctx, &b, 1);
	s->thr_empty_pending = 1;
}

static void set_mcr(struct serial *s, uint8_t v)
{
	uint8_t was = modem_status(s), now;
	s->mcr = v & 0x1f;
	now = modem_status(s);
	/* The deltas: CTS DSR DCD by change, RI by its falling edge. */
	s->msr |= (uint8_t)(((was ^ now) >> 4 & 0xb) | (was & ~now & 0x40) >> 4);
}

static void reg_write(struct serial *s, unsigned reg, uint8_t v)
{
	switch (reg) {
	case REG_DATA:
		if (s->lcr & LCR_DLAB)
			s->divisor = (uint16_t)((s->divisor & 0xff00) | v);
		else
			send_byte(s, v);
		break;
	case REG_IER:
		if (s->lcr & LCR_DLAB) {
			s->divisor = (uint16_t)((s->divisor & 0xff) | v << 8);
			break;
		}
		if (v & ~s->ier & IER_THRI)
			s->thr_empty_pending = 1; /* it is empty, so enabling asks for service */
		s->ier = v & 0xf;
		break;
	case REG_IIR: /* FCR */
		if ((v ^ s->fcr) & FCR_ENABLE || (v & FCR_CLEAR_RX && v & FCR_ENABLE))
			s->head = s->count = 0;
		s->fcr = v & FCR_ENABLE ? v & 0xc9 : 0;
		break;
	case REG_LCR:
		s->lcr = v;
		break;
	case REG_MCR:
		set_mcr(s, v);
		break;
	case REG_SCR:
		s->scr = v;
		break;
	default: /* LSR and MSR are read only */
		break;
	}
}

static void port_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	struct serial *s = ctx;
	void (*room)(void *) = NULL;
	void *room_ctx = NULL;

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < len; i++)
		((uint8_t *)data)[i] = reg_read(s, (unsigned)off + i);
	update_irq(s);
	if (s->want_room && !s->count) {
		s->want_room = 0;
		room = s->room;
		room_ctx = s->room_ctx;
	}
	pthread_mutex_unlock(&s->lock);
	if (room)
		room(room_ctx);
}

static void port_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct serial *s = ctx;
	void (*room)(void *) = NULL;
	void *room_ctx = NULL;

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < len; i++)
		reg_write(s, (unsigned)off + i, ((const uint8_t *)data)[i]);
	update_irq(s);
	if (s->want_room && !s->count) {
		s->want_room = 0;
		room = s->room;
		room_ctx = s->room_ctx;
	}
	pthread_mutex_unlock(&s->lock);
	if (room)
		room(room_ctx);
}

static const struct bus_ops serial_ops = {port_read, port_write};

size_t serial_input(struct serial *s, const void *data, size_t len)
{
	size_t n = 0;

	pthread_mutex_lock(&s->lock);
	if (!(s->mcr & MCR_LOOP)) /* the line is cut while looped back */
		while (n < len && receive(s, ((const uint8_t *)data)[n]))
			n++;
	if (n < len)
		s->want_room = 1;
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
	return n;
}

void serial_on_room(struct serial *s, void (*fn)(void *ctx), void *ctx)
{
	pthread_mutex_lock(&s->lock);
	s->room = fn;
	s->room_ctx = ctx;
	pthread_mutex_unlock(&s->lock);
}

void serial_reset(struct serial *s)
{
	pthread_mutex_lock(&s->lock);
	s->ier = s->lcr = s->mcr = s->scr = s->fcr = s->msr = 0;
	s->divisor = 12; /* 9600 baud */
	s->overrun = s->thr_empty_pending = 0;
	s->head = s->count = 0;
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
}

int serial_new(struct vm *v, void (*out)(void *ctx, const void *data, size_t len), void *ctx, struct serial **ret, struct vh_err *e)
{
	struct serial *s = calloc(1, sizeof *s);
	int r;

	*ret = NULL;
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->vm = v;
	s->out = out;
	s->out_ctx = ctx;
	s->divisor = 12;
	pthread_mutex_init(&s->lock, NULL);
	s->region = (struct bus_region){.base = COM1_PORT, .len = 8, .ops = &serial_ops, .ctx = s};
	r = bus_add(vm_pio(v), &s->region);
	if (r < 0) {
		pthread_mutex_destroy(&s->lock);
		free(s);
		return err_set(e, r, "the serial port's I/O ports are taken");
	}
	*ret = s;
	return 0;
}

void serial_free(struct serial *s)
{
	if (!s)
		return;
	bus_remove(vm_pio(s->vm), &s->region);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
