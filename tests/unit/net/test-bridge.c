/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The bridge plugin built with its fault hook: every step refused, answered falsely, or the last thing a process did. */
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <sys/wait.h>

#include "bridge.h"
#include "netcase.h"

static int begin(void)
{
	if (!netns_fresh())
		return 0;
	net_fault_hook = NULL;
	return 1;
}

static void br0(void)
{
	run_ok("ip link add br0 address 02:00:00:00:00:01 type bridge stp_state 0 forward_delay 0 && ip link set br0 addrgenmode none && ip link set br0 up");
}

static void attach_detach(void)
{
	struct vh_net_info i = { .size = sizeof(i) };
	void *p;

	if (!begin())
		return;
	br0();
	g_autofree char *before = netns_state();

	p = must_open(&(struct spec){ "br0", .owner = "vhost:web:12:34:0", .mtu = 1400 });
	g_assert_cmpint(ops->info(p, &i), ==, 0);
	g_assert_cmpstr(i.ifname, ==, "vnet0");
	g_assert_cmpint(i.vnet_hdr, ==, 12);
	g_assert_cmpint(i.pairs, ==, 1);
	g_assert_cmpint(i.mtu, ==, 1400);
	g_assert_true(i.offload & VH_NET_CSUM);
	g_assert_true(i.offload & VH_NET_TSO4);
	g_assert_true(has("master br0", "ip -o link show vnet0"));
	g_assert_true(has("mtu 1400", "ip -o link show vnet0"));
	g_assert_true(has("vhost:web:12:34:0", "ip link show vnet0"));
	g_assert_true(has("fe:54:00:01:02:03", "ip -o link show vnet0"));
	g_assert_true(has("UP", "ip -o link show vnet0"));
	g_assert_true(has("isolated off", "bridge -d link show dev vnet0"));
	g_assert_false(has("inet6", "ip -o addr show vnet0"));
	g_assert_cmpuint(journals(), ==, 1);
	g_assert_true(fcntl(ops->queue_fd(p, 0, NULL), F_GETFL) & O_NONBLOCK);
	g_assert_true(fcntl(ops->queue_fd(p, 0, NULL), F_GETFD) & FD_CLOEXEC);
	g_assert_cmpint(ops->queue_fd(p, 1, NULL), ==, -EINVAL);
	g_assert_cmpint(ops->set_link(p, 0, NULL), ==, 0);
	g_assert_true(has("state DOWN", "ip -o link show vnet0"));
	g_assert_cmpint(ops->set_link(p, 1, NULL), ==, 0);
	ops->close(p);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
	g_assert_cmpuint(journals(), ==, 0);
}

/* Start-up time is made here: one question about the bridge, one batch. */
static void few_round_trips(void)
{
	unsigned n;

	if (!begin())
		return;
	br0();
	fault(0, 0, 0);
	void *p = must_open(&(struct spec){ "br0" });

	n = fault_count;
	ops->close(p);
	/* journal, 2 requests and their answers, TUNSETIFF */
	g_assert_cmpuint(n, ==, 6);
}

static void isolated(void)
{
	if (!begin())
		return;
	br0();
	void *p = must_open(&(struct spec){ "br0,isolated=on", .ifname = "web.0" });

	g_assert_true(has("isolated on", "bridge -d link show dev web.0"));
	ops->close(p);
}

static void create(void)
{
	void *a, *b;

	if (!begin())
		return;
	g_autofree char *before = netns_state();

	a = must_open(&(struct spec){ "br7,create=on,address=192.0.2.1/24", .owner = "vhost:a:1:1:0" });
	g_assert_true(has("vhost:a:1:1:0", "ip link show br7"));
	g_assert_true(has("UP", "ip -o link show br7"));
	g_assert_true(has("192.0.2.1/24", "ip -o addr show br7"));
	g_assert_true(has("stp_state 0", "ip -d link show br7"));
	g_assert_true(has("forward_delay 0", "ip -d link show br7"));
	g_autofree char *mac = sh("ip -o link show br7");

	b = must_open(&(struct spec){ "br7,create=on,address=198.51.100.1/24", .owner = "vhost:b:1:1:0" });
	g_assert_true(has("198.51.100.1/24", "ip -o addr show br7"));
	ops->close(b);
	b = must_open(&(struct spec){ "br7,create=on,address=192.0.2.1/24", .owner = "vhost:b:1:1:0" });
	g_autofree char *mac2 = sh("ip -o link show br7");

	g_assert_cmpstr(mac, ==, mac2);
	ops->close(a); /* its maker goes, its user stays */
	g_assert_true(has("br7", "ip -o link show br7"));
	ops->close(b);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
	a = must_open(&(struct spec){ "br7,create=on,address=2001:db8::1/64", .owner = "vhost:a:1:1:0" });
	g_assert_true(has("2001:db8::1/64", "ip -o addr show br7"));
	ops->close(a);
}

