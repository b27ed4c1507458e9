/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A bridge's uplink: what the host had on it serves on the bridge, comes back, and is never lost, whatever step fails or is the last. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "bridge.h"
#include "faults.h"
#include "left.h"
#include "nlstate.h"

#define NETWORK "vhost:@lan:0123456789abcdef"
#define IP "PATH=$PATH:/sbin:/usr/sbin; "

/* Killed behind an answer is killed before the next step: nothing is done in between. */
static int killed_before(const char *step)
{
	return fault_kill && g_str_has_suffix(step, "answer");
}

/* ---- the plugin's calls ---- */

static struct optset *parse(const char *options)
{
	struct optset *set;
	struct kvs kvs;

	g_assert_cmpint(kvs_parse(options, &kvs, NULL), ==, 0);
	g_assert_cmpint(optset_parse(ops->options, &kvs, "net type bridge", &set, NULL), ==, 0);
	kvs_clear(&kvs);
	return set;
}

static int network_call(int (*fn)(const struct vh_network *n, struct vh_err *e), const char *options, const char *name, struct vh_err *e)
{
	struct optset *set = parse(options);
	g_autofree char *owner = g_strdup_printf("vhost:@%s:0123456789abcdef", name);
	struct vh_network n = { .size = sizeof(n), .name = name, .kind = "bridged", .opts = optset_get(set), .owner = owner, .state = state };
	int r = fn(&n, e);

	optset_free(set);
	return r;
}

static int start(const char *options, struct vh_err *e)
{
	return network_call(ops->start, options, "lan", e);
}

static int stop(const char *options, struct vh_err *e)
{
	return network_call(ops->stop, options, "lan", e);
}

static void must(int (*fn)(const char *options, struct vh_err *e), const char *options)
{
	ERR_AUTO(e);
	int r = fn(options, &e);

	g_assert_cmpstr(e.cause, ==, NULL);
	g_assert_cmpint(r, ==, 0);
}

static int open_port(const char *options, const char *network, const char *owner, void **port, struct vh_err *e)
{
	struct optset *set = parse(options);
	struct vh_net_open o = { .size = sizeof(o), .pairs = 1, .owner = owner, .state = state, .mac = { 0x52, 0x54, 0, 1, 2, 3 },
				 .opts = optset_get(set), .network = network, .kind = network ? "bridged" : NULL };
	int r = ops->open(&o, port, e);

	optset_free(set);
	return r;
}

static void *must_open(const char *options, const char *network, const char *owner)
{
	ERR_AUTO(e);
	void *port = NULL;
	int r = open_port(options, network, owner, &port, &e);

	g_assert_cmpstr(e.cause, ==, NULL);
	g_assert_cmpint(r, ==, 0);
	return port;
}

/* ---- the host ---- */

static int has(const char *text, const char *cmd)
{
	g_autofree char *out = sh(IP "%s 2>/dev/null", cmd);

	return strstr(out, text) != NULL;
}

/* All links, addresses and routes; without what runs down by itself. */
static char *everything(void)
{
	return sh(IP "ip -d -o link | sed 's/^[0-9]*: //;s/[a-z_]*timer *[0-9.]*//g;s/NO-CARRIER,//;s/,LOWER_UP//;s/ state [A-Z]*//;s/promiscuity.*addrgenmode/addrgenmode/'; "
		     "ip -d -o addr | sed 's/^[0-9]*: //;s/[0-9]*sec/Nsec/g'; ip -4 -d route show table all; ip -d -6 route show table all | sed 's/expires [0-9]*sec/expires Nsec/'");
}

/* What an interface serves with, without its name. The order of the kernel's own routes among others does not matter. */
static char *served_by(const char *dev)
{
	return sh(IP "D=%s; { ip -d -o addr show dev $D | sed 's/^[0-9]*: //;s/[0-9]*sec/Nsec/g'; ip -4 -d route show table all | grep -w \"dev $D\" | grep -v broadcast | sort; "
		     "ip -d -6 route show table all | grep -w \"dev $D\" | grep -v ff00:: | sed 's/expires [0-9]*sec/expires Nsec/' | sort; } | sed \"s/$D/DEV/g\"", dev);
}

