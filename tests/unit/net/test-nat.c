/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The nat plugin's objects: made, shared, held, mended, removed; what it refuses. */
#include "nat-test.h"
#include "repairtest.h"

static void refused(const struct spec *s, int code, const char *cause, const char *remedy)
{
	ERR_AUTO(e);
	void *port;

	g_assert_cmpint(try_open(s, &port, &e), ==, code);
	g_assert_nonnull(e.cause);
	if (!strstr(e.cause, cause))
		g_error("'%s' is not in '%s'", cause, e.cause);
	if (remedy && (!e.remedy || !strstr(e.remedy, remedy)))
		g_error("'%s' is not in '%s'", remedy, e.remedy ? e.remedy : "");
}

static void nat_port(void)
{
	struct vh_net_info i = { .size = sizeof(i) };
	void *a, *b;

	if (!nat_begin())
		return;
	g_autofree char *before = nat_state();

	a = must_open(&(struct spec){ "vhn,address=192.168.77.1/24,address6=fd00:77::1/64,host=52:54:00:01:02:03=192.168.77.9=web,domain=lan", .owner = "vhost:a:1:1:0" });
	g_assert_cmpint(ops->info(a, &i), ==, 0);
	g_assert_cmpuint(i.path, ==, VH_NET_PATH_TAP);
	g_assert_true(has("master vhn", "ip -o link show %s", i.ifname));
	g_assert_true(has("vhost:a:1:1:0", "ip link show vhn"));
	g_assert_true(has("192.168.77.1/24", "ip -o addr show vhn"));
	g_assert_true(has("fd00:77::1/64", "ip -o addr show vhn"));
	g_assert_true(has("comment \"vhost:a:1:1:0\"", "nft list table inet vhost_vhn"));
	g_assert_true(has("masquerade", "nft list table inet vhost_vhn"));
	g_assert_true(has("1", "cat /proc/sys/net/ipv4/conf/up0/forwarding"));
	g_assert_true(has("1", "cat /proc/sys/net/ipv6/conf/all/forwarding"));
	g_assert_true(has("2", "cat /proc/sys/net/ipv6/conf/up0/accept_ra"));
	g_assert_true(has("0", "cat /proc/sys/net/ipv6/conf/vhn/accept_ra"));
	g_assert_true(has("0", "cat /proc/sys/net/ipv4/ip_forward"));
	g_autofree char *run = processes();

	g_assert_cmpstr(run, ==, "dnsmasq\nvhost-dhcp\n");
	/* A second VM shares all of it. */
	b = must_open(&(struct spec){ "vhn,address=192.168.77.1/24,address6=fd00:77::1/64,host=52:54:00:01:02:03=192.168.77.9=web,domain=lan,isolated=on", .owner = "vhost:b:1:1:0" });
	g_autofree char *same = processes();

	g_assert_cmpstr(same, ==, run);
	refused(&(struct spec){ "vhn,address=192.168.77.1/24", .owner = "vhost:c:1:1:0" }, -EBUSY, "runs with other options", "same options");
	g_assert_cmpuint(state_files("vhost:"), ==, 2);
	ops->close(a);
	g_assert_true(has("masquerade", "nft list table inet vhost_vhn"));
	ops->close(b);
	g_autofree char *after = nat_state(), *none = processes_at_last("");

	g_assert_cmpstr(before, ==, after);
	g_assert_cmpstr(none, ==, "");
	g_assert_cmpuint(state_files("nat."), ==, 0);
	g_assert_cmpuint(state_files("vhost:"), ==, 0);
}

static void isolated_port(void)
{
	void *a;

	if (!nat_begin())
		return;
	g_autofree char *before = nat_state(), *settings = sh("grep . /proc/sys/net/ipv4/conf/up0/forwarding /proc/sys/net/ipv[46]/conf/all/forwarding");

	a = must_open(&(struct spec){ "kind=isolated" });
	g_assert_false(has("inet", "ip -o addr show vhisolated"));
	g_assert_true(has("0", "cat /proc/sys/net/ipv4/conf/vhisolated/forwarding"));
	g_assert_true(has("1", "cat /proc/sys/net/ipv4/conf/vhisolated/arp_ignore"));
	g_assert_true(has("iifname \"vhisolated\" drop", "nft list ruleset"));
	g_autofree char *run = processes(), *unchanged = sh("grep . /proc/sys/net/ipv4/conf/up0/forwarding /proc/sys/net/ipv[46]/conf/all/forwarding");

	g_assert_cmpstr(run, ==, "");
	g_assert_cmpstr(settings, ==, unchanged);
	ops->close(a);
	g_autofree char *after = nat_state();

	g_assert_cmpstr(before, ==, after);
}