/* A bridge that was there is never changed or removed, tagged ports or not. */
static void others_bridge_untouched(void)
{
	if (!begin())
		return;
	br0();
	run_ok("ip link add br1 address 02:00:00:00:00:02 type bridge && ip link set br1 addrgenmode none && ip link set br1 alias 'vhost of the sea' && ip link set br1 up");
	g_autofree char *before = netns_state();
	void *p = must_open(&(struct spec){ "br0,create=on,address=192.0.2.1/24" });

	g_assert_false(has("192.0.2.1", "ip -o addr"));
	ops->close(p);
	p = must_open(&(struct spec){ "br1" });
	ops->close(p);
	g_assert_cmpuint(gc(nobody), ==, 0);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
}

static void errors(void)
{
	if (!begin())
		return;
	br0();
	run_ok("ip tuntap add dev tap9 mode tap multi_queue; ip link add v0 type veth peer name v1");
	refused(&(struct spec){ "nobr" }, -ENOENT, "bridge nobr does not exist", "create=on");
	refused(&(struct spec){ "br0", .ifname = "tap9" }, -EEXIST, "tap9 exists already", "another ifname");
	refused(&(struct spec){ "br0", .ifname = "tap9", .pairs = 2 }, -EEXIST, "tap9 exists already", NULL);
	refused(&(struct spec){ "br5,create=on", .ifname = "tap9" }, -EEXIST, "tap9 exists already", NULL);
	refused(&(struct spec){ "v0" }, -EINVAL, "v0 is not a bridge but an interface of type veth", NULL);
	refused(&(struct spec){ "lo,create=on" }, -EINVAL, "lo is not a bridge", NULL);
	refused(&(struct spec){ "br0", .mtu = 20 }, -EINVAL, "MTU 20", NULL);
	refused(&(struct spec){ "br0", .ifname = "a/b" }, -EINVAL, "cannot be the name", NULL);
	refused(&(struct spec){ "br0", .ifname = "vnet%d" }, -EINVAL, "cannot be the name", NULL);
	refused(&(struct spec){ "b r" }, -EINVAL, "cannot be the name of a bridge", NULL);
	refused(&(struct spec){ "br0,address=192.0.2.1/24" }, -EINVAL, "address= is for", "create=on");
	refused(&(struct spec){ "br5,create=on,address=192.0.2.1" }, -EINVAL, "no IP address", "192.0.2.1/24");
	refused(&(struct spec){ "br5,create=on,address=192.0.2.1/33" }, -EINVAL, "no IP address", NULL);
	refused(&(struct spec){ "br5,create=on,address=/24" }, -EINVAL, "no IP address", NULL);
	refused(&(struct spec){ "br0", .pairs = 300 }, -EINVAL, "1 to 256", NULL);
	refused(&(struct spec){ "br0", .owner = "nobody" }, -EINVAL, "owner tag", NULL);
	refused(&(struct spec){ "br0", .owner = "vhost:../x:1:1:0" }, -EINVAL, "owner tag", NULL);
	g_assert_cmpuint(journals(), ==, 0);
}

