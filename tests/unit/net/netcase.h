/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What tests of a net plugin built with its fault hook share: opening ports, faults, gc, and raw Ethernet frames. */
#ifndef TEST_NETCASE_H
#define TEST_NETCASE_H

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "fault.h"
#include "journal.h"
#include "netns.h"
#include "plug/options.h"
#include "plug/plug.h"

int (*net_fault_hook)(const char *step);
static const struct vh_net_ops *ops;
static char *state;
static unsigned fault_at, fault_count;
static int fault_kill, fault_sticky;

static int hook(const char *step)
{
	fault_count++;
	if (!fault_at || (fault_sticky ? fault_count < fault_at : fault_count != fault_at))
		return 0;
	if (fault_kill)
		kill(getpid(), SIGKILL);
	return -EIO;
}

static inline void fault(unsigned at, int sticky, int killing)
{
	fault_at = at;
	fault_sticky = sticky;
	fault_kill = killing;
	fault_count = 0;
	net_fault_hook = hook;
}

struct spec {
	const char *options, *ifname, *owner, *network;
	unsigned pairs;
	uint16_t mtu;
	uint8_t mac; /* the last octet; 0: 3 */
};

static inline int try_open(const struct spec *s, void **port, struct vh_err *e)
{
	struct optset *set;
	struct kvs kvs;
	struct vh_net_open o = {
		.size = sizeof(o), .pairs = s->pairs ? s->pairs : 1, .owner = s->owner ? s->owner : "vhost:t:1:1:0",
		.ifname = s->ifname, .state = state, .mac = { 0x52, 0x54, 0, 1, 2, s->mac ? s->mac : 3 }, .mtu = s->mtu,
		.offload = ~UINT64_C(0), .network = s->network,
	};
	int r;

	g_assert_cmpint(kvs_parse(s->options, &kvs, NULL), ==, 0);
	g_assert_cmpint(optset_parse(ops->options, &kvs, "net", &set, NULL), ==, 0);
	o.opts = optset_get(set);
	*port = NULL;
	r = ops->open(&o, port, e);
	optset_free(set);
	kvs_clear(&kvs);
	return r;
}

static inline void *must_open(const struct spec *s)
{
	ERR_AUTO(e);
	void *port;
	int r = try_open(s, &port, &e);

	g_assert_cmpstr(e.cause, ==, NULL);
	g_assert_cmpint(r, ==, 0);
	return port;
}

static inline void refused(const struct spec *s, int code, const char *cause, const char *remedy)
{
	g_autofree char *before = netns_state();
	ERR_AUTO(e);
	void *port;

	g_assert_cmpint(try_open(s, &port, &e), ==, code);
	g_assert_nonnull(e.cause);
	if (!strstr(e.cause, cause))
		g_error("'%s' is not in '%s'", cause, e.cause);
	if (remedy && (!e.remedy || !strstr(e.remedy, remedy)))
		g_error("'%s' is not in '%s' of '%s'", remedy, e.remedy, e.cause);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
}

static int nobody(void *ctx, const char *owner)
{
	return 0;
}

static inline int everybody(void *ctx, const char *owner)
{
	return 1;
}

static void count_removed(void *ctx, const char *object, const char *owner, int result)
{
	if (!result)
		++*(unsigned *)ctx;
}

static inline unsigned gc(int (*alive)(void *ctx, const char *owner))
{
	unsigned n = 0;
	ERR_AUTO(e);

	g_assert_cmpint(ops->gc(state, alive, count_removed, &n, &e), ==, 0);
	return n;
}

static inline unsigned journals(void)
{
	g_autoptr(GDir) d = g_dir_open(state, 0, NULL);
	const char *name;
	unsigned n = 0;

	while ((name = g_dir_read_name(d)))
		n += strcmp(name, "lock") != 0;
	return n;
}

static inline int has(const char *text, const char *cmd)
{
	g_autofree char *out = sh("PATH=$PATH:/sbin:/usr/sbin; %s 2>/dev/null", cmd);

	return strstr(out, text) != NULL;
}

/* A socket that sends and sees raw frames on an interface. */
static inline int raw_socket(const char *ifname)
{
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex(ifname) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));

	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpint(a.sll_ifindex, >, 0);
	g_assert_cmpint(bind(fd, (struct sockaddr *)&a, sizeof(a)), ==, 0);
	return fd;
}

/* A frame of a type of its own that carries a number. header: bytes of zeros before it (a tap's). */
static inline void frame_send(int fd, unsigned header, const uint8_t dst[6], const uint8_t src[6], uint32_t number)
{
	uint8_t f[12 + 64] = { 0 };

	memcpy(f + header, dst, 6);
	memcpy(f + header + 6, src, 6);
	memcpy(f + header + 12, "\x88\xb5", 2);
	memcpy(f + header + 14, &number, 4);
	g_assert_cmpint(write(fd, f, header + 60), ==, header + 60);
}

/* The number of the next such frame; those of others are passed over. 0: none has come for 5 s. */
static inline uint32_t frame_next(int fd, unsigned header)
{
	gint64 end = g_get_monotonic_time() + 5 * G_TIME_SPAN_SECOND;
	uint8_t f[2048];
	uint32_t number;

	while (g_get_monotonic_time() < end) {
		struct pollfd p = { fd, POLLIN, 0 };
		ssize_t n = read(fd, f, sizeof(f));

		if (n < 0 && errno == EAGAIN)
			poll(&p, 1, 100);
		if (n < (ssize_t)header + 18 || memcmp(f + header + 12, "\x88\xb5", 2))
			continue;
		memcpy(&number, f + header + 14, 4);
		return number;
	}
	return 0;
}

#endif