/* Settings that were so before stay so; those that somebody changed meanwhile are left to him. */
static void settings_of_others(void)
{
	void *a;

	if (!nat_begin())
		return;
	run_ok("ip link add up1 type veth peer name out1; ip addr add 203.0.114.1/24 dev up1; echo 1 >/proc/sys/net/ipv4/conf/up1/forwarding; "
	       "echo 1 >/proc/sys/net/ipv6/conf/up0/forwarding");
	g_autofree char *before = nat_state();

	a = must_open(&(struct spec){ "vhn,address6=fd00:77::1/64" });
	ops->close(a);
	g_autofree char *after = nat_state();

	g_assert_cmpstr(before, ==, after);
	a = must_open(&(struct spec){ "vhn" });
	run_ok("echo 0 >/proc/sys/net/ipv4/conf/up0/forwarding");
	g_assert_true(has("up0/forwarding 0 1", "cat %s/nat.sysctl.host", state));
	ops->close(a);
	g_assert_true(has("0", "cat /proc/sys/net/ipv4/conf/up0/forwarding"));
	g_assert_true(has("1", "cat /proc/sys/net/ipv4/conf/up1/forwarding"));
	run_ok("echo 1 >/proc/sys/net/ipv4/ip_forward");
	g_autofree char *on = nat_state();

	a = must_open(&(struct spec){ "vhn" });
	ops->close(a);
	g_autofree char *still = nat_state();

	g_assert_cmpstr(on, ==, still);
}

/* The bridge's address, without the prefix's length. */
static char *address_of(const char *bridge)
{
	return sh("ip -o -4 addr show %s | awk '{printf \"%%s\", $4}'", bridge);
}

static void picks_a_free_subnet(void)
{
	const struct spec s = { "dhcp=off,dns=off", .network = "lan", .kind = "nat", .owner = "vhost:@lan:1" };
	const struct spec t = { "dhcp=off,dns=off", .network = "lan2", .kind = "nat", .owner = "vhost:@lan2:1" };
	unsigned a, b;

	if (!nat_begin())
		return;
	must_hold(START, &s);
	g_autofree char *first = address_of("br-lan");

	g_assert_cmpint(sscanf(first, "192.168.%u.%u/24", &a, &b), ==, 2);
	g_assert_cmpuint(b, ==, 1);
	must_hold(START, &t);
	g_autofree char *other = address_of("br-lan2");

	g_assert_cmpstr(first, !=, other);
	must_hold(STOP, &t);
	must_hold(STOP, &s);
	must_hold(START, &s);
	g_autofree char *again = address_of("br-lan");

	g_assert_cmpstr(first, ==, again);
	must_hold(STOP, &s);
	/* Somebody takes it, in a table of his own; then that stays the network's, by its record. */
	run_ok("ip route add 192.168.%u.128/25 via 203.0.113.7 table 77", a);
	must_hold(START, &s);
	g_autofree char *moved = address_of("br-lan");

	g_assert_cmpstr(first, !=, moved);
	must_hold(STOP, &s);
	run_ok("ip route del 192.168.%u.128/25 table 77", a);
	must_hold(START, &s);
	g_autofree char *stays = address_of("br-lan");

	g_assert_cmpstr(moved, ==, stays);
	must_hold(STOP, &s);
	run_ok("ip route add 192.168.0.0/16 via 203.0.113.7; ip route add 172.16.0.0/12 via 203.0.113.7");
	must_hold(START, &s);
	g_autofree char *ten = address_of("br-lan");

	g_assert_true(g_str_has_prefix(ten, "10."));
	must_hold(STOP, &s);
	run_ok("ip route add 10.0.0.0/7 via 203.0.113.7");
	ERR_AUTO(e);
	g_assert_cmpint(hold(START, &s, NULL, &e), ==, -EADDRNOTAVAIL);
	g_assert_nonnull(strstr(e.remedy, "address="));
	run_ok("rm -f %s/nat.address.*", state);
}

