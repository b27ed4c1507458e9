/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Ports through the built bridge plugin, in this process and in the helper. */
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "net/helper.h"
#include "net/wire.h"
#include "netns.h"
#include "plug/options.h"
#include "plug/plug.h"
#include "util/paths.h"

static const struct vh_net_ops *ops;
static const char *type = "bridge";

static int try_open(const char *options, unsigned index, unsigned pairs, struct net_port **out, struct vh_err *e)
{
	struct net_config c = { .ops = ops, .type = type, .pairs = pairs, .offload = ~UINT64_C(0), .vm = "t", .index = index };
	struct optset *set;
	struct kvs kvs;
	int r;

	net_mac_derive(c.vm, index, c.mac);
	g_assert_cmpint(kvs_parse(options, &kvs, NULL), ==, 0);
	g_assert_cmpint(optset_parse(ops->options, &kvs, "x", &set, NULL), ==, 0);
	c.opts = optset_get(set);
	*out = NULL;
	r = net_port_open(&c, out, e);
	optset_free(set);
	kvs_clear(&kvs);
	return r;
}

static struct net_port *must_open(const char *options, unsigned index, unsigned pairs)
{
	struct net_port *p;
	ERR_AUTO(e);
	int r = try_open(options, index, pairs, &p, &e);

	g_assert_cmpstr(e.cause, ==, NULL);
	g_assert_cmpint(r, ==, 0);
	return p;
}

static int begin(void)
{
	if (!netns_fresh())
		return 0;
	run_ok("ip link add br0 address 02:00:00:00:00:01 type bridge stp_state 0 forward_delay 0 && ip link set br0 addrgenmode none && "
	       "ip link set br0 up");
	return 1;
}

static unsigned hdr_len(int fd)
{
	int len = 0;

	g_assert_cmpint(ioctl(fd, TUNGETVNETHDRSZ, &len), ==, 0);
	return (unsigned)len;
}

/* One broadcast frame from a's guest must arrive at b's. */
static void frame_passes(struct net_port *a, struct net_port *b)
{
	uint8_t frame[12 + 64] = { 0 }, got[2048];
	struct pollfd pf = { net_port_fd(b, 0), POLLIN, 0 };
	gint64 end = g_get_monotonic_time() + 5 * G_TIME_SPAN_SECOND;

	memset(frame + 12, 0xff, 6);
	memcpy(frame + 18, "\x02vhost", 6);
	memcpy(frame + 24, "\x88\xb5", 2);
	for (;;) {
		g_assert_cmpint(write(net_port_fd(a, 0), frame, sizeof(frame)), ==, sizeof(frame));
		while (poll(&pf, 1, 50) == 1) {
			ssize_t n = read(pf.fd, got, sizeof(got));

			if (n == sizeof(frame) && !memcmp(got + 12, frame + 12, 64))
				return;
		}
		g_assert_cmpint(g_get_monotonic_time(), <, end);
	}
}