/* Fails with the lines that differ only. */
static void same_text(const char *before, const char *after)
{
	g_auto(GStrv) a = g_strsplit(before, "\n", -1), b = g_strsplit(after, "\n", -1);

	if (!strcmp(before, after))
		return;
	for (unsigned i = 0; a[i]; i++)
		if (!g_strv_contains((const char *const *)b, a[i]))
			g_printerr("# - %s\n", a[i]);
	for (unsigned i = 0; b[i]; i++)
		if (!g_strv_contains((const char *const *)a, b[i]))
			g_printerr("# + %s\n", b[i]);
	g_error("the state is another (or its order)");
}

/* As before, once the kernel's workers have given the addresses their local routes. */
static void same_as(const char *before)
{
	char *now = net_state_all();

	for (int i = 0; i < 1000 && strcmp(before, now); i++) {
		g_usleep(5000);
		g_free(now);
		now = net_state_all();
	}
	same_text(before, now);
	g_free(now);
}

static void settle(const char *dev)
{
	for (int i = 0; i < 500 && (has("NO-CARRIER", "ip -o link") || has("state DOWN", "ip -o link show up") || has("tentative", "ip -o addr")); i++)
		g_usleep(10000);
	g_assert_false(has("tentative", "ip -o addr"));
	g_assert_true(has("LOWER_UP", dev ? dev : "ip -o link show up0"));
}

/* up0, the card: many addresses and routes of all kinds. far: the cable's other end. other: for a route over two. */
static int begin_with(int dad)
{
	if (!netns_fresh())
		return 0;
	net_fault_hook = NULL;
	if (!dad) /* which takes 2 s */
		run_ok("echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad; echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad");
	run_ok(IP "ip link set lo up; ip link add up0 address 52:54:00:aa:00:01 mtu 1400 type veth peer name far mtu 1400; ip link add other type veth peer name other2; "
		  "for i in far other other2; do ip link set $i addrgenmode none up; done; ip link set up0 up; ip addr add 172.16.0.1/24 dev other");
	settle(NULL);
	run_ok(IP "ip addr add 192.0.2.1/24 brd + dev up0; ip addr add 192.0.2.2/24 dev up0 label up0:web; ip addr add 198.51.100.1/32 dev up0 valid_lft 4000 preferred_lft 3000; "
		  "ip addr add 203.0.113.1 peer 203.0.113.9/32 dev up0; ip addr add 10.1.0.1/16 dev up0 noprefixroute; ip addr add 10.2.0.1/24 metric 77 dev up0; "
		  "ip addr add 169.254.7.7/16 dev up0 scope link; ip addr add 10.3.0.1/24 dev up0; ip route del 10.3.0.0/24; "
		  "for i in $(seq 1 60); do echo addr add 10.9.$i.1/24 dev up0; echo addr add 10.9.$i.2/24 dev up0; echo route add 10.10.$i.0/24 via 10.9.$i.9 dev up0; done | ip -batch -");
	run_ok(IP "ip route add default via 192.0.2.254 metric 50 proto dhcp; ip route add default via 192.0.2.253 metric 100; ip route add 10.20.0.0/16 via 192.0.2.252 src 192.0.2.2 table 77 mtu 1300 advmss 1200; "
		  "ip route add 10.30.0.0/16 nexthop via 192.0.2.251 dev up0 weight 3 nexthop via 172.16.0.9 dev other weight 2; ip route add 10.40.0.1 via 10.99.0.1 dev up0 onlink; "
		  "ip route add 10.50.0.0/16 tos 0x10 via 192.0.2.250; ip route append 10.60.0.0/16 via 192.0.2.1 2>/dev/null; ip route add 10.61.0.0/16 dev up0 proto static scope link realm 7");
	run_ok(IP "ip addr add 2001:db8::1/64 dev up0 nodad; ip addr add 2001:db8::2/64 dev up0 nodad preferred_lft 0 valid_lft 5000; ip addr add 2001:db8:1::1/64 dev up0 nodad noprefixroute; "
		  "ip addr add fd00::5 peer fd00::6/128 dev up0 nodad; ip addr add 2001:db8:7::7/64 dev up0; ip -6 route add default via fe80::99 dev up0 proto ra metric 1024 expires 1000; "
		  "ip -6 route add 2001:db8:2::/48 via 2001:db8::ff table 99 mtu 1280; ip -6 route add 2001:db8:3::/48 nexthop via 2001:db8::fe dev up0 nexthop via 2001:db8::fd dev up0; "
		  "ip -6 route add 2001:db8:4::/48 dev up0 metric 5");
	settle(NULL);
	g_assert_true(has("10.30.0.0/16", "ip route"));
	g_assert_true(has("expires", "ip -6 route"));
	g_assert_true(has("fe80::5054:ff:feaa:1", "ip -o addr show up0"));
	return 1;
}