static void held_network(void)
{
	const struct spec s = { "address=192.168.77.1/24", .network = "a-network-of-many-letters", .kind = "nat", .owner = "vhost:@a-network-of-many-letters:7" };
	struct spec vm = s;
	GString *text = g_string_new(NULL);
	ERR_AUTO(e);
	void *p;

	if (!nat_begin())
		return;
	g_autofree char *before = nat_state();

	vm.owner = "vhost:v:1:1:0";
	p = must_open(&vm); /* the VM makes it, then it is held */
	g_autofree char *bridge = sh("ip -o link show type bridge | awk -F': ' '{printf \"%%s\", $2}'");

	g_assert_cmpuint(strlen(bridge), <=, 15);
	must_hold(START, &s);
	must_hold(START, &s);
	g_assert_true(has(s.owner, "ip link show %s", bridge));
	g_assert_true(has(s.owner, "nft list table inet vhost_%s", bridge));
	g_assert_cmpint(hold(STOP, &s, NULL, &e), ==, -EBUSY);
	g_assert_nonnull(strstr(e.cause, "vnet0"));
	g_assert_cmpint(hold(DESCRIBE, &s, text, NULL), ==, 0);
	g_assert_nonnull(strstr(text->str, "nat 192.168.77.1/24, up\n"));
	g_assert_nonnull(strstr(text->str, "service dnsmasq on br-a-netw"));
	g_assert_nonnull(strstr(text->str, "DHCP 192.168.77.2 to 192.168.77.254, DNS, up\n"));
	g_assert_nonnull(strstr(text->str, "port vnet0 on br-a-netw"));
	g_assert_nonnull(strstr(text->str, "masquerade, up\n"));
	ops->close(p);
	g_assert_true(has("masquerade", "nft list ruleset"));
	/* Somebody flushes the ruleset; a start mends it. */
	run_ok("nft flush ruleset");
	g_string_truncate(text, 0);
	g_assert_cmpint(hold(DESCRIBE, &s, text, NULL), ==, 0);
	g_assert_nonnull(strstr(text->str, "masquerade, down\n"));
	must_hold(START, &s);
	g_assert_true(has("masquerade", "nft list ruleset"));
	run_ok("nft flush ruleset");
	p = must_open(&vm);
	g_assert_true(has("masquerade", "nft list ruleset"));
	ops->close(p);
	must_hold(STOP, &s);
	must_hold(STOP, &s);
	g_autofree char *after = nat_state(), *none = processes_at_last("");

	g_assert_cmpstr(before, ==, after);
	g_assert_cmpstr(none, ==, "");
	g_assert_cmpuint(state_files("nat.up."), ==, 0);
	g_assert_cmpuint(state_files("vhost:"), ==, 0);
	g_assert_cmpuint(state_files("nat.leases."), ==, 1); /* for its next start */
	run_ok("rm -f %s/nat.leases.* %s/nat.address.*", state, state);
	g_string_free(text, TRUE);
}

static void keeper_of(const char *name, int sig)
{
	run_ok("me=$(readlink /proc/self/ns/net); for p in $(pgrep -x %s); do [ \"$(readlink /proc/$p/ns/net)\" = \"$me\" ] && kill -%d $p; done", name, sig);
}

