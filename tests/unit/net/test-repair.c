/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What other programs take from under ports that are in use, and repair() puts back: bridges, uplinks. */
#include <netlink/socket.h>
#include <sys/mman.h>

#include "bridge.h"
#include "netcase.h"
#include "repairtest.h"

#define NETWORK "vhost:@lan:0123456789abcdef"

static int begin(void)
{
	if (!netns_fresh())
		return 0;
	net_fault_hook = NULL;
	/* Which the kernel would make at a time of its own. */
	run_ok("echo 1 >/proc/sys/net/ipv6/conf/default/addr_gen_mode");
	return 1;
}

static int noticed(void *port)
{
	struct pollfd p = { nl_socket_get_fd(((struct bridge_port *)port)->watch.heard.sock), POLLIN, 0 };

	return poll(&p, 1, 0) == 1;
}

static void passes(void *a, void *b)
{
	static const uint8_t all[6] = { 255, 255, 255, 255, 255, 255 }, src[6] = { 2, 1, 2, 3, 4, 5 };
	static uint32_t number;

	frame_send(ops->queue_fd(a, 0, NULL), 10, all, src, ++number);
	g_assert_cmpuint(frame_next(ops->queue_fd(b, 0, NULL), 10), ==, number);
}

static void bridge_deleted(void)
{
	void *a, *b;

	if (!begin())
		return;
	g_autofree char *empty = net_state();

	a = watched(&(struct spec){ "br7,create=on,address=192.0.2.1/24,bridge-mac=02:00:00:00:07:07", .owner = "vhost:a:1:1:0", .mtu = 1400 });
	b = watched(&(struct spec){ "br7,create=on", .owner = "vhost:b:1:1:0", .ifname = "web", .mac = 4 });
	g_autofree char *before = unordered();

	passes(a, b);
	for (int first = 0; first < 2; first++) {
		run_ok("ip link del br7");
		g_assert_true(noticed(a) && noticed(b));
		repaired(first ? b : a, "bridge br7 was deleted by another program: it is made again");
		repaired(first ? a : b, first ? "is there again: vnet0 is its port" : "is there again: web is its port");
		same_as(before);
		passes(a, b);
		passes(b, a);
		g_assert_cmpuint(journals(), ==, 2);
	}
	ops->close(a);
	ops->close(b);
	same_state(empty);
	g_assert_cmpuint(journals(), ==, 0);
}

/* A port that is isolated, one whose link is down, and one of several queues are again what they were. */
static void ports_as_they_were(void)
{
	void *p[3];

	if (!begin())
		return;
	p[0] = watched(&(struct spec){ "br7,create=on,isolated=on", .owner = "vhost:a:1:1:0" });
	p[1] = watched(&(struct spec){ "br7,create=on", .owner = "vhost:a:1:1:1", .pairs = 4 });
	p[2] = watched(&(struct spec){ "br7,create=on", .owner = "vhost:a:1:1:2" });
	g_assert_cmpint(ops->set_link(p[2], 0, NULL), ==, 0);
	g_autofree char *before = unordered();

	run_ok("ip link del br7");
	for (int i = 2; i >= 0; i--)
		repaired(p[i], "bridge br7 was deleted");
	same_as(before);
	g_assert_true(has("isolated on", "bridge -d link show dev vnet0"));
	g_assert_true(has("state DOWN", "ip -o link show vnet2"));
	for (int i = 0; i < 3; i++)
		ops->close(p[i]);
	g_assert_false(has("br7", "ip -o link"));
}

