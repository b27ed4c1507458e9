/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What passes through the nat plugin's networks and what does not: clients in namespaces of their own on its bridges, with
 * addresses by DHCP and router advertisements from its dnsmasq, and a server outside that says whom it sees. Wherever
 * something must not pass, the same probe passes once what forbids it is taken away.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "nat-test.h"

#define CLIENTS 12 /* and servers */

static pid_t client[CLIENTS];
static unsigned n_clients;

static pid_t namespace(void)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) < 0)
			_exit(126);
		execlp("sleep", "sleep", "600", NULL);
		_exit(127);
	}
	client[n_clients++] = pid;
	/* until it has a namespace of its own */
	for (int i = 0; i < 500 && !has("other", "[ $(readlink /proc/%d/ns/net) = $(readlink /proc/self/ns/net) ] || echo other", (int)pid); i++)
		g_usleep(10000);
	run_ok("nsenter -t %d -n ip link set lo up", (int)pid);
	return pid;
}

static void all_end(void)
{
	while (n_clients) {
		kill(client[--n_clients], SIGKILL);
		waitpid(client[n_clients], NULL, 0);
	}
	end_leftovers();
}

static char *in(pid_t pid, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static char *in(pid_t pid, const char *fmt, ...)
{
	g_autofree char *cmd = NULL, *quoted = NULL;
	va_list ap;

	va_start(ap, fmt);
	cmd = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	quoted = g_shell_quote(cmd);
	return sh("nsenter -t %d -n sh -c %s 2>&1", (int)pid, quoted);
}

/* A client on a bridge: its MAC ends with i, which makes its IPv6 address PREFIX:5054:ff:fe00:i. */
static pid_t join(const char *bridge, unsigned i)
{
	pid_t pid = namespace();

	run_ok("ip link add c%u type veth peer name p%u; ip link set c%u addrgenmode none; ip link set p%u address 52:54:00:00:00:0%u netns %d; "
	       "ip link set c%u master %s up", i, i, i, i, i, (int)pid, i, bridge);
	g_free(in(pid, "ip link set p%u name eth0; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up", i));
	return pid;
}

/* What DHCP gave: "ADDRESS/PREFIX router ROUTER dns DNS domain DOMAIN". Asked in two steps, for dnsmasq takes 3 s, in which it answers
 * nobody, to make sure that an address is free: several clients ask at the same time, and ask again (-T) only after such a silence.
 * The number of a namespace that has gone may come again: what was given there goes first. */
static void dhcp_ask(pid_t pid)
{
	g_free(in(pid, "rm -f %s/lease.$(readlink /proc/self/ns/net | tr -dc 0-9); timeout 40 busybox udhcpc -i eth0 -q -f -t 5 -T 4 -A 1 -s %s/udhcpc >%s/udhcpc.$$ 2>&1 &", state, state, state));
}

static char *dhcp(pid_t pid)
{
	return in(pid, "f=%s/lease.$(readlink /proc/self/ns/net | tr -dc 0-9); for i in $(seq 4000); do [ -e $f ] && break; sleep 0.01; done; "
		       "cat $f || tail -n 30 %s/udhcpc.*", state, state);
}

static void dhcp_script(void)
{
	g_autofree char *path = g_build_filename(state, "udhcpc", NULL);
	g_autofree char *text = g_strdup_printf(
		"#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr add $ip/$mask dev eth0\n[ -z \"$router\" ] || ip route add default via $router\n"
		"echo \"$ip/$mask router ${router:-none} dns ${dns:-none} domain ${domain:-none}\" >%s/new.$$\n"
		"mv %s/new.$$ %s/lease.$(readlink /proc/self/ns/net | tr -dc 0-9)\n", state, state, state);

	g_assert_true(g_file_set_contents(path, text, -1, NULL));
	g_chmod(path, 0755);
}

static int begin(void)
{
	for (const char *const *p = (const char *const[]){ "busybox", "nsenter", NULL }; *p; p++) {
		g_autofree char *path = g_find_program_in_path(*p);

		if (!path) {
			g_autofree char *why = g_strdup_printf("%s is not installed", *p);

			g_test_skip(why);
			return 0;
		}
	}
	if (!nat_begin())
		return 0;
	dhcp_script();
	return 1;
}

/* The host's uplink leads there; it says whom it sees at its port 7000, and knows ways into the networks. */
static pid_t outside(void)
{
	pid_t pid = namespace();

	run_ok("ip link set out0 netns %d", (int)pid);
	g_free(in(pid, "ip addr add 203.0.113.254/24 dev out0; ip -6 addr add 2001:db8::fe/64 dev out0 nodad; ip link set out0 up; "
		       "ip route add 192.168.0.0/16 via 203.0.113.1; ip -6 route add fd00::/16 via 2001:db8::1"));
	return pid;
}

/* ---- who sees whom: by sockets of processes that have gone over to a client's namespace, all probes of a list at the same time ---- */

static void go_to(pid_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/ns/net", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		_exit(126);
	close(fd);
}

static socklen_t address(struct sockaddr_storage *a, const char *text, unsigned port)
{
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)a;
	struct sockaddr_in *four = (struct sockaddr_in *)a;

	memset(a, 0, sizeof(*a));
	if (strchr(text, ':')) {
		six->sin6_family = AF_INET6;
		six->sin6_port = htons((uint16_t)port);
		g_assert_cmpint(inet_pton(AF_INET6, text, &six->sin6_addr), ==, 1);
		return sizeof(*six);
	}
	four->sin_family = AF_INET;
	four->sin_port = htons((uint16_t)port);
	g_assert_cmpint(inet_pton(AF_INET, text, &four->sin_addr), ==, 1);
	return sizeof(*four);
}

