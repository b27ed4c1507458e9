/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The macvtap plugin over one end of a veth pair: what each mode lets through, filters, networks, and what cannot be. */
#include <fcntl.h>
#include <grp.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include "macvtap-test.h"

#define HDR 12u /* the tap header, as the core sets it */
#define MARK 99u

static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
static const uint8_t outside[6] = { 2, 0, 0, 0, 0, 0xa1 }; /* v1's */
static const uint8_t mac_a[6] = { 0x52, 0x54, 0, 1, 2, 0xa }, mac_b[6] = { 0x52, 0x54, 0, 1, 2, 0xb };
static const uint8_t stranger[6] = { 2, 9, 9, 9, 9, 9 };

static int port_fd(void *p)
{
	int len = HDR, one = 1, fd = ops->queue_fd(p, 0, NULL);

	g_assert_cmpint(ioctl(fd, TUNSETVNETHDRSZ, &len), ==, 0);
	g_assert_cmpint(ioctl(fd, TUNSETVNETLE, &one), ==, 0);
	return fd;
}

static void attach_detach(void)
{
	struct vh_net_info i = { .size = sizeof(i) };
	void *p;

	if (!begin())
		return;
	g_autofree char *before = netns_state();

	p = must_open(&(struct spec){ "v0", .owner = "vhost:web:12:34:0", .mtu = 1400 });
	g_assert_cmpint(ops->info(p, &i), ==, 0);
	g_assert_cmpstr(i.ifname, ==, "vnet0");
	g_assert_cmpint(i.vnet_hdr, ==, 12);
	g_assert_cmpint(i.pairs, ==, 1);
	g_assert_cmpint(i.mtu, ==, 1400);
	g_assert_cmpint(i.path, ==, VH_NET_PATH_TAP);
	g_assert_true(i.offload & VH_NET_CSUM);
	g_assert_true(i.offload & VH_NET_TSO4);
	g_assert_true(has("vnet0@v0", "ip -o link show vnet0"));
	g_assert_true(has("macvtap mode bridge", "ip -d link show vnet0"));
	g_assert_true(has("addrgenmode none", "ip -d link show vnet0"));
	g_assert_true(has("mtu 1400", "ip -o link show vnet0"));
	g_assert_true(has("vhost:web:12:34:0", "ip link show vnet0"));
	g_assert_true(has("52:54:00:01:02:03", "ip -o link show vnet0"));
	g_assert_true(has("UP", "ip -o link show vnet0"));
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

/* Two ports and the far end of the uplink. */
struct two {
	void *a, *b;
	int fa, fb, out;
};

static struct two two(const char *options)
{
	struct two t;

	t.a = must_open(&(struct spec){ options, .owner = "vhost:a:1:1:0", .mac = 0xa });
	t.b = must_open(&(struct spec){ options, .owner = "vhost:b:1:1:0", .mac = 0xb });
	t.fa = port_fd(t.a);
	t.fb = port_fd(t.b);
	t.out = raw_socket("v1");
	return t;
}

static void two_end(struct two *t)
{
	close(t->out);
	ops->close(t->a);
	ops->close(t->b);
}

/* Every mode: the outside and the ports hear each other. */
static void outside_reached(struct two *t)
{
	frame_send(t->fa, HDR, outside, mac_a, 1);
	g_assert_cmpuint(frame_next(t->out, 0), ==, 1);
	frame_send(t->out, 0, mac_a, outside, 2);
	g_assert_cmpuint(frame_next(t->fa, HDR), ==, 2);
}

/* b gets nothing before what the outside sends. */
static void b_hears_only_the_outside(struct two *t)
{
	frame_send(t->out, 0, mac_b, outside, MARK);
	g_assert_cmpuint(frame_next(t->fb, HDR), ==, MARK);
}

static void mode_bridge(void)
{
	struct two t;

	if (!begin())
		return;
	t = two("v0");
	outside_reached(&t);
	frame_send(t.fa, HDR, mac_b, mac_a, 3);
	g_assert_cmpuint(frame_next(t.fb, HDR), ==, 3);
	frame_send(t.fa, HDR, broadcast, mac_a, 4);
	g_assert_cmpuint(frame_next(t.fb, HDR), ==, 4);
	g_assert_cmpuint(frame_next(t.out, 0), ==, 4); /* and not 3, which stays here */
	two_end(&t);
}

static void mode_private(void)
{
	struct two t;

	if (!begin())
		return;
	t = two("v0,mode=private");
	outside_reached(&t);
	frame_send(t.fa, HDR, mac_b, mac_a, 3);
	g_assert_cmpuint(frame_next(t.out, 0), ==, 3);
	frame_send(t.fa, HDR, broadcast, mac_a, 4);
	g_assert_cmpuint(frame_next(t.out, 0), ==, 4);
	/* Not even by a switch that sends it back. */
	frame_send(t.out, 0, broadcast, mac_a, 5);
	b_hears_only_the_outside(&t);
	two_end(&t);
}

static void mode_vepa(void)
{
	struct two t;

	if (!begin())
		return;
	t = two("v0,mode=vepa");
	outside_reached(&t);
	frame_send(t.fa, HDR, mac_b, mac_a, 3);
	g_assert_cmpuint(frame_next(t.out, 0), ==, 3);
	b_hears_only_the_outside(&t);
	/* The switch has its hairpin. */
	frame_send(t.out, 0, mac_b, mac_a, 6);
	g_assert_cmpuint(frame_next(t.fb, HDR), ==, 6);
	two_end(&t);
}

static void mode_passthru(void)
{
	void *p;

	if (!begin())
		return;
	g_autofree char *before = netns_state();

	p = must_open(&(struct spec){ "v0,mode=passthru", .owner = "vhost:a:1:1:0", .mac = 0xa });
	int fd = port_fd(p), out = raw_socket("v1");

	g_assert_true(has("52:54:00:01:02:0a", "ip -o link show v0"));
	frame_send(out, 0, stranger, outside, 7); /* all arrives */
	g_assert_cmpuint(frame_next(fd, HDR), ==, 7);
	frame_send(fd, HDR, outside, stranger, 8);
	g_assert_cmpuint(frame_next(out, 0), ==, 8);
	refused(&(struct spec){ "v0", .owner = "vhost:b:1:1:0" }, -EBUSY, "vnet0 has all of v0 for itself (mode=passthru): vhost:a:1:1:0",
		"another uplink");
	refused(&(struct spec){ "v0,mode=passthru", .owner = "vhost:b:1:1:0" }, -EBUSY, "vnet0 has all of v0", NULL);
	ops->close(p);
	close(out);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after); /* with its own address again */
	p = must_open(&(struct spec){ "v0", .owner = "vhost:a:1:1:0" });
	refused(&(struct spec){ "v0,mode=passthru", .owner = "vhost:b:1:1:0" }, -EBUSY, "needs v0 for itself, but vnet0 is on it",
		"another mode=");
	ops->close(p);
}