static void dnsmasq_comes_and_goes(void)
{
	const struct spec s = { "vhn,address=192.168.77.1/24" };
	void *a, *b;

	if (!nat_begin())
		return;
	for (int round = 0; round < 3; round++) {
		a = must_open(&s);
		/* It dies; its keeper with it; or the other way round. The next user has another. */
		keeper_of(round == 1 ? "vhost-dhcp" : "dnsmasq", SIGKILL);
		g_autofree char *none = processes_at_last("");

		g_assert_cmpstr(none, ==, "");
		b = must_open(&(struct spec){ s.options, .owner = "vhost:b:1:1:0" });
		g_autofree char *run = processes_at_last("dnsmasq\nvhost-dhcp\n");

		g_assert_cmpstr(run, ==, "dnsmasq\nvhost-dhcp\n");
		if (round == 2) { /* its bridge is taken away under it */
			run_ok("ip link del vhn");
			g_autofree char *gone = processes_at_last("");

			g_assert_cmpstr(gone, ==, "");
		}
		ops->close(a);
		ops->close(b);
		g_autofree char *after = processes_at_last("");

		g_assert_cmpstr(after, ==, "");
		if (round == 2) /* who removed the bridge did not sweep up */
			gc(nobody, NULL, NULL);
		g_assert_cmpuint(state_files("nat."), ==, 0);
	}
	/* One that cannot end by itself is ended. */
	a = must_open(&s);
	keeper_of("vhost-dhcp", SIGSTOP);
	ops->close(a);
	g_autofree char *ended = processes_at_last("");

	g_assert_cmpstr(ended, ==, "");
	/* Who listens where it would is named. */
	run_ok("ip addr add 192.168.77.1/24 dev up0; dnsmasq --conf-file=/dev/null --pid-file=%s/other --port=53 --listen-address=192.168.77.1 --bind-interfaces", state);
	g_autofree char *before = nat_state();

	refused(&s, -EADDRINUSE, "dnsmasq does not start on vhn", "another DHCP or DNS server");
	g_autofree char *after = nat_state();

	g_assert_cmpstr(before, ==, after);
	run_ok("kill $(cat %s/other); rm -f %s/other", state, state);
	g_assert_cmpuint(state_files("nat."), ==, 0);
}

static void errors(void)
{
	if (!nat_begin())
		return;
	run_ok("ip link add vhx type bridge; ip link set vhx addrgenmode none; ip link add vhy type bridge; ip link set vhy alias vhost:z:1:1:0; ip link set vhy addrgenmode none; ip tuntap add dev tap9 mode tap");
	g_autofree char *before = nat_state();

	refused(&(struct spec){ "vhx" }, -EEXIST, "an interface vhx exists already", "another bridge");
	refused(&(struct spec){ "vhy" }, -EEXIST, "an interface vhy exists already", NULL);
	refused(&(struct spec){ "a\"b" }, -EINVAL, "cannot be the name of a bridge", NULL);
	refused(&(struct spec){ "a;b" }, -EINVAL, "cannot be the name of a bridge", NULL);
	refused(&(struct spec){ "vhn,address=192.168.77.0/24" }, -EINVAL, "cannot be the address of the host", NULL);
	refused(&(struct spec){ "vhn,address=192.168.77.255/24" }, -EINVAL, "cannot be the address of the host", NULL);
	refused(&(struct spec){ "vhn,address=192.168.77.1/31" }, -EINVAL, "cannot be the address of the host", NULL);
	refused(&(struct spec){ "vhn,address=fd00::1/64" }, -EINVAL, "other kind of address", "address6=");
	refused(&(struct spec){ "vhn,address6=192.168.77.1/24" }, -EINVAL, "other kind of address", NULL);
	refused(&(struct spec){ "vhn,address6=fe80::1/64" }, -EINVAL, "cannot be the address of the host", NULL);
	refused(&(struct spec){ "vhn,address6=fd00::1/80" }, -EINVAL, "only in a /64", "dhcp=off");
	refused(&(struct spec){ "vhn,address=192.168.77.1/24,dhcp-range=192.168.78.2-192.168.78.9" }, -EINVAL, "dhcp-range is not in the network", NULL);
	refused(&(struct spec){ "vhn,dhcp-range=192.168.77.9-192.168.77.2" }, -EINVAL, "is not two IPv4 addresses", NULL);
	refused(&(struct spec){ "vhn,host=52:54:00:12:34:5=192.168.77.2" }, -EINVAL, "is not MAC=ADDRESS", "write it like");
	refused(&(struct spec){ "vhn,address=192.168.77.1/24,host=52:54:00:12:34:56=192.168.78.2" }, -EINVAL, "192.168.78.2 is not in the network", NULL);
	refused(&(struct spec){ "vhn,host=52:54:00:12:34:56=192.168.77.2=a b" }, -EINVAL, "is not MAC=ADDRESS", NULL);
	refused(&(struct spec){ "vhn,address=192.168.77.1/24,dhcp=off,host=52:54:00:12:34:56=192.168.77.2" }, -EINVAL, "dhcp=on", NULL);
	refused(&(struct spec){ "vhn,forward=tcp:0:192.168.77.2:80" }, -EINVAL, "is not tcp|udp", NULL);
	refused(&(struct spec){ "vhn,forward=tcp:80:192.168.77.2:65536" }, -EINVAL, "is not tcp|udp", NULL);
	refused(&(struct spec){ "vhn,forward=tcp:80:192.168.77.2;flush:80" }, -EINVAL, "is not tcp|udp", NULL);
	refused(&(struct spec){ "vhn,address=192.168.77.1/24,forward=tcp:80:10.0.0.1:80" }, -EINVAL, "10.0.0.1 of forward= is not in the network", NULL);
	refused(&(struct spec){ "vhn,kind=isolated,address=192.168.77.1/24,forward=tcp:80:192.168.77.2:80" }, -EINVAL, "would open an isolated", "kind nat");
	refused(&(struct spec){ "vhn,kind=isolated,dhcp=on" }, -EINVAL, "need an address of the host", "address=");
	refused(&(struct spec){ "vhn,domain=a b" }, -EINVAL, "cannot be a domain", NULL);
	refused(&(struct spec){ "vhn,domain=a\nuser=root" }, -EINVAL, "cannot be a domain", NULL);
	refused(&(struct spec){ "vhn", .ifname = "tap9" }, -EEXIST, "tap9 exists already", "another ifname");
	refused(&(struct spec){ "vhn", .owner = "vhost:a\"b:1:1:0" }, -EINVAL, "owner tag", NULL);
	refused(&(struct spec){ "", .network = "../x", .kind = "nat" }, -EINVAL, "cannot be the name of a network", NULL);
	refused(&(struct spec){ "", .network = "x", .kind = "vlan" }, -EINVAL, "no kind of network", NULL);
	g_autofree char *after = nat_state(), *none = processes_at_last("");

	g_assert_cmpstr(before, ==, after);
	g_assert_cmpstr(none, ==, "");
	g_assert_cmpuint(state_files("nat."), ==, 0);
	g_assert_cmpuint(state_files("vhost:"), ==, 0);
}

