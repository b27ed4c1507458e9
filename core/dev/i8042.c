/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The keyboard controller: self tests, command byte, output port with A20 and the reset line. A keyboard without keys
 * answers behind it, so that firmware finds what it looks for; there is no mouse.
 */
#include "dev/platform-i.h"

#include <pthread.h>
#include <stdlib.h>

#define DATA_PORT 0x60
#define COMMAND_PORT 0x64
#define KBD_IRQ 1
#define STATUS_OUT 0x01
#define STATUS_SYSTEM 0x04
#define STATUS_COMMAND 0x08
#define STATUS_UNLOCKED 0x10
#define MODE_IRQ 0x01
#define MODE_DISABLED 0x10
#define MODE_TRANSLATE 0x40
#define OUT_RESET_OFF 0x01
#define OUT_A20 0x02
#define QUEUE 16

struct i8042 {
	struct vm *vm;
	struct bus_region data, command;
	pthread_mutex_t lock;
	uint8_t mode, out_port, pending; /* pending: the command whose data byte comes next */
	uint8_t kbd_pending, status;
	uint8_t queue[QUEUE];
	unsigned head, count;
	int line;
};

static void set_line(struct i8042 *k)
{
	int level = k->count && k->mode & MODE_IRQ;
	if (level != k->line) {
		k->line = level;
		vm_irq_line(k->vm, KBD_IRQ, level);
	}
}

static void answer(struct i8042 *k, uint8_t b)
{
	if (k->count < QUEUE)
		k->queue[(k->head + k->count++) % QUEUE] = b;
}

static void ask_reset(struct i8042 *k)
{
	vm_post_event(k->vm, VM_RESET, "keyboard controller");
}

static void command(struct i8042 *k, uint8_t c)
{
	k->pending = 0;
	switch (c) {
	case 0x20:
		answer(k, k->mode);
		break;
	case 0x60: case 0xd1: case 0xd2: case 0xd3: case 0xd4:
		k->pending = c;
		break;
	case 0xaa: /* self test */
		k->mode = (k->mode & ~MODE_IRQ) | MODE_DISABLED;
		k->status |= STATUS_SYSTEM;
		answer(k, 0x55);
		break;
	case 0xab: /* keyboard interface */
		answer(k, 0);
		break;
	case 0xa9: /* mouse interface: clock line stuck low, as without one */
		answer(k, 1);
		break;
	case 0xad:
		k->mode |= MODE_DISABLED;
		break;
	case 0xae:
		k->mode &= (uint8_t)~MODE_DISABLED;
		break;
	case 0xc0: /* input port: keyboard unlocked */
		answer(k, 0x80);
		break;
	case 0xd0:
		answer(k, k->out_port);
		break;
	default:
		if (c >= 0xf0 && !(c & 1)) /* pulses the output lines whose bits are 0; bit 0 is the reset */
			ask_reset(k);
	}
}

static void keyboard(struct i8042 *k, uint8_t b)
{
	if (k->kbd_pending) { /* the argument of LEDs, scan code set or rate */
		answer(k, 0xfa);
		if (k->kbd_pending == 0xf0 && !b)
			answer(k, 2);
		k->kbd_pending = 0;
		return;
	}
	switch (b) {
	case 0xee:
		answer(k, 0xee);
		break;
	case 0xed: case 0xf0: case 0xf3:
		k->kbd_pending = b;
		answer(k, 0xfa);
		break;
	case 0xf2:
		answer(k, 0xfa);
		answer(k, 0xab);
		answer(k, k->mode & MODE_TRANSLATE ? 0x41 : 0x83);
		break;
	case 0xf4: case 0xf5: case 0xf6:
		answer(k, 0xfa);
		break;
	case 0xff:
		answer(k, 0xfa);
		answer(k, 0xaa);
		break;
	default:
		answer(k, 0xfe);
	}
}