static int listener(const char *any, unsigned port)
{
	struct sockaddr_storage a;
	socklen_t len = address(&a, any, port);
	int s = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (a.ss_family == AF_INET6)
		setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	return bind(s, (struct sockaddr *)&a, len) < 0 || listen(s, 16) < 0 ? -1 : s;
}

/* Tells everybody who comes which address it sees. Ends with the test. */
static void serve(pid_t pid, unsigned port)
{
	struct pollfd p[2] = { { .events = POLLIN }, { .events = POLLIN } };
	struct sockaddr_storage a;
	char ready[2], text[INET6_ADDRSTRLEN];
	int ends[2], c;

	g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
	client[n_clients++] = fork();
	if (!client[n_clients - 1]) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		go_to(pid);
		p[0].fd = listener("0.0.0.0", port);
		p[1].fd = listener("::", port);
		if (p[0].fd < 0 || p[1].fd < 0 || write(ends[1], "ok", 2) != 2)
			_exit(1);
		for (;; close(c)) {
			socklen_t len = sizeof(a);

			poll(p, 2, -1);
			c = accept(p[p[0].revents ? 0 : 1].fd, (struct sockaddr *)&a, &len);
			if (c < 0 || getnameinfo((struct sockaddr *)&a, len, text, sizeof(text), NULL, 0, NI_NUMERICHOST))
				continue;
			if (write(c, text, strlen(text)) < 0)
				continue;
		}
	}
	close(ends[1]);
	g_assert_cmpint(read(ends[0], ready, 2), ==, 2);
	close(ends[0]);
}

/* `sees`: the address that the server at the other end must see, or NOBODY, when nothing of this may arrive there. */
struct probe {
	pid_t from;
	const char *to;
	unsigned port;
	const char *sees, *bind;
};

#define NOBODY ""
#define MUTE_MS 1000 /* what is dropped is never answered: this long is waited for it */

