/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The vlan plugin, both builds, and its networks; test-vlan-faults.c has the failures. Most of it needs a kernel with VLANs: tests/lab/net-vlan.sh runs it there. */
#include "vlantest.h"

/* ---- options: on any kernel ---- */

static void errors(void)
{
	if (!net_begin())
		return;
	uplink();
	refused(&(struct spec){ "up0" }, -EINVAL, "no VLAN is given", "id=10");
	refused(&(struct spec){ "up0,mode=filter" }, -EINVAL, "no VLAN is given", "trunk=10-20:30");
	refused(&(struct spec){ "up0,id=0" }, -ERANGE, "carries only a priority", "1 to 4094");
	refused(&(struct spec){ "up0,id=4095" }, -ERANGE, "reserved by IEEE 802.1Q", "1 to 4094");
	refused(&(struct spec){ "up0,id=4096" }, -ERANGE, "12 bits", NULL);
	refused(&(struct spec){ "up0,id=-1" }, -ERANGE, "12 bits", NULL);
	refused(&(struct spec){ "up0,trunk=10" }, -EINVAL, "mode=filter only", "mode=filter");
	refused(&(struct spec){ "up0,mode=filter,id=5,trunk=10" }, -EINVAL, "this one is VLAN 5", "leave out id=");
	refused(&(struct spec){ "up0,id=5,native=5" }, -EINVAL, "native= is for trunks", "trunk=");
	refused(&(struct spec){ "up0,mode=filter,trunk=10-" }, -EINVAL, "no list of VLANs", "10-20:30");
	refused(&(struct spec){ "up0,mode=filter,trunk=10:" }, -EINVAL, "no list of VLANs", NULL);
	refused(&(struct spec){ "up0,mode=filter,trunk=:" }, -EINVAL, "no list of VLANs", NULL);
	refused(&(struct spec){ "up0,mode=filter,trunk=1x" }, -EINVAL, "no list of VLANs", NULL);
	refused(&(struct spec){ "up0,mode=filter,trunk=20-10" }, -EINVAL, "backwards", "10-20");
	refused(&(struct spec){ "up0,mode=filter,trunk=0-10" }, -ERANGE, "trunk id 0", NULL);
	refused(&(struct spec){ "up0,mode=filter,trunk=10-4095" }, -ERANGE, "reserved", NULL);
	refused(&(struct spec){ "up0,mode=filter,trunk=99999999999" }, -EINVAL, "no list of VLANs", NULL);
	refused(&(struct spec){ "up0,mode=filter,trunk=10,native=0" }, -ERANGE, "native 0", NULL);
	refused(&(struct spec){ "up0,mode=filter,trunk=10,native=4095" }, -ERANGE, "native 4095", NULL);
	refused(&(struct spec){ "up0,id=5,bridge=a/b" }, -EINVAL, "cannot be the name of a bridge", NULL);
	refused(&(struct spec){ "up0,id=5,bridge=vhost.x" }, -EINVAL, "cannot be the name of a bridge", NULL);
	refused(&(struct spec){ "a b,id=5" }, -EINVAL, "cannot be the name of the uplink", NULL);
	refused(&(struct spec){ "up0,id=5", .ifname = "up0" }, -EINVAL, "cannot be the name of the tap", NULL);
	refused(&(struct spec){ "up0,id=5", .ifname = "brvlan5" }, -EINVAL, "cannot be the name of the tap", NULL);
	refused(&(struct spec){ "up0,id=5", .owner = "nobody" }, -EINVAL, "owner tag", NULL);
	refused(&(struct spec){ "nosuch,id=5" }, -ENOENT, "uplink nosuch does not exist", "ip link");
	refused(&(struct spec){ "lo,id=5" }, -EINVAL, "no Ethernet interface", NULL);
	run_ok("ip link property add dev up0 altname other");
	refused(&(struct spec){ "other,id=5" }, -EINVAL, "another name of up0", "uplink=up0");
	run_ok("ip link set up0 down");
	refused(&(struct spec){ "up0,id=5" }, -ENETDOWN, "up0 is down", "ip link set up0 up");
	run_ok("ip link set up0 up");
	refused(&(struct spec){ "up0,id=5", .mtu = 9000 }, -EINVAL, "MTU 9000 is larger than that of up0 (1500)", "mtu=1500");
	refused(&(struct spec){ "up0,id=5,mode=filter", .mtu = 1501 }, -EINVAL, "MTU 1501 is larger", NULL);
	run_ok("ip link add br9 type bridge; ip link set up0 master br9");
	refused(&(struct spec){ "up0,id=5" }, -EBUSY, "uplink up0 is a port of bridge br9 already", "nomaster");
	refused(&(struct spec){ "up0,id=5,mode=filter" }, -EBUSY, "uplink up0 is a port of bridge br9 already", NULL);
	run_ok("ip link set up0 nomaster; ip addr add 192.0.2.1/24 dev up0");
	refused(&(struct spec){ "up0,id=5,mode=filter" }, -EBUSY, "the host has 192.0.2.1/24 on uplink up0", "mode=device");
	run_ok("ip addr flush dev up0; ip addr add 2001:db8::7/64 dev up0 nodad");
	refused(&(struct spec){ "up0,id=5,mode=filter" }, -EBUSY, "the host has 2001:db8::7/64 on uplink up0", NULL);
	run_ok("ip addr flush dev up0; ip link set br9 name brx");
	refused(&(struct spec){ "up0,id=5,bridge=brx" }, -EEXIST, "brx exists already", "bridge=");
	g_assert_cmpuint(journals(), ==, 0);
}

