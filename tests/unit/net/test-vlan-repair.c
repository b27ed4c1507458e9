/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What other programs take from under ports of VLANs, and repair() puts back, in both builds. Needs a kernel with VLANs:
 * tests/lab/net-vlan.sh runs it. */
#include "vlantest.h"
#include "nl.h"
#include "repairtest.h"

static const char *const modes[] = { "up0,id=10", "up0,id=10,mode=filter" };
static const char *const bridges[] = { "brvlan10", "br-up0" };

static void card(const char *more)
{
	run_ok("printf 'link add up0 address 52:54:00:aa:00:01 type veth peer name far0 address 52:54:00:aa:00:02\\nlink set far0 up\\nlink set up0 up\\n%s' | ip -batch -",
	       more);
}

static int begin_card(void)
{
	if (!begin())
		return 0;
	run_ok("echo 1 >/proc/sys/net/ipv6/conf/default/addr_gen_mode");
	card("");
	return 1;
}

/* All that there is, with the VLANs of each port; what is made anew has another place in lists. */
static char *all(void)
{
	g_autofree char *links = unordered();

	return sh("echo '%s'; for i in up0 up0.10 vnet0 vnet1; do bridge vlan show dev $i 2>/dev/null; done; "
		  "ip -d -o link show type vlan | grep -o 'vlan protocol [^ ]* id [0-9]*'; "
		  "ip -d -o link show type bridge | grep -o 'vlan_filtering [01]\\|vlan_default_pvid [0-9]*\\|vlan_protocol [^ ]*\\|altname [^ ]*'", links);
}

static void same_all(const char *before)
{
	g_autofree char *now = all();

	g_assert_cmpstr(before, ==, now);
}

static void bridge_deleted(void)
{
	for (unsigned m = 0; m < 2; m++) {
		void *a, *b;

		if (!begin_card())
			return;
		g_autofree char *empty = net_state();

		a = watched(&(struct spec){ modes[m], .owner = "vhost:a:1:1:0" });
		b = watched(&(struct spec){ m ? "up0,mode=filter,trunk=10-20:30,native=7,isolated=on" : "up0,id=10,isolated=on", .owner = "vhost:b:1:1:0",
					    .mac = { 2, 2, 2, 2, 2, 2 }, .mtu = 1400 });
		g_autofree char *before = all();

		for (int first = 0; first < 2; first++) {
			run_ok("ip link del %s", bridges[m]);
			repaired(first ? b : a, "was deleted by another program: it is made again, with its uplink up0");
			repaired(first ? a : b, "was deleted by another program, and is there again");
			same_all(before);
			g_assert_cmpuint(journals(), ==, 2);
		}
		ops->close(a);
		ops->close(b);
		same_state(empty);
		g_assert_cmpuint(journals(), ==, 0);
	}
}

static void uplink_returns(void)
{
	for (unsigned m = 0; m < 2; m++) {
		void *a, *b;

		if (!begin_card())
			return;
		g_autofree char *empty = unordered();

		a = watched(&(struct spec){ modes[m], .owner = "vhost:a:1:1:0" });
		b = watched(&(struct spec){ m ? "up0,id=20,mode=filter" : modes[m], .owner = "vhost:b:1:1:0", .mac = { 2, 2, 2, 2, 2, 2 } });
		g_autofree char *before = all();

		for (int round = 0; round < 2; round++) {
			run_ok("ip link del up0");
			untouched(a);
			untouched(b);
			g_assert_true(has(bridges[m], "ip -o link show vnet0"));
			card("");
			repaired(b, m ? "uplink up0 has returned: it is a port of bridge br-up0 again" : "it is there again as up0.10");
			untouched(a);
			same_all(before);
		}
		ops->close(a);
		ops->close(b);
		same_as(empty);
		g_assert_cmpuint(journals(), ==, 0);
	}
}