static void __attribute__((noreturn)) probe(const struct probe *b, int out)
{
	struct sockaddr_storage to, from;
	socklen_t len = address(&to, b->to, b->port), own;
	int s, error = 0;
	char text[INET6_ADDRSTRLEN];
	struct pollfd p;
	ssize_t n;

	go_to(b->from);
	s = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (b->bind) {
		own = address(&from, b->bind, 0);
		if (bind(s, (struct sockaddr *)&from, own) < 0)
			_exit(2);
	}
	p = (struct pollfd){ .fd = s, .events = POLLOUT };
	if (connect(s, (struct sockaddr *)&to, len) < 0 && errno != EINPROGRESS)
		_exit(0);
	len = sizeof(error);
	if (poll(&p, 1, MUTE_MS) != 1 || getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error)
		_exit(0);
	p.events = POLLIN;
	if (poll(&p, 1, 10 * MUTE_MS) != 1)
		_exit(3);
	n = read(s, text, sizeof(text));
	_exit(n < 0 || write(out, text, (size_t)n) != n ? 4 : 0);
}

static void see(const struct probe *list, unsigned n)
{
	pid_t *pid = g_newa(pid_t, n);
	int *out = g_newa(int, n), ends[2], st;

	for (unsigned i = 0; i < n; i++) {
		g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
		pid[i] = fork();
		if (!pid[i])
			probe(&list[i], ends[1]);
		close(ends[1]);
		out[i] = ends[0];
	}
	for (unsigned i = 0; i < n; i++) {
		char text[INET6_ADDRSTRLEN + 1] = "";

		g_assert_cmpint(read(out[i], text, sizeof(text) - 1), >=, 0);
		close(out[i]);
		g_assert_cmpint(waitpid(pid[i], &st, 0), ==, pid[i]);
		if (st || strcmp(text, list[i].sees))
			g_error("probe %u, to %s port %u: seen as '%s', not '%s' (status %x)", i, list[i].to, list[i].port, text, list[i].sees, (unsigned)st);
	}
}

#define SEE(...)                                             \
	do {                                                 \
		const struct probe list_[] = { __VA_ARGS__ }; \
		see(list_, G_N_ELEMENTS(list_));             \
	} while (0)

static char *eventually(pid_t pid, const char *what, const char *cmd)
{
	char *out = NULL;

	for (int i = 0; i < 200; i++) {
		g_free(out);
		out = in(pid, "%s", cmd);
		if (strstr(out, what))
			return out;
		g_usleep(50000);
	}
	g_error("'%s' never said '%s' but '%s'", cmd, what, out);
}

static void lan(void)
{
	const struct spec s = {
		"address=192.168.77.1/24,address6=fd00:77::1/64,dhcp-range=192.168.77.100-192.168.77.101,domain=lan,"
		"host=52:54:00:00:00:01=192.168.77.9=web,host=52:54:00:00:00:99=192.168.77.33=printer,forward=tcp:8080:192.168.77.9:80,forward=tcp:8080:[fd00:77::5054:ff:fe00:1]:80",
		.network = "n", .kind = "nat", .owner = "vhost:@n:1",
	};

	must_hold(START, &s);
}

static void stop(const char *name, const char *kind)
{
	g_autofree char *owner = g_strdup_printf("vhost:@%s:1", name);
	const struct spec s = { "dhcp=off", .network = name, .kind = kind, .owner = owner };

	run_ok("for l in $(ip -o link show master br-%s | awk -F'[ :@]+' '{print $2}'); do ip link del $l; done", name);
	must_hold(STOP, &s);
}