/* ARP, as a guest does it: does the host answer for its address? */
static int host_answers(int fd, const uint8_t mac[6], const char *address)
{
	uint8_t f[HDR + 60] = { 0 }, got[2048];
	struct in_addr ip;
	uint32_t mark = 77;

	inet_pton(AF_INET, address, &ip);
	memcpy(f + HDR, broadcast, 6);
	memcpy(f + HDR + 6, mac, 6);
	memcpy(f + HDR + 12, "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01", 10);
	memcpy(f + HDR + 22, mac, 6);
	memcpy(f + HDR + 28, "\xc0\x00\x02\x64", 4); /* 192.0.2.100 */
	memcpy(f + HDR + 38, &ip, 4);
	g_assert_cmpint(write(fd, f, sizeof(f)), ==, sizeof(f));
	/* What comes first: the answer, or a mark that the outside sends in a moment. */
	g_usleep(100000);
	int out = raw_socket("v1");

	frame_send(out, 0, mac, outside, mark);
	close(out);
	for (gint64 end = g_get_monotonic_time() + 5 * G_TIME_SPAN_SECOND; g_get_monotonic_time() < end;) {
		struct pollfd p = { fd, POLLIN, 0 };
		ssize_t n = read(fd, got, sizeof(got));

		if (n < 0)
			poll(&p, 1, 100);
		if (n >= (ssize_t)HDR + 42 && !memcmp(got + HDR + 12, "\x08\x06", 2) && got[HDR + 21] == 2 && !memcmp(got + HDR + 28, &ip, 4))
			return 1;
		if (n >= (ssize_t)HDR + 18 && !memcmp(got + HDR + 12, "\x88\xb5", 2) && !memcmp(got + HDR + 14, &mark, 4))
			return 0;
	}
	g_assert_not_reached();
}