static int begin(void)
{
	return begin_with(0);
}

static void start_and_stop(void)
{
	if (!begin_with(1))
		return;
	g_autofree char *before = everything(), *served = served_by("up0");

	must(start, "uplink=up0");
	g_autofree char *now = served_by("br-lan"), *left = sh(IP "ip -o addr show dev up0; ip -4 route show table all dev up0; ip -6 route show table all dev up0 | grep -v ^multicast");

	same_text(served, now);
	g_assert_cmpstr(left, ==, "");
	g_assert_true(has("via 192.0.2.251 dev br-lan", "ip -o route show 10.30.0.0/16"));
	g_assert_true(has("via 172.16.0.9 dev other", "ip -o route show 10.30.0.0/16"));
	g_assert_true(has("52:54:00:aa:00:01", "ip -o link show br-lan"));
	g_assert_true(has("mtu 1400", "ip -o link show br-lan"));
	g_assert_true(has(NETWORK, "ip link show br-lan"));
	g_assert_true(has("state forwarding", "bridge link show dev up0"));
	g_assert_cmpuint(journals(), ==, 2);
	gc(everybody);
	must(start, "uplink=up0"); /* again is nothing */
	g_autofree char *same = served_by("br-lan");

	same_text(served, same);
	must(stop, "uplink=up0");
	g_autofree char *after = everything();

	same_text(before, after);
	g_assert_cmpuint(journals(), ==, 0);
	must(stop, "uplink=up0");
}

/* The round trips do not grow with what is moved. */
static void few_round_trips(void)
{
	unsigned many, few;

	if (!begin())
		return;
	fault(0, 0, 0);
	must(start, "uplink=up0");
	many = fault_count;
	must(stop, "uplink=up0");
	run_ok(IP "ip addr flush dev up0; ip addr add 192.0.2.1/24 dev up0");
	fault(0, 0, 0);
	must(start, "uplink=up0");
	few = fault_count;
	must(stop, "uplink=up0");
	g_test_message("%u steps for 130 addresses, %u for one", many, few);
	g_assert_cmpuint(many, <=, few + 2); /* the kernel's own routes, if there are any too many, are another batch */
}

/* ---- each step ---- */

static int act_start(void)
{
	ERR_AUTO(e);
	int r = start("uplink=up0", &e);

	g_assert_true(!r || e.cause);
	return r;
}

static int act_stop(void)
{
	ERR_AUTO(e);

	return stop("uplink=up0", &e);
}

static void *kept;
static int act_open(void)
{
	return open_port("uplink=up0", "lan", "vhost:t:1:1:0", &kept, NULL);
}

static int act_close(void)
{
	ops->close(kept);
	kept = NULL;
	return 0;
}

static int nothing(void)
{
	return 0;
}

/* Each step of `act` fails (with `sticky` all after it), or is the last. `first` comes before, undisturbed; `then` tidies up when
 * nothing was disturbed any more. A program that shows the state would take longer than the step: net_state_all(). */
