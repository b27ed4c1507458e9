/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The isolation proof: ports of the vlan plugin in eight VLANs, trunks, the uplink's wire and a second host, and that a frame arrives if and
 * only if it may. Needs a kernel with VLANs: tests/lab/net-vlan.sh runs it.
 */
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>

#include "isolation.h"
#include "plugtest.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

static const unsigned ids[] = { 2, 10, 20, 30, 40, 50, 60, 4094 };
static struct proof proof;
static void *port[ENDS_MAX];
static char ifname[ENDS_MAX][16];

static int begin(void)
{
	const char *why;

	if (!net_begin())
		return 0;
	why = no_vlans();
	if (why) {
		g_test_skip(why);
		return 0;
	}
	run_ok("printf 'link add up0 type veth peer name far0\\nlink set up0 addrgenmode none\\nlink set far0 addrgenmode none\\nlink set up0 up\\n"
	       "link set far0 up\\n' | ip -batch -");
	memset(&proof, 0, sizeof(proof));
	memset(port, 0, sizeof(port));
	proof.proto = ETH_P_8021Q;
	return 1;
}

static struct end *add(const char *uplink, const char *options, int side)
{
	struct vh_net_info i = { .size = sizeof(i) };
	struct end *e = &proof.end[proof.n];
	g_autofree char *all = g_strconcat(uplink, ",", options, NULL);
	g_autofree char *owner = g_strdup_printf("vhost:proof:1:1:%u", proof.n);
	struct spec s = { .options = all, .owner = owner };

	proof_mac(proof.n, e->mac);
	memcpy(s.mac, e->mac, 6);
	port[proof.n] = must_open(&s);
	g_assert_cmpint(ops->info(port[proof.n], &i), ==, 0);
	memcpy(ifname[proof.n], i.ifname, sizeof(ifname[0]));
	e->fd = ops->queue_fd(port[proof.n], 0, NULL);
	e->side = side;
	e->device = strstr(options, "mode=filter") == NULL;
	proof.n++;
	return e;
}

static void access_port(const char *uplink, unsigned id, const char *more, int side)
{
	g_autofree char *o = g_strdup_printf("id=%u%s", id, more);
	struct end *e = add(uplink, o, side);

	e->member[id] = 1;
	e->pvid = e->home = (uint16_t)id;
}

static void trunk_ports(void)
{
	struct end *e = add("up0", "trunk=10-30,native=40,mode=filter", 0);

	for (unsigned id = 10; id <= 30; id++)
		e->member[id] = 2;
	e->member[40] = 1;
	e->pvid = e->home = 40;
	e = add("up0", "trunk=50:4094,mode=filter", 0);
	e->member[50] = e->member[4094] = 2;
	e->home = 50;
}

/* The other end of the uplink's cable: it carries what any port has, tagged. */
static void wire(void)
{
	struct end *e = &proof.end[proof.n];
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex("far0") };
	int one = 1, room = 8 << 20;

	e->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	g_assert_cmpint(e->fd, >=, 0);
	g_assert_cmpint(setsockopt(e->fd, SOL_PACKET, PACKET_AUXDATA, &one, sizeof(one)), ==, 0);
	g_assert_cmpint(setsockopt(e->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)), ==, 0);
	g_assert_cmpint(setsockopt(e->fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)), ==, 0);
	g_assert_cmpint(bind(e->fd, (struct sockaddr *)&a, sizeof(a)), ==, 0);
	e->wire = 1;
	e->side = 2;
	for (unsigned i = 0; i < proof.n; i++)
		for (unsigned id = 1; id < 4095; id++)
			if (proof.end[i].member[id])
				e->member[id] = 2;
	e->home = proof.end[0].home;
	proof_mac(proof.n, e->mac);
	proof.n++;
}

static void done(const char *what)
{
	g_test_message("%s: %u ends, %u frames, %u deliveries, %u wrong", what, proof.n, proof.frames, proof.deliveries, proof.wrong);
	for (unsigned i = 0; i < proof.n; i++) {
		if (port[i])
			ops->close(port[i]);
		if (proof.end[i].wire)
			close(proof.end[i].fd);
	}
	g_assert_cmpuint(journals(), ==, 0);
}

static void eight_vlans(const char *more, unsigned ports)
{
	for (unsigned v = 0; v < G_N_ELEMENTS(ids); v++)
		for (unsigned k = 0; k < ports; k++)
			access_port("up0", ids[v], more, 0);
}