static void host_reaches(void)
{
	void *a, *b;

	if (!begin())
		return;
	/* The outside is in the same namespace, and shall not answer for the host's other interfaces. */
	run_ok("ip addr add 192.0.2.9/32 dev v0; echo 1 >/proc/sys/net/ipv4/conf/v1/arp_ignore");
	g_autofree char *before = netns_state();

	a = must_open(&(struct spec){ "v0", .owner = "vhost:a:1:1:0", .mac = 0xa });
	g_assert_false(host_answers(port_fd(a), mac_a, "192.0.2.9"));
	b = must_open(&(struct spec){ "v0,host=on,address=192.0.2.1/24", .owner = "vhost:b:1:1:0", .mac = 0xb });
	g_assert_true(has("mv-v0@v0", "ip -o link show mv-v0"));
	g_assert_true(has("vhost:b:1:1:0", "ip link show mv-v0"));
	g_assert_true(has("192.0.2.1/24", "ip -o addr show mv-v0"));
	g_assert_true(host_answers(port_fd(a), mac_a, "192.0.2.1"));
	g_assert_true(host_answers(port_fd(b), mac_b, "192.0.2.1"));
	/* Its maker goes, its users stay. */
	ops->close(b);
	g_assert_cmpuint(gc(nobody), ==, 2); /* vnet0's owner is no process either: so all goes */
	ops->close(a);
	g_autofree char *gone = netns_state();

	g_assert_cmpstr(before, ==, gone);
	a = must_open(&(struct spec){ "v0,host=on", .owner = "vhost:a:1:1:0", .mac = 0xa });
	g_autofree char *mac = sh("ip -o link show mv-v0");
	b = must_open(&(struct spec){ "v0,host=on,address=2001:db8::1/64", .owner = "vhost:b:1:1:0", .mac = 0xb });
	g_assert_true(has("2001:db8::1/64", "ip -o addr show mv-v0"));
	ops->close(a);
	g_assert_true(has("mv-v0", "ip -o link show mv-v0"));
	ops->close(b);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
	a = must_open(&(struct spec){ "v0,host=on", .owner = "vhost:a:1:1:0", .mac = 0xa });
	g_autofree char *mac2 = sh("ip -o link show mv-v0");

	g_assert_cmpstr(strstr(mac, "link/ether"), ==, strstr(mac2, "link/ether")); /* stable */
	ops->close(a);
}

static void set_filter(void *p, uint32_t mode, const uint8_t (*multi)[6], unsigned n, const uint8_t *mac, int want)
{
	struct vh_net_filter f = { .size = sizeof(f), .mode = mode, .multicast = multi, .n_multicast = n };

	if (mac)
		memcpy(f.mac, mac, 6);
	g_assert_cmpint(ops->set_filter(p, &f, NULL), ==, want);
}

/* Whether a multicast frame from the outside arrives before a broadcast that follows it. */
static int hears(int fd, int out, const uint8_t group[6])
{
	uint32_t n;

	frame_send(out, 0, group, outside, 1);
	frame_send(out, 0, broadcast, outside, 2);
	n = frame_next(fd, HDR);
	g_assert_cmpuint(n, !=, 0);
	if (n == 1)
		g_assert_cmpuint(frame_next(fd, HDR), ==, 2);
	return n == 1;
}

/* The kernel's filter is a hash of 256 bits with a random key: one group may collide with another, eight do not. */
static int deaf(int fd, int out, const uint8_t group[6])
{
	unsigned heard = 0;

	for (uint8_t i = 0; i < 8; i++) {
		const uint8_t g[6] = { group[0], group[1], group[2], group[3], group[4], group[5] ^ i };

		heard += (unsigned)hears(fd, out, g);
	}
	return heard < 4;
}

static const uint8_t nd[6] = { 0x33, 0x33, 0xff, 1, 2, 0xa }, other[6] = { 1, 0, 0x5e, 0x40, 0, 9 };