static void each_step(int (*first)(void), int (*act)(void), int (*then)(void), int sticky, int killing, int undone)
{
	unsigned steps = 0;

	if (!begin())
		return;
	g_autofree char *before = net_state_all();

	for (unsigned n = 1;; n++) {
		int st = 0, hit = 1;
		pid_t pid = killing ? fork() : 0;

		if (!pid) {
			net_fault_hook = NULL;
			if (first())
				_exit(3);
			fault(n, sticky, killing);
			int r = act();

			hit = fault_count >= n;
			net_fault_hook = NULL;
			if (killing)
				_exit(hit ? 2 : 0);
			if (!hit) {
				g_assert_cmpint(r, ==, 0);
				then();
			} else if (undone && !sticky) { /* at once, without gc */
				g_assert_cmpint(r, <, 0);
				same_as(before);
			}
		} else {
			g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
			hit = WIFSIGNALED(st);
			g_assert_true(hit || WEXITSTATUS(st) == 0);
		}
		gc(nobody);
		same_as(before);
		g_assert_cmpuint(journals(), ==, 0);
		if (!hit)
			break;
		steps++;
	}
	g_test_message("%u steps", steps);
	g_assert_cmpuint(steps, >=, 8);
}

static void start_fails(void)
{
	each_step(nothing, act_start, act_stop, 0, 0, 1);
}

static void start_and_undo_fail(void)
{
	each_step(nothing, act_start, act_stop, 1, 0, 0);
}

static void start_is_killed(void)
{
	each_step(nothing, act_start, act_stop, 0, 1, 0);
}

static void stop_fails(void)
{
	each_step(act_start, act_stop, nothing, 0, 0, 0);
}

static void stop_is_killed(void)
{
	each_step(act_start, act_stop, nothing, 0, 1, 0);
}

static void open_fails(void)
{
	each_step(nothing, act_open, act_close, 0, 0, 1);
}

static void open_is_killed(void)
{
	each_step(nothing, act_open, act_close, 0, 1, 0);
}

static void close_is_killed(void)
{
	each_step(act_open, act_close, nothing, 0, 1, 0);
}

/* ---- a connection ---- */

struct talk {
	atomic_uint rounds, accepted, retransmits, stop, ready;
};

static int tcp_socket(void)
{
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return s;
}

static void serve(struct talk *t, int listener)
{
	char buf[64];
	ssize_t n;

	for (;;) {
		int c = accept(listener, NULL, NULL);

		if (c < 0)
			_exit(1);
		atomic_fetch_add(&t->accepted, 1);
		while ((n = read(c, buf, sizeof(buf))) > 0)
			if (write(c, buf, (size_t)n) != n)
				break;
		close(c);
	}
}

/* At the cable's other end. */
static void call_host(struct talk *t, int go)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(7777) };
	struct tcp_info info;
	socklen_t len = sizeof(info);
	char buf[64] = "round";
	int s;

	if (unshare(CLONE_NEWNET) < 0)
		_exit(1);
	atomic_store(&t->ready, 1);
	if (read(go, buf, 1) != 1) /* far is here now */
		_exit(1);
	run_ok(IP "ip link set lo up; ip addr add 192.0.2.99/24 dev far; ip link set far up");
	inet_pton(AF_INET, "192.0.2.1", &to.sin_addr);
	s = tcp_socket();
	if (connect(s, (struct sockaddr *)&to, sizeof(to)) < 0)
		_exit(2);
	while (!atomic_load(&t->stop)) {
		if (write(s, buf, 16) != 16 || recv(s, buf, 16, MSG_WAITALL) != 16)
			_exit(3);
		atomic_fetch_add(&t->rounds, 1);
	}
	if (!getsockopt(s, IPPROTO_TCP, TCP_INFO, &info, &len))
		atomic_store(&t->retransmits, info.tcpi_total_retrans);
	_exit(0);
}

static void goes_on(struct talk *t)
{
	unsigned now = atomic_load(&t->rounds);

	for (int i = 0; i < 1500 && atomic_load(&t->rounds) < now + 100; i++)
		g_usleep(10000);
	g_assert_cmpuint(atomic_load(&t->rounds), >=, now + 100);
}