static void device(void)
{
	if (!begin())
		return;
	eight_vlans("", 4);
	wire();
	g_assert_cmpuint(proof_run(&proof, 1), ==, 0);
	done("device");
}

static void filter(void)
{
	if (!begin())
		return;
	eight_vlans(",mode=filter", 4);
	trunk_ports();
	wire();
	g_assert_cmpuint(proof_run(&proof, 1), ==, 0);
	done("filter");
}

static void qinq(void)
{
	for (unsigned m = 0; m < 2; m++) {
		if (!begin())
			return;
		proof.proto = ETH_P_8021AD;
		for (unsigned v = 0; v < 3; v++)
			for (unsigned k = 0; k < 2; k++)
				access_port("up0", ids[v], m ? ",protocol=802.1ad,mode=filter" : ",protocol=802.1ad", 0);
		wire();
		g_assert_cmpuint(proof_run(&proof, 1), ==, 0);
		done(m ? "802.1ad, filter" : "802.1ad, device");
	}
}

/* The cable leads to another host, which is built the other way. */
static void second_host(void)
{
	for (unsigned m = 0; m < 2; m++) {
		if (!begin())
			return;
		proof.plain_only = 1;
		for (unsigned v = 0; v < 4; v++)
			for (unsigned k = 0; k < 2; k++) {
				access_port("up0", ids[v], m ? ",mode=filter" : "", 0);
				access_port("far0", ids[v], m ? "" : ",mode=filter", 1);
			}
		g_assert_cmpuint(proof_run(&proof, 1), ==, 0);
		done(m ? "filter to device" : "device to filter");
	}
}

/* What the proof is worth: it finds what is wrong. %s: the ports of the first VLANs. */
static void planted(void)
{
	static const struct {
		const char *more, *what, *cmd;
	} m[] = {
		{ ",mode=filter", "VLAN 1 is left on two ports", "bridge vlan add dev %s vid 1 pvid untagged; bridge vlan add dev %s vid 1 pvid untagged" },
		{ ",mode=filter", "VLAN 1 is left as another one on two ports", "bridge vlan add dev %s vid 1; bridge vlan add dev %s vid 1" },
		{ ",mode=filter", "a port sends into another VLAN", "bridge vlan add dev %s vid 10 # %s" },
		{ ",mode=filter", "a port hears another VLAN", "bridge vlan add dev %s vid 10 untagged # %s" },
		{ ",mode=filter", "a VLAN is missing on the uplink", "bridge vlan del dev up0 vid 10 # %s %s" },
		{ ",mode=filter", "a VLAN is native on the uplink", "bridge vlan add dev up0 vid 10 pvid untagged # %s %s" },
		{ ",mode=filter", "the bridge does not filter", "ip link set br-up0 type bridge vlan_filtering 0 # %s %s" },
		{ "", "a port is on another bridge", "ip link set %s master brvlan10 # %s" },
		{ "", "a bridge lets tags pass", "ip link set brvlan2 type bridge vlan_filtering 0 # %s %s" },
		{ "", "a VLAN device is on another bridge", "ip link set up0.10 master brvlan2 # %s %s" },
	};

	for (unsigned i = 0; i < 2 * G_N_ELEMENTS(m); i++) {
		if (!begin())
			return;
		for (unsigned v = 0; v < 2; v++)
			for (unsigned k = 0; k < 2; k++)
				access_port("up0", ids[v], m[i / 2].more, 0);
		wire();
		if (i % 2) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
			run_ok(m[i / 2].cmd, ifname[0], ifname[2]);
#pragma GCC diagnostic pop
			proof.quiet = 1;
			if (!proof_run(&proof, 1))
				g_error("nothing is found wrong when %s", m[i / 2].what);
			done(m[i / 2].what);
		} else {
			g_assert_cmpuint(proof_run(&proof, 1), ==, 0);
			done("before");
		}
	}
}

int main(int argc, char **argv)
{
	cpu_set_t one;

	plugtest_init(&argc, &argv, "isolation");
	/* Frames of one sender stay in their order then, also through the backlog of a veth. */
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu() < 0 ? 0 : sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	g_test_add_func("/isolation/device", device);
	g_test_add_func("/isolation/filter", filter);
	g_test_add_func("/isolation/qinq", qinq);
	g_test_add_func("/isolation/second-host", second_host);
	g_test_add_func("/isolation/planted-mistakes-are-found", planted);
	return plugtest_run();
}