/* What the host of the tests says, and the lab's kernel cannot. */
static void kernel_without(void)
{
	if (!net_begin())
		return;
	if (!no_vlans()) {
		g_test_skip("this kernel has VLANs");
		return;
	}
	uplink();
	refused(&(struct spec){ "up0,id=5" }, -EOPNOTSUPP, "802.1Q", "modprobe 8021q");
	refused(&(struct spec){ "up0,id=5,mode=filter" }, -EOPNOTSUPP, "bridges know no VLANs", "CONFIG_BRIDGE_VLAN_FILTERING");
	g_assert_cmpuint(journals(), ==, 0);
}

/* ---- the two builds ---- */

static void device(void)
{
	struct vh_net_info i = { .size = sizeof(i) };
	void *a, *b;

	if (!begin())
		return;
	uplink();
	g_autofree char *before = net_state();

	a = must_open(&(struct spec){ "up0,id=10", .owner = "vhost:a:1:1:0" });
	g_assert_cmpint(ops->info(a, &i), ==, 0);
	g_assert_cmpstr(i.ifname, ==, "vnet0");
	g_assert_cmpuint(i.mtu, ==, 1500);
	g_assert_true(has("vlan protocol 802.1Q id 10", "ip -d link show up0.10"));
	g_assert_true(has("master brvlan10", "ip -o link show up0.10"));
	g_assert_true(has("vhost:a:1:1:0", "ip link show up0.10"));
	g_assert_true(has("vhost:a:1:1:0", "ip link show brvlan10"));
	g_assert_true(has("LOWER_UP", "ip -o link show up0.10"));
	g_assert_true(has("UP", "ip -o link show brvlan10"));
	g_assert_true(has("stp_state 0", "ip -d link show brvlan10"));
	g_assert_true(has("master brvlan10", "ip -o link show vnet0"));
	g_assert_false(has("inet", "ip -o addr show up0.10"));
	b = must_open(&(struct spec){ "up0,id=10,isolated=on", .owner = "vhost:b:1:1:0", .pairs = 2, .ifname = "web.0", .mtu = 1400 });
	g_assert_true(has("master brvlan10", "ip -o link show web.0"));
	g_assert_true(has("isolated on", "bridge -d link show dev web.0"));
	g_assert_true(has("mtu 1400", "ip -o link show web.0"));
	g_assert_true(has("mtu 1500", "ip -o link show up0.10"));
	void *c = must_open(&(struct spec){ "up0,id=11", .owner = "vhost:b:1:1:1" });

	g_assert_true(has("master brvlan11", "ip -o link show up0.11"));
	ops->close(a); /* its maker goes, its user stays */
	g_assert_true(has("master brvlan10", "ip -o link show up0.10"));
	g_assert_cmpint(ops->set_link(b, 0, NULL), ==, 0);
	g_assert_true(has("state DOWN", "ip -o link show web.0"));
	g_assert_cmpint(ops->set_link(b, 1, NULL), ==, 0);
	ops->close(b);
	g_assert_false(has("up0.10", "ip -o link"));
	g_assert_false(has("brvlan10", "ip -o link"));
	ops->close(c);
	same_state(before);
	g_assert_cmpuint(journals(), ==, 0);
}

