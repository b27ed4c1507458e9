/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * MC146818 clock and CMOS memory. The time is the host's in UTC plus what the guest has set. A thread exists only once
 * the guest has asked for an interrupt (periodic, alarm, update ended), and sleeps while each asked-for one is pending.
 */
#include "dev/platform-i.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <time.h>

#define RTC_IRQ 8
#define NS UINT64_C(1000000000)

enum { R_SEC, R_SEC_ALARM, R_MIN, R_MIN_ALARM, R_HOUR, R_HOUR_ALARM, R_WDAY, R_DAY, R_MONTH, R_YEAR, R_A, R_B, R_C, R_D };

#define R_SHUTDOWN 0x0f
#define R_CENTURY 0x32
#define A_UIP 0x80
#define B_SET 0x80
#define B_PIE 0x40
#define B_AIE 0x20
#define B_UIE 0x10
#define B_BINARY 0x04
#define B_24H 0x02
#define C_IRQ 0x80
#define C_PF 0x40
#define C_AF 0x20
#define C_UF 0x10
#define UPDATE_NS 244000 /* how long UIP announces the next second */
#define NO_CARE 0xc0
#define MAX_GAP 60

struct rtc {
	struct vm *vm;
	struct bus_region region;
	pthread_mutex_t lock;
	pthread_cond_t cond; /* CLOCK_MONOTONIC */
	pthread_t thread;
	int have_thread, quit, line;
	uint8_t index, ram[128];
	int64_t offset;       /* guest's seconds less the host's */
	time_t frozen;        /* the time while B_SET holds the clock */
	uint64_t next_period; /* monotonic */
	time_t seen;          /* the last second looked at for alarm and update */
};

static uint64_t mono(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

static time_t guest_time(const struct rtc *r, long *nsec)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	if (nsec)
		*nsec = t.tv_nsec;
	return r->ram[R_B] & B_SET ? r->frozen : t.tv_sec + (time_t)r->offset;
}