static void connection_stays(void)
{
	struct talk *t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(7777) };
	int listener, go[2], st;
	pid_t server, client;

	if (!begin())
		return;
	listener = tcp_socket();
	g_assert_cmpint(bind(listener, (struct sockaddr *)&any, sizeof(any)), ==, 0);
	g_assert_cmpint(listen(listener, 4), ==, 0);
	g_assert_cmpint(pipe2(go, O_CLOEXEC), ==, 0);
	server = fork();
	if (!server)
		serve(t, listener);
	client = fork();
	if (!client)
		call_host(t, go[0]);
	while (!atomic_load(&t->ready))
		g_usleep(1000);
	run_ok(IP "ip link set far netns %d", (int)client);
	g_assert_cmpint(write(go[1], "x", 1), ==, 1);
	goes_on(t);
	for (int i = 0; i < 5; i++) {
		must(start, "uplink=up0");
		goes_on(t);
		must(stop, "uplink=up0");
		goes_on(t);
	}
	atomic_store(&t->stop, 1);
	g_assert_cmpint(waitpid(client, &st, 0), ==, client);
	g_assert_cmpint(st, ==, 0);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	g_test_message("%u rounds, %u segments sent again in 10 moves", atomic_load(&t->rounds), atomic_load(&t->retransmits));
	g_assert_cmpuint(atomic_load(&t->accepted), ==, 1);
	/* A port hears nothing between its joining and its being enabled: what comes just then is sent again. */
	g_assert_cmpuint(atomic_load(&t->retransmits), <=, 20);
	close(listener);
	munmap(t, sizeof(*t));
}

/* ---- what others do meanwhile ---- */

static void changed_meanwhile(void)
{
	if (!begin())
		return;
	must(start, "uplink=up0");
	run_ok(IP "ip addr add 10.77.0.1/24 dev br-lan; ip route add 10.78.0.0/16 via 10.77.0.9; ip addr del 10.9.5.1/24 dev br-lan; ip addr add 10.9.6.1/24 dev up0 2>/dev/null");
	must(stop, "uplink=up0");
	g_assert_true(has("10.77.0.1/24", "ip -o addr show up0"));
	g_assert_true(has("via 10.77.0.9 dev up0", "ip route"));
	g_assert_false(has("10.9.5.1/24", "ip -o addr"));
	g_assert_cmpuint(journals(), ==, 0);
}

static void vanishes_and_returns(void)
{
	if (!begin())
		return;
	must(start, "uplink=up0");
	run_ok(IP "ip link del up0");
	g_assert_true(has("br-lan", "ip -o link show br-lan"));
	gc(everybody);
	ERR_AUTO(e);
	g_assert_cmpint(start("uplink=up0", &e), ==, -ENOENT);
	g_assert_nonnull(strstr(e.cause, "uplink up0 does not exist"));
	run_ok(IP "ip link add up0 mtu 1400 type veth peer name far; ip link set far up; ip link set up0 up; ip addr add 192.0.2.77/24 dev up0");
	must(start, "uplink=up0"); /* joins again, with what it has now */
	g_assert_true(has("master br-lan", "ip -o link show up0"));
	g_assert_true(has("192.0.2.77/24", "ip -o addr show br-lan"));
	g_assert_true(has("192.0.2.1/24", "ip -o addr show br-lan"));
	must(stop, "uplink=up0");
	g_assert_true(has("192.0.2.77/24", "ip -o addr show up0"));
	g_assert_true(has("192.0.2.1/24", "ip -o addr show up0"));
	g_assert_cmpuint(journals(), ==, 0);
	/* one that does not return */
	must(start, "uplink=up0");
	run_ok(IP "ip link del up0");
	must(stop, "uplink=up0");
	g_assert_false(has("br-lan", "ip -o link"));
	g_assert_cmpuint(journals(), ==, 0);
}

static void bridge_deleted(void)
{
	if (!begin())
		return;
	g_autofree char *before = everything();

	must(start, "uplink=up0");
	run_ok(IP "ip link del br-lan");
	g_assert_false(has("192.0.2.1/24", "ip -o addr"));
	gc(everybody);
	g_autofree char *after = everything();

	same_text(before, after);
	/* so does the next start */
	must(start, "uplink=up0");
	g_autofree char *served = served_by("br-lan");

	run_ok(IP "ip link del br-lan");
	must(start, "uplink=up0");
	g_autofree char *again = served_by("br-lan");

	same_text(served, again);
	must(stop, "uplink=up0");
	g_autofree char *stopped = everything();

	same_text(before, stopped);
	/* and the stop of what is not there any more */
	must(start, "uplink=up0");
	run_ok(IP "ip link del br-lan");
	must(stop, "uplink=up0");
	g_autofree char *gone = everything();

	same_text(before, gone);
	g_assert_cmpuint(journals(), ==, 0);
	/* somebody was quicker: his addresses stay as they are */
	must(start, "uplink=up0");
	run_ok(IP "ip link del br-lan; ip addr add 192.0.2.200/24 dev up0");
	gc(everybody);
	g_assert_true(has("192.0.2.200/24", "ip -o addr show up0"));
	g_assert_false(has("192.0.2.1/24", "ip -o addr"));
	gc(nobody);
	g_assert_cmpuint(journals(), ==, 0);
}