static void nat_passes(void)
{
	if (!begin())
		return;
	pid_t out = outside();

	serve(out, 7000);
	lan();
	pid_t one = join("br-n", 1), two = join("br-n", 2);

	dhcp_ask(one);
	dhcp_ask(two);
	g_autofree char *a = dhcp(one), *b = dhcp(two);

	/* Addresses, by DHCP and from the router's word. */
	g_assert_cmpstr(a, ==, "192.168.77.9/24 router 192.168.77.1 dns 192.168.77.1 domain lan\n");
	g_assert_true(g_str_has_prefix(b, "192.168.77.100/24") || g_str_has_prefix(b, "192.168.77.101/24"));
	g_free(eventually(one, "fd00:77::5054:ff:fe00:1/64", "ip -6 -o addr show eth0"));
	g_free(eventually(one, "default via fe80::", "ip -6 route"));
	/* Names. */
	g_free(eventually(two, "Address: 192.168.77.9\n", "busybox nslookup web.lan 192.168.77.1"));
	g_free(eventually(two, "Address: 192.168.77.33\n", "busybox nslookup printer.lan 192.168.77.1")); /* that never asked for a lease */
	/* Out, behind the host's address; and to each other, behind none. In, at the ports that were given away and nowhere else; the host
	 * itself comes to them as well. Under an address that is not the network's nobody leaves: the server's answer would show it. */
	serve(one, 80);
	g_free(in(two, "ip addr add 192.168.200.7/32 dev eth0"));
	SEE({ one, "203.0.113.254", 7000, "203.0.113.1" }, { one, "2001:db8::fe", 7000, "2001:db8::1" },
	    { two, "192.168.77.9", 80, g_str_has_prefix(b, "192.168.77.100") ? "192.168.77.100" : "192.168.77.101" },
	    { out, "203.0.113.1", 8080, "203.0.113.254" }, { out, "2001:db8::1", 8080, "2001:db8::fe" }, { getpid(), "203.0.113.1", 8080, "203.0.113.1" },
	    { out, "192.168.77.9", 80, NOBODY }, { out, "fd00:77::5054:ff:fe00:1", 80, NOBODY }, { two, "203.0.113.254", 7000, NOBODY, "192.168.200.7" });
	/* The same probes without the table. */
	run_ok("nft flush ruleset; ip route add 192.168.200.7 dev br-n");
	SEE({ out, "192.168.77.9", 80, "203.0.113.254" }, { out, "fd00:77::5054:ff:fe00:1", 80, "2001:db8::fe" },
	    { two, "203.0.113.254", 7000, "192.168.200.7", "192.168.200.7" });
	lan(); /* mends it */
	SEE({ out, "192.168.77.9", 80, NOBODY }, { one, "203.0.113.254", 7000, "203.0.113.1" });
	stop("n", "nat");
	all_end();
}

static void leases_stay(void)
{
	if (!begin())
		return;
	lan();
	pid_t one = join("br-n", 2);

	dhcp_ask(one);
	g_autofree char *a = dhcp(one);

	stop("n", "nat");
	all_end();
	lan();
	pid_t other = join("br-n", 3), again = join("br-n", 2);

	dhcp_ask(other);
	g_autofree char *b = dhcp(other);

	dhcp_ask(again);
	g_autofree char *c = dhcp(again);

	g_assert_cmpstr(a, ==, c); /* as before, though another one came first */
	g_assert_cmpstr(a, !=, b);
	g_assert_true(has("52:54:00:00:00:02", "cat %s/nat.leases.br-n", state));
	stop("n", "nat");
	all_end();
}

