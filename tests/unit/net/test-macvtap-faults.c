/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The macvtap plugin built with its fault hook: every step refused, answered falsely, or the last thing a process did. */
#include "macvtap-test.h"

static const struct spec specs[] = {
	{ "v0", .pairs = 2, .mtu = 1300 },
	{ "v0,mode=passthru" },
	{ "v0,host=on,address=192.0.2.1/24" },
};

static void each_step(int sticky, int killing)
{
	for (unsigned s = 0; s < G_N_ELEMENTS(specs); s++)
		open_each_step(&specs[s], begin, 8, sticky, killing);
}

static void each_step_fails(void)
{
	each_step(0, 0);
}

static void each_step_and_undo_fails(void)
{
	each_step(1, 0);
}

static void each_step_is_the_last(void)
{
	each_step(0, 1);
}

static void close_is_killed(int killing)
{
	if (!begin())
		return;
	g_autofree char *before = netns_state();

	for (unsigned n = 1;; n++) {
		int st;
		pid_t pid = fork();

		if (!pid) {
			void *port = must_open(&specs[2]);

			fault(n, 0, killing);
			ops->close(port);
			_exit(fault_count >= n);
		}
		g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
		g_assert_true(killing || WIFEXITED(st));
		gc(nobody);
		g_autofree char *after = netns_state();

		g_assert_cmpstr(before, ==, after);
		g_assert_cmpuint(journals(), ==, 0);
		if (WIFEXITED(st) && !WEXITSTATUS(st)) {
			g_assert_cmpuint(n, >=, 8);
			break;
		}
	}
}

static void killed_while_closing(void)
{
	close_is_killed(1);
}

static void each_step_of_close_fails(void)
{
	close_is_killed(0);
}

/* What set_filter() does may fail anywhere, and the next one sets it right. */
static void filter_steps_fail(void)
{
	static const uint8_t first[3][6] = { { 1, 0, 0x5e, 1, 1, 1 }, { 1, 0, 0x5e, 1, 1, 2 }, { 1, 0, 0x5e, 1, 1, 3 } };
	static const uint8_t then[2][6] = { { 1, 0, 0x5e, 1, 1, 3 }, { 1, 0, 0x5e, 1, 1, 4 } };
	struct vh_net_filter f = { .size = sizeof(f), .multicast = first, .n_multicast = 3 };

	if (!begin())
		return;
	void *p = must_open(&(struct spec){ "v0" });

	for (unsigned n = 1;; n++) {
		f.multicast = first;
		f.n_multicast = 3;
		g_assert_cmpint(ops->set_filter(p, &f, NULL), ==, 0);
		g_assert_true(has("01:00:5e:01:01:02", "ip maddr show dev vnet0"));
		f.multicast = then;
		f.n_multicast = 2;
		memcpy(f.mac, (const uint8_t[6]){ 2, 0, 0, 0, 1, (uint8_t)n }, 6);
		fault(n, 0, 0);
		ops->set_filter(p, &f, NULL);
		net_fault_hook = NULL;
		if (fault_count < n)
			break;
		g_assert_cmpint(ops->set_filter(p, &f, NULL), ==, 0);
		g_assert_true(has("01:00:5e:01:01:04", "ip maddr show dev vnet0"));
		g_assert_true(has("01:00:5e:01:01:03", "ip maddr show dev vnet0"));
		g_assert_false(has("01:00:5e:01:01:01", "ip maddr show dev vnet0"));
		g_assert_false(has("ALLMULTI", "ip -o link show vnet0"));
		g_autofree char *mac = g_strdup_printf("02:00:00:00:01:%02x", n);

		g_assert_true(has(mac, "ip -o link show vnet0"));
	}
	ops->close(p);
}

static void gc_finds(void)
{
	if (!begin())
		return;
	run_ok("ip link add other link v1 type macvtap; ip link set other addrgenmode none; ip link add mine link v1 type macvlan; ip link set mine addrgenmode none");
	g_autofree char *before = netns_state();

	/* What a killed VM and its killed helper leave. */
	run_ok("ip link add mv-v0 link v0 type macvlan mode bridge; ip link set mv-v0 alias vhost:dead:1:1:0; "
	       "ip link add vnet5 link v0 type macvtap mode bridge; ip link set vnet5 alias vhost:dead:1:1:1");
	g_assert_cmpint(journal_write(state, "vhost:dead:1:1:0", "macvtap vhm0123456789ab v0\nmacvlan vhm0123456789ac\n"), ==, 0);
	g_autofree char *left = netns_state();

	g_assert_cmpuint(gc(everybody), ==, 0);
	g_autofree char *same = netns_state();

	g_assert_cmpstr(left, ==, same);
	g_assert_cmpuint(gc(nobody), ==, 2);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
	g_assert_cmpuint(journals(), ==, 0);
	/* Unborn ones go when a journal has their name, and no others. */
	run_ok("ip link add vhm0123456789ab link v0 type macvtap; ip link add vhm0123456789ac link v0 type macvlan; "
	       "ip link add vhmffffffffffff link v0 type macvtap; ip link add vhm0123456789ad type bridge");
	g_assert_cmpint(journal_write(state, "vhost:dead:1:1:0", "macvtap vhm0123456789ab v0\nmacvlan vhm0123456789ac\n"), ==, 0);
	g_assert_cmpint(journal_write(state, "vhost:dead:1:1:1", "macvtap vhm0123456789ad v0\n"), ==, 0);
	g_assert_cmpint(journal_write(state, "vhost:dead:1:1:2", "tap vnetN\n"), ==, 0); /* another plugin's */
	g_assert_cmpuint(gc(nobody), ==, 2);
	g_assert_true(has("vhmffffffffffff", "ip -o link"));
	g_assert_true(has("vhm0123456789ad", "ip -o link"));
	g_assert_cmpuint(journals(), ==, 1);
	run_ok("rm %s/vhost*", state);
}

