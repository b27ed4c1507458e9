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
#include <sys/socket.h>
#include <sys/wait.h>

#include "faults.h"
#include "left.h"

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

static inline int has(const char *text, const char *cmd)
{
	g_autofree char *out = sh("PATH=$PATH:/sbin:/usr/sbin; %s 2>/dev/null", cmd);

	return strstr(out, text) != NULL;
}

/* What a spec's open does, each step refused, answered falsely, or the last: the namespace must be as it was after setup. At
 * least so many steps there are. */
static inline void open_each_step(const struct spec *spec, int (*setup)(void), unsigned least, int sticky, int killing)
{
	unsigned n, steps = 0;

	if (!setup())
		return;
	g_autofree char *before = netns_state();

	for (n = 1;; n++) {
		void *port = NULL;
		int r, st = 0;
		pid_t pid;

		fault(n, sticky, killing);
		if (killing) {
			pid = fork();
			if (!pid) {
				r = try_open(spec, &port, NULL);
				_exit(fault_count >= n ? 1 : 0);
			}
			g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
			net_fault_hook = NULL;
			if (!WIFSIGNALED(st)) {
				g_assert_cmpint(WEXITSTATUS(st), ==, 0);
				break;
			}
		} else {
			ERR_AUTO(e);

			r = try_open(spec, &port, &e);
			net_fault_hook = NULL;
			if (fault_count < n) {
				g_assert_cmpint(r, ==, 0);
				ops->close(port);
				break;
			}
			/* The journal's end is not worth a failure. */
			g_assert_cmpint(r, <, 0);
			g_assert_nonnull(e.cause);
		}
		if (!sticky && !killing) { /* undone at once, no gc needed */
			g_autofree char *undone = netns_state();

			g_assert_cmpstr(before, ==, undone);
		}
		gc(nobody);
		g_autofree char *after = netns_state();

		g_assert_cmpstr(before, ==, after);
		g_assert_cmpuint(journals(), ==, 0);
		steps++;
	}
	/* the child that lived to its end has left everything to gc as well */
	gc(nobody);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
	g_assert_cmpuint(steps, >=, least);
	g_test_message("%s: %u steps", spec->options, steps);
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