static void filters(void)
{
	uint8_t many[FILTER_MAX + 1][6];
	void *p;

	if (!begin())
		return;
	p = must_open(&(struct spec){ "v0", .mac = 0xa });
	int fd = port_fd(p), out = raw_socket("v1");

	g_assert_true(hears(fd, out, nd)); /* all, until the guest says what it wants */
	set_filter(p, 0, NULL, 0, NULL, 0);
	g_assert_true(deaf(fd, out, nd));
	g_assert_true(deaf(fd, out, other));
	set_filter(p, 0, &nd, 1, NULL, 0);
	g_assert_true(hears(fd, out, nd));
	g_assert_true(deaf(fd, out, other));
	set_filter(p, 0, (const uint8_t[2][6]){ { 1, 0, 0x5e, 0x40, 0, 9 }, { 1, 0, 0x5e, 0x40, 0, 9 } }, 2, NULL, 0);
	g_assert_true(deaf(fd, out, nd));
	g_assert_true(hears(fd, out, other));
	set_filter(p, VH_NET_RX_ALLMULTI, NULL, 0, NULL, 0);
	g_assert_true(hears(fd, out, nd));
	set_filter(p, VH_NET_RX_NOMULTI, &nd, 1, NULL, 0);
	g_assert_true(deaf(fd, out, nd));
	set_filter(p, VH_NET_RX_PROMISC, NULL, 0, NULL, 0);
	g_assert_true(hears(fd, out, nd));
	for (unsigned i = 0; i <= FILTER_MAX; i++)
		memcpy(many[i], (const uint8_t[6]){ 1, 0, 0x5e, 7, 7, (uint8_t)i }, 6);
	set_filter(p, 0, many, FILTER_MAX, NULL, 0);
	g_assert_true(hears(fd, out, many[63]));
	g_assert_false(has("ALLMULTI", "ip -o link show vnet0"));
	set_filter(p, 0, many, FILTER_MAX + 1, NULL, 0);
	g_assert_true(has("ALLMULTI", "ip -o link show vnet0"));
	g_assert_true(hears(fd, out, many[64]));
	set_filter(p, 0, &stranger, 1, NULL, 0); /* no multicast address at all */
	g_assert_true(deaf(fd, out, nd));
	g_autofree char *left = sh("ip maddr show dev vnet0");

	g_assert_null(strstr(left, "01:00:5e:07")); /* of the many none is left */
	close(out);
	ops->close(p);
}

static void mac_follows(void)
{
	static const uint8_t new[6] = { 2, 1, 1, 1, 1, 1 };
	struct two t;

	if (!begin())
		return;
	t = two("v0");
	set_filter(t.a, 0, NULL, 0, new, 0);
	g_assert_true(has("02:01:01:01:01:01", "ip -o link show vnet0"));
	frame_send(t.out, 0, mac_a, outside, 1); /* nobody's any more */
	frame_send(t.out, 0, new, outside, 2);
	g_assert_cmpuint(frame_next(t.fa, HDR), ==, 2);
	set_filter(t.a, 0, NULL, 0, mac_b, -EADDRINUSE);
	g_assert_true(has("02:01:01:01:01:01", "ip -o link show vnet0"));
	set_filter(t.a, 0, NULL, 0, (const uint8_t[6]){ 0 }, 0);
	set_filter(t.a, 0, NULL, 0, broadcast, 0); /* hostile: no such address */
	g_assert_true(has("02:01:01:01:01:01", "ip -o link show vnet0"));
	/* A rename by the host's administrator changes nothing. */
	run_ok("ip link set vnet0 down; ip link set vnet0 name other; ip link set other up");
	set_filter(t.a, 0, &nd, 1, mac_a, 0);
	frame_send(t.out, 0, mac_a, outside, 3);
	g_assert_cmpuint(frame_next(t.fa, HDR), ==, 3);
	two_end(&t);
	g_assert_false(has("other", "ip -o link"));
}