static void use(struct net_port *a, struct net_port *b)
{
	const struct vh_net_info *i = net_port_info(a);
	struct net_port_stats st;
	char master[16];

	g_assert_cmpint(net_port_fd(a, 0), >=, 0);
	g_assert_cmpint(net_port_fd(a, 2), ==, -EINVAL);
	g_assert_true(fcntl(net_port_fd(a, 1), F_GETFL) & O_NONBLOCK);
	g_assert_true(fcntl(net_port_fd(a, 1), F_GETFD) & FD_CLOEXEC);
	g_assert_cmpuint(hdr_len(net_port_fd(a, 0)), ==, 12);
	g_assert_true((i->offload & (VH_NET_CSUM | VH_NET_TSO4 | VH_NET_TSO6)) == (VH_NET_CSUM | VH_NET_TSO4 | VH_NET_TSO6));
	/* Each is there if the fd takes it, and only then. UDP segmentation came with Linux 6.2, for both IPs at once. */
	static const struct {
		uint64_t offload;
		unsigned long tun;
	} each[] = {{VH_NET_TSO4, TUN_F_TSO4}, {VH_NET_TSO6, TUN_F_TSO6}, {VH_NET_UFO, TUN_F_UFO}, {VH_NET_USO, 0x60}};
	for (unsigned k = 0; k < G_N_ELEMENTS(each); k++)
		g_assert_cmpint(!ioctl(net_port_fd(a, 0), TUNSETOFFLOAD, TUN_F_CSUM | each[k].tun), ==, (i->offload & each[k].offload) != 0);
	g_assert_cmpint(net_port_set_offload(a, i->offload), ==, 0);
	g_assert_cmpint(net_port_set_offload(a, VH_NET_CSUM | VH_NET_TSO4), ==, 0);
	g_assert_cmpint(net_port_set_offload(a, 0), ==, 0);
	g_assert_cmpint(net_port_set_offload(a, UINT64_C(1) << 40), ==, -EOPNOTSUPP);
	g_assert_cmpint(net_port_set_pairs(a, 1), ==, 0);
	g_assert_cmpint(net_port_set_pairs(a, 2), ==, 0);
	g_assert_cmpint(net_port_set_pairs(a, 3), ==, -EINVAL);
	g_assert_cmpint(net_port_set_pairs(a, 0), ==, -EINVAL);
	g_assert_cmpint(net_port_set_pairs(a, 1), ==, 0);
	frame_passes(a, b);
	g_assert_cmpint(net_port_stats(b, &st), ==, 0);
	g_assert_cmpuint(st.rx_packets, >=, 1);
	g_assert_cmpint(net_port_stats(a, &st), ==, 0);
	g_assert_cmpuint(st.tx_bytes, >=, 64);
	g_assert_cmpint(net_master(i->ifname, master), ==, 0);
	g_assert_cmpstr(master, ==, "br0");
	g_assert_cmpint(net_master("nosuch", master), ==, -ENODEV);
	g_assert_cmpint(net_port_set_link(a, 0, NULL), ==, 0);
	g_assert_cmpint(net_port_set_link(a, 1, NULL), ==, 0);
	g_assert_cmpint(net_port_set_filter(a, &(struct vh_net_filter){ .size = sizeof(struct vh_net_filter) }, NULL), ==,
			-EOPNOTSUPP);
}

static void in_process(void)
{
	if (!begin())
		return;
	g_autofree char *before = netns_state();
	struct net_port *a = must_open("br0", 0, 2), *b = must_open("br0", 1, 1);

	use(a, b);
	net_port_close(a);
	net_port_close(b);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
}

static int shows(const char *text, const char *cmd)
{
	g_autofree char *out = sh("PATH=$PATH:/sbin:/usr/sbin; %s 2>/dev/null", cmd);

	return strstr(out, text) != NULL;
}

/* A backend with filters: what the guest wants goes through the sealed helper to the kernel. */
static void filters_in_helper(void)
{
	static const uint8_t group[2][6] = { { 0x33, 0x33, 0xff, 1, 2, 3 }, { 1, 0, 0x5e, 1, 1, 1 } };
	struct vh_net_filter f = { .size = sizeof(f), .multicast = group, .n_multicast = 2, .mac = { 2, 7, 7, 7, 7, 7 } };
	const struct vh_net_ops *bridge = ops;
	struct net_port *p;

	if (!begin())
		return;
	if (!shows("probe", "ip link add v0 type veth peer name v1; ip link add probe link v0 type macvtap; ip -o link")) {
		g_test_skip("this kernel has no macvtap or no veth");
		return;
	}
	run_ok("ip link del probe; ip link set v0 addrgenmode none; ip link set v1 addrgenmode none; ip link set v0 up; ip link set v1 up");
	g_autofree char *before = netns_state();

	g_assert_cmpint(plug_net("macvtap", &ops, NULL), ==, 0);
	type = "macvtap";
	g_assert_cmpint(net_helper_start(NULL), ==, 0);
	p = must_open("v0,host=on", 0, 2);
	g_assert_cmpint(net_helper_seal(0, NULL), ==, 0);
	g_assert_cmpuint(hdr_len(net_port_fd(p, 0)), ==, 12);
	g_assert_cmpuint(hdr_len(net_port_fd(p, 1)), ==, 12);
	g_assert_cmpint(net_port_set_offload(p, net_port_info(p)->offload), ==, 0);
	g_assert_cmpint(net_port_set_pairs(p, 1), ==, 0);
	g_assert_cmpint(net_port_set_pairs(p, 2), ==, 0);
	g_assert_true(shows("ALLMULTI", "ip -o link show vnet0"));
	g_assert_cmpint(net_port_set_filter(p, &f, NULL), ==, 0);
	g_assert_true(shows("33:33:ff:01:02:03", "ip maddr show dev vnet0"));
	g_assert_true(shows("01:00:5e:01:01:01", "ip maddr show dev vnet0"));
	g_assert_true(shows("02:07:07:07:07:07", "ip -o link show vnet0"));
	g_assert_false(shows("ALLMULTI", "ip -o link show vnet0"));
	g_assert_cmpint(net_port_set_link(p, 0, NULL), ==, 0);
	g_assert_cmpint(net_port_set_link(p, 1, NULL), ==, 0);
	net_port_close(p);
	net_helper_end();
	ops = bridge;
	type = "bridge";
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
}

