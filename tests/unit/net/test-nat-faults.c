/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The nat plugin built with its fault hook: each netlink batch, nft command, setting, file and process refused, answered
 * falsely, or the last thing that a process did; opening, closing, starting, stopping. gc() then leaves what was there before. */
#include "faults.h"
#include "nat-test.h"

static const struct spec full = {
	"address=192.168.77.1/24,address6=fd00:77::1/64,forward=tcp:8080:192.168.77.9:80", .network = "n", .kind = "nat", .owner = "vhost:t:1:1:0",
};
static const struct spec bare = { "vhi,kind=isolated", .owner = "vhost:t:1:1:0" };
static const struct spec held = {
	"address=192.168.77.1/24,address6=fd00:77::1/64,forward=tcp:8080:192.168.77.9:80", .network = "n", .kind = "nat", .owner = "vhost:@n:1",
};

/* What is done up to the faults, and under them; `port` goes from the one to the other. */
struct scene {
	const char *name;
	void (*before)(void **port);
	int (*act)(void **port);
	int undoes; /* what fails has been taken back at once */
};

static void nothing(void **port)
{
}

static void a_port(void **port)
{
	*port = must_open(&full);
}

static void is_held(void **port)
{
	must_hold(START, &held);
}

static int open_full(void **port)
{
	return try_open(&full, port, NULL);
}

static int open_bare(void **port)
{
	return try_open(&bare, port, NULL);
}

static int close_it(void **port)
{
	ops->close(*port);
	*port = NULL;
	return 0;
}

static int start(void **port)
{
	return hold(START, &held, NULL, NULL);
}

static int stop(void **port)
{
	return hold(STOP, &held, NULL, NULL);
}

static const struct scene scenes[] = {
	{ "open", nothing, open_full, 1 },
	{ "open-isolated", nothing, open_bare, 1 },
	{ "start", nothing, start, 1 },
	{ "close", a_port, close_it, 0 },
	{ "take-over", a_port, start, 0 },
	{ "stop", is_held, stop, 0 },
};

/* 0: there is no n-th step. */
static int one(const struct scene *s, unsigned n, int sticky, int killing)
{
	void *port = NULL;
	pid_t pid;
	int st, r;

	if (killing) {
		pid = fork();
		if (!pid) {
			s->before(&port);
			fault(n, 0, 1);
			s->act(&port);
			_exit(fault_count >= n);
		}
		g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
		if (!WIFSIGNALED(st))
			g_assert_cmpint(st, ==, 0);
		return WIFSIGNALED(st);
	}
	s->before(&port);
	fault(n, sticky, 0);
	r = s->act(&port);
	net_fault_hook = NULL;
	if (fault_count < n)
		g_assert_cmpint(r, ==, 0);
	else if (s->undoes && !r)
		g_error("step %u, %s, failed, and nobody said so", n, fault_name);
	if (port)
		ops->close(port);
	if (!r && s->act == start) /* without a fault, or past the last that matters */
		hold(STOP, &held, NULL, NULL);
	return fault_count >= n;
}

static void each_step(const struct scene *s, int sticky, int killing)
{
	unsigned n = 0;
	int more = 1;

	if (!nat_begin())
		return;
	net_fault_hook = NULL;
	g_autofree char *before = nat_state();

	while (more) {
		more = one(s, ++n, sticky, killing);
		if (s->undoes && !sticky && !killing) { /* undone at once, no gc needed */
			g_autofree char *undone = nat_state(), *run = processes_at_last("");

			g_assert_cmpstr(before, ==, undone);
			g_assert_cmpstr(run, ==, "");
		}
		gc(nobody, NULL, NULL);
		g_autofree char *after = nat_state(), *none = processes_at_last("");

		g_assert_cmpstr(before, ==, after);
		g_assert_cmpstr(none, ==, "");
		g_assert_cmpuint(state_files("vhost:"), ==, 0);
		g_assert_cmpuint(state_files("nat.up."), ==, 0);
		g_assert_cmpuint(state_files("nat.lock."), ==, 0);
		g_assert_cmpuint(state_files("nat.sysctl."), ==, 0);
	}
	g_assert_cmpuint(n, >, 5);
	g_test_message("%s: %u steps", s->name, n - 1);
}

static void fails(const void *s)
{
	each_step(s, 0, 0);
}

static void fails_with_undo(const void *s)
{
	each_step(s, 1, 0);
}

static void is_the_last(const void *s)
{
	each_step(s, 0, 1);
}

static void add(void)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(scenes); i++) {
		g_autofree char *a = g_strdup_printf("/nat-faults/%s/each-step-fails", scenes[i].name);
		g_autofree char *b = g_strdup_printf("/nat-faults/%s/each-step-and-its-undo-fail", scenes[i].name);
		g_autofree char *c = g_strdup_printf("/nat-faults/%s/killed-at-each-step", scenes[i].name);

		g_test_add_data_func(a, &scenes[i], fails);
		g_test_add_data_func(b, &scenes[i], fails_with_undo);
		g_test_add_data_func(c, &scenes[i], is_the_last);
	}
}

int main(int argc, char **argv)
{
	return nat_main(argc, argv, add);
}
