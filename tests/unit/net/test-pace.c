/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* When ports are repaired, by a clock that the test winds. */
#include <glib.h>

#include "net/pace.h"

static void settles(void)
{
	struct pace p = { 0 };

	g_assert_true(pace_listens(&p));
	g_assert_false(pace_due(&p, 1000000));
	pace_heard(&p, 1000);
	g_assert_false(pace_listens(&p));
	g_assert_false(pace_due(&p, 1000 + PACE_SETTLE - 1));
	g_assert_true(pace_due(&p, 1000 + PACE_SETTLE));
	g_assert_cmpint(pace_done(&p, 1300, 0), ==, 0);
	g_assert_true(pace_listens(&p));
	g_assert_false(pace_due(&p, 99999999));
	pace_heard(&p, 1301); /* what was nothing costs nobody a second */
	g_assert_true(pace_due(&p, 1301 + PACE_SETTLE));
}

/* Another program deletes the bridge whenever it is there, for an hour. */
static void a_quarrel(void)
{
	unsigned repairs = 0, gave_up = 0, looks = 0;
	uint64_t last = 0, now;
	struct pace p = { 0 };
	int there = 1;

	for (now = 1; now < 3600000; now++) {
		if (there) {
			there = 0;
			if (pace_listens(&p))
				pace_heard(&p, now);
		}
		if (!pace_due(&p, now))
			continue;
		looks++;
		g_assert_true(!last || now - last >= PACE_APART);
		last = now;
		there = 1;
		repairs++;
		gave_up += (unsigned)pace_done(&p, now, 1);
	}
	g_assert_cmpuint(repairs, ==, looks);
	g_assert_cmpuint(gave_up, ==, 6);
	g_assert_cmpuint(repairs, ==, 6 * PACE_ROW);
}

/* Now and then a repair is no quarrel. */
static void now_and_then(void)
{
	struct pace p = { 0 };
	uint64_t now = 1;

	for (int i = 0; i < 100; i++) {
		pace_heard(&p, now);
		g_assert_true(pace_due(&p, now + PACE_SETTLE));
		g_assert_cmpint(pace_done(&p, now + PACE_SETTLE, 1), ==, 0);
		/* It is looked at once more. */
		g_assert_true(pace_due(&p, now + PACE_SETTLE + PACE_APART));
		g_assert_cmpint(pace_done(&p, now + PACE_SETTLE + PACE_APART, 0), ==, 0);
		now += PACE_SOON + PACE_SETTLE;
	}
}

/* What cannot be repaired is tried ever more seldom, but soon after something has changed. */
static void in_vain(void)
{
	struct pace p = { 0 };
	uint64_t now = 5, tries = 0;

	pace_heard(&p, now);
	for (; now < 3600000; now++)
		if (pace_due(&p, now)) {
			g_assert_cmpint(pace_done(&p, now, -5), ==, 0);
			tries++;
		}
	g_assert_cmpuint(tries, >=, 3600000 / PACE_RETRY);
	g_assert_cmpuint(tries, <, 3600000 / PACE_RETRY + 8);
	g_assert_true(pace_listens(&p));
	pace_heard(&p, now);
	g_assert_true(pace_due(&p, now + PACE_APART));
	g_assert_cmpint(pace_done(&p, now + PACE_APART, -5), ==, 0);
	pace_heard(&p, now + PACE_APART);
	g_assert_false(pace_due(&p, now + 2 * PACE_APART - 1));
	g_assert_true(pace_due(&p, now + 2 * PACE_APART));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/pace/a-change-settles", settles);
	g_test_add_func("/pace/a-quarrel-takes-no-time", a_quarrel);
	g_test_add_func("/pace/now-and-then-is-no-quarrel", now_and_then);
	g_test_add_func("/pace/in-vain", in_vain);
	return g_test_run();
}