static char *status_line(int pid, const char *key)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/status", pid), *text = NULL;
	char *at;

	if (!g_file_get_contents(path, &text, NULL, NULL))
		return g_strdup("gone");
	at = strstr(text, key);
	g_assert_nonnull(at);
	at += strlen(key);
	at[strcspn(at, "\n")] = '\0';
	return g_strdup(g_strstrip(at));
}

static void in_helper(void)
{
	struct net_port *a, *b, *c;
	ERR_AUTO(e);
	ERR_AUTO(late);
	int pid;

	if (!begin())
		return;
	g_autofree char *before = netns_state();

	g_assert_cmpint(net_helper_start(NULL), ==, 0);
	net_helper_preload("bridge");
	pid = net_helper_pid();
	g_assert_cmpint(pid, >, 0);
	a = must_open("br0", 0, 2);
	b = must_open("br0", 1, 1);
	c = must_open("br9,create=on", 2, 100);
	/* An error comes through whole. */
	g_assert_cmpint(try_open("nobr", 3, 1, &(struct net_port *){ NULL }, &e), ==, -ENOENT);
	g_assert_nonnull(strstr(e.cause, "bridge nobr does not exist"));
	g_assert_nonnull(strstr(e.remedy, "create=on"));
	g_assert_cmpstr(e.object, ==, "NIC 3");
	g_assert_cmpint(net_helper_seal(0, NULL), ==, 0);
	use(a, b);
	/* Sealed: nothing new, one capability, seccomp. */
	g_assert_cmpint(try_open("br0", 4, 1, &(struct net_port *){ NULL }, &late), ==, -EPERM);
	g_autofree char *eff = status_line(pid, "CapEff:"), *bnd = status_line(pid, "CapBnd:"), *sec = status_line(pid, "Seccomp:");
	g_autofree char *nnp = status_line(pid, "NoNewPrivs:");

	g_assert_cmpstr(eff, ==, "0000000000001000");
	g_assert_cmpstr(bnd, ==, "0000000000001000");
	g_assert_cmpstr(sec, ==, "2");
	g_assert_cmpstr(nnp, ==, "1");
	net_port_close(a);
	net_port_close(c);
	net_helper_end(); /* b as well */
	g_assert_cmpint(net_helper_pid(), ==, 0);
	g_autofree char *after = netns_state();

	/* b's own copies of the fds are still here: its tap ends with them. */
	g_assert_null(strstr(after, "br9"));
	net_port_close(b);
	g_autofree char *end = netns_state();

	g_assert_cmpstr(before, ==, end);
}

