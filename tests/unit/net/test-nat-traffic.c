/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What passes through the nat plugin's networks and what does not: clients in namespaces of their own on its bridges, with
 * addresses by DHCP and router advertisements from its dnsmasq, and a server outside that says whom it sees. Wherever
 * something must not pass, the same probe passes once what forbids it is taken away.
 */
#include <errno.h>
#include <sys/prctl.h>

#include "nat-test.h"

#define CLIENTS 8

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

/* What DHCP gave: "ADDRESS/PREFIX router ROUTER dns DNS domain DOMAIN". */
static char *dhcp(pid_t pid)
{
	return in(pid, "busybox udhcpc -i eth0 -n -q -f -t 20 -T 1 -s %s/udhcpc >/dev/null 2>&1; cat %s/lease.$(readlink /proc/self/ns/net | tr -dc 0-9)", state, state);
}

static void dhcp_script(void)
{
	g_autofree char *path = g_build_filename(state, "udhcpc", NULL);
	g_autofree char *text = g_strdup_printf(
		"#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr add $ip/$mask dev eth0\n[ -z \"$router\" ] || ip route add default via $router\n"
		"echo \"$ip/$mask router ${router:-none} dns ${dns:-none} domain ${domain:-none}\" >%s/lease.$(readlink /proc/self/ns/net | tr -dc 0-9)\n", state);

	g_assert_true(g_file_set_contents(path, text, -1, NULL));
	g_chmod(path, 0755);
}

