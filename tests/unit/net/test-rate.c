/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Limits, by a clock that the test winds. */
#include <glib.h>

#include "net/rate.h"

#define MS UINT64_C(1000000)
#define SEC (1000 * MS)

/* Packets of `len` until the limit is used up. */
static unsigned drain(struct rate *r, uint64_t len, uint64_t now)
{
	unsigned n = 0;

	for (; !rate_wait(r, now); n++) {
		rate_take(r, len);
		g_assert_cmpuint(n, <, 1000000);
	}
	return n;
}

static void test_none(void)
{
	struct rate r;
	struct rate_limit l = {0};

	rate_init(&r);
	g_assert_false(rate_limits(&l));
	for (unsigned i = 0; i < 1000; i++) {
		g_assert_cmpuint(rate_wait(&r, i), ==, 0);
		rate_take(&r, 1 << 30);
	}
	g_assert_cmpuint(rate_waits(&r), ==, 0);
	rate_free(&r);
}

static void test_bytes(void)
{
	struct rate r;
	struct rate_limit l = {.bytes = 1000000, .burst = 10000};
	uint64_t now = 5 * SEC, sent = 0;

	rate_init(&r);
	rate_set(&r, &l, now);
	g_assert_cmpuint(drain(&r, 1000, now), ==, 10); /* the burst */
	g_assert_cmpuint(rate_waits(&r), ==, 1);
	g_assert_cmpuint(rate_wait(&r, now), ==, 1000); /* one byte at a million a second */
	/* Whoever waits as long as told may go, and not before. */
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t wait = rate_wait(&r, now);

		g_assert_cmpuint(wait, >, 0);
		g_assert_cmpuint(rate_wait(&r, now + wait - 1), ==, 1);
		now += wait;
		g_assert_cmpuint(rate_wait(&r, now), ==, 0);
		rate_take(&r, 1500);
		sent += 1500;
	}
	/* 1500 bytes every 1.5 ms: nothing is lost to rounding. The first found the burst used up. */
	g_assert_cmpuint(now - 5 * SEC, ==, 1000 * 1500 * UINT64_C(1000) - 1499 * UINT64_C(1000));
	g_assert_cmpuint(sent, ==, 1500000);
	rate_take(&r, 4000); /* what did not go after all costs nothing */
	g_assert_cmpuint(rate_wait(&r, now), ==, 1499000 + 4000000 + 1000);
	rate_give(&r, 4000);
	g_assert_cmpuint(rate_wait(&r, now), ==, 1499000 + 1000);
	/* A silence fills it up to the burst, and no further. */
	now += 100 * SEC;
	g_assert_cmpuint(drain(&r, 1000, now), ==, 10);
	rate_free(&r);
}

/* A packet larger than the burst goes, and is paid for afterwards. */
static void test_large(void)
{
	struct rate r;
	struct rate_limit l = {.bytes = 1000, .burst = 100};

	rate_init(&r);
	rate_set(&r, &l, 0);
	g_assert_cmpuint(rate_wait(&r, 0), ==, 0);
	rate_take(&r, 65100);
	g_assert_cmpuint(rate_wait(&r, 0), ==, 65001 * MS);
	g_assert_cmpuint(rate_wait(&r, 65 * SEC), ==, 1 * MS);
	g_assert_cmpuint(rate_wait(&r, 65 * SEC + 1 * MS), ==, 0);
	rate_free(&r);
}

static void test_packets(void)
{
	struct rate r;
	struct rate_limit l = {.packets = 1000};
	uint64_t now = 0;

	rate_init(&r);
	rate_set(&r, &l, now);
	g_assert_true(rate_limits(&l));
	g_assert_cmpuint(drain(&r, 1 << 20, now), ==, 50);
	for (unsigned i = 0; i < 100; i++) {
		now += MS;
		g_assert_cmpuint(drain(&r, 1 << 20, now), ==, 1);
	}
	/* Both at once: whichever is tighter. */
	l.bytes = 10000;
	l.burst = 100;
	rate_set(&r, &l, now);
	g_assert_cmpuint(drain(&r, 10, now), ==, 10);
	rate_free(&r);
}

static void test_changes(void)
{
	struct rate r;
	struct rate_limit l = {.bytes = 1, .burst = 1}, got;
	uint64_t now = SEC;

	rate_init(&r);
	rate_set(&r, &l, now);
	g_assert_cmpuint(drain(&r, 1000, now), ==, 1);
	g_assert_cmpuint(rate_wait(&r, now), ==, 1000 * SEC);
	l = (struct rate_limit){.bytes = 1000000};
	rate_set(&r, &l, now);
	g_assert_cmpuint(drain(&r, 1024, now), ==, 128); /* the least burst */
	rate_get(&r, &got);
	g_assert_cmpuint(got.bytes, ==, 1000000);
	l = (struct rate_limit){0};
	rate_set(&r, &l, now);
	g_assert_cmpuint(rate_wait(&r, now), ==, 0);
	/* Another loop's clock is behind: that is no time gone by. */
	l = (struct rate_limit){.bytes = 1000, .burst = 1000};
	rate_set(&r, &l, now);
	g_assert_cmpuint(drain(&r, 1000, now), ==, 1);
	g_assert_cmpuint(rate_wait(&r, now - 500 * MS), ==, MS);
	/* The largest of all. */
	l = (struct rate_limit){.bytes = RATE_MAX, .burst = RATE_MAX, .packets = RATE_MAX};
	rate_set(&r, &l, 0);
	g_assert_cmpuint(rate_wait(&r, UINT64_MAX), ==, 0);
	rate_free(&r);
}

struct thief {
	struct rate *r;
	uint64_t now, sent;
};

static gpointer steal(gpointer data)
{
	struct thief *t = data;

	for (unsigned i = 0; i < 20000; i++)
		if (!rate_wait(t->r, t->now)) {
			rate_take(t->r, 100);
			t->sent += 100;
		}
	return NULL;
}

/* Queues that share one get together what it gives, but for one packet each. */
static void test_shared(void)
{
	struct rate r;
	struct rate_limit l = {.bytes = 1000, .burst = 1000000};
	struct thief t[4];
	GThread *thread[4];
	uint64_t sent = 0;

	rate_init(&r);
	rate_set(&r, &l, 0);
	for (unsigned i = 0; i < 4; i++) {
		t[i] = (struct thief){&r, 0, 0};
		thread[i] = g_thread_new("queue", steal, &t[i]);
	}
	for (unsigned i = 0; i < 4; i++) {
		g_thread_join(thread[i]);
		sent += t[i].sent;
	}
	g_assert_cmpuint(sent, >=, 1000000);
	g_assert_cmpuint(sent, <=, 1000000 + 3 * 100);
	rate_free(&r);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/rate/none", test_none);
	g_test_add_func("/rate/bytes", test_bytes);
	g_test_add_func("/rate/large-packets", test_large);
	g_test_add_func("/rate/packets", test_packets);
	g_test_add_func("/rate/changes", test_changes);
	g_test_add_func("/rate/shared", test_shared);
	return g_test_run();
}