/* A sealed helper that has left the terminal puts back what others delete, and says so where its parent is told. */
static void helper_repairs(void)
{
	struct net_port *a, *b;
	char said[4096] = "";
	gsize n = 0;

	if (!begin())
		return;
	g_autofree char *before = netns_state();

	g_assert_cmpint(net_helper_start(NULL), ==, 0);
	a = must_open("br9,create=on,isolated=off", 0, 1);
	b = must_open("br9,create=on,address=192.0.2.1/24", 1, 1);
	g_assert_cmpint(net_helper_seal(1, NULL), ==, 0);
	frame_passes(a, b);
	run_ok("ip link del br9");
	frame_passes(b, a);
	g_assert_true(shows("192.0.2.1/24", "ip -o addr show br9"));
	while (n < sizeof(said) - 1 && strstr(said, "(vnet1) of VM t: ") == NULL) {
		struct pollfd p = { net_helper_said_fd(), POLLIN, 0 };

		g_assert_cmpint(poll(&p, 1, 5000), ==, 1);
		ssize_t r = read(p.fd, said + n, sizeof(said) - 1 - n);

		g_assert_cmpint(r, >, 0);
		n += (gsize)r;
	}
	g_assert_nonnull(strstr(said, "vhost: warning: net.repair: NIC 0 (vnet0) of VM t: bridge br9 was deleted by another program"));
	g_assert_nonnull(strstr(said, "NIC 1 (vnet1) of VM t: bridge br9 was deleted by another program"));
	g_assert_nonnull(strstr(said, "made again"));
	/* It answers all the same, and its last port takes the bridge along. */
	g_assert_cmpint(net_port_set_link(a, 0, NULL), ==, 0);
	net_port_close(a);
	net_port_close(b);
	net_helper_end();
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
}

/* What nftables needs is open to a sealed helper as well. */
static void helper_installs_rules(void)
{
	const struct vh_net_ops *bridge = ops;
	struct net_port *p;
	ERR_AUTO(e);
	int there = 0;

	if (!begin())
		return;
	if (plug_net("nat", &ops, &e) < 0 || !shows("table", "nft add table inet probe; nft list tables")) {
		g_test_skip(e.cause ? e.cause : "nft is missing, or does not work here");
		ops = bridge;
		return;
	}
	type = "nat";
	g_assert_cmpint(net_helper_start(NULL), ==, 0);
	p = must_open("vhn,kind=isolated,address=192.168.77.1/24,dhcp=off,dns=off", 0, 1);
	g_assert_cmpint(net_helper_seal(0, NULL), ==, 0);
	g_assert_cmpint(net_port_set_link(p, 1, NULL), ==, 0); /* it is sealed */
	run_ok("PATH=$PATH:/sbin:/usr/sbin; nft flush ruleset");
	for (int i = 0; i < 500 && !there; i++) {
		there = shows("iifname \"vhn\" drop", "nft list table inet vhost_vhn");
		g_usleep(10000);
	}
	g_assert_true(there);
	net_port_close(p);
	net_helper_end();
	g_assert_false(shows("vhost_", "nft list ruleset"));
	ops = bridge;
	type = "bridge";
}

