/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Small ports: 0x92 (A20 and fast reset), 0xb2/0xb3 (APM, only stored), 0x402 (debug console), pvpanic. */
#include "dev/platform-i.h"

#include <pthread.h>
#include <stdlib.h>

#include "util/log.h"
#include "vm/layout.h"

#define PORT_92 0x92
#define PORT_APM 0xb2
#define PORT_DEBUG 0x402
#define DEBUG_PRESENT 0xe9
#define PANICKED 1
#define CRASH_LOADED 2

struct misc {
	struct vm *vm;
	struct bus_region port92, apm, debug, panic;
	pthread_mutex_t lock; /* of the debug line */
	char line[160];
	unsigned n;
	uint8_t p92, apm_reg[2], told; /* told: once between resets, the guest cannot fill the log */
};

static void p92_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	*(uint8_t *)data = __atomic_load_n(&((struct misc *)ctx)->p92, __ATOMIC_RELAXED);
}

static void p92_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct misc *m = ctx;
	uint8_t v = *(const uint8_t *)data, was = __atomic_exchange_n(&m->p92, v, __ATOMIC_RELAXED);
	if (v & 1 && !(was & 1))
		vm_post_event(m->vm, VM_RESET, "port 0x92");
}

static void apm_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		((uint8_t *)data)[i] = __atomic_load_n(&((struct misc *)ctx)->apm_reg[off + i], __ATOMIC_RELAXED);
}

static void apm_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		__atomic_store_n(&((struct misc *)ctx)->apm_reg[off + i], ((const uint8_t *)data)[i], __ATOMIC_RELAXED);
}

static void debug_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	*(uint8_t *)data = DEBUG_PRESENT;
}

static void debug_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct misc *m = ctx;
	uint8_t c = *(const uint8_t *)data;

	pthread_mutex_lock(&m->lock);
	if (c >= ' ' && c < 0x7f)
		m->line[m->n++] = (char)c;
	if (c == '\n' || m->n == sizeof m->line - 1) {
		m->line[m->n] = 0;
		log_debug("firmware", "%s", m->line);
		m->n = 0;
	}
	pthread_mutex_unlock(&m->lock);
}

static void panic_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	*(uint8_t *)data = PANICKED | CRASH_LOADED;
}

static void panic_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	uint8_t v = *(const uint8_t *)data;
	if (v & PANICKED)
		vm_post_event(((struct misc *)ctx)->vm, VM_PANIC, "the guest's kernel panicked");
	else if (v & CRASH_LOADED && !__atomic_exchange_n(&((struct misc *)ctx)->told, 1, __ATOMIC_RELAXED))
		log_warn("vm", "the guest's kernel panicked and starts its crash kernel");
}

static const struct bus_ops p92_ops = {p92_read, p92_write}, apm_ops = {apm_read, apm_write}, debug_ops = {debug_read, debug_write},
			    panic_ops = {panic_read, panic_write};

void misc_reset(struct misc *m)
{
	__atomic_store_n(&m->p92, 2, __ATOMIC_RELAXED); /* A20 is on */
	__atomic_store_n(&m->told, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&m->apm_reg[0], 0, __ATOMIC_RELAXED);
	__atomic_store_n(&m->apm_reg[1], 0, __ATOMIC_RELAXED);
}

int misc_new(struct vm *v, struct misc **out, struct vh_err *e)
{
	struct misc *m = calloc(1, sizeof *m);
	struct bus *b = vm_pio(v);
	int r;

	*out = NULL;
	if (!m)
		return err_set(e, -ENOMEM, "out of memory");
	m->vm = v;
	m->p92 = 2;
	pthread_mutex_init(&m->lock, NULL);
	m->port92 = (struct bus_region){.base = PORT_92, .len = 1, .ops = &p92_ops, .ctx = m};
	m->apm = (struct bus_region){.base = PORT_APM, .len = 2, .ops = &apm_ops, .ctx = m};
	m->debug = (struct bus_region){.base = PORT_DEBUG, .len = 1, .ops = &debug_ops, .ctx = m};
	m->panic = (struct bus_region){.base = LAYOUT_PVPANIC, .len = 1, .ops = &panic_ops, .ctx = m};
	r = bus_add(b, &m->port92);
	if (!r)
		r = bus_add(b, &m->apm);
	if (!r)
		r = bus_add(b, &m->debug);
	if (!r)
		r = bus_add(b, &m->panic);
	if (r < 0) {
		misc_free(m);
		return err_set(e, r, "the platform's ports are taken");
	}
	*out = m;
	return 0;
}

void misc_free(struct misc *m)
{
	if (!m)
		return;
	bus_remove(vm_pio(m->vm), &m->port92);
	bus_remove(vm_pio(m->vm), &m->apm);
	bus_remove(vm_pio(m->vm), &m->debug);
	bus_remove(vm_pio(m->vm), &m->panic);
	pthread_mutex_destroy(&m->lock);
	free(m);
}
