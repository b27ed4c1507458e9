/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Ports on a bridge with an uplink: the bridge deleted, the card gone and there again, or somebody else's meanwhile. */
#include "bridge.h"
#include "netcase.h"
#include "repairtest.h"

#define CARD "link add up0 address 52:54:00:aa:00:01 mtu 1400 type veth peer name far address 52:54:00:aa:00:02 mtu 1400\\nlink set far up\\nlink set up0 up\\n"
#define ADDRESSES "addr add 192.0.2.1/24 dev up0\\naddr add 2001:db8::1/64 dev up0 nodad\\nroute add default via 192.0.2.254 metric 50\\n"

static const struct spec spec_a = { "uplink=up0", .network = "lan", .owner = "vhost:a:1:1:0" };
static const struct spec spec_b = { "uplink=up0", .network = "lan", .owner = "vhost:b:1:1:0", .ifname = "web", .mac = 4 };

static int begin(void)
{
	if (!netns_fresh())
		return 0;
	net_fault_hook = NULL;
	run_ok("echo 1 >/proc/sys/net/ipv6/conf/default/addr_gen_mode; printf '" CARD ADDRESSES "' | ip -batch -");
	return 1;
}

/* Between a guest and the cable's other end, or two guests. */
static void passes(void *a, void *b)
{
	static const uint8_t all[6] = { 255, 255, 255, 255, 255, 255 }, src[6] = { 2, 1, 2, 3, 4, 5 };
	int fd = b ? ops->queue_fd(b, 0, NULL) : raw_socket("far");
	static uint32_t number;
	uint32_t got;

	frame_send(ops->queue_fd(a, 0, NULL), 10, all, src, ++number);
	do /* those before went to all */
		got = frame_next(fd, b ? 10 : 0);
	while (got && got != number);
	g_assert_cmpuint(got, ==, number);
	if (!b)
		close(fd);
}

static void bridge_deleted(void)
{
	void *a, *b;

	if (!begin())
		return;
	g_autofree char *empty = unordered();

	a = watched(&spec_a);
	b = watched(&spec_b);
	g_autofree char *before = unordered();

	passes(a, NULL);
	run_ok("ip link del br-lan");
	g_assert_false(has("192.0.2.1", "ip -o addr"));
	repaired(a, "bridge br-lan was deleted by another program: it is made again, with its uplink up0");
	repaired(b, "web is its port");
	same_as(before);
	passes(a, b);
	passes(b, NULL);
	ops->close(a);
	ops->close(b);
	same_as(empty);
	g_assert_cmpuint(journals(), ==, 0);
}

/* The last VM ends before anybody has looked: the card gets back what it had. */
static void closed_instead(void)
{
	if (!begin())
		return;
	g_autofree char *empty = unordered();
	void *a = watched(&spec_a), *b = watched(&spec_b);

	run_ok("ip link del br-lan");
	ops->close(b);
	ops->close(a);
	same_as(empty);
	g_assert_cmpuint(journals(), ==, 0);
	/* One that looks afterwards has all of it. */
	a = watched(&spec_a);
	b = watched(&spec_b);
	run_ok("ip link del br-lan");
	ops->close(a);
	g_assert_true(has("192.0.2.1/24", "ip -o addr show up0"));
	repaired(b, "with its uplink up0");
	g_assert_true(has("192.0.2.1/24", "ip -o addr show br-lan"));
	ops->close(b);
	same_as(empty);
	g_assert_cmpuint(journals(), ==, 0);
}