/* As many processes as ports, all at once: one makes the bridge, all are its ports. */
static void all_at_once(void)
{
	enum { N = 12 };
	struct { int ready, go, made, done; } *s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid[N];

	if (!begin())
		return;
	g_autofree char *empty = net_state();

	for (int i = 0; i < N; i++) {
		pid[i] = fork();
		if (pid[i])
			continue;
		g_autofree char *owner = g_strdup_printf("vhost:t:%d:1:%d", i, i);
		void *port = must_open(&(struct spec){ "br7,create=on", .owner = owner });

		if (ops->watch(port, NULL) < 0)
			_exit(1);
		__atomic_fetch_add(&s->ready, 1, __ATOMIC_SEQ_CST);
		while (!__atomic_load_n(&s->go, __ATOMIC_SEQ_CST))
			g_usleep(1000);
		if (repair(port, NULL) != 1)
			_exit(1);
		if (strstr(told, "made again"))
			__atomic_fetch_add(&s->made, 1, __ATOMIC_SEQ_CST);
		__atomic_fetch_add(&s->done, 1, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&s->go, __ATOMIC_SEQ_CST) == 1)
			g_usleep(1000);
		ops->close(port);
		_exit(0);
	}
	for (int i = 0; i < 2000 && __atomic_load_n(&s->ready, __ATOMIC_SEQ_CST) < N; i++)
		g_usleep(5000);
	g_assert_cmpint(s->ready, ==, N);
	run_ok("ip link del br7");
	__atomic_store_n(&s->go, 1, __ATOMIC_SEQ_CST);
	for (int i = 0; i < 2000 && __atomic_load_n(&s->done, __ATOMIC_SEQ_CST) < N; i++)
		g_usleep(5000);
	g_assert_cmpint(s->done, ==, N);
	g_assert_cmpint(s->made, ==, 1);
	g_autofree char *n = sh("PATH=$PATH:/sbin:/usr/sbin; ip -o link show master br7 | wc -l");

	g_assert_cmpint(atoi(n), ==, N);
	__atomic_store_n(&s->go, 2, __ATOMIC_SEQ_CST);
	for (int i = 0; i < N; i++) {
		int st;

		g_assert_cmpint(waitpid(pid[i], &st, 0), ==, pid[i]);
		g_assert_cmpint(st, ==, 0);
	}
	same_state(empty);
	g_assert_cmpuint(journals(), ==, 0);
	munmap(s, 4096);
}

/* A bridge of others is theirs to make again. */
static void others_bridge(void)
{
	void *p;

	if (!begin())
		return;
	run_ok("ip link add br0 address 02:00:00:00:00:01 type bridge && ip link set br0 up");
	p = watched(&(struct spec){ "br0,create=on" });
	g_autofree char *before = unordered();

	run_ok("ip link del br0");
	in_vain(p, -ENOENT, "bridge br0 was deleted by another program, and vhost has not made it", "vnet0 joins it by itself");
	g_assert_false(has("br0", "ip -o link"));
	in_vain(p, -ENOENT, "bridge br0 was deleted", "make it again");
	run_ok("ip link add br0 address 02:00:00:00:00:01 type bridge && ip link set br0 up");
	repaired(p, "vnet0 is its port");
	same_as(before);
	ops->close(p);
	g_assert_true(has("br0", "ip -o link show br0"));
}

/* What people do to the port, or meanwhile have for it, is not undone. */
static void people_decide(void)
{
	void *p;

	if (!begin())
		return;
	run_ok("ip link add brx type bridge && ip link set brx up");
	p = watched(&(struct spec){ "br7,create=on" });
	run_ok("ip link set vnet0 nomaster");
	untouched(p);
	run_ok("ip link set vnet0 master brx");
	untouched(p);
	run_ok("ip link del br7");
	untouched(p);
	g_assert_true(has("master brx", "ip -o link show vnet0"));
	ops->close(p);
	/* The name is somebody else's now. */
	p = watched(&(struct spec){ "br7,create=on" });
	run_ok("ip link del br7; ip link add br7 type veth peer name peer7");
	in_vain(p, -EINVAL, "br7 is not a bridge but an interface of type veth", "another name");
	run_ok("ip link del br7");
	repaired(p, "made again");
	ops->close(p);
	/* So is the bridge; the port stays when its network has been put on another by its owner's hand. */
	p = watched(&(struct spec){ "br7,create=on" });
	run_ok("ip link del br7; ip link add br7 type bridge; ip link set br7 up; ip link set vnet0 master br7");
	untouched(p);
	ops->close(p);
	g_assert_true(has("br7", "ip -o link show br7"));
}