static void filter(void)
{
	void *a, *b, *t;

	if (!begin())
		return;
	uplink();
	g_autofree char *before = net_state();

	a = must_open(&(struct spec){ "up0,id=10,mode=filter", .owner = "vhost:a:1:1:0" });
	g_assert_true(has("vlan_filtering 1", "ip -d link show br-up0"));
	g_assert_true(has("vlan_default_pvid 0", "ip -d link show br-up0"));
	g_autofree char *one = sh("bridge vlan show | tr -s ' \\t\\n' ' '");

	g_assert_cmpstr(one, ==, "port vlan-id up0 10 vnet0 10 PVID Egress Untagged ");
	t = must_open(&(struct spec){ "up0,mode=filter,trunk=10-12:20,native=12", .owner = "vhost:t:1:1:0" });
	g_autofree char *two = sh("bridge vlan show | tr -s ' \\t\\n' ' '");

	g_assert_cmpstr(two, ==, "port vlan-id up0 10 11 12 20 vnet0 10 PVID Egress Untagged vnet1 10 11 12 PVID Egress Untagged 20 ");
	b = must_open(&(struct spec){ "up0,id=10,mode=filter", .owner = "vhost:b:1:1:0" });
	ops->close(a);
	ops->close(t);
	g_autofree char *three = sh("bridge vlan show | tr -s ' \\t\\n' ' '");

	g_assert_cmpstr(three, ==, "port vlan-id up0 10 vnet2 10 PVID Egress Untagged ");
	ops->close(b);
	same_state(before);
	g_assert_cmpuint(journals(), ==, 0);
	t = must_open(&(struct spec){ "up0,mode=filter,trunk=1-4094", .owner = "vhost:t:1:1:0" });
	g_autofree char *all = sh("bridge -compressvlans vlan show | tr -s ' \\t\\n' ' '");

	g_assert_cmpstr(all, ==, "port vlan-id up0 1-4094 vnet0 1-4094 ");
	ops->close(t);
	same_state(before);
}

static void qinq(void)
{
	void *a, *b;

	if (!begin())
		return;
	uplink();
	g_autofree char *before = net_state();

	a = must_open(&(struct spec){ "up0,id=10,protocol=802.1ad", .owner = "vhost:a:1:1:0" });
	g_assert_true(has("vlan protocol 802.1ad id 10", "ip -d link show up0.10"));
	b = must_open(&(struct spec){ "up0,id=10", .owner = "vhost:b:1:1:0" }); /* another VLAN: its device needs another name */
	g_assert_true(has("vlan protocol 802.1Q id 10", "ip -d link show type vlan"));
	g_assert_true(has("master brvlan10.2", "ip -o link show type vlan"));
	ops->close(a);
	ops->close(b);
	same_state(before);
	a = must_open(&(struct spec){ "up0,id=10,protocol=802.1ad,mode=filter", .owner = "vhost:a:1:1:0" });
	g_assert_true(has("vlan_protocol 802.1ad", "ip -d link show br-up0"));
	refused(&(struct spec){ "up0,id=11,mode=filter", .owner = "vhost:b:1:1:0" }, -EBUSY, "tags by 802.1ad, and can do only one", "mode=device");
	ops->close(a);
	same_state(before);
}

static void long_names(void)
{
	void *a, *b;

	if (!begin())
		return;
	veth("enp130s0f1np1", "far0");
	veth("enp130s0f1np2", "far1");
	g_autofree char *before = net_state();

	a = must_open(&(struct spec){ "enp130s0f1np1,id=100,bridge=the-bridge-of-accounting", .owner = "vhost:a:1:1:0" });
	g_assert_true(has("vlan protocol 802.1Q id 100", "ip -d link show enp130s0f1np1.100"));
	g_assert_true(has("the-br", "ip -o link show the-bridge-of-accounting"));
	b = must_open(&(struct spec){ "enp130s0f1np2,id=100,mode=filter", .owner = "vhost:b:1:1:0" });
	g_assert_true(has("br-enp130s", "ip -o link show br-enp130s0f1np2"));
	void *c = must_open(&(struct spec){ "enp130s0f1np1,id=100,bridge=the-bridge-of-accounting", .owner = "vhost:c:1:1:0" });

	ops->close(c);
	ops->close(b);
	ops->close(a);
	same_state(before);
}