static void both_gone(void)
{
	for (unsigned m = 0; m < 2; m++) {
		void *a;

		if (!begin_card())
			return;
		a = watched(&(struct spec){ modes[m], .owner = "vhost:a:1:1:0" });
		g_autofree char *before = all();

		run_ok("ip link del %s; ip link del up0", bridges[m]);
		repaired(a, "it is made again");
		g_assert_true(has(bridges[m], "ip -o link show vnet0"));
		card("");
		repaired(a, "again");
		same_all(before);
		ops->close(a);
		g_assert_false(has(bridges[m], "ip -o link"));
		g_assert_cmpuint(journals(), ==, 0);
	}
}

/* The device alone: it is as shared as the bridge. */
static void device_deleted(void)
{
	void *a;

	if (!begin_card())
		return;
	a = watched(&(struct spec){ modes[0] });
	g_autofree char *before = all();

	run_ok("ip link del up0.10");
	repaired(a, "the VLAN device on uplink up0 was gone: it is there again as up0.10");
	same_all(before);
	ops->close(a);
	g_assert_false(has("up0.10", "ip -o link"));
}

static void taken_by_others(void)
{
	void *a;

	for (unsigned m = 0; m < 2; m++) {
		if (!begin_card())
			return;
		run_ok("ip link add brx type bridge; ip link set brx up");
		a = watched(&(struct spec){ modes[m] });
		run_ok("ip link del up0");
		card("link set up0 master brx\\n");
		in_vain(a, -EBUSY, "uplink up0 is a port of bridge brx already", "take it away");
		g_assert_true(has("master brx", "ip -o link show up0"));
		run_ok("ip link set up0 nomaster");
		repaired(a, "again");
		if (m) { /* it was never gone: people have put it where it is */
			run_ok("ip link set up0 master brx");
			in_vain(a, -EBUSY, "uplink up0 is a port of bridge brx already", "take it away");
			run_ok("ip link set up0 nomaster");
			untouched(a);
		}
		ops->close(a);
		g_assert_false(has(bridges[m], "ip -o link"));
		gc(nobody);
		g_assert_cmpuint(journals(), ==, 0);
	}
}

static void of_networks(void)
{
	for (unsigned m = 0; m < 2; m++) {
		void *p;

		if (!begin_card())
			return;
		g_autofree char *empty = net_state();

		must(ops->start, modes[m], "vhost:@lan:1");
		if (m) /* one bridge, held by two */
			must(ops->start, "up0,id=20,mode=filter", "vhost:@more:1");
		p = watched(&(struct spec){ modes[m] });
		g_autofree char *before = all();

		run_ok("ip link del %s", bridges[m]);
		repaired(p, "made again");
		same_all(before);
		ops->close(p);
		gc(everybody);
		g_assert_true(has("vhost:@lan:1", "ip link show %s", bridges[m]));
		must(ops->stop, modes[m], "vhost:@lan:1");
		if (m) {
			g_assert_true(has("vhost:@more:1", "ip link show br-up0"));
			must(ops->stop, "up0,id=20,mode=filter", "vhost:@more:1");
		}
		same_state(empty);
		g_assert_cmpuint(journals(), ==, 0);
	}
}

static void people_decide(void)
{
	void *a;

	if (!begin_card())
		return;
	a = watched(&(struct spec){ modes[1] });
	run_ok("ip link set vnet0 nomaster");
	untouched(a);
	run_ok("ip link set up0 nomaster");
	untouched(a);
	run_ok("ip link add brx type bridge; ip link set vnet0 master brx; ip link del br-up0");
	untouched(a);
	ops->close(a);
}

/* ---- each step ---- */

/* Without a program, which takes long in the lab. */
static void delete(const char *name)
{
	struct nl nl;

	g_assert_cmpint(nl_open(&nl), ==, 0);
	g_assert_cmpint(nl_link_delete(&nl, 0, name), ==, 0);
	nl_release(&nl);
}

static int master_of(const char *name)
{
	struct nl_link l;
	struct nl nl;

	g_assert_cmpint(nl_open(&nl), ==, 0);
	g_assert_cmpint(nl_link_get(&nl, 0, name, &l), ==, 0);
	nl_release(&nl);
	return l.master;
}