static int only_b(void *ctx, const char *owner)
{
	return g_str_has_prefix(owner, "vhost:b:");
}

/* The host's interface stays while anybody is beside it, whoever made it. */
static void gc_keeps_what_is_used(void)
{
	if (!begin())
		return;
	pid_t pid = fork();

	if (!pid) {
		must_open(&(struct spec){ "v0,host=on", .owner = "vhost:a:1:1:0" });
		kill(getpid(), SIGKILL);
	}
	waitpid(pid, NULL, 0);
	void *b = must_open(&(struct spec){ "v0,host=on", .owner = "vhost:b:1:1:0", .mac = 0xb });

	g_assert_cmpuint(gc(only_b), ==, 1); /* a's macvtap */
	g_assert_true(has("mv-v0", "ip -o link"));
	ops->close(b);
	g_assert_false(has("mv-v0", "ip -o link"));
}

/* Start-up time is made here; the 200th costs what the first does. */
static void two_hundred(void)
{
	enum { MANY = 200 };
	static void *p[MANY];

	if (!begin())
		return;
	g_autofree char *before = netns_state();

	for (unsigned i = 0; i < MANY; i++) {
		g_autofree char *owner = g_strdup_printf("vhost:many:1:1:%u", i);

		fault(0, 0, 0);
		p[i] = must_open(&(struct spec){ "v0", .owner = owner, .mac = (uint8_t)(i + 1) });
		net_fault_hook = NULL;
		/* journal, three requests and their answers, the device */
		g_assert_cmpuint(fault_count, ==, 8);
	}
	g_autofree char *n = sh("ip -o link | grep -c 'vnet[0-9]*@v0'");

	g_assert_cmpint(atoi(n), ==, MANY);
	for (unsigned i = 0; i < MANY; i++) {
		fault(0, 0, 0);
		ops->close(p[(i * 7) % MANY]);
		net_fault_hook = NULL;
		/* gone, no interface of the host's, the journal's end */
		g_assert_cmpuint(fault_count, <=, 5);
	}
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
	g_assert_cmpuint(journals(), ==, 0);
}

/* ---- networks ---- */

struct netw {
	struct optset *set;
	struct vh_network n;
};

static struct netw network(const char *name, const char *options, const char *tag)
{
	struct netw w = { 0 };
	struct kvs kvs;

	kvs_parse(options, &kvs, NULL);
	g_assert_cmpint(optset_parse(ops->options, &kvs, "network", &w.set, NULL), ==, 0);
	kvs_clear(&kvs);
	w.n = (struct vh_network){ .size = sizeof(w.n), .name = name, .kind = "macvtap", .opts = optset_get(w.set), .owner = tag, .state = state };
	return w;
}

static void note_part(void *ctx, const struct vh_net_part *p)
{
	g_string_append_printf(ctx, "%s %s above=%s owner=%s %s\n", p->kind, p->name, p->above ? p->above : "-", p->owner ? p->owner : "-",
			       p->detail ? p->detail : "-");
}