/* ---- what others have ---- */

static void conflicts(void)
{
	void *a;

	if (!begin())
		return;
	uplink();
	run_ok("ip link add link up0 name theirs type vlan id 10; ip link set theirs alias accounting");
	refused(&(struct spec){ "up0,id=10" }, -EBUSY, "VLAN 10 of up0 is taken by theirs, which is not vhost's but of accounting", "ip link del");
	refused(&(struct spec){ "up0,id=10,mode=filter" }, -EBUSY, "VLAN 10 of up0 is taken by theirs", NULL);
	refused(&(struct spec){ "up0,mode=filter,trunk=9-11" }, -EBUSY, "VLAN 10 of up0 is taken by theirs", NULL);
	run_ok("ip link set theirs alias ''; ip link add br7 type bridge; ip link set theirs master br7");
	refused(&(struct spec){ "up0,id=10" }, -EBUSY, "theirs, which is not vhost's but a port of br7", "type=bridge,name=br7");
	run_ok("ip link add brvlan11 type dummy || ip link add brvlan11 type veth; ip link add up0.11 type veth");
	g_autofree char *before = net_state();

	/* Derived names give way. */
	a = must_open(&(struct spec){ "up0,id=11", .owner = "vhost:a:1:1:0" });
	g_assert_true(has("master brvlan11.2", "ip -o link show type vlan"));
	refused(&(struct spec){ "up0,id=11,bridge=other" }, -EBUSY, "VLAN 11 of up0 has the bridge brvlan11.2 already", "leave out bridge=");
	refused(&(struct spec){ "up0,id=11,mode=filter" }, -EBUSY, "belongs to vhost:a:1:1:0", "mode=device");
	void *f = must_open(&(struct spec){ "up0,id=12,mode=filter", .owner = "vhost:f:1:1:0" });

	refused(&(struct spec){ "up0,id=13" }, -EBUSY, "a port of br-up0, which has all its VLANs", "mode=filter");
	ops->close(f);
	ops->close(a);
	same_state(before);
	g_assert_cmpuint(gc(nobody), ==, 0);
	same_state(before);
	g_assert_cmpuint(journals(), ==, 0);
}

static void mtu(void)
{
	void *a;

	if (!begin())
		return;
	uplink();
	run_ok("ip link set up0 mtu 9000; ip link set far0 mtu 9000");
	a = must_open(&(struct spec){ "up0,id=10", .owner = "vhost:a:1:1:0" });
	g_assert_true(has("mtu 9000", "ip -o link show vnet0"));
	run_ok("ip link set up0 mtu 1500; ip link set up0 mtu 9000"); /* takes the VLAN device along, one way only */
	refused(&(struct spec){ "up0,id=10", .mtu = 9000, .owner = "vhost:b:1:1:0" }, -EINVAL, "MTU 9000 is larger than that of up0.10 (1500)",
		"ip link set up0.10 mtu 9000");
	ops->close(a);
}

static void uplink_vanishes(void)
{
	static const char *const mode[] = { "up0,id=10", "up0,id=10,mode=filter" };

	for (unsigned m = 0; m < 2; m++) {
		void *a, *b;

		if (!begin())
			return;
		uplink();
		a = must_open(&(struct spec){ mode[m], .owner = "vhost:a:1:1:0" });
		run_ok("ip link del up0");
		refused(&(struct spec){ mode[m], .owner = "vhost:b:1:1:0" }, -ENOENT, "uplink up0 does not exist", NULL);
		g_assert_true(has("master", "ip -o link show vnet0"));
		uplink();
		/* The next one joins it again, for all. */
		b = must_open(&(struct spec){ mode[m], .owner = "vhost:b:1:1:0" });
		g_assert_true(has(m ? "master br-up0" : "master brvlan10", "ip -o link show %s", m ? "up0" : "up0.10"));
		if (m)
			g_assert_true(has("10", "bridge vlan show dev up0"));
		ops->close(b);
		ops->close(a);
		g_assert_false(has("br", "ip -o link show type bridge"));
		a = must_open(&(struct spec){ mode[m], .owner = "vhost:a:1:1:0" });
		run_ok("ip link del up0");
		ops->close(a);
		g_assert_cmpuint(journals(), ==, 0);
		g_autofree char *left = sh("ip -o link | grep -v ' lo:'");

		g_assert_cmpstr(left, ==, "");
	}
}