static void card_returns(void)
{
	void *a, *b;

	if (!begin())
		return;
	a = watched(&spec_a);
	b = watched(&spec_b);
	for (int round = 0; round < 2; round++) {
		run_ok("ip link del up0");
		untouched(a);
		untouched(b);
		passes(a, b);
		run_ok("printf '" CARD "addr add 192.0.2.77/24 dev up0\\n' | ip -batch -");
		repaired(b, "uplink up0 has returned: it is a port of bridge br-lan again");
		untouched(a);
		g_assert_true(has("master br-lan", "ip -o link show up0"));
		g_assert_false(has("192.0.2.77", "ip -o addr show up0"));
		g_assert_true(has("192.0.2.77/24", "ip -o addr show br-lan"));
		g_assert_true(has("192.0.2.1/24", "ip -o addr show br-lan"));
		g_assert_true(has("via 192.0.2.254 dev br-lan metric 50", "ip route"));
		passes(a, NULL);
		passes(b, NULL);
	}
	ops->close(a);
	ops->close(b);
	g_assert_true(has("192.0.2.77/24", "ip -o addr show up0"));
	g_assert_true(has("192.0.2.1/24", "ip -o addr show up0"));
	g_assert_false(has("br-lan", "ip -o link"));
	g_assert_cmpuint(journals(), ==, 0);
}

/* The guests have each other, and the bridge its address, until the card is there again. */
static void both_gone(void)
{
	void *a, *b;

	if (!begin())
		return;
	a = watched(&spec_a);
	b = watched(&spec_b);
	run_ok("ip link del br-lan; ip link del up0");
	repaired(a, "made again");
	repaired(b, "is its port");
	passes(a, b);
	g_assert_true(has("52:54:00:aa:00:01", "ip -o link show br-lan"));
	g_assert_true(has("mtu 1400", "ip -o link show br-lan"));
	run_ok("printf '" CARD ADDRESSES "' | ip -batch -");
	repaired(a, "uplink up0 has returned");
	untouched(b);
	passes(b, NULL);
	ops->close(a);
	ops->close(b);
	g_assert_true(has("192.0.2.1/24", "ip -o addr show up0"));
	g_assert_false(has("br-lan", "ip -o link"));
	g_assert_cmpuint(journals(), ==, 0);
}

static void taken_by_others(void)
{
	void *a;

	if (!begin())
		return;
	run_ok("ip link add brx type bridge; ip link set brx up");
	a = watched(&spec_a);
	/* It has returned, into somebody's bridge. */
	run_ok("ip link del up0; printf '" CARD "link set up0 master brx\\n' | ip -batch -");
	in_vain(a, -EBUSY, "uplink up0 is a port of brx already", "take up0 out of it");
	g_assert_true(has("master brx", "ip -o link show up0"));
	run_ok("ip link set up0 nomaster");
	repaired(a, "uplink up0 has returned");
	/* It was never gone: people have put it where it is. */
	run_ok("ip link set up0 master brx");
	in_vain(a, -EBUSY, "uplink up0 is a port of brx already", "take up0 out of it");
	g_assert_true(has("master brx", "ip -o link show up0"));
	run_ok("ip link set up0 nomaster");
	untouched(a);
	g_assert_false(has("master", "ip -o link show up0"));
	/* Nor is it taken with a new bridge, which the guests have all the same. */
	run_ok("ip link set up0 master brx; ip link del br-lan");
	ERR_AUTO(e);
	g_assert_cmpint(repair(a, &e), ==, 1);
	g_assert_nonnull(strstr(told, "it is made again"));
	in_vain(a, -EBUSY, "uplink up0 is a port of brx already", "take up0 out of it");
	g_assert_true(has("master br-lan", "ip -o link show vnet0"));
	g_assert_true(has("master brx", "ip -o link show up0"));
	ops->close(a);
	g_assert_false(has("br-lan", "ip -o link"));
	g_assert_true(has("master brx", "ip -o link show up0"));
	gc(nobody);
	g_assert_cmpuint(journals(), ==, 0);
}

/* ---- each step ---- */

/* Without a program, which would take longer than the step. */
static void delete(const char *name)
{
	struct nl nl;

	g_assert_cmpint(nl_open(&nl), ==, 0);
	g_assert_cmpint(nl_link_delete(&nl, 0, name), ==, 0);
	nl_release(&nl);
}