/* A gateway whose network has gone: the kernel keeps such a route, but takes it again only as on-link. */
static void stale_routes(void)
{
	if (!begin())
		return;
	run_ok(IP "ip addr del 10.9.7.2/24 dev up0; ip addr del 10.9.7.1/24 dev up0; ip -6 addr del 2001:db8::1/64 dev up0; ip -6 addr del 2001:db8::2/64 dev up0");
	g_assert_true(has("via 10.9.7.9 dev up0", "ip route"));
	must(start, "uplink=up0");
	g_assert_true(has("via 10.9.7.9 dev br-lan", "ip route"));
	g_assert_true(has("via 10.9.8.9 dev br-lan \n", "ip route"));
	g_assert_true(has("via 2001:db8::ff dev br-lan", "ip -6 route show table 99"));
	must(stop, "uplink=up0");
	g_assert_true(has("via 10.9.7.9 dev up0 onlink", "ip route"));
	g_assert_cmpuint(journals(), ==, 0);
}

static void was_down(void)
{
	if (!begin())
		return;
	run_ok(IP "ip route del 10.30.0.0/16; ip link set up0 down; ip addr flush dev up0");
	g_autofree char *before = everything();

	must(start, "uplink=up0");
	g_assert_true(has("UP", "ip -o link show up0"));
	must(stop, "uplink=up0");
	g_autofree char *after = everything();

	same_text(before, after);
}

/* ---- ports ---- */

static void on_demand(void)
{
	void *a, *b;

	if (!begin())
		return;
	g_autofree char *before = everything();

	a = must_open("uplink=up0", "a-network-with-a-long-name", "vhost:a:1:1:0");
	g_assert_true(has("altname br-a-network-with-a-long-name", "ip link show br-a-network-with-a-long-name"));
	g_assert_true(has("192.0.2.1/24", "ip -o addr show br-a-network-with-a-long-name"));
	b = must_open("uplink=up0", "a-network-with-a-long-name", "vhost:b:1:1:0");
	ops->close(a);
	g_assert_true(has("192.0.2.1/24", "ip -o addr show br-a-network-with-a-long-name"));
	ops->close(b);
	g_autofree char *after = everything();

	same_text(before, after);
	g_assert_cmpuint(journals(), ==, 0);
	/* without a network, and by a port that knows nothing of the uplink */
	a = must_open("br9,uplink=up0,bridge-mac=02:00:00:00:09:09", NULL, "vhost:a:1:1:0");
	g_assert_true(has("02:00:00:00:09:09", "ip -o link show br9"));
	b = must_open("br9", NULL, "vhost:b:1:1:0");
	ops->close(a);
	g_assert_true(has("192.0.2.1/24", "ip -o addr show br9"));
	ops->close(b);
	g_autofree char *again = everything();

	same_text(before, again);
}

static void held_with_ports(void)
{
	ERR_AUTO(e);
	ERR_AUTO(e2);
	void *a, *b;

	if (!begin())
		return;
	g_autofree char *before = everything();

	a = must_open("uplink=up0", "lan", "vhost:a:1:1:0");
	must(start, "uplink=up0"); /* the VM's bridge becomes the network's */
	g_assert_true(has(NETWORK, "ip link show br-lan"));
	b = must_open("uplink=up0", "lan", "vhost:b:1:1:0");
	g_assert_cmpint(stop("uplink=up0", &e), ==, -EBUSY);
	g_assert_nonnull(strstr(e.cause, "vnet0, vnet1"));
	g_assert_null(strstr(e.cause, "up0"));
	g_assert_cmpint(network_call(ops->start, "br-lan,uplink=up0", "other", &e2), ==, -EBUSY);
	g_assert_nonnull(strstr(e2.cause, "network lan"));
	ops->close(a);
	ops->close(b);
	gc(everybody);
	g_assert_true(has("192.0.2.1/24", "ip -o addr show br-lan"));
	must(stop, "uplink=up0");
	g_autofree char *after = everything();

	same_text(before, after);
	g_assert_cmpuint(journals(), ==, 0);
}