static void bridge_vanishes(void)
{
	static const char *const mode[] = { "up0,id=10", "up0,id=10,mode=filter" };

	for (unsigned m = 0; m < 2; m++) {
		void *a, *b;

		if (!begin())
			return;
		uplink();
		g_autofree char *before = net_state();

		a = must_open(&(struct spec){ mode[m], .owner = "vhost:a:1:1:0" });
		run_ok("ip link del %s", m ? "br-up0" : "brvlan10");
		b = must_open(&(struct spec){ mode[m], .owner = "vhost:b:1:1:0" });
		ops->close(a);
		g_assert_true(has(m ? "master br-up0" : "master brvlan10", "ip -o link show vnet1"));
		run_ok("ip link del %s", m ? "br-up0" : "brvlan10");
		ops->close(b);
		same_state(before);
		/* One that somebody has made his own is left alone. */
		a = must_open(&(struct spec){ mode[m], .owner = "vhost:a:1:1:0" });
		run_ok("ip link set %s alias mine", m ? "br-up0" : "brvlan10");
		refused(&(struct spec){ mode[m], .owner = "vhost:b:1:1:0" }, -EBUSY, "somebody has changed it", "ip link del");
		ops->close(a);
		g_assert_true(has("mine", "ip link show type bridge"));
	}
}

/* ---- networks ---- */

static void held(void)
{
	static const char *const mode[] = { "up0,id=10", "up0,id=10,mode=filter" };

	for (unsigned m = 0; m < 2; m++) {
		ERR_AUTO(e);
		void *a;

		if (!begin())
			return;
		uplink();
		g_autofree char *before = net_state();

		must(ops->start, mode[m], "vhost:@lan:1");
		g_autofree char *started = net_state();

		must(ops->start, mode[m], "vhost:@lan:1"); /* nothing to do */
		same_state(started);
		a = must_open(&(struct spec){ mode[m], .owner = "vhost:a:1:1:0" });
		g_assert_cmpint(network(ops->stop, mode[m], "vhost:@lan:1", &e), ==, -EBUSY);
		explained(&e, "it has ports: vnet0 of a", "stop what uses them");
		ops->close(a);
		same_state(started);
		g_assert_cmpuint(gc(everybody), ==, 0);
		must(ops->stop, mode[m], "vhost:@lan:1");
		same_state(before);
		must(ops->stop, mode[m], "vhost:@lan:1"); /* nothing to do */
		/* It becomes the network's while a VM has it, and stays. */
		a = must_open(&(struct spec){ mode[m], .owner = "vhost:a:1:1:0" });
		must(ops->start, mode[m], "vhost:@lan:2");
		ops->close(a);
		g_assert_true(has("vhost:@lan:2", "ip link show type bridge"));
		g_assert_cmpuint(gc(nobody), ==, m ? 1 : 2);
		same_state(before);
		g_assert_cmpuint(journals(), ==, 0);
	}
}

/* One bridge, several networks. */
static void held_by_two(void)
{
	ERR_AUTO(e);
	void *a;

	if (!begin())
		return;
	uplink();
	g_autofree char *before = net_state();

	must(ops->start, "up0,id=10,mode=filter", "vhost:@lan:1");
	must(ops->start, "up0,id=20,mode=filter", "vhost:@keep:1");
	g_assert_cmpuint(gc(keepers), ==, 0); /* the first one's hold is lost, the other one's is not */
	g_assert_true(has("br-up0", "ip -o link"));
	must(ops->start, "up0,id=10,mode=filter", "vhost:@lan:1");
	a = must_open(&(struct spec){ "up0,id=20,mode=filter", .owner = "vhost:a:1:1:0" });
	must(ops->stop, "up0,id=10,mode=filter", "vhost:@lan:1");
	g_assert_true(has("vhost:@keep:1", "ip link show br-up0"));
	g_assert_cmpint(network(ops->stop, "up0,id=20,mode=filter", "vhost:@keep:1", &e), ==, -EBUSY);
	void *b = must_open(&(struct spec){ "up0,id=30,mode=filter", .owner = "vhost:b:1:1:0" });

	ops->close(a);
	must(ops->stop, "up0,id=20,mode=filter", "vhost:@keep:1"); /* the other VLAN's port keeps the bridge */
	g_assert_true(has("vhost:b:1:1:0", "ip link show br-up0"));
	ops->close(b);
	same_state(before);
	g_assert_cmpuint(journals(), ==, 0);
}

