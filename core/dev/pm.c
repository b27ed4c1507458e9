/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* ACPI power management: PM1a events and control, the PM timer, GPE block 0 and the SCI. ACPI 6.5, chapter 4.8. */
#include "dev/platform-i.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vm/layout.h"

#define PM_HZ 3579545u
#define STS_TIMER 0x0001u
#define STS_BUTTON 0x0100u
#define STS_ALL (STS_TIMER | STS_BUTTON | 0x0020u /* GBL */ | 0x0400u /* RTC */ | 0x8000u /* WAK */)
#define EN_ALL (STS_TIMER | STS_BUTTON | 0x0020u | 0x0400u)
#define CNT_SCI_EN 0x0001u
#define CNT_KEPT 0x1c03u /* SLP_TYP, BM_RLD, SCI_EN */
#define CNT_SLP_EN 0x2000u
#define SLP_TYP(v) ((v) >> 10 & 7)
#define S5_TYPE 0 /* as the DSDT's _S5 says */
#define GPE_HALF (LAYOUT_GPE0_LEN / 2)

struct pm {
	struct vm *vm;
	struct bus_region pm1, gpe;
	pthread_mutex_t lock;
	uint16_t sts, en, cnt;
	uint8_t gpe_sts[GPE_HALF], gpe_en[GPE_HALF];
	int line;
	uint32_t timer_seen; /* at the last look at STS_TIMER */
};

uint32_t pm_ticks(uint64_t ns)
{
	return (uint32_t)((unsigned __int128)ns * PM_HZ / 1000000000u);
}

static uint32_t ticks_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return pm_ticks((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec);
}

/* The status bit follows each change of the counter's top bit. It is seen when looked at: no interrupt is made of it. */
static void look_at_timer(struct pm *p)
{
	uint32_t now = ticks_now();
	if ((now ^ p->timer_seen) >> 31 || now - p->timer_seen > 1u << 31)
		p->sts |= STS_TIMER;
	p->timer_seen = now;
}

static void update_sci(struct pm *p)
{
	int level = (p->sts & p->en & ~STS_TIMER) != 0;
	for (unsigned i = 0; i < GPE_HALF; i++)
		level |= (p->gpe_sts[i] & p->gpe_en[i]) != 0;
	if (level != p->line) {
		p->line = level;
		vm_irq_line(p->vm, LAYOUT_SCI, level);
	}
}

static void control_write(struct pm *p, uint16_t v)
{
	p->cnt = (v & CNT_KEPT) | CNT_SCI_EN;
	if (v & CNT_SLP_EN && SLP_TYP(v) == S5_TYPE)
		vm_post_event(p->vm, VM_SHUTDOWN, "the guest powered off");
}

static void pm1_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	struct pm *p = ctx;
	uint8_t regs[12] = {0};
	uint32_t t;

	if (off >= 8) {
		t = ticks_now(); /* no lock: read millions of times */
		memcpy(data, (uint8_t *)&t + (off - 8), len);
		return;
	}
	pthread_mutex_lock(&p->lock);
	look_at_timer(p);
	memcpy(regs, &p->sts, 2);
	memcpy(regs + 2, &p->en, 2);
	memcpy(regs + 4, &p->cnt, 2);
	pthread_mutex_unlock(&p->lock);
	memcpy(data, regs + off, len);
}

static void pm1_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct pm *p = ctx;
	uint8_t lane[12] = {0}, hit[12] = {0};
	uint16_t v;

	if (off + len > sizeof lane)
		return;
	memcpy(lane + off, data, len);
	memset(hit + off, 0xff, len);
	pthread_mutex_lock(&p->lock);
	look_at_timer(p);
	memcpy(&v, lane, 2);
	p->sts &= (uint16_t)~v; /* ones clear, other lanes are zero */
	for (unsigned i = 0; i < 2; i++)
		if (hit[2 + i])
			((uint8_t *)&p->en)[i] = lane[2 + i];
	p->en &= EN_ALL;
	update_sci(p);
	if (hit[4] || hit[5]) {
		uint8_t *c = (uint8_t *)&p->cnt;
		v = (uint16_t)((hit[4] ? lane[4] : c[0]) | (hit[5] ? lane[5] : c[1]) << 8);
		control_write(p, v);
	}
	pthread_mutex_unlock(&p->lock);
}

static void gpe_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	struct pm *p = ctx;
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < len; i++, off++)
		((uint8_t *)data)[i] = off < GPE_HALF ? p->gpe_sts[off] : p->gpe_en[off - GPE_HALF];
	pthread_mutex_unlock(&p->lock);
}

static void gpe_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct pm *p = ctx;
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < len; i++, off++) {
		uint8_t v = ((const uint8_t *)data)[i];
		if (off < GPE_HALF)
			p->gpe_sts[off] &= (uint8_t)~v;
		else
			p->gpe_en[off - GPE_HALF] = v;
	}
	update_sci(p);
	pthread_mutex_unlock(&p->lock);
}

static const struct bus_ops pm1_ops = {pm1_read, pm1_write}, gpe_ops = {gpe_read, gpe_write};

void pm_power_button(struct pm *p)
{
	pthread_mutex_lock(&p->lock);
	p->sts |= STS_BUTTON;
	update_sci(p);
	pthread_mutex_unlock(&p->lock);
}

int pm_button_enabled(struct pm *p)
{
	int on;
	pthread_mutex_lock(&p->lock);
	on = (p->en & STS_BUTTON) != 0;
	pthread_mutex_unlock(&p->lock);
	return on;
}

void pm_reset(struct pm *p)
{
	pthread_mutex_lock(&p->lock);
	p->sts = p->en = 0;
	p->cnt = CNT_SCI_EN;
	memset(p->gpe_sts, 0, sizeof p->gpe_sts);
	memset(p->gpe_en, 0, sizeof p->gpe_en);
	p->timer_seen = ticks_now();
	update_sci(p);
	pthread_mutex_unlock(&p->lock);
}

int pm_new(struct vm *v, struct pm **out, struct vh_err *e)
{
	struct pm *p = calloc(1, sizeof *p);
	int r;

	*out = NULL;
	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	p->vm = v;
	pthread_mutex_init(&p->lock, NULL);
	p->cnt = CNT_SCI_EN;
	p->timer_seen = ticks_now();
	p->pm1 = (struct bus_region){.base = LAYOUT_PM_BASE, .len = 12, .ops = &pm1_ops, .ctx = p};
	p->gpe = (struct bus_region){.base = LAYOUT_GPE0, .len = LAYOUT_GPE0_LEN, .ops = &gpe_ops, .ctx = p};
	r = bus_add(vm_pio(v), &p->pm1);
	if (!r)
		r = bus_add(vm_pio(v), &p->gpe);
	if (r < 0) {
		pm_free(p);
		return err_set(e, r, "the power management ports are taken");
	}
	*out = p;
	return 0;
}

void pm_free(struct pm *p)
{
	if (!p)
		return;
	bus_remove(vm_pio(p->vm), &p->pm1);
	bus_remove(vm_pio(p->vm), &p->gpe);
	pthread_mutex_destroy(&p->lock);
	free(p);
}