static void multi_queue(void)
{
	struct vh_net_info i = { .size = sizeof(i) };
	struct ifreq ifr = { 0 };

	if (!begin())
		return;
	void *p = must_open(&(struct spec){ "v0", .pairs = 8, .mac = 0xa });
	int out = raw_socket("v1"), fd;

	g_assert_cmpint(ops->info(p, &i), ==, 0);
	g_assert_cmpint(i.pairs, ==, 8);
	for (unsigned q = 0; q < 8; q++) {
		fd = ops->queue_fd(p, q, NULL);
		g_assert_cmpint(ioctl(fd, TUNGETIFF, &ifr), ==, 0);
		g_assert_cmpstr(ifr.ifr_name, ==, i.ifname);
		g_assert_true(ifr.ifr_flags & IFF_MULTI_QUEUE);
		if (q) {
			memset(&ifr, 0, sizeof(ifr));
			ifr.ifr_flags = IFF_DETACH_QUEUE;
			g_assert_cmpint(ioctl(fd, TUNSETQUEUE, &ifr), ==, 0);
		}
	}
	/* All come by the one that is on. */
	fd = port_fd(p);
	for (uint32_t n = 1; n <= 32; n++) {
		frame_send(out, 0, mac_a, (const uint8_t[6]){ 2, 0, 0, 0, 7, (uint8_t)n }, n);
		g_assert_cmpuint(frame_next(fd, HDR), ==, n);
	}
	close(out);
	ops->close(p);
	g_assert_false(has(i.ifname, "ip -o link"));
}

static void errors(void)
{
	if (!begin())
		return;
	run_ok("ip link add br0 type bridge; ip link add w0 type veth peer name w1; ip link set w0 master br0; ip link add v9 type bridge; "
	       "ip tuntap add dev tun9 mode tun; ip link add mv-w1 type bridge; ip link set mv-w1 alias somebody");
	refused(&(struct spec){ "nope" }, -ENOENT, "uplink nope does not exist", "ip link");
	refused(&(struct spec){ "lo" }, -EINVAL, "the loopback", NULL);
	refused(&(struct spec){ "tun9" }, -EINVAL, "no Ethernet frames (type tun)", NULL);
	refused(&(struct spec){ "w0" }, -EBUSY, "w0 cannot be an uplink: it is a port of bridge br0", "type=bridge,name=br0");
	refused(&(struct spec){ "v0", .mtu = 9000 }, -EINVAL, "MTU 9000 is more than the 1500 of uplink v0", "ip link set v0 mtu 9000");
	refused(&(struct spec){ "v0", .ifname = "v9" }, -EEXIST, "v9 exists already", "another ifname");
	refused(&(struct spec){ "v0", .ifname = "a/b" }, -EINVAL, "cannot be the name", NULL);
	refused(&(struct spec){ "v0", .ifname = "vnet%d" }, -EINVAL, "cannot be the name", NULL);
	refused(&(struct spec){ "v 0" }, -EINVAL, "cannot be the name of an uplink", NULL);
	refused(&(struct spec){ "v0,address=192.0.2.1/24" }, -EINVAL, "address= is for", "host=on");
	refused(&(struct spec){ "v0,host=on,address=192.0.2.1" }, -EINVAL, "no IP address", NULL);
	refused(&(struct spec){ "v0,host=on,mode=private" }, -EINVAL, "host=on needs mode=bridge", "mode=bridge");
	refused(&(struct spec){ "w1,host=on" }, -EEXIST, "mv-w1, which exists already (somebody)", "rename");
	refused(&(struct spec){ "v0", .pairs = 300 }, -EINVAL, "1 to 256", NULL);
	refused(&(struct spec){ "v0", .owner = "nobody" }, -EINVAL, "owner tag", NULL);
	g_assert_cmpuint(journals(), ==, 0);
	/* A MAC address twice on one uplink. */
	void *p = must_open(&(struct spec){ "v0", .owner = "vhost:a:1:1:0" });

	refused(&(struct spec){ "v0", .owner = "vhost:b:1:1:0" }, -EADDRINUSE,
		"vnet0 (vhost:a:1:1:0) has the MAC address 52:54:00:01:02:03", "another mac=");
	ops->close(p);
	g_assert_cmpuint(journals(), ==, 0);
}