static void part(void *ctx, const struct vh_net_part *p)
{
	g_string_append_printf(ctx, "%s %s on %s: %s; %s\n", p->kind, p->name, p->above ? p->above : "-", p->detail ? p->detail : "-",
			       p->owner ? p->owner : "-");
}

static GString *told;

static int describe(const struct vh_network *n, struct vh_err *e)
{
	g_string_truncate(told, 0);
	return ops->describe(n, part, told, e);
}

static void say(void *ctx, const char *text)
{
	g_string_append_printf(ctx, "%s\n", text);
}

static int plan_start(const struct vh_network *n, struct vh_err *e)
{
	g_string_truncate(told, 0);
	return ops->plan_start(n, say, told, e);
}

static void told_to_people(void)
{
	void *a, *b, *t;

	if (!begin())
		return;
	told = g_string_new(NULL);
	uplink();
	g_autofree char *before = net_state();

	must(plan_start, "up0,id=10", NULL);
	g_assert_cmpstr(told->str, ==, "create bridge brvlan10 for VLAN 10 of up0, without STP\n"
				       "create VLAN device up0.10, id 10, MTU 1500, on uplink up0\n"
				       "attach VLAN device up0.10 to bridge brvlan10 and set it up\n");
	must(plan_start, "up0,mode=filter", NULL);
	g_assert_cmpstr(told->str, ==, "create bridge br-up0, which filters VLANs and carries none yet, without STP\n"
				       "make uplink up0 a port of bridge br-up0\n");
	must(describe, "up0,id=10", NULL);
	g_assert_cmpstr(told->str, ==, "uplink up0 on -: -; -\n");
	same_state(before);
	a = must_open(&(struct spec){ "up0,id=10", .owner = "vhost:a:1:1:0" });
	must(describe, "up0,id=10", NULL);
	g_assert_cmpstr(told->str, ==, "uplink up0 on -: -; -\nvlan up0.10 on up0: VLAN 10; vhost:a:1:1:0\n"
				       "bridge brvlan10 on up0.10: -; vhost:a:1:1:0\nport vnet0 on brvlan10: VLAN 10 untagged; vhost:a:1:1:0\n");
	must(plan_start, "up0,id=10", NULL);
	g_assert_cmpstr(told->str, ==, "");
	ops->close(a);
	a = must_open(&(struct spec){ "up0,id=10,mode=filter", .owner = "vhost:a:1:1:0" });
	b = must_open(&(struct spec){ "up0,id=20,mode=filter", .owner = "vhost:b:1:1:0" });
	t = must_open(&(struct spec){ "up0,mode=filter,trunk=10-12,native=4", .owner = "vhost:t:1:1:0" });
	must(describe, "up0,mode=filter", NULL);
	g_assert_cmpstr(told->str, ==, "uplink up0 on -: VLAN 4, 10-12, 20 tagged; -\nbridge br-up0 on up0: filters VLANs; vhost:a:1:1:0\n"
				       "port vnet0 on br-up0: VLAN 10 untagged; vhost:a:1:1:0\nport vnet1 on br-up0: VLAN 20 untagged; vhost:b:1:1:0\n"
				       "port vnet2 on br-up0: VLAN 4 untagged, VLAN 10-12 tagged; vhost:t:1:1:0\n");
	must(describe, "up0,id=20,mode=filter", NULL);
	g_assert_nonnull(strstr(told->str, "vnet1"));
	g_assert_null(strstr(told->str, "vnet0"));
	ops->close(t);
	ops->close(b);
	ops->close(a);
	same_state(before);
	g_string_free(told, TRUE);
}