/* Without the capability: in a child, which has none. */
static void unprivileged(void)
{
	int st;

	if (!begin())
		return;
	br0();
	g_chmod(state, 0777);
	run_ok("rm -f %s/lock", state);
	pid_t pid = fork();

	if (!pid) {
		ERR_AUTO(e);
		void *port;
		int r;

		if (setgroups(0, NULL) < 0 || setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
			_exit(3);
		r = try_open(&(struct spec){ "br0" }, &port, &e);
		_exit((r == -EPERM || r == -EACCES) && e.remedy ? 0 : 1);
	}
	g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
	g_assert_cmpint(st, ==, 0);
	g_chmod(state, 0700);
	run_ok("rm -f %s/lock", state);
}

static void multi_queue(void)
{
	struct vh_net_info i = { .size = sizeof(i) };
	struct ifreq ifr = { 0 };

	if (!begin())
		return;
	br0();
	void *p = must_open(&(struct spec){ "br0", .pairs = 8 });

	g_assert_cmpint(ops->info(p, &i), ==, 0);
	g_assert_cmpint(i.pairs, ==, 8);
	for (unsigned q = 0; q < 8; q++) {
		g_assert_cmpint(ioctl(ops->queue_fd(p, q, NULL), TUNGETIFF, &ifr), ==, 0);
		g_assert_cmpstr(ifr.ifr_name, ==, i.ifname);
		g_assert_true(ifr.ifr_flags & IFF_MULTI_QUEUE);
	}
	ops->close(p);
	g_assert_false(has(i.ifname, "ip -o link"));
}

static void fifty(void)
{
	void *p[50];

	if (!begin())
		return;
	g_autofree char *before = netns_state();

	for (unsigned i = 0; i < 50; i++) {
		g_autofree char *owner = g_strdup_printf("vhost:many:1:1:%u", i);

		p[i] = must_open(&(struct spec){ "br50,create=on", .owner = owner });
	}
	g_autofree char *n = sh("ip -o link show master br50 | wc -l");

	g_assert_cmpint(atoi(n), ==, 50);
	for (unsigned i = 0; i < 50; i++)
		ops->close(p[(i * 7) % 50]);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
	g_assert_cmpuint(journals(), ==, 0);
}

static void gc_finds(void)
{
	if (!begin())
		return;
	br0();
	run_ok("ip link add other type bridge; ip link set other addrgenmode none; ip tuntap add dev tapx mode tap");
	g_autofree char *before = netns_state();

	/* What a killed VM and its killed helper leave. */
	run_ok("ip link add br8 type bridge; ip link set br8 alias vhost:dead:1:1:0; ip tuntap add dev vnet5 mode tap; "
	       "ip link set vnet5 alias vhost:dead:1:1:1; ip link set vnet5 master br8");
	g_assert_cmpint(journal_write(state, "vhost:dead:1:1:0", "bridge vhb0123456789ab br8\ntap vnetN\n"), ==, 0);
	g_autofree char *left = netns_state();

	g_assert_cmpuint(gc(everybody), ==, 0);
	g_autofree char *same = netns_state();

	g_assert_cmpstr(left, ==, same);
	g_assert_cmpuint(gc(nobody), ==, 2);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
	g_assert_cmpuint(journals(), ==, 0);
	/* A bridge in use stays; a name that only a journal has goes when it is ours. */
	run_ok("ip link add br8 type bridge; ip link set br8 alias vhost:dead:1:1:0; ip link set tapx master br8; "
	       "ip link add vhb0123456789ab type bridge; ip link add vhbffffffffffff type bridge");
	g_assert_cmpint(journal_write(state, "vhost:dead:1:1:0", "bridge vhb0123456789ab br9\ntap vnetN\n"), ==, 0);
	g_assert_cmpuint(gc(nobody), ==, 1);
	g_assert_true(has("br8", "ip -o link show br8"));
	g_assert_true(has("vhbffffffffffff", "ip -o link"));
	g_assert_false(has("vhb0123456789ab", "ip -o link"));
}

static const struct spec specs[] = {
	{ "br0,isolated=on", .pairs = 2, .mtu = 1300 },
	{ "br6,create=on,address=192.0.2.1/24" },
};

static int begin_br0(void)
{
	if (!begin())
		return 0;
	br0();
	return 1;
}

static void each_step(int sticky, int killing)
{
	for (unsigned s = 0; s < G_N_ELEMENTS(specs); s++)
		open_each_step(&specs[s], begin_br0, 6, sticky, killing);
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

/* As above, for what close() does. */
static void close_is_killed(void)
{
	if (!begin())
		return;
	g_autofree char *before = netns_state();

	for (unsigned n = 1;; n++) {
		int st;
		pid_t pid = fork();

		if (!pid) {
			void *port = must_open(&specs[1]);

			fault(n, 0, 1);
			ops->close(port);
			_exit(0);
		}
		g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
		gc(nobody);
		g_autofree char *after = netns_state();

		g_assert_cmpstr(before, ==, after);
		g_assert_cmpuint(journals(), ==, 0);
		if (!WIFSIGNALED(st))
			break;
	}
}

static void say(void *ctx, const char *text)
{
	g_string_append_printf(ctx, "%s\n", text);
}

static void plan(void)
{
	g_autoptr(GString) s = g_string_new(NULL);
	struct optset *set;
	struct kvs kvs;
	struct vh_net_open o = { .size = sizeof(o), .pairs = 2, .owner = "vhost:t:1:1:0", .state = state, .mac = { 2, 0, 0, 0, 0, 9 },
				 .flags = VH_NET_OPEN_DRY_RUN };
	void *port = &set;
	ERR_AUTO(e);

	if (!begin())
		return;
	g_autofree char *before = netns_state();

	kvs_parse("br3,create=on,address=192.0.2.1/24", &kvs, NULL);
	g_assert_cmpint(optset_parse(ops->options, &kvs, "x", &set, NULL), ==, 0);
	o.opts = optset_get(set);
	g_assert_cmpint(ops->plan(&o, say, s, NULL), ==, 0);
	g_assert_nonnull(strstr(s->str, "create bridge br3"));
	g_assert_nonnull(strstr(s->str, "192.0.2.1/24"));
	g_assert_nonnull(strstr(s->str, "2 queue pairs"));
	g_assert_nonnull(strstr(s->str, "fe:00:00:00:00:09"));
	g_assert_cmpint(ops->open(&o, &port, NULL), ==, 0);
	g_assert_null(port);
	optset_free(set);
	kvs_clear(&kvs);
	kvs_parse("br3", &kvs, NULL);
	g_assert_cmpint(optset_parse(ops->options, &kvs, "x", &set, NULL), ==, 0);
	o.opts = optset_get(set);
	g_assert_cmpint(ops->plan(&o, say, s, &e), ==, -ENOENT);
	optset_free(set);
	kvs_clear(&kvs);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
}

int main(int argc, char **argv)
{
	const struct vh_plugin *p;
	int r;

	g_test_init(&argc, &argv, NULL);
	g_setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", TRUE);
	state = temp_folder("bridge");
	g_assert_cmpint(vh_plugin_entry_v1(&plug_host, &p), ==, 0);
	ops = p->get(VH_IID_NET);
	g_test_add_func("/bridge/attach-and-detach-leave-no-trace", attach_detach);
	g_test_add_func("/bridge/attach-takes-two-round-trips", few_round_trips);
	g_test_add_func("/bridge/isolated", isolated);
	g_test_add_func("/bridge/create-and-last-user-removes", create);
	g_test_add_func("/bridge/others-bridges-are-untouched", others_bridge_untouched);
	g_test_add_func("/bridge/errors-name-cause-and-remedy", errors);
	g_test_add_func("/bridge/unprivileged", unprivileged);
	g_test_add_func("/bridge/multi-queue", multi_queue);
	g_test_add_func("/bridge/fifty-nics", fifty);
	g_test_add_func("/bridge/gc-removes-what-the-dead-left", gc_finds);
	g_test_add_func("/bridge/each-step-fails", each_step_fails);
	g_test_add_func("/bridge/each-step-and-its-undo-fail", each_step_and_undo_fails);
	g_test_add_func("/bridge/killed-at-each-step", each_step_is_the_last);
	g_test_add_func("/bridge/killed-while-closing", close_is_killed);
	g_test_add_func("/bridge/plan-changes-nothing", plan);
	r = g_test_run();
	run_ok("rm -rf %s", state);
	g_free(state);
	return r;
}