static int network_call(int (*fn)(const struct vh_network *n, struct vh_err *e), const char *options)
{
	struct vh_network n = { .size = sizeof(n), .name = "lan", .kind = "bridged", .owner = NETWORK, .state = state };
	struct optset *set;
	struct kvs kvs;
	ERR_AUTO(e);
	int r;

	g_assert_cmpint(kvs_parse(options, &kvs, NULL), ==, 0);
	g_assert_cmpint(optset_parse(ops->options, &kvs, "net", &set, NULL), ==, 0);
	n.opts = optset_get(set);
	r = fn(&n, &e);
	g_assert_cmpstr(e.cause, ==, NULL);
	optset_free(set);
	kvs_clear(&kvs);
	return r;
}

/* Of a network that is started the bridge is the network's again, and stays with it. */
static void of_a_network(void)
{
	void *p;

	if (!begin())
		return;
	g_autofree char *empty = net_state();

	g_assert_cmpint(network_call(ops->start, "br-lan,create=on"), ==, 0);
	p = watched(&(struct spec){ "br-lan,create=on", .network = "lan" });
	g_autofree char *before = unordered();

	run_ok("ip link del br-lan");
	repaired(p, "made again");
	same_as(before);
	g_assert_true(has(NETWORK, "ip link show br-lan"));
	ops->close(p);
	gc(everybody);
	g_assert_true(has(NETWORK, "ip link show br-lan"));
	g_assert_cmpint(network_call(ops->stop, "br-lan,create=on"), ==, 0);
	same_state(empty);
	g_assert_cmpuint(journals(), ==, 0);
}

/* ---- each step ---- */

static const struct spec kept = { "br7,create=on,address=192.0.2.1/24,isolated=on", .mtu = 1300 };

static void each_step(int sticky, int killing)
{
	unsigned steps = 0;

	if (!begin())
		return;
	g_autofree char *empty = net_state();

	for (unsigned n = 1, hit = 1; hit; n++) {
		pid_t pid = killing ? fork() : 0;
		int st = 0;

		if (!pid) {
			void *port = watched(&kept);
			g_autofree char *before = unordered();
			ERR_AUTO(e);
			int r;

			run_ok("ip link del br7");
			fault(n, sticky, killing);
			r = repair(port, &e);
			hit = fault_count >= n;
			net_fault_hook = NULL;
			if (killing)
				_exit(hit ? 2 : 0);
			if (hit) {
				g_assert_cmpint(r, <, 0);
				g_assert_nonnull(e.cause);
				/* Nothing of it is left, or enough for the next one to go on from. */
				repaired(port, "br7 was deleted");
			}
			same_as(before);
			ops->close(port);
		} else {
			g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
			hit = WIFSIGNALED(st);
			g_assert_true(hit || WEXITSTATUS(st) == 0);
			gc(nobody);
		}
		same_state(empty);
		g_assert_cmpuint(journals(), ==, 0);
		steps += hit;
	}
	g_test_message("%u steps", steps);
	g_assert_cmpuint(steps, >=, 8);
}

static void step_fails(void)
{
	each_step(0, 0);
}

static void step_and_undo_fail(void)
{
	each_step(1, 0);
}

static void step_is_the_last(void)
{
	each_step(0, 1);
}

int main(int argc, char **argv)
{
	const struct vh_plugin *p;
	int r;

	g_test_init(&argc, &argv, NULL);
	g_setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", TRUE);
	state = temp_folder("repair");
	g_assert_cmpint(vh_plugin_entry_v1(&plug_host, &p), ==, 0);
	ops = p->get(VH_IID_NET);
	g_test_add_func("/repair/the-bridge-is-deleted-under-two-ports", bridge_deleted);
	g_test_add_func("/repair/ports-are-as-they-were", ports_as_they_were);
	g_test_add_func("/repair/many-processes-at-once", all_at_once);
	g_test_add_func("/repair/a-bridge-of-others-is-waited-for", others_bridge);
	g_test_add_func("/repair/what-people-do-stays-done", people_decide);
	g_test_add_func("/repair/a-started-network-has-its-bridge-again", of_a_network);
	g_test_add_func("/repair/each-step-fails", step_fails);
	g_test_add_func("/repair/each-step-and-its-undo-fail", step_and_undo_fail);
	g_test_add_func("/repair/killed-at-each-step", step_is_the_last);
	r = g_test_run();
	run_ok("rm -rf %s", state);
	g_free(state);
	return r;
}
