/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The vlan plugin with its fault hook, both builds: every step refused, answered falsely, or the last thing a process did. Needs a kernel
 * with VLANs: tests/lab/net-vlan.sh runs it. */
#include "vlantest.h"

static const struct {
	struct spec spec;
	void *(*setup)(void);
} cases[] = {
	{ { "up0,id=10,isolated=on", .pairs = 2, .mtu = 1300 }, uplink },
	{ { "up0,id=10,protocol=802.1ad,bridge=a-name-beyond-15-characters" }, uplink },
	{ { "up0,id=10" }, uplink_device_port },
	{ { "up0,id=10,mode=filter" }, uplink },
	{ { "up0,mode=filter,trunk=10-20:30,native=7,isolated=on" }, uplink_filter_port },
};

static void every(int sticky, int killing)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		if (!begin())
			return;
		each_step(&cases[i].spec, cases[i].setup, sticky, killing);
	}
}

static void each_step_fails(void)
{
	every(0, 0);
}

static void each_step_and_undo_fails(void)
{
	every(1, 0);
}

static void each_step_is_the_last(void)
{
	every(0, 1);
}

static void close_is_killed(void)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		if (!begin())
			return;
		close_killed(&cases[i].spec, cases[i].setup);
	}
}

static void gc_finds(void)
{
	if (!begin())
		return;
	uplink();
	run_ok("ip link add link up0 name theirs type vlan id 77");
	g_autofree char *before = net_state();

	for (unsigned m = 0; m < 2; m++) {
		/* The VM is killed, and its helper. */
		pid_t pid = fork();
		int st;

		if (!pid) {
			must_open(&(struct spec){ m ? "up0,id=10,mode=filter" : "up0,id=10", .owner = "vhost:dead:1:1:0" });
			must_open(&(struct spec){ m ? "up0,mode=filter,trunk=5-8" : "up0,id=11", .owner = "vhost:dead:1:1:1" });
			_exit(0);
		}
		g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
		g_assert_cmpint(st, ==, 0);
		g_assert_cmpuint(gc(everybody), ==, 0);
		g_assert_true(has(m ? "br-up0" : "up0.11", "ip -o link"));
		g_assert_cmpuint(gc(nobody), ==, m ? 1 : 4);
		same_state(before);
		g_assert_cmpuint(journals(), ==, 0);
	}
}

static void start_faults(void)
{
	static const char *const mode[] = { "up0,id=10", "up0,id=10,mode=filter" };

	for (unsigned m = 0; m < 8; m++) {
		int killing = m / 2 % 2, used = m / 4;
		void *first = NULL;

		if (!begin())
			return;
		uplink();
		if (used)
			first = must_open(&(struct spec){ mode[m % 2], .owner = "vhost:keep:1:1:0" });
		g_autofree char *before = net_state();
		unsigned entries = journals();

		for (unsigned n = 1;; n++) {
			int st, r;
			pid_t pid;

			if (killing) {
				pid = fork();
				if (!pid) {
					fault(n, 0, 1);
					r = network(ops->start, mode[m % 2], "vhost:@lan:1", NULL);
					_exit(r != 0);
				}
				g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
				r = WIFSIGNALED(st) ? -1 : WEXITSTATUS(st);
			} else {
				ERR_AUTO(e);

				fault(n, 0, 0);
				r = network(ops->start, mode[m % 2], "vhost:@lan:1", &e);
				net_fault_hook = NULL;
				if (r < 0)
					g_assert_nonnull(e.cause);
			}
			if (!r) {
				if (used) { /* it has a port */
					g_assert_cmpint(network(ops->stop, mode[m % 2], "vhost:@lan:1", NULL), ==, -EBUSY);
					ops->close(first);
				}
				must(ops->stop, mode[m % 2], "vhost:@lan:1");
				if (used)
					g_assert_false(has("br", "ip -o link show type bridge"));
				else
					same_state(before);
				g_assert_cmpuint(journals(), ==, 0);
				break;
			}
			if (killing && used) { /* what was a VM's has the network's tag: the network's end gives it back */
				must(ops->start, mode[m % 2], "vhost:@lan:1");
				g_assert_cmpint(network(ops->stop, mode[m % 2], "vhost:@lan:1", NULL), ==, -EBUSY);
				gc(keepers);
				g_assert_true(has("master", "ip -o link show vnet0"));
				g_assert_cmpuint(journals(), ==, entries);
				continue;
			}
			if (killing)
				gc(keepers);
			same_state(before);
			g_assert_cmpuint(journals(), ==, entries);
		}
	}
}

int main(int argc, char **argv)
{
	plugtest_init(&argc, &argv, "vlan");
	g_test_add_func("/vlan/gc-removes-what-the-dead-left", gc_finds);
	g_test_add_func("/vlan/each-step-fails", each_step_fails);
	g_test_add_func("/vlan/each-step-and-its-undo-fail", each_step_and_undo_fails);
	g_test_add_func("/vlan/killed-at-each-step", each_step_is_the_last);
	g_test_add_func("/vlan/killed-while-closing", close_is_killed);
	g_test_add_func("/vlan/each-step-of-start", start_faults);
	return plugtest_run();
}
