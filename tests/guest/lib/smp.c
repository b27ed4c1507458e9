/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "guest.h"

#define LAPIC UINT64_C(0xfee00000)
#define ICR_LOW (LAPIC + 0x300)
#define ICR_HIGH (LAPIC + 0x310)
#define SVR (LAPIC + 0xf0)
#define STACK 16384

extern char ap_trampoline[], ap_trampoline_end[];
extern uint32_t ap_stack;

static void (*ap_fn)(unsigned cpu);
static volatile unsigned started;

void guest_ap(void);
void guest_ap(void)
{
	unsigned me = __atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
	ap_fn(me);
	for (;;)
		relax();
}

unsigned smp_start(unsigned n, void (*fn)(unsigned cpu))
{
	uint8_t *stacks = page_alloc((size_t)(n + 1) * STACK);

	ap_fn = fn;
	ap_stack = (uint32_t)(uintptr_t)stacks + STACK;
	memcpy((void *)0x8000, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
	mmio_write32(SVR, 0x1ff);
	for (unsigned i = 1; i <= n; i++) {
		mmio_write32(ICR_HIGH, i << 24);
		mmio_write32(ICR_LOW, 0x4500); /* INIT */
		wait_us(200);
		mmio_write32(ICR_HIGH, i << 24);
		mmio_write32(ICR_LOW, 0x4608); /* start at page 8 */
		for (unsigned k = 0; started < i && k < 2000; k++)
			wait_us(100);
		if (started < i)
			break;
	}
	return started;
}