static void plan(void)
{
	const struct spec s = { "address=192.168.77.1/24,address6=fd00:77::1/64", .network = "lan", .kind = "nat" };
	GString *text = g_string_new(NULL);

	if (!nat_begin())
		return;
	run_ok("nft -f - <<'E'\ntable ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; }; chain INPUT { type filter hook input priority filter; policy drop; }; }\nE\n");
	g_autofree char *before = nat_state();

	g_assert_cmpint(hold(PLAN, &s, text, NULL), ==, 0);
	g_test_message("%s", text->str);
	g_assert_nonnull(strstr(text->str, "create bridge br-lan"));
	g_assert_nonnull(strstr(text->str, "the address 192.168.77.1/24"));
	g_assert_nonnull(strstr(text->str, "the address fd00:77::1/64"));
	g_assert_nonnull(strstr(text->str, "set net/ipv4/conf/up0/forwarding to 1"));
	g_assert_nonnull(strstr(text->str, "set net/ipv6/conf/all/forwarding to 1"));
	g_assert_nonnull(strstr(text->str, "start dnsmasq: DHCP 192.168.77.2 to 192.168.77.254, router advertisements and DHCPv6, DNS"));
	g_assert_nonnull(strstr(text->str, "beware: filter FORWARD drops by default what is forwarded"));
	g_assert_nonnull(strstr(text->str, "iptables -I FORWARD -i br-lan"));
	g_assert_nonnull(strstr(text->str, "beware: filter INPUT drops"));
	g_string_truncate(text, 0);
	g_assert_cmpint(hold(DESCRIBE, &s, text, NULL), ==, 0);
	g_assert_cmpstr(text->str, ==, ""); /* there is none yet */
	g_autofree char *after = nat_state();

	g_assert_cmpstr(before, ==, after);
	g_assert_cmpuint(state_files("nat."), ==, 0);
	g_string_free(text, TRUE);
}