static uint8_t encode(const struct rtc *r, int v)
{
	return (uint8_t)(r->ram[R_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static int decode(const struct rtc *r, uint8_t v)
{
	return r->ram[R_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct rtc *r, int h)
{
	if (r->ram[R_B] & B_24H)
		return encode(r, h);
	return (uint8_t)(encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? 0x80 : 0));
}

static int decode_hour(const struct rtc *r, uint8_t v)
{
	if (r->ram[R_B] & B_24H)
		return decode(r, v);
	return decode(r, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

static uint8_t read_time(const struct rtc *r, unsigned reg)
{
	time_t now = guest_time(r, NULL);
	struct tm t;

	gmtime_r(&now, &t);
	switch (reg) {
	case R_SEC:
		return encode(r, t.tm_sec);
	case R_MIN:
		return encode(r, t.tm_min);
	case R_HOUR:
		return encode_hour(r, t.tm_hour);
	case R_WDAY:
		return encode(r, t.tm_wday + 1);
	case R_DAY:
		return encode(r, t.tm_mday);
	case R_MONTH:
		return encode(r, t.tm_mon + 1);
	case R_YEAR:
		return encode(r, t.tm_year % 100);
	default:
		return encode(r, (t.tm_year + 1900) / 100);
	}
}

static void write_time(struct rtc *r, unsigned reg, uint8_t v)
{
	time_t was = guest_time(r, NULL), set;
	struct tm t;

	gmtime_r(&was, &t);
	switch (reg) {
	case R_SEC:
		t.tm_sec = decode(r, v);
		break;
	case R_MIN:
		t.tm_min = decode(r, v);
		break;
	case R_HOUR:
		t.tm_hour = decode_hour(r, v);
		break;
	case R_DAY:
		t.tm_mday = decode(r, v);
		break;
	case R_MONTH:
		t.tm_mon = decode(r, v) - 1;
		break;
	case R_YEAR:
		t.tm_year = t.tm_year / 100 * 100 + decode(r, v);
		break;
	case R_CENTURY:
		t.tm_year = decode(r, v) * 100 - 1900 + (t.tm_year + 1900) % 100;
		break;
	default: /* the day of the week follows the date */
		return;
	}
	set = timegm(&t);
	if (r->ram[R_B] & B_SET)
		r->frozen = set;
	else
		r->offset += set - was;
	r->seen = set; /* an alarm that was jumped over does not ring */
}

/* 0: no periodic interrupt at this rate. */
static uint64_t period_ns(const struct rtc *r)
{
	unsigned rate = r->ram[R_A] & 15;
	if (!rate)
		return 0;
	if (rate < 3)
		rate += 7;
	return (NS << (rate - 1)) / 32768;
}

static int alarm_matches(const struct rtc *r, time_t now)
{
	static const uint8_t at[3] = {R_SEC, R_MIN, R_HOUR};
	for (unsigned i = 0; i < 3; i++) {
		uint8_t want = r->ram[at[i] + 1];
		struct tm t;
		int have;
		if (want >= NO_CARE)
			continue;
		gmtime_r(&now, &t);
		have = i == 0 ? t.tm_sec : i == 1 ? t.tm_min : t.tm_hour;
		if ((i == 2 ? decode_hour(r, want) : decode(r, want)) != have)
			return 0;
	}
	return 1;
}

static void update_line(struct rtc *r)
{
	uint8_t c = r->ram[R_C] & 0x7f;
	int level = (c & r->ram[R_B] & (C_PF | C_AF | C_UF)) != 0;

	r->ram[R_C] = (uint8_t)(c | (level ? C_IRQ : 0));
	if (level != r->line) {
		r->line = level;
		vm_irq_line(r->vm, RTC_IRQ, level);
	}
}

/* Sets the flags that are due. */
static void look(struct rtc *r)
{
	uint64_t now = mono(), period = period_ns(r);
	time_t second = guest_time(r, NULL);

	if (period && now >= r->next_period) {
		r->ram[R_C] |= C_PF;
		r->next_period += ((now - r->next_period) / period + 1) * period;
	}
	if (second != r->seen && !(r->ram[R_B] & B_SET)) {
		/* After a gap, e.g. a busy host, each second in it counts. */
		time_t from = second > r->seen && second - r->seen < MAX_GAP ? r->seen + 1 : second;
		r->ram[R_C] |= C_UF;
		for (time_t t = from; t <= second && !(r->ram[R_C] & C_AF); t++)
			if (alarm_matches(r, t))
				r->ram[R_C] |= C_AF;
		r->seen = second;
	}
	update_line(r);
}

/* When the next interrupt that the guest waits for can be due; 0: none, so wait for a change. */
static uint64_t next_wake(const struct rtc *r)
{
	uint8_t missing = r->ram[R_B] & ~r->ram[R_C] & (B_PIE | B_AIE | B_UIE);
	uint64_t at = 0;
	long nsec;

	if (missing & B_PIE && period_ns(r))
		at = r->next_period;
	if (missing & (B_AIE | B_UIE) && !(r->ram[R_B] & B_SET)) {
		guest_time(r, &nsec);
		uint64_t second = mono() + NS - (uint64_t)nsec + 1000;
		if (!at || second < at)
			at = second;
	}
	return at;
}

static void *rtc_thread(void *arg)
{
	struct rtc *r = arg;

	pthread_mutex_lock(&r->lock);
	while (!r->quit) {
		look(r);
		uint64_t at = next_wake(r);
		if (at) {
			struct timespec t = {(time_t)(at / NS), (long)(at % NS)};
			pthread_cond_timedwait(&r->cond, &r->lock, &t);
		} else {
			pthread_cond_wait(&r->cond, &r->lock);
		}
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

static void want_interrupts(struct rtc *r)
{
	sigset_t all, old;

	if (!r->have_thread && r->ram[R_B] & (B_PIE | B_AIE | B_UIE)) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		r->have_thread = pthread_create(&r->thread, NULL, rtc_thread, r) == 0;
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	pthread_cond_signal(&r->cond);
}

static void write_b(struct rtc *r, uint8_t v)
{
	time_t now = guest_time(r, NULL);

	if (v & B_SET && !(r->ram[R_B] & B_SET)) {
		r->frozen = now;
	} else if (!(v & B_SET) && r->ram[R_B] & B_SET) {
		r->ram[R_B] &= (uint8_t)~B_SET;
		r->offset += r->frozen - guest_time(r, NULL);
		r->seen = r->frozen;
	}
	r->ram[R_B] = v & B_SET ? v & ~B_UIE : v;
	update_line(r);
	want_interrupts(r);
}

static uint8_t reg_read(struct rtc *r, unsigned reg)
{
	uint8_t v;
	long nsec;

	switch (reg) {
	case R_SEC: case R_MIN: case R_HOUR: case R_WDAY: case R_DAY: case R_MONTH: case R_YEAR: case R_CENTURY:
		return read_time(r, reg);
	case R_A:
		guest_time(r, &nsec);
		return (uint8_t)(r->ram[R_A] | (!(r->ram[R_B] & B_SET) && nsec >= (long)NS - UPDATE_NS ? A_UIP : 0));
	case R_C:
		look(r);
		v = r->ram[R_C];
		r->ram[R_C] = 0;
		update_line(r);
		pthread_cond_signal(&r->cond);
		return v;
	case R_D:
		return 0x80; /* the battery is good */
	default:
		return r->ram[reg];
	}
}

static void reg_write(struct rtc *r, unsigned reg, uint8_t v)
{
	switch (reg) {
	case R_SEC: case R_MIN: case R_HOUR: case R_WDAY: case R_DAY: case R_MONTH: case R_YEAR: case R_CENTURY:
		write_time(r, reg, v);
		break;
	case R_A:
		r->ram[R_A] = v & 0x7f;
		r->next_period = mono() + period_ns(r);
		want_interrupts(r);
		break;
	case R_B:
		write_b(r, v);
		break;
	case R_C: case R_D:
		break;
	default:
		r->ram[reg] = v;
		if (reg < R_A)
			want_interrupts(r);
	}
}

static void port_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	struct rtc *r = ctx;
	if (off + len != 2) /* the index port is write only */
		return;
	pthread_mutex_lock(&r->lock);
	((uint8_t *)data)[len - 1] = reg_read(r, r->index);
	pthread_mutex_unlock(&r->lock);
}

static void port_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct rtc *r = ctx;
	const uint8_t *p = data;

	pthread_mutex_lock(&r->lock);
	for (unsigned i = 0; i < len; i++)
		if (off + i == 0)
			r->index = p[i] & 0x7f; /* bit 7 masks NMIs, of which there are none */
		else
			reg_write(r, r->index, p[i]);
	pthread_mutex_unlock(&r->lock);
}

static const struct bus_ops rtc_ops = {port_read, port_write};

static void put16(uint8_t *p, uint64_t v)
{
	v = v > 0xffff ? 0xffff : v;
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

/* What firmware looks up: memory sizes (below 640 KiB, from 1 MiB, from 16 MiB, from 4 GiB) and the number of CPUs. */
static void fill(struct rtc *r)
{
	const struct mem *m = vm_mem(r->vm);
	uint64_t low = m->range[0].bytes, high = m->n > 1 ? m->range[1].bytes >> 16 : 0;

	put16(r->ram + 0x15, 640);
	put16(r->ram + 0x17, (low - (1u << 20)) >> 10);
	put16(r->ram + 0x30, (low - (1u << 20)) >> 10);
	put16(r->ram + 0x34, low > 16u << 20 ? (low - (16u << 20)) >> 16 : 0);
	r->ram[0x5b] = (uint8_t)high;
	r->ram[0x5c] = (uint8_t)(high >> 8);
	r->ram[0x5d] = (uint8_t)(high >> 16);
	r->ram[0x5f] = (uint8_t)(vm_cpus(r->vm) - 1);
	r->ram[0x14] = 0x06; /* FPU; no floppy, no display */
}

void rtc_reset(struct rtc *r)
{
	pthread_mutex_lock(&r->lock);
	if (r->ram[R_B] & B_SET)
		write_b(r, r->ram[R_B] & ~B_SET);
	r->ram[R_A] = 0x26; /* 32768 Hz, 1024 Hz */
	r->ram[R_B] = B_24H;
	r->ram[R_C] = 0;
	r->ram[R_SHUTDOWN] = 0;
	r->index = 0;
	fill(r);
	update_line(r);
	pthread_cond_signal(&r->cond);
	pthread_mutex_unlock(&r->lock);
}

int rtc_new(struct vm *v, struct rtc **out, struct vh_err *e)
{
	struct rtc *r = calloc(1, sizeof *r);
	pthread_condattr_t a;
	int ret;

	*out = NULL;
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	r->vm = v;
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(&r->cond, &a);
	pthread_condattr_destroy(&a);
	r->ram[R_B] = B_24H;
	r->seen = guest_time(r, NULL);
	r->next_period = mono();
	rtc_reset(r);
	r->region = (struct bus_region){.base = 0x70, .len = 2, .ops = &rtc_ops, .ctx = r};
	ret = bus_add(vm_pio(v), &r->region);
	if (ret < 0) {
		rtc_free(r);
		return err_set(e, ret, "the clock's ports are taken");
	}
	*out = r;
	return 0;
}

void rtc_free(struct rtc *r)
{
	if (!r)
		return;
	bus_remove(vm_pio(r->vm), &r->region);
	pthread_mutex_lock(&r->lock);
	r->quit = 1;
	pthread_cond_signal(&r->cond);
	pthread_mutex_unlock(&r->lock);
	if (r->have_thread)
		pthread_join(r->thread, NULL);
	pthread_cond_destroy(&r->cond);
	pthread_mutex_destroy(&r->lock);
	free(r);
}