static void plan(void)
{
	g_autoptr(GString) s = g_string_new(NULL);
	struct optset *set;
	struct kvs kvs;
	struct vh_net_open o = { .size = sizeof(o), .pairs = 2, .owner = "vhost:t:1:1:0", .state = state, .mac = { 2, 0, 0, 0, 0, 9 },
				 .flags = VH_NET_OPEN_DRY_RUN };
	void *port = &set;

	if (!net_begin())
		return;
	uplink();
	g_autofree char *before = net_state();

	kvs_parse("up0,mode=filter,trunk=10-12:20,native=5", &kvs, NULL);
	g_assert_cmpint(optset_parse(ops->options, &kvs, "x", &set, NULL), ==, 0);
	o.opts = optset_get(set);
	g_assert_cmpint(ops->plan(&o, say, s, NULL), ==, 0);
	g_assert_nonnull(strstr(s->str, "create bridge br-up0, which filters VLANs"));
	g_assert_nonnull(strstr(s->str, "2 queue pairs"));
	g_assert_nonnull(strstr(s->str, "fe:00:00:00:00:09"));
	g_assert_nonnull(strstr(s->str, "give it the VLANs 10-12, 20 tagged, and VLAN 5 untagged\n"));
	g_assert_nonnull(strstr(s->str, "let uplink up0 carry VLAN 5, 10-12, 20 tagged\n"));
	g_assert_cmpint(ops->open(&o, &port, NULL), ==, 0);
	g_assert_null(port);
	optset_free(set);
	kvs_clear(&kvs);
	same_state(before);
	g_assert_cmpuint(journals(), ==, 0);
}

/* ---- cost ---- */

static void two_hundred(void)
{
	static const char *const mode[] = { "up0,id=%u", "up0,id=%u,mode=filter" };

	for (unsigned m = 0; m < 2; m++) {
		g_autofree void **p = g_new0(void *, 200);
		unsigned trips = 0;
		gint64 t;

		if (!begin())
			return;
		uplink();
		g_autofree char *before = net_state();

		t = g_get_monotonic_time();
		for (unsigned i = 0; i < 200; i++) {
			g_autofree char *owner = g_strdup_printf("vhost:many:1:1:%u", i);
			g_autofree char *options = g_strdup_printf(mode[m], m ? 2 + i % 100 : 10);

			fault(0, 0, 0);
			p[i] = must_open(&(struct spec){ options, .owner = owner });
			net_fault_hook = NULL;
			/* What is there is looked at in one, the port attached in another. */
			if (i)
				g_assert_cmpuint(fault_netlink, ==, 2);
			trips += fault_netlink;
		}
		t = g_get_monotonic_time() - t;
		g_test_message("%s: 200 ports, %u round trips, %.2f ms each", mode[m], trips, (double)t / 200e3);
		g_autofree char *n = sh("ip -o link show type tun | wc -l");

		g_assert_cmpint(atoi(n), ==, 200);
		for (unsigned i = 0; i < 200; i++)
			ops->close(p[(i * 7) % 200]);
		same_state(before);
		g_assert_cmpuint(journals(), ==, 0);
	}
}

int main(int argc, char **argv)
{
	plugtest_init(&argc, &argv, "vlan");
	g_test_add_func("/vlan/errors-name-cause-and-remedy", errors);
	g_test_add_func("/vlan/kernel-without-vlans", kernel_without);
	g_test_add_func("/vlan/device", device);
	g_test_add_func("/vlan/filter", filter);
	g_test_add_func("/vlan/qinq", qinq);
	g_test_add_func("/vlan/long-names", long_names);
	g_test_add_func("/vlan/what-others-have", conflicts);
	g_test_add_func("/vlan/mtu", mtu);
	g_test_add_func("/vlan/uplink-vanishes-and-returns", uplink_vanishes);
	g_test_add_func("/vlan/bridge-vanishes", bridge_vanishes);
	g_test_add_func("/vlan/network-held", held);
	g_test_add_func("/vlan/bridge-held-by-two-networks", held_by_two);
	g_test_add_func("/vlan/describe-and-plan", told_to_people);
	g_test_add_func("/vlan/plan-changes-nothing", plan);
	g_test_add_func("/vlan/two-hundred-ports", two_hundred);
	return plugtest_run();
}