static void say(void *ctx, const char *text)
{
	g_string_append_printf(ctx, "%s\n", text);
}

static void part(void *ctx, const struct vh_net_part *p)
{
	g_string_append_printf(ctx, "%s %s on %s owner %s: %s, %u, %d\n", p->kind, p->name, p->above ? p->above : "-", p->owner ? p->owner : "-",
			       p->detail ? "detail" : "-", p->mtu, p->up);
}

static void plan_and_describe(void)
{
	g_autoptr(GString) s = g_string_new(NULL);
	g_autoptr(GString) parts = g_string_new(NULL);
	struct vh_network n = { .size = sizeof(n), .name = "lan", .kind = "bridged", .state = state };
	void *a;

	if (!begin())
		return;
	g_autofree char *before = everything();
	struct optset *set = parse("uplink=up0");

	n.opts = optset_get(set);
	g_assert_cmpint(ops->plan_start(&n, say, s, NULL), ==, 0);
	g_assert_cmpint(ops->describe(&n, part, parts, NULL), ==, 0);
	g_autofree char *after = everything();

	same_text(before, after);
	g_assert_cmpuint(parts->len, ==, 0);
	for (const char *const *t = (const char *const[]){ "create bridge br-lan, MAC 52:54:00:aa:00:01, MTU 1400", "make up0 a port of bridge br-lan",
			"move address 192.0.2.2/24 from up0 to br-lan", "move route default via 192.0.2.254 metric 50 from", "move route 10.20.0.0/16 via 192.0.2.252 of table 77",
			"move IPv6 route default via fe80::99 metric 1024 from", NULL }; *t; t++)
		if (!strstr(s->str, *t))
			g_error("'%s' is not in the plan:\n%s", *t, s->str);
	must(start, "uplink=up0");
	a = must_open("uplink=up0", "lan", "vhost:a:1:1:0");
	g_assert_cmpint(ops->describe(&n, part, parts, NULL), ==, 0);
	g_assert_cmpstr(parts->str, ==, "uplink up0 on - owner -: -, 1400, 1\nbridge br-lan on up0 owner " NETWORK ": detail, 1400, 1\n"
					"port vnet0 on br-lan owner vhost:a:1:1:0: -, 1400, 1\n");
	ops->close(a);
	must(stop, "uplink=up0");
	optset_free(set);
}

/* ---- refusals ---- */

static void refused(const char *options, int code, const char *cause)
{
	g_autofree char *before = everything();
	ERR_AUTO(e);

	g_assert_cmpint(start(options, &e), ==, code);
	g_assert_nonnull(e.cause);
	if (!strstr(e.cause, cause))
		g_error("'%s' is not in '%s'", cause, e.cause);
	g_assert_nonnull(e.remedy);
	g_autofree char *after = everything();

	same_text(before, after);
	g_assert_cmpuint(journals(), ==, 0);
}