static void take_away(int card)
{
	delete(card ? "up0" : "br-lan");
	if (card) /* the bridge has that route still */
		run_ok("printf '" CARD ADDRESSES "' | ip -batch - 2>/dev/null");
}

/* One port through all of it: what a step left would be in the way of the next one, and be there at the end. */
static void each_step_fails(int card)
{
	unsigned n, hit = 1;

	if (!begin())
		return;
	g_autofree char *empty = unordered();
	void *port = watched(&spec_a);

	for (n = 0; hit; n++) {
		ERR_AUTO(e);
		int r;

		take_away(card);
		fault(n + 1, 0, 0);
		r = repair(port, &e);
		hit = fault_count > n;
		net_fault_hook = NULL;
		if (hit && r < 0) {
			g_assert_nonnull(e.cause);
			repaired(port, card ? "uplink up0 has returned" : "");
		}
		g_assert_cmpint(repair(port, &e), ==, 0);
		passes(port, NULL);
		g_assert_true(has("192.0.2.1/24", "ip -o addr show br-lan"));
	}
	ops->close(port);
	gc(nobody); /* the end of a record is no reason to fail */
	same_as(empty);
	g_assert_cmpuint(journals(), ==, 0);
	g_test_message("%u steps", n - 1);
	g_assert_cmpuint(n, >=, 40);
}

static void each_step_is_the_last(int card)
{
	unsigned steps = 0;

	if (!begin())
		return;
	g_autofree char *empty = card ? unordered() : net_state();

	for (unsigned n = 1, hit = 1; hit; n++) {
		pid_t pid = fork();
		int st = 0;

		if (!pid) {
			void *port = watched(&spec_a);

			take_away(card);
			fault(n, 0, 1);
			repair(port, NULL);
			_exit(fault_count >= n ? 2 : 0);
		}
		g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
		hit = WIFSIGNALED(st);
		g_assert_true(hit || WEXITSTATUS(st) == 0);
		gc(nobody);
		/* What the bridge alone had dies with it, when its VM is killed while the card is new. */
		if (card)
			run_ok("ip route add default via 192.0.2.254 dev up0 metric 50 2>/dev/null");
		if (card)
			same_as(empty);
		else
			same_state(empty);
		g_assert_cmpuint(journals(), ==, 0);
		steps += hit;
	}
	g_test_message("%u steps", steps);
	g_assert_cmpuint(steps, >=, 40);
}

static void return_fails(void)
{
	each_step_fails(1);
}

static void return_is_killed(void)
{
	each_step_is_the_last(1);
}

static void deletion_fails(void)
{
	each_step_fails(0);
}

static void deletion_is_killed(void)
{
	each_step_is_the_last(0);
}

int main(int argc, char **argv)
{
	const struct vh_plugin *p;
	int r;

	g_test_init(&argc, &argv, NULL);
	g_setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", TRUE);
	state = temp_folder("repair-uplink");
	g_assert_cmpint(vh_plugin_entry_v1(&plug_host, &p), ==, 0);
	ops = p->get(VH_IID_NET);
	g_test_add_func("/repair-uplink/the-bridge-is-deleted", bridge_deleted);
	g_test_add_func("/repair-uplink/closed-before-the-repair", closed_instead);
	g_test_add_func("/repair-uplink/the-card-vanishes-and-returns", card_returns);
	g_test_add_func("/repair-uplink/bridge-and-card-are-gone", both_gone);
	g_test_add_func("/repair-uplink/what-others-have-stays-theirs", taken_by_others);
	g_test_add_func("/repair-uplink/return-fails-at-each-step", return_fails);
	g_test_add_func("/repair-uplink/return-is-killed-at-each-step", return_is_killed);
	g_test_add_func("/repair-uplink/deletion-fails-at-each-step", deletion_fails);
	g_test_add_func("/repair-uplink/deletion-is-killed-at-each-step", deletion_is_killed);
	r = g_test_run();
	run_ok("rm -rf %s", state);
	g_free(state);
	return r;
}