static void networks(void)
{
	if (!begin())
		return;
	g_autofree char *before = netns_state();
	struct netw lan = network("lan", "v0,host=on,address=192.0.2.1/24", "vhost:@lan:77"), plain = network("plain", "v1", "vhost:@plain:78");
	g_autoptr(GString) s = g_string_new(NULL);
	ERR_AUTO(e);
	ERR_AUTO(e2);

	g_assert_cmpint(ops->stop(&lan.n, NULL), ==, 0); /* not started */
	g_assert_cmpint(ops->start(&lan.n, NULL), ==, 0);
	g_assert_cmpint(ops->start(&lan.n, NULL), ==, 0);
	g_assert_true(has("vhost:@lan:77", "ip link show mv-v0"));
	void *a = must_open(&(struct spec){ "v0,host=on", .owner = "vhost:a:1:1:0", .network = "lan" });

	g_assert_cmpint(ops->describe(&lan.n, note_part, s, NULL), ==, 0);
	g_assert_cmpstr(s->str, ==, "uplink v0 above=- owner=- -\nmacvlan mv-v0 above=v0 owner=vhost:@lan:77 the host's own interface\n"
				    "macvtap vnet0 above=v0 owner=vhost:a:1:1:0 bridge\n");
	g_assert_cmpint(ops->stop(&lan.n, &e), ==, -EBUSY);
	g_assert_nonnull(strstr(e.cause, "vnet0"));
	ops->close(a);
	g_assert_true(has("mv-v0", "ip -o link show mv-v0")); /* held */
	g_assert_cmpuint(gc(everybody), ==, 0);
	g_assert_cmpint(ops->stop(&lan.n, NULL), ==, 0);
	g_assert_cmpint(ops->stop(&lan.n, NULL), ==, 0);
	g_autofree char *stopped = netns_state();

	g_assert_cmpstr(before, ==, stopped);
	g_assert_cmpuint(journals(), ==, 0);
	/* A port was there first: the network takes the interface over, and a second network may not. */
	struct netw second = network("second", "v0,host=on", "vhost:@second:79");

	a = must_open(&(struct spec){ "v0,host=on", .owner = "vhost:a:1:1:0" });
	g_assert_cmpint(ops->start(&lan.n, NULL), ==, 0);
	g_assert_cmpint(ops->start(&second.n, &e2), ==, -EBUSY);
	g_assert_nonnull(strstr(e2.cause, "vhost:@lan:77"));
	ops->close(a);
	g_assert_true(has("vhost:@lan:77", "ip link show mv-v0"));
	g_assert_cmpuint(gc(nobody), ==, 1); /* nobody holds it any more */
	/* Without an interface of the host's only the ports say who is in it. */
	g_assert_cmpint(ops->start(&plain.n, NULL), ==, 0);
	a = must_open(&(struct spec){ "v1", .owner = "vhost:a:1:1:0" });
	g_string_truncate(s, 0);
	g_assert_cmpint(ops->describe(&plain.n, note_part, s, NULL), ==, 0);
	g_assert_cmpstr(s->str, ==, "uplink v1 above=- owner=- -\n");
	void *b = must_open(&(struct spec){ "v1", .owner = "vhost:b:1:1:0", .network = "plain", .mac = 0xb });

	g_assert_cmpint(ops->stop(&plain.n, NULL), ==, -EBUSY);
	ops->close(b);
	g_assert_cmpint(ops->stop(&plain.n, NULL), ==, 0);
	ops->close(a);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
	g_assert_cmpuint(journals(), ==, 0);
	optset_free(lan.set);
	optset_free(plain.set);
	optset_free(second.set);
}

static void network_steps(int killing)
{
	if (!begin())
		return;
	g_autofree char *before = netns_state();
	struct netw lan = network("lan", "v0,host=on,address=192.0.2.1/24", "vhost:@lan:77");

	for (unsigned n = 1;; n++) {
		int st;
		pid_t pid = fork();

		if (!pid) {
			fault(n, 0, killing);
			int r = ops->start(&lan.n, NULL);

			_exit(fault_count < n ? 0 : r < 0 ? 1 : 2);
		}
		g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
		g_assert_true(WIFSIGNALED(st) ? killing : WEXITSTATUS(st) < 2);
		if (!killing && WEXITSTATUS(st)) {
			g_autofree char *undone = netns_state();

			g_assert_cmpstr(before, ==, undone);
		}
		gc(nobody);
		g_autofree char *after = netns_state();

		g_assert_cmpstr(before, ==, after);
		g_assert_cmpuint(journals(), ==, 0);
		if (WIFEXITED(st) && !WEXITSTATUS(st)) {
			g_assert_cmpuint(n, >=, 8);
			break;
		}
	}
	optset_free(lan.set);
}

static void network_start_fails(void)
{
	network_steps(0);
}

static void network_start_killed(void)
{
	network_steps(1);
}

int main(int argc, char **argv)
{
	const struct vh_plugin *p;
	int r;

	g_test_init(&argc, &argv, NULL);
	g_setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", TRUE);
	state = temp_folder("macvtap");
	g_assert_cmpint(vh_plugin_entry_v1(&plug_host, &p), ==, 0);
	ops = p->get(VH_IID_NET);
	g_test_add_func("/macvtap/each-step-fails", each_step_fails);
	g_test_add_func("/macvtap/each-step-and-its-undo-fail", each_step_and_undo_fails);
	g_test_add_func("/macvtap/killed-at-each-step", each_step_is_the_last);
	g_test_add_func("/macvtap/killed-while-closing", killed_while_closing);
	g_test_add_func("/macvtap/each-step-of-close-fails", each_step_of_close_fails);
	g_test_add_func("/macvtap/filter-steps-fail", filter_steps_fail);
	g_test_add_func("/macvtap/gc-removes-what-the-dead-left", gc_finds);
	g_test_add_func("/macvtap/gc-keeps-what-is-used", gc_keeps_what_is_used);
	g_test_add_func("/macvtap/two-hundred-nics", two_hundred);
	g_test_add_func("/macvtap/networks", networks);
	g_test_add_func("/macvtap/each-step-of-start-fails", network_start_fails);
	g_test_add_func("/macvtap/start-killed-at-each-step", network_start_killed);
	r = g_test_run();
	run_ok("rm -rf %s", state);
	g_free(state);
	return r;
}