static void refusals(void)
{
	if (!begin())
		return;
	run_ok(IP "ip link add br1 type bridge; ip link set br1 addrgenmode none; ip link set other master br1; ip link add br2 type bridge; ip link set br2 addrgenmode none; ip tuntap add dev tun0 mode tun; "
		  "ip link add mv0 link far type macvlan; ip link add sit7 type sit local 192.0.2.1 2>/dev/null; ip link add tap0 type veth peer name tap1; ip link set tap0 alias vhost:x:1:1:0");
	refused("uplink=nothing", -ENOENT, "uplink nothing does not exist");
	refused("uplink=lo", -EINVAL, "loopback");
	refused("uplink=tun0", -EINVAL, "no Ethernet interface");
	refused("uplink=br1", -EINVAL, "a bridge itself");
	refused("uplink=other", -EBUSY, "a port of br1 already");
	refused("uplink=far", -EBUSY, "cannot make far the uplink");
	refused("uplink=tap0", -EINVAL, "vhost made");
	refused("br2,uplink=up0", -EEXIST, "not made by vhost");
	refused("up0,uplink=up0", -EINVAL, "the name of its uplink");
	refused("br3,uplink=up0,create=off", -EINVAL, "made here");
	refused("uplink=up0,address=192.0.2.9/24", -EINVAL, "address=");
	refused("uplink=a/b", -EINVAL, "cannot be the name");
	refused("far", -EINVAL, "not a bridge but an interface of type veth");
	if (has("id 7", "ip nexthop add id 7 via 192.0.2.250 dev up0; ip nexthop")) {
		run_ok(IP "ip route add 10.88.0.0/16 nhid 7");
		refused("uplink=up0", -EOPNOTSUPP, "route 10.88.0.0/16");
		run_ok(IP "ip nexthop del id 7");
	}
	/* a bridge of others that has the uplink is used as it is */
	run_ok(IP "ip link set br1 up");
	settle("ip -o link show br1");
	g_autofree char *before = everything();

	must(start, "br1,uplink=other");
	must(stop, "br1,uplink=other");
	g_autofree char *after = everything();

	same_text(before, after);
}

/* sysfs says what is wifi; here one of our own making does. */
static void wifi(void)
{
	int st;
	pid_t pid;

	if (!begin())
		return;
	g_autofree char *dir = temp_folder("sysfs");

	run_ok("mkdir -p %s/up0/phy80211", dir);
	pid = fork();
	if (!pid) {
		if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount(dir, "/sys/class/net", NULL, MS_BIND, NULL) < 0)
			_exit(77);
		refused("uplink=up0", -EINVAL, "wifi");
		_exit(0);
	}
	g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
	run_ok("rm -rf %s", dir);
	if (WIFEXITED(st) && WEXITSTATUS(st) == 77)
		g_test_skip("mount namespaces are not allowed");
	else
		g_assert_cmpint(st, ==, 0);
}

int main(int argc, char **argv)
{
	const struct vh_plugin *p;
	int r;

	g_test_init(&argc, &argv, NULL);
	g_setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", TRUE);
	state = temp_folder("uplink");
	g_assert_cmpint(vh_plugin_entry_v1(&plug_host, &p), ==, 0);
	ops = p->get(VH_IID_NET);
	fault_skip = killed_before;
	g_test_add_func("/uplink/start-moves-and-stop-moves-back", start_and_stop);
	g_test_add_func("/uplink/round-trips-do-not-grow-with-addresses", few_round_trips);
	g_test_add_func("/uplink/start-fails-at-each-step", start_fails);
	g_test_add_func("/uplink/start-and-its-undo-fail", start_and_undo_fail);
	g_test_add_func("/uplink/start-is-killed-at-each-step", start_is_killed);
	g_test_add_func("/uplink/stop-fails-at-each-step", stop_fails);
	g_test_add_func("/uplink/stop-is-killed-at-each-step", stop_is_killed);
	g_test_add_func("/uplink/open-fails-at-each-step", open_fails);
	g_test_add_func("/uplink/open-is-killed-at-each-step", open_is_killed);
	g_test_add_func("/uplink/close-is-killed-at-each-step", close_is_killed);
	g_test_add_func("/uplink/a-connection-stays", connection_stays);
	g_test_add_func("/uplink/changes-made-meanwhile-come-back", changed_meanwhile);
	g_test_add_func("/uplink/vanishes-and-returns", vanishes_and_returns);
	g_test_add_func("/uplink/the-bridge-is-deleted-under-us", bridge_deleted);
	g_test_add_func("/uplink/stale-routes-are-kept", stale_routes);
	g_test_add_func("/uplink/was-down", was_down);
	g_test_add_func("/uplink/comes-and-goes-with-ports", on_demand);
	g_test_add_func("/uplink/held-with-ports", held_with_ports);
	g_test_add_func("/uplink/plan-and-describe-change-nothing", plan_and_describe);
	g_test_add_func("/uplink/refusals-name-their-reason", refusals);
	g_test_add_func("/uplink/wifi-is-refused", wifi);
	r = g_test_run();
	run_ok("rm -rf %s", state);
	g_free(state);
	return r;
}