static int begin(void)
{
	for (const char *const *p = (const char *const[]){ "socat", "busybox", "nsenter", NULL }; *p; p++) {
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

static void serve(pid_t pid, unsigned port)
{
	g_free(in(pid, "for f in TCP4 TCP6; do o=; [ $f = TCP4 ] || o=,ipv6only=1; "
		       "socat $f-LISTEN:%u,fork,reuseaddr$o SYSTEM:'echo saw $SOCAT_PEERADDR' </dev/null >/dev/null 2>&1 & echo $! >>%s/servers; done; "
		       "for i in $(seq 100); do [ $(grep -c ':%04X .* 0A ' /proc/net/tcp /proc/net/tcp6 | grep -c :1) = 2 ] && break; sleep 0.05; done", port, state, port));
}

/* Whom a server there sees when this client comes: "" when none answers. */
static char *seen(pid_t from, const char *to, unsigned port)
{
	char *text = in(from, "timeout 3 socat -T 2 - TCP:%s:%u,connect-timeout=1 </dev/null 2>/dev/null", to, port);

	return g_strstrip(text);
}

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

#define SEES(FROM, TO, PORT, WHOM)                                              \
	do {                                                                    \
		g_autofree char *seen_ = seen(FROM, TO, PORT);                  \
		g_assert_cmpstr(seen_, ==, WHOM);                               \
	} while (0)
#define NOBODY ""

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
	g_autofree char *a = dhcp(one), *b = dhcp(two);

	/* Addresses, by DHCP and from the router's word. */
	g_assert_cmpstr(a, ==, "192.168.77.9/24 router 192.168.77.1 dns 192.168.77.1 domain lan\n");
	g_assert_true(g_str_has_prefix(b, "192.168.77.100/24") || g_str_has_prefix(b, "192.168.77.101/24"));
	g_free(eventually(one, "fd00:77::5054:ff:fe00:1/64", "ip -6 -o addr show eth0"));
	g_free(eventually(one, "default via fe80::", "ip -6 route"));
	/* Names. */
	g_free(eventually(two, "Address: 192.168.77.9\n", "busybox nslookup web.lan 192.168.77.1"));
	g_free(eventually(two, "Address: 192.168.77.33\n", "busybox nslookup printer.lan 192.168.77.1")); /* that never asked for a lease */
	/* Out, behind the host's address; and to each other, behind none. */
	SEES(one, "203.0.113.254", 7000, "saw 203.0.113.1");
	SEES(one, "[2001:db8::fe]", 7000, "saw [2001:0db8:0000:0000:0000:0000:0000:0001]");
	serve(one, 80);
	SEES(two, "192.168.77.9", 80, g_str_has_prefix(b, "192.168.77.100") ? "saw 192.168.77.100" : "saw 192.168.77.101");
	/* In, at the ports that were given away and nowhere else. */
	SEES(out, "203.0.113.1", 8080, "saw 203.0.113.254");
	SEES(out, "[2001:db8::1]", 8080, "saw [2001:0db8:0000:0000:0000:0000:0000:00fe]");
	g_autofree char *self = sh("timeout 3 socat - TCP:203.0.113.1:8080 </dev/null");

	g_assert_cmpstr(self, ==, "saw 203.0.113.1\n"); /* the host itself comes to it as well */
	SEES(out, "192.168.77.9", 80, NOBODY);
	SEES(out, "[fd00:77::5054:ff:fe00:1]", 80, NOBODY);
	/* Under an address that is not the network's nobody leaves: the server's answer would show it. */
	g_free(in(two, "ip addr add 192.168.200.7/32 dev eth0"));
	g_autofree char *forged = in(two, "timeout 3 socat - TCP:203.0.113.254:7000,bind=192.168.200.7,connect-timeout=1 </dev/null 2>/dev/null");

	g_assert_cmpstr(forged, ==, "");
	/* The same probes without the table. */
	run_ok("nft flush ruleset; ip route add 192.168.200.7 dev br-n");
	SEES(out, "192.168.77.9", 80, "saw 203.0.113.254");
	SEES(out, "[fd00:77::5054:ff:fe00:1]", 80, "saw [2001:0db8:0000:0000:0000:0000:0000:00fe]");
	g_autofree char *shown = in(two, "timeout 3 socat - TCP:203.0.113.254:7000,bind=192.168.200.7,connect-timeout=1 </dev/null 2>/dev/null");

	g_assert_cmpstr(shown, ==, "saw 192.168.200.7\n");
	lan(); /* mends it */
	SEES(out, "192.168.77.9", 80, NOBODY);
	SEES(one, "203.0.113.254", 7000, "saw 203.0.113.1");
	stop("n", "nat");
	all_end();
}

static void leases_stay(void)
{
	if (!begin())
		return;
	lan();
	pid_t one = join("br-n", 2);
	g_autofree char *a = dhcp(one);

	stop("n", "nat");
	all_end();
	lan();
	pid_t other = join("br-n", 3), again = join("br-n", 2);
	g_autofree char *b = dhcp(other), *c = dhcp(again);

	g_assert_cmpstr(a, ==, c); /* as before, though another one came first */
	g_assert_cmpstr(a, !=, b);
	g_assert_true(has("52:54:00:00:00:02", "cat %s/nat.leases.br-n", state));
	stop("n", "nat");
	all_end();
}

static void isolated_does_not(void)
{
	const struct spec s = { "address=192.168.88.1/24,address6=fd00:88::1/64", .network = "i", .kind = "isolated", .owner = "vhost:@i:1" };

	if (!begin())
		return;
	pid_t out = outside();

	serve(out, 7000);
	must_hold(START, &s);
	lan();
	pid_t one = join("br-i", 1), two = join("br-i", 2), other = join("br-n", 3);
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
	g_autofree char *self = g_strdup_printf("saw %.*s", (int)strcspn(b, "/"), b), *first = g_strdup_printf("saw %s", addr);

	SEES(two, addr, 80, self);
	SEES(one, "192.168.88.1", 90, first);
	/* ... and, though they try, and though the host forwards, nobody else; not even the host's other addresses. */
	for (pid_t *p = (pid_t[]){ one, two, 0 }; *p; p++)
		g_free(in(*p, "ip route add default via 192.168.88.1; ip -6 route add default via fd00:88::1"));
	run_ok("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; "
	       "nft 'add table inet friend; add chain inet friend f { type filter hook forward priority -50; policy accept; }; add rule inet friend f accept'");
	for (int open = 0;; open++) {
		SEES(one, "203.0.113.254", 7000, open ? first : NOBODY);
		SEES(one, "[2001:db8::fe]", 7000, open ? "saw [fd00:0088:0000:0000:5054:00ff:fe00:0001]" : NOBODY);
		SEES(one, "203.0.113.1", 90, open ? first : NOBODY);
		SEES(one, "192.168.77.1", 90, open ? first : NOBODY);
		SEES(one, "[2001:db8::1]", 90, open ? "saw [fd00:0088:0000:0000:5054:00ff:fe00:0001]" : NOBODY);
		SEES(out, addr, 80, open ? "saw 203.0.113.254" : NOBODY);
		SEES(out, "[fd00:88::5054:ff:fe00:1]", 80, open ? "saw [2001:0db8:0000:0000:0000:0000:0000:00fe]" : NOBODY);
		/* Between the networks: both tables forbid it. */
		SEES(one, inner, 80, NOBODY);
		if (open)
			break;
		SEES(other, addr, 80, NOBODY);
		run_ok("nft delete table inet vhost_br-i");
	}
	run_ok("nft delete table inet vhost_br-n");
	SEES(one, inner, 80, first);
	/* The address that the host has elsewhere is not even told where the link layer would say it. */
	g_autofree char *arp = in(one, "ip neigh flush dev eth0; busybox arping -f -c 2 -w 2 -I eth0 203.0.113.1");

	g_assert_nonnull(strstr(arp, "Received 0 response"));
	g_autofree char *own = in(one, "busybox arping -f -c 2 -w 2 -I eth0 192.168.88.1");

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
	SEES(one, "192.168.88.3", 80, "saw 192.168.88.2");
	/* By the host's MAC to an address of the host: it comes to the host and no further. */
	g_autofree char *mac = sh("ip -o link show br-i | sed 's/.*ether \\([0-9a-f:]*\\).*/\\1/' | tr -d '\\n'");

	g_free(in(one, "ip route add 203.0.113.1 dev eth0; ip neigh replace 203.0.113.1 lladdr %s dev eth0", mac));
	run_ok("ip route add 192.168.88.2 dev br-i src 203.0.113.1");
	SEES(one, "203.0.113.1", 90, NOBODY);
	run_ok("nft delete table inet vhost_br-i");
	SEES(one, "203.0.113.1", 90, "saw 192.168.88.2");
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