/* One port through all of it: what a step left would be in the way of the next one, and be there at the end. */
static void each_step_fails(const struct spec *spec, const char *take, int sticky)
{
	void *port = watched(spec);
	unsigned hit = 1, steps = 0;

	for (unsigned n = 1; hit; n++) {
		ERR_AUTO(e);
		int r;

		delete(take);
		fault(n, sticky, 0);
		r = repair(port, &e);
		hit = fault_count >= n;
		net_fault_hook = NULL;
		if (hit && r < 0) /* it may be that only the answer, and the undoing, failed */
			g_assert_cmpint(repair(port, NULL), >=, !sticky);
		g_assert_cmpint(repair(port, NULL), ==, 0);
		g_assert_cmpint(master_of("vnet0"), >, 0);
		steps += hit;
	}
	ops->close(port);
	g_test_message("%s without %s: %u steps", spec->options, take, steps);
	g_assert_cmpuint(steps, >=, 6);
}

static void each_step_is_the_last(const struct spec *spec, const char *take)
{
	g_autofree char *empty = net_state();
	unsigned hit = 1, steps = 0;

	for (unsigned n = 1; hit; n++) {
		pid_t pid = fork();
		int st;

		if (!pid) {
			void *port = watched(spec);

			delete(take);
			fault(n, 0, 1);
			repair(port, NULL);
			_exit(fault_count >= n ? 2 : 0);
		}
		g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
		hit = WIFSIGNALED(st);
		g_assert_true(hit || WEXITSTATUS(st) == 0);
		gc(nobody);
		same_state(empty);
		g_assert_cmpuint(journals(), ==, 0);
		steps += hit;
	}
	g_test_message("%s without %s: %u steps", spec->options, take, steps);
	g_assert_cmpuint(steps, >=, 6);
}

static void each_step_of(const char *options, const char *take, int sticky, int killing)
{
	const struct spec spec = { options, .owner = "vhost:a:1:1:0" };

	if (!begin_card())
		return;
	g_autofree char *empty = net_state();

	if (killing)
		each_step_is_the_last(&spec, take);
	else
		each_step_fails(&spec, take, sticky);
	same_state(empty);
	g_assert_cmpuint(journals(), ==, 0);
}

static void each_step_each(int sticky, int killing)
{
	each_step_of(modes[0], "brvlan10", sticky, killing);
	if (sticky)
		return;
	each_step_of(modes[0], "up0.10", sticky, killing);
	each_step_of("up0,mode=filter,trunk=10-20:30,native=7,isolated=on", "br-up0", sticky, killing);
}

static void step_fails(void)
{
	each_step_each(0, 0);
}

static void step_and_undo_fail(void)
{
	each_step_each(1, 0);
}

static void step_is_the_last(void)
{
	each_step_each(0, 1);
}

static const char *env(const char *name)
{
	const char *v = g_getenv(name);

	return v ? v : "";
}

int main(int argc, char **argv)
{
	plugtest_init(&argc, &argv, "vlan-repair");
	g_test_add_func("/vlan-repair/the-bridge-is-deleted", bridge_deleted);
	g_test_add_func("/vlan-repair/the-uplink-vanishes-and-returns", uplink_returns);
	g_test_add_func("/vlan-repair/bridge-and-uplink-are-gone", both_gone);
	g_test_add_func("/vlan-repair/the-device-is-deleted", device_deleted);
	g_test_add_func("/vlan-repair/what-others-have-stays-theirs", taken_by_others);
	g_test_add_func("/vlan-repair/started-networks-have-their-bridge-again", of_networks);
	g_test_add_func("/vlan-repair/what-people-do-stays-done", people_decide);
	/* Minutes in the lab; net-repair does the same with a bridge, everywhere. */
	if (*env("VH_LONG") || *env("VH_NAMED")) {
		g_test_add_func("/vlan-repair/each-step-fails", step_fails);
		g_test_add_func("/vlan-repair/each-step-and-its-undo-fail", step_and_undo_fail);
		g_test_add_func("/vlan-repair/killed-at-each-step", step_is_the_last);
	} else {
		printf("# each-step-fails, each-step-and-its-undo-fail, killed-at-each-step: minutes; with --long, or by name\n");
	}
	return plugtest_run();
}