static void isolated_does_not(void)
{
	const struct spec s = { "address=192.168.88.1/24,address6=fd00:88::1/64,host=52:54:00:00:00:02=192.168.88.22", .network = "i", .kind = "isolated", .owner = "vhost:@i:1" };

	if (!begin())
		return;
	pid_t out = outside();

	serve(out, 7000);
	must_hold(START, &s);
	lan();
	pid_t one = join("br-i", 1), two = join("br-i", 2), other = join("br-n", 3);

	dhcp_ask(one);
	dhcp_ask(two);
	dhcp_ask(other);
	g_autofree char *a = dhcp(one), *b = dhcp(two), *c = dhcp(other);

	g_assert_nonnull(strstr(a, "/24 router none dns 192.168.88.1"));
	g_free(eventually(one, "fd00:88::5054:ff:fe00:1/64", "ip -6 -o addr show eth0"));
	g_assert_true(g_str_has_prefix(c, "192.168.77.10"));
	g_autofree char *routes = in(one, "ip -6 route");

	g_assert_null(strstr(routes, "default"));
	/* They reach each other and the host's address in their network... */
	char addr[INET_ADDRSTRLEN] = "", inner[INET_ADDRSTRLEN] = "";

	g_assert_cmpint(sscanf(a, "%15[0-9.]", addr), ==, 1);
	g_assert_cmpint(sscanf(c, "%15[0-9.]", inner), ==, 1);
	serve(one, 80);
	serve(other, 80);
	serve(getpid(), 90);
	g_autofree char *self = g_strdup_printf("%.*s", (int)strcspn(b, "/"), b);
	const char *first = addr, *first6 = "fd00:88::5054:ff:fe00:1";

	SEE({ two, addr, 80, self }, { one, "192.168.88.1", 90, first });
	/* ... and, though they try, and though the host forwards, nobody else; not even the host's other addresses. */
	for (pid_t *p = (pid_t[]){ one, two, 0 }; *p; p++)
		g_free(in(*p, "ip route add default via 192.168.88.1; ip -6 route add default via fd00:88::1"));
	run_ok("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; "
	       "nft 'add table inet friend; add chain inet friend f { type filter hook forward priority -50; policy accept; }; add rule inet friend f accept'");
	for (int open = 0; open < 2; open++) {
		if (open)
			run_ok("nft delete table inet vhost_br-i");
		/* Between the networks: both tables forbid it. */
		SEE({ one, "203.0.113.254", 7000, open ? first : NOBODY }, { one, "2001:db8::fe", 7000, open ? first6 : NOBODY },
		    { one, "203.0.113.1", 90, open ? first : NOBODY }, { one, "192.168.77.1", 90, open ? first : NOBODY },
		    { one, "2001:db8::1", 90, open ? first6 : NOBODY }, { out, addr, 80, open ? "203.0.113.254" : NOBODY },
		    { out, first6, 80, open ? "2001:db8::fe" : NOBODY }, { one, inner, 80, NOBODY },
		    { other, addr, 80, open ? "192.168.88.1" : NOBODY });
	}
	run_ok("nft delete table inet vhost_br-n");
	SEE({ one, inner, 80, first });
	/* The address that the host has elsewhere is not even told where the link layer would say it. */
	g_autofree char *arp = in(one, "ip neigh flush dev eth0; busybox arping -f -c 1 -w 1 -I eth0 203.0.113.1");

	g_assert_nonnull(strstr(arp, "Received 0 response"));
	g_autofree char *own = in(one, "busybox arping -f -c 1 -w 1 -I eth0 192.168.88.1");

	g_assert_nonnull(strstr(own, "Received 1 response"));
	run_ok("nft delete table inet friend");
	stop("i", "isolated");
	stop("n", "nat");
	all_end();
}

static void no_address_no_host(void)
{
	const struct spec s = { "", .network = "i", .kind = "isolated", .owner = "vhost:@i:1" };

	if (!begin())
		return;
	must_hold(START, &s);
	pid_t one = join("br-i", 1), two = join("br-i", 2);

	g_free(in(one, "ip addr add 192.168.88.2/24 dev eth0"));
	g_free(in(two, "ip addr add 192.168.88.3/24 dev eth0"));
	serve(two, 80);
	serve(getpid(), 90);
	SEE({ one, "192.168.88.3", 80, "192.168.88.2" });
	/* By the host's MAC to an address of the host: it comes to the host and no further. */
	g_autofree char *mac = sh("ip -o link show br-i | sed 's/.*ether \\([0-9a-f:]*\\).*/\\1/' | tr -d '\\n'");

	g_free(in(one, "ip route add 203.0.113.1 dev eth0; ip neigh replace 203.0.113.1 lladdr %s dev eth0", mac));
	run_ok("ip route add 192.168.88.2 dev br-i src 203.0.113.1");
	SEE({ one, "203.0.113.1", 90, NOBODY });
	run_ok("nft delete table inet vhost_br-i");
	SEE({ one, "203.0.113.1", 90, "192.168.88.2" });
	stop("i", "isolated");
	all_end();
}

static void add(void)
{
	g_test_add_func("/nat-traffic/nat-lets-out-and-only-forwards-in", nat_passes);
	g_test_add_func("/nat-traffic/leases-outlive-their-network", leases_stay);
	g_test_add_func("/nat-traffic/isolated-reaches-nobody-and-is-reached-by-nobody", isolated_does_not);
	g_test_add_func("/nat-traffic/without-an-address-the-host-is-not-there", no_address_no_host);
}

int main(int argc, char **argv)
{
	return nat_main(argc, argv, add);
}