/* Link-local addresses come at a time of the kernel's own, between two looks as well. */
static void still(void)
{
	run_ok("echo 1 >/proc/sys/net/ipv6/conf/default/addr_gen_mode");
}

/* A script of the host's flushes the ruleset under running VMs: the rules are there again, whoever holds the network. */
static void table_flushed(void)
{
	static const char *const options[] = { "vhn,address=192.168.77.1/24,address6=fd00:77::1/64,forward=tcp:8080:192.168.77.9:80,dhcp=off,dns=off",
					       "vhn,kind=isolated,address=192.168.77.1/24,dhcp=off,dns=off" };

	for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
		void *a, *b;

		if (!nat_begin())
			return;
		still();
		g_autofree char *empty = nat_state();

		a = watched(&(struct spec){ options[i], .owner = "vhost:a:1:1:0" });
		b = watched(&(struct spec){ options[i], .owner = "vhost:b:1:1:0" });
		run_ok("nft add table inet other");
		g_autofree char *rules = sh("nft list table inet vhost_vhn");

		g_assert_nonnull(strstr(rules, i ? "daddr" : "masquerade"));
		for (int k = 0; k < 2; k++) {
			run_ok("nft flush ruleset; nft add table inet other");
			repaired(k ? a : b, "the table inet vhost_vhn was removed by another program: it is installed again");
			g_assert_cmpint(repair(k ? b : a, NULL), ==, 0);
			g_autofree char *again = sh("nft list table inet vhost_vhn");

			g_assert_cmpstr(rules, ==, again);
		}
		run_ok("nft delete table inet other");
		untouched(a);
		/* The network is gone: so are its rules. */
		run_ok("ip link del vhn; nft flush ruleset");
		untouched(a);
		g_assert_false(has("vhost_", "nft list ruleset"));
		ops->close(a);
		ops->close(b);
		gc(nobody, NULL, NULL);
		g_autofree char *after = nat_state();

		g_assert_cmpstr(empty, ==, after);
	}
}

static void table_of_a_network_flushed(void)
{
	const struct spec vm = { "dhcp=off,dns=off,address=192.168.77.1/24", .network = "n", .kind = "nat" };
	const struct spec s = { vm.options, .network = "n", .kind = "nat", .owner = "vhost:@n:0123456789abcdef" };
	void *p;

	if (!nat_begin())
		return;
	still();
	p = watched(&vm);
	must_hold(START, &s);
	g_autofree char *rules = sh("nft list ruleset");

	g_assert_nonnull(strstr(rules, "vhost:@"));
	run_ok("nft flush ruleset");
	repaired(p, "installed again");
	g_autofree char *again = sh("nft list ruleset");

	g_assert_cmpstr(rules, ==, again);
	ops->close(p);
	must_hold(STOP, &s);
	g_assert_false(has("vhost_", "nft list ruleset"));
	run_ok("rm -f %s/nat.leases.* %s/nat.address.*", state, state);
}

static void add(void)
{
	g_test_add_func("/nat/a-port-makes-a-network-and-the-last-removes-it", nat_port);
	g_test_add_func("/nat/isolated-changes-no-setting-of-the-host", isolated_port);
	g_test_add_func("/nat/settings-of-others-stay", settings_of_others);
	g_test_add_func("/nat/picks-a-free-subnet-and-keeps-it", picks_a_free_subnet);
	g_test_add_func("/nat/held-network-stays-and-is-mended", held_network);
	g_test_add_func("/nat/dnsmasq-ends-with-its-network-and-is-started-again", dnsmasq_comes_and_goes);
	g_test_add_func("/nat/errors-name-cause-and-remedy", errors);
	g_test_add_func("/nat/plan-changes-nothing-and-names-obstacles", plan);
	g_test_add_func("/nat/a-flushed-table-is-installed-again", table_flushed);
	g_test_add_func("/nat/so-is-that-of-a-started-network", table_of_a_network_flushed);
}

int main(int argc, char **argv)
{
	return nat_main(argc, argv, add);
}