/* The VM's process is killed; its helper cleans up by itself. */
static void parent_killed(void)
{
	int p[2], helper = 0, st;
	pid_t pid;

	if (!begin())
		return;
	g_autofree char *before = netns_state();

	g_assert_cmpint(pipe2(p, O_CLOEXEC), ==, 0);
	pid = fork();
	if (!pid) {
		if (net_helper_start(NULL) < 0)
			_exit(1);
		must_open("br9,create=on", 0, 1);
		must_open("br0", 1, 1);
		net_helper_seal(0, NULL);
		helper = net_helper_pid();
		if (write(p[1], &helper, sizeof(helper)) != sizeof(helper))
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	close(p[1]);
	g_assert_cmpint(read(p[0], &helper, sizeof(helper)), ==, sizeof(helper));
	close(p[0]);
	g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
	g_assert_true(WIFSIGNALED(st));
	for (int i = 0; i < 500; i++) {
		g_autofree char *now = netns_state();

		if (!strcmp(now, before))
			return;
		g_usleep(10000);
	}
	g_error("the helper %d has left something", helper);
}

/* What a dead VM left goes when the next one starts, and not before. */
static void open_collects(void)
{
	if (!begin())
		return;
	g_autofree char *before = netns_state(), *state = path_in(PATH_STATE, ".net", NULL);
	g_autofree char *entry = g_build_filename(state, "vhost:dead:2:1:0", NULL), *other = g_build_filename(state, "vhost:dead:2:1:1", NULL);
	struct net_port *a;

	g_assert_cmpint(path_make(state, 0700, NULL), ==, 0);
	for (int helper = 0; helper < 2; helper++) {
		run_ok("ip link add br8 type bridge; ip link set br8 alias vhost:dead:2:1:0");
		g_assert_true(g_file_set_contents(entry, "bridge vhb0123456789ab br8\ntap vnetN\n", -1, NULL));
		g_assert_true(g_file_set_contents(other, "macvtap vnet7\n", -1, NULL));
		if (helper)
			g_assert_cmpint(net_helper_start(NULL), ==, 0);
		a = must_open("br0", 0, 1);
		net_port_close(a);
		net_helper_end();
		g_autofree char *after = netns_state();

		g_assert_cmpstr(before, ==, after);
		g_assert_false(g_file_test(entry, G_FILE_TEST_EXISTS));
		g_assert_true(g_file_test(other, G_FILE_TEST_EXISTS)); /* not this plugin's */
	}
	g_unlink(other);
}

/* Signals of the terminal go to the whole group; only its parent's end ends the helper. */
static void ignores_signals(void)
{
	struct net_port *a;

	if (!begin())
		return;
	g_assert_cmpint(net_helper_start(NULL), ==, 0);
	a = must_open("br0", 0, 1);
	kill(net_helper_pid(), SIGINT);
	kill(net_helper_pid(), SIGTERM);
	kill(net_helper_pid(), SIGHUP);
	g_assert_cmpint(net_port_set_link(a, 0, NULL), ==, 0);
	net_port_close(a);
	net_helper_end();
}

static void dies_with_text(void)
{
	struct net_port *a;
	ERR_AUTO(e);

	if (!begin())
		return;
	g_assert_cmpint(net_helper_start(NULL), ==, 0);
	a = must_open("br0", 0, 1);
	kill(net_helper_pid(), SIGKILL);
	g_assert_cmpint(net_port_set_link(a, 0, &e), ==, -EPIPE);
	g_assert_nonnull(strstr(e.cause, "has died"));
	net_port_close(a);
	net_helper_end();
}

/* A guest that has broken out can send anything. */
static void hostile_requests(void)
{
	static struct wire w;
	uint8_t answer[WIRE_MAX];
	int s[2], st;

	for (int sealed = 0; sealed < 2; sealed++) {
		g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), ==, 0);
		pid_t pid = fork();

		if (!pid) {
			close(s[0]);
			net_helper_child(s[1], -1);
		}
		close(s[1]);
		if (sealed) {
			w.len = 0;
			wire_put_u64(&w, HELPER_SEAL);
			wire_put_u64(&w, 1);
			g_assert_cmpint(send(s[0], w.data, w.len, MSG_NOSIGNAL), >, 0);
		}
		for (int i = 0; i < 3000; i++) {
			size_t n = (size_t)g_test_rand_int_range(1, i % 100 ? 200 : WIRE_MAX);

			for (size_t k = 0; k < n; k++)
				w.data[k] = (uint8_t)(g_test_rand_int_range(0, 3) ? 0 : g_test_rand_int());
			w.data[0] = (uint8_t)g_test_rand_int_range(0, 9);
			memset(w.data + 1, 0, 7);
			if (w.data[0] == HELPER_SEAL && !sealed)
				w.data[0] = HELPER_OPEN;
			if (g_test_rand_bit()) { /* plausible numbers and lengths */
				memset(w.data + 8, 0, 8);
				w.data[8] = (uint8_t)g_test_rand_int_range(0, 40);
			}
			if (send(s[0], w.data, n, MSG_NOSIGNAL) < 0)
				g_error("the helper died of request %d", i);
			while (recv(s[0], answer, sizeof(answer), MSG_DONTWAIT) > 0)
				;
		}
		/* still there, and ends of itself */
		shutdown(s[0], SHUT_WR);
		while (recv(s[0], answer, sizeof(answer), 0) > 0)
			;
		close(s[0]);
		g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
		g_assert_cmpint(st, ==, 0);
	}
}