/* A wireless card cannot be made here: sysfs is the test's. */
static void wireless(void)
{
	if (!begin())
		return;
	g_autofree char *fake = temp_folder("sysfs");

	/* A veth has a kind, which no wireless card has; a plain one of the kernel's without kind is none here, so the check is
	 * asked itself. */
	run_ok("mkdir -p %s/class/net/wlan0/phy80211 %s/class/net/eth7", fake, fake);
	tapdev_test_sysfs = fake;
	g_assert_true(tapdev_wireless(&(struct nl_link){ .name = "wlan0" }));
	g_assert_false(tapdev_wireless(&(struct nl_link){ .name = "eth7" }));
	g_assert_false(tapdev_wireless(&(struct nl_link){ .name = "wlan0", .kind = "bridge" }));
	tapdev_test_sysfs = NULL;
	run_ok("rm -rf %s", fake);
}

static void unprivileged(void)
{
	int st;

	if (!begin())
		return;
	g_chmod(state, 0777);
	run_ok("rm -f %s/lock", state);
	pid_t pid = fork();

	if (!pid) {
		ERR_AUTO(e);
		void *port;
		int r;

		if (setgroups(0, NULL) < 0 || setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
			_exit(3);
		r = try_open(&(struct spec){ "v0" }, &port, &e);
		_exit((r == -EPERM || r == -EACCES) && e.remedy ? 0 : 1);
	}
	g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
	g_assert_cmpint(st, ==, 0);
	g_chmod(state, 0700);
	run_ok("rm -f %s/lock", state);
}

/* The uplink goes, and with it, by the kernel's doing, all that is on it. */
static void uplink_vanishes(void)
{
	uint8_t buf[2048];
	void *p;

	if (!begin())
		return;
	p = must_open(&(struct spec){ "v0,host=on", .mac = 0xa });
	int fd = port_fd(p);

	run_ok("ip link del v0");
	g_assert_cmpint(ops->set_link(p, 0, NULL), ==, -ENODEV);
	set_filter(p, 0, &nd, 1, NULL, -ENODEV);
	while (read(fd, buf, sizeof(buf)) > 0) /* what came before */
		;
	g_assert_cmpint(errno, ==, EAGAIN);
	ops->close(p);
	g_assert_cmpuint(journals(), ==, 0);
	g_assert_cmpuint(gc(nobody), ==, 0);
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

	if (!begin())
		return;
	g_autofree char *before = netns_state();

	kvs_parse("v0,host=on,address=192.0.2.1/24", &kvs, NULL);
	g_assert_cmpint(optset_parse(ops->options, &kvs, "x", &set, NULL), ==, 0);
	o.opts = optset_get(set);
	g_assert_cmpint(ops->plan(&o, say, s, NULL), ==, 0);
	g_assert_nonnull(strstr(s->str, "create macvlan mv-v0 on v0"));
	g_assert_nonnull(strstr(s->str, "192.0.2.1/24"));
	g_assert_nonnull(strstr(s->str, "create macvtap vnetN on v0 in mode bridge, MAC 02:00:00:00:00:09, MTU 1500"));
	g_assert_nonnull(strstr(s->str, "2 queue pairs"));
	g_assert_cmpint(ops->open(&o, &port, NULL), ==, 0);
	g_assert_null(port);
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
	state = temp_folder("macvtap");
	g_assert_cmpint(vh_plugin_entry_v1(&plug_host, &p), ==, 0);
	ops = p->get(VH_IID_NET);
	g_test_add_func("/macvtap/attach-and-detach-leave-no-trace", attach_detach);
	g_test_add_func("/macvtap/mode-bridge", mode_bridge);
	g_test_add_func("/macvtap/mode-private", mode_private);
	g_test_add_func("/macvtap/mode-vepa", mode_vepa);
	g_test_add_func("/macvtap/mode-passthru", mode_passthru);
	g_test_add_func("/macvtap/host-reaches-guests", host_reaches);
	g_test_add_func("/macvtap/multicast-filters", filters);
	g_test_add_func("/macvtap/guest-changes-its-mac", mac_follows);
	g_test_add_func("/macvtap/multi-queue", multi_queue);
	g_test_add_func("/macvtap/errors-name-cause-and-remedy", errors);
	g_test_add_func("/macvtap/wireless-is-told", wireless);
	g_test_add_func("/macvtap/unprivileged", unprivileged);
	g_test_add_func("/macvtap/uplink-vanishes", uplink_vanishes);
	g_test_add_func("/macvtap/plan-changes-nothing", plan);
	r = g_test_run();
	run_ok("rm -rf %s", state);
	g_free(state);
	return r;
}