static void data(struct i8042 *k, uint8_t b)
{
	uint8_t c = k->pending;

	k->pending = 0;
	switch (c) {
	case 0x60:
		k->mode = b;
		break;
	case 0xd1:
		k->out_port = b;
		if (!(b & OUT_RESET_OFF))
			ask_reset(k);
		break;
	case 0xd2: /* as if the keyboard had sent it */
		answer(k, b);
		break;
	case 0xd3: case 0xd4: /* to the mouse, which is not there */
		break;
	default:
		keyboard(k, b);
	}
}

static void data_read(void *ctx, uint64_t off, void *p, unsigned len)
{
	struct i8042 *k = ctx;
	pthread_mutex_lock(&k->lock);
	*(uint8_t *)p = k->count ? k->queue[k->head] : 0;
	if (k->count) {
		k->head = (k->head + 1) % QUEUE;
		k->count--;
		if (k->line) { /* the line falls between two bytes: an edge for each */
			k->line = 0;
			vm_irq_line(k->vm, KBD_IRQ, 0);
		}
	}
	set_line(k);
	pthread_mutex_unlock(&k->lock);
}

static void data_write(void *ctx, uint64_t off, const void *p, unsigned len)
{
	struct i8042 *k = ctx;
	pthread_mutex_lock(&k->lock);
	k->status &= (uint8_t)~STATUS_COMMAND;
	data(k, *(const uint8_t *)p);
	set_line(k);
	pthread_mutex_unlock(&k->lock);
}

static void status_read(void *ctx, uint64_t off, void *p, unsigned len)
{
	struct i8042 *k = ctx;
	pthread_mutex_lock(&k->lock);
	*(uint8_t *)p = (uint8_t)(k->status | (k->count ? STATUS_OUT : 0));
	pthread_mutex_unlock(&k->lock);
}

static void command_write(void *ctx, uint64_t off, const void *p, unsigned len)
{
	struct i8042 *k = ctx;
	pthread_mutex_lock(&k->lock);
	k->status |= STATUS_COMMAND;
	command(k, *(const uint8_t *)p);
	set_line(k);
	pthread_mutex_unlock(&k->lock);
}

static const struct bus_ops data_ops = {data_read, data_write}, command_ops = {status_read, command_write};

static void set_initial(struct i8042 *k)
{
	k->mode = MODE_IRQ | STATUS_SYSTEM | MODE_TRANSLATE;
	k->out_port = OUT_RESET_OFF | OUT_A20;
	k->status = STATUS_UNLOCKED | STATUS_SYSTEM;
	k->pending = k->kbd_pending = 0;
	k->head = k->count = 0;
}

void i8042_reset(struct i8042 *k)
{
	pthread_mutex_lock(&k->lock);
	set_initial(k);
	set_line(k);
	pthread_mutex_unlock(&k->lock);
}

int i8042_new(struct vm *v, struct i8042 **out, struct vh_err *e)
{
	struct i8042 *k = calloc(1, sizeof *k);
	int r;

	*out = NULL;
	if (!k)
		return err_set(e, -ENOMEM, "out of memory");
	k->vm = v;
	pthread_mutex_init(&k->lock, NULL);
	set_initial(k);
	k->data = (struct bus_region){.base = DATA_PORT, .len = 1, .ops = &data_ops, .ctx = k};
	k->command = (struct bus_region){.base = COMMAND_PORT, .len = 1, .ops = &command_ops, .ctx = k};
	r = bus_add(vm_pio(v), &k->data);
	if (!r)
		r = bus_add(vm_pio(v), &k->command);
	if (r < 0) {
		i8042_free(k);
		return err_set(e, r, "the keyboard controller's ports are taken");
	}
	*out = k;
	return 0;
}

void i8042_free(struct i8042 *k)
{
	if (!k)
		return;
	bus_remove(vm_pio(k->vm), &k->data);
	bus_remove(vm_pio(k->vm), &k->command);
	pthread_mutex_destroy(&k->lock);
	free(k);
}