static void owners(void)
{
	g_autofree char *mine = net_owner_tag("web", 3);
	uint64_t start;
	int st;

	g_assert_true(g_str_has_prefix(mine, "vhost:web:"));
	g_assert_true(g_str_has_suffix(mine, ":3"));
	g_assert_cmpint(net_owner_alive(NULL, mine), ==, 1);
	g_assert_cmpint(net_proc_start(getpid(), &start), ==, 0);
	g_autofree char *reused = g_strdup_printf("vhost:web:%d:%" G_GUINT64_FORMAT ":3", getpid(), start + 1);

	g_assert_cmpint(net_owner_alive(NULL, reused), ==, 0);
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	waitid(P_PID, (id_t)pid, &(siginfo_t){ 0 }, WEXITED | WNOWAIT);
	g_assert_cmpint(net_proc_start(pid, &start), ==, -ESRCH); /* a zombie holds nothing */
	g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
	g_autofree char *dead = g_strdup_printf("vhost:web:%d:12:3", pid);

	g_assert_cmpint(net_owner_alive(NULL, dead), ==, 0);
	/* Not ours to judge. */
	static const char *const odd[] = { "", "vhost", "vhost:a:b:c:d", "vhost:a:0:1:0", "vhost:a:1x:1:0", "vhost:a:1::0", "xvhost:a:1:1:0",
					   "vhost:a:99999999999999999999:1:0", "vhost:a:1:1:0:0" };

	for (unsigned i = 0; i < G_N_ELEMENTS(odd); i++)
		g_assert_cmpint(net_owner_alive(NULL, odd[i]), ==, 1);
}

static void macs(void)
{
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	uint8_t a[6], b[6];

	net_mac_derive("web", 0, a);
	net_mac_derive("web", 0, b);
	g_assert_cmpmem(a, 6, b, 6);
	for (int vm = 0; vm < 200; vm++)
		for (unsigned i = 0; i < 8; i++) {
			g_autofree char *name = g_strdup_printf("vm%d", vm);

			net_mac_derive(name, i, a);
			g_assert_cmpint(a[0], ==, 2);
			g_assert_true(g_hash_table_add(seen, g_strdup_printf("%02x%02x%02x%02x%02x", a[1], a[2], a[3], a[4], a[5])));
		}
}

int main(int argc, char **argv)
{
	g_autofree char *root = NULL;
	ERR_AUTO(e);
	int r;

	g_test_init(&argc, &argv, NULL);
	g_setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", TRUE);
	root = temp_folder("port");
	g_setenv("VHOST_ROOT", root, TRUE);
	if (plug_net("bridge", &ops, &e) < 0)
		g_error("%s", e.cause);
	g_test_add_func("/port/owner-tags", owners);
	g_test_add_func("/port/macs-are-stable-and-differ", macs);
	g_test_add_func("/port/in-this-process", in_process);
	g_test_add_func("/port/in-the-helper", in_helper);
	g_test_add_func("/port/filters-in-the-helper", filters_in_helper);
	g_test_add_func("/port/a-sealed-helper-repairs", helper_repairs);
	g_test_add_func("/port/a-sealed-helper-installs-rules-again", helper_installs_rules);
	g_test_add_func("/port/opening-collects-what-the-dead-left", open_collects);
	g_test_add_func("/port/helper-cleans-up-after-a-killed-vm", parent_killed);
	g_test_add_func("/port/helper-ignores-the-terminals-signals", ignores_signals);
	g_test_add_func("/port/helper-death-is-an-error", dies_with_text);
	g_test_add_func("/port/helper-survives-hostile-requests", hostile_requests);
	r = g_test_run();
	run_ok("rm -rf %s", root);
	return r;
}
