/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "isolation.h"

#include <errno.h>
#include <glib.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH_MAX 320u /* a tap queues 500 */
#define MAGIC "vhost-proof:"
#define HDR 10u /* the vnet header of a tap whose size nobody has set */

enum kind {
	UNICAST, BROADCAST, MULTICAST, ARP, NEIGHBOUR, ROUTER, FORGED, TAGGED, DOUBLE_OWN, DOUBLE_OTHER, DOUBLE_SAME, PRIORITY,
	PRIORITY_TAGGED, VLAN_1, VLAN_1_INNER, VLAN_4095, OTHER_PROTO, KINDS, HELLO
};
static const char *const kind_name[] = {
	"unicast", "broadcast", "multicast", "ARP", "neighbour solicitation", "router advertisement", "forged source", "tagged",
	"double-tagged, own outer", "double-tagged, other outer", "double-tagged, both other", "priority-tagged", "priority tag and tag", "VLAN 1",
	"VLAN 1 and tag", "VLAN 4095", "the other protocol's tag", "", "hello"
};

struct sent {
	unsigned src, dst, n;
	enum kind kind;
	struct tag tags[TAGS_MAX];
	uint64_t may, got;
	struct {
		uint8_t n;
		struct tag tags[TAGS_MAX];
	} want[ENDS_MAX];
};
static struct {
	struct sent sent[BATCH_MAX];
	unsigned n;
	uint32_t first;
	/* who was heard last with this address: the model of learning */
	int8_t fdb[4096][ENDS_MAX];
} run;

void proof_mac(unsigned i, uint8_t mac[6])
{
	memcpy(mac, (const uint8_t[]){ 0x02, 0x76, 0x6c, 0x61, 0x6e, 0 }, 6);
	mac[5] = (uint8_t)i;
}

/* ---- the model ---- */

/* The VLAN that a frame is of when it comes in, and how many of its tags that took; 0: it is dropped. */
static uint16_t accept_frame(const struct proof *p, const struct end *e, const struct tag *t, unsigned n, unsigned *took)
{
	uint16_t id = e->pvid;

	*took = 0;
	if (n && t[0].proto == p->proto) {
		*took = 1;
		if (t[0].id)
			return e->member[t[0].id] ? t[0].id : 0;
	}
	return id;
}

/* A frame that comes to a side of VLAN devices: the device takes the outer tag, and what is behind it is looked at again by its bridge,
 * where it must be of the same VLAN. 0: dropped. */
static int device_takes(const struct proof *p, uint16_t id, const struct tag **t, unsigned *n)
{
	if (!*n || (*t)[0].proto != p->proto)
		return 1;
	if ((*t)[0].id && (*t)[0].id != id)
		return 0;
	++*t;
	--*n;
	return 1;
}

static void judge(const struct proof *p, struct sent *s, unsigned mac_src, int unicast)
{
	const struct end *src = &p->end[s->src];
	const struct tag *inner, *t = s->tags;
	unsigned n = s->n, took, left;
	uint16_t id;
	int known;

	/* A priority tag alone is taken off by the kernel before it looks for a VLAN device once more. */
	if (src->wire && p->end[0].device && n > 1 && t[0].proto == p->proto && !t[0].id && (t[1].proto == p->proto)) {
		t++;
		n--;
	}
	id = accept_frame(p, src, t, n, &took);
	if (!id)
		return;
	inner = t + took;
	left = n - took;
	if (src->wire && p->end[0].device && !device_takes(p, id, &inner, &left))
		return;
	run.fdb[id][mac_src] = (int8_t)s->src;
	known = unicast ? run.fdb[id][s->dst] : -1;
	for (unsigned d = 0; d < p->n; d++) {
		const struct end *e = &p->end[d];
		const struct tag *rest = inner;
		unsigned k = 0, m = left;

		if (d == s->src || !e->member[id] || (known >= 0 && known != (int)d))
			continue;
		if (e->side != src->side && e->device && !e->wire && !src->wire && !device_takes(p, id, &rest, &m))
			continue;
		s->may |= UINT64_C(1) << d;
		if (e->member[id] == 2)
			s->want[d].tags[k++] = (struct tag){ p->proto, id };
		while (m-- && k < TAGS_MAX)
			s->want[d].tags[k++] = *rest++;
		s->want[d].n = (uint8_t)k;
	}
}

/* ---- frames ---- */

static uint16_t checksum(const uint8_t *ip6, unsigned len)
{
	uint32_t sum = len + 58;

	for (unsigned i = 8; i < 40; i += 2)
		sum += (uint32_t)(ip6[i] << 8 | ip6[i + 1]);
	for (unsigned i = 0; i < len; i += 2)
		sum += (uint32_t)(ip6[40 + i] << 8 | (i + 1 < len ? ip6[41 + i] : 0));
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static unsigned put16(uint8_t *b, unsigned at, uint16_t v)
{
	b[at] = (uint8_t)(v >> 8);
	b[at + 1] = (uint8_t)v;
	return at + 2;
}

static unsigned put_ip6(uint8_t *b, unsigned at, const uint8_t src[6], const uint8_t *dst, const uint8_t *icmp, unsigned len)
{
	uint8_t *ip = b + at;
	uint16_t sum;

	memset(ip, 0, 40);
	ip[0] = 0x60;
	put16(ip, 4, (uint16_t)len);
	ip[6] = 58;
	ip[7] = 255;
	memcpy(ip + 8, (const uint8_t[]){ 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe }, 13);
	memcpy(ip + 8 + 13, src + 3, 3);
	memcpy(ip + 24, dst, 16);
	memcpy(ip + 40, icmp, len);
	sum = checksum(ip, len);
	put16(ip, 42, sum);
	return at + 40 + len;
}

static unsigned make_frame(uint8_t *b, const struct sent *s, const uint8_t src[6], const uint8_t dst[6], uint32_t id)
{
	uint8_t icmp[32] = { 0 }, group[16] = { 0xff, 2 }, zero[6] = { 0 };
	unsigned at = 12;

	switch (s->kind) {
	case UNICAST:
		memcpy(b, dst, 6);
		break;
	case MULTICAST:
		memcpy(b, (const uint8_t[]){ 1, 0, 0x5e, 1, 2, 3 }, 6);
		break;
	case NEIGHBOUR:
		memcpy(b, (const uint8_t[]){ 0x33, 0x33, 0xff }, 3);
		memcpy(b + 3, dst + 3, 3);
		break;
	case ROUTER:
		memcpy(b, (const uint8_t[]){ 0x33, 0x33, 0, 0, 0, 1 }, 6);
		break;
	default:
		memset(b, 0xff, 6);
	}
	memcpy(b + 6, src, 6);
	for (unsigned i = 0; i < s->n; i++) {
		at = put16(b, at, s->tags[i].proto);
		at = put16(b, at, s->tags[i].id);
	}
	switch (s->kind) {
	case ARP:
		at = put16(b, at, ETH_P_ARP);
		memcpy(b + at, (const uint8_t[]){ 0, 1, 8, 0, 6, 4, 0, 1 }, 8);
		memcpy(b + at + 8, src, 6);
		memcpy(b + at + 14, (const uint8_t[]){ 192, 0, 2, src[5] }, 4);
		memcpy(b + at + 18, zero, 6);
		memcpy(b + at + 24, (const uint8_t[]){ 192, 0, 2, dst[5] }, 4);
		at += 28;
		break;
	case NEIGHBOUR:
		at = put16(b, at, ETH_P_IPV6);
		icmp[0] = 135;
		memcpy(icmp + 8, (const uint8_t[]){ 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe }, 13);
		memcpy(icmp + 21, dst + 3, 3);
		group[11] = 1;
		group[12] = 0xff;
		memcpy(group + 13, dst + 3, 3);
		at = put_ip6(b, at, src, group, icmp, 24);
		break;
	case ROUTER:
		at = put16(b, at, ETH_P_IPV6);
		icmp[0] = 134;
		icmp[4] = 64;
		icmp[6] = 7; /* a default router for 1800 s */
		icmp[7] = 8;
		group[15] = 1;
		at = put_ip6(b, at, src, group, icmp, 16);
		break;
	default:
		at = put16(b, at, 0x88b5); /* for experiments */
	}
	memcpy(b + at, MAGIC, sizeof(MAGIC) - 1);
	at += sizeof(MAGIC) - 1;
	memcpy(b + at, &id, sizeof(id));
	at += sizeof(id);
	if (at < 90) {
		memset(b + at, 0, 90 - at);
		at = 90;
	}
	return at;
}

static void send_frame(struct proof *p, enum kind kind, unsigned src, unsigned dst, const struct tag *tags, unsigned n)
{
	const struct end *e = &p->end[src];
	struct sent *s = &run.sent[run.n];
	unsigned mac = kind == FORGED ? dst : src, len;
	uint8_t b[256] = { 0 };

	g_assert_cmpuint(run.n, <, BATCH_MAX);
	memset(s, 0, sizeof(*s));
	s->src = src;
	s->dst = dst;
	s->kind = kind;
	s->n = n;
	memcpy(s->tags, tags, n * sizeof(*tags));
	judge(p, s, mac, kind == UNICAST);
	len = make_frame(b + HDR, s, p->end[mac].mac, p->end[dst].mac, run.first + run.n);
	run.n++;
	p->frames++;
	if (e->wire)
		g_assert_cmpint(send(e->fd, b + HDR, len, 0), ==, len);
	else
		g_assert_cmpint(write(e->fd, b, HDR + len), ==, HDR + len);
}

/* ---- what arrives ---- */

static int read_frame(const struct end *e, uint8_t *b, size_t cap, struct tag *tags, unsigned *n, unsigned *len)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
	} control;
	struct iovec iov = { b, cap };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t r = e->wire ? recvmsg(e->fd, &m, MSG_DONTWAIT) : read(e->fd, b, cap);
	unsigned at = 12;

	if (r < 0 && errno == EAGAIN)
		return 0;
	g_assert_cmpint(r, >, 0);
	*n = 0;
	*len = (unsigned)r;
	if (!e->wire) {
		*len -= HDR;
		memmove(b, b + HDR, *len);
	} else {
		/* The kernel has taken the outer tag off and tells it apart. */
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
			const struct tpacket_auxdata *a = (const void *)CMSG_DATA(c);

			if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA && a->tp_status & TP_STATUS_VLAN_VALID)
				tags[(*n)++] = (struct tag){ a->tp_status & TP_STATUS_VLAN_TPID_VALID ? a->tp_vlan_tpid : ETH_P_8021Q,
							     a->tp_vlan_tci & 0xfff };
		}
	}
	while (at + 4 <= *len && *n < TAGS_MAX) {
		uint16_t type = (uint16_t)(b[at] << 8 | b[at + 1]);

		if (type != ETH_P_8021Q && type != ETH_P_8021AD)
			break;
		tags[(*n)++] = (struct tag){ type, (uint16_t)((b[at + 2] << 8 | b[at + 3]) & 0xfff) };
		at += 4;
	}
	return 1;
}

static void text_tags(const struct tag *t, unsigned n, char out[80])
{
	unsigned k = 0;

	out[0] = '\0';
	for (unsigned i = 0; i < n; i++)
		k += (unsigned)g_snprintf(out + k, 80 - k, "[%s%u]", t[i].proto == ETH_P_8021AD ? "s" : "", t[i].id);
}

static void mistake(struct proof *p, const struct sent *s, unsigned at, const char *what, const struct tag *t, unsigned n)
{
	char sent[80], got[80];

	p->wrong++;
	if (p->quiet || p->wrong > 12)
		return;
	text_tags(s->tags, s->n, sent);
	text_tags(t, n, got);
	g_test_message("%s: %s %s from %u (VLAN %u) to %u (VLAN %u), at %u (VLAN %u) with tags %s", what, kind_name[s->kind], sent, s->src,
		       p->end[s->src].home, s->dst, p->end[s->dst].home, at, p->end[at].home, got[0] ? got : "none");
}

static void drain(struct proof *p, unsigned d)
{
	const struct end *e = &p->end[d];
	struct tag tags[TAGS_MAX];
	unsigned n, len;
	uint8_t b[2048];
	uint32_t id;

	while (read_frame(e, b, sizeof(b), tags, &n, &len)) {
		const uint8_t *m = memmem(b, len, MAGIC, sizeof(MAGIC) - 1);
		struct sent *s;

		if (!m || m + sizeof(MAGIC) - 1 + 4 > b + len)
			continue; /* the kernel's own */
		memcpy(&id, m + sizeof(MAGIC) - 1, 4);
		p->deliveries++;
		if (id - run.first >= run.n) {
			p->wrong++;
			continue; /* of a batch before: too late, or another's */
		}
		s = &run.sent[id - run.first];
		if (!(s->may >> d & 1))
			mistake(p, s, d, "a frame arrived that may not", tags, n);
		else if (s->got >> d & 1)
			mistake(p, s, d, "a frame arrived twice", tags, n);
		else if (n != s->want[d].n || memcmp(tags, s->want[d].tags, n * sizeof(*tags)))
			mistake(p, s, d, "a frame arrived with other tags", tags, n);
		s->got |= UINT64_C(1) << d;
	}
}

static void tag_home(const struct proof *p, const struct end *e, struct tag *t, unsigned *n)
{
	if (!e->pvid)
		t[(*n)++] = (struct tag){ p->proto, e->home };
}

/* A frame that is allowed, behind the others on the same way: when it has arrived, they have or never will. */
static void finish_batch(struct proof *p, unsigned src)
{
	/* With a mistake planted it may well be lost. */
	gint64 limit = g_get_monotonic_time() + (p->quiet ? 2 : 20) * G_USEC_PER_SEC;
	struct sent *s = &run.sent[run.n];
	struct tag t[1];
	unsigned n = 0;

	tag_home(p, &p->end[src], t, &n);
	send_frame(p, HELLO, src, src, t, n);
	do {
		for (unsigned d = 0; d < p->n; d++)
			drain(p, d);
		if ((s->got & s->may) != s->may)
			poll(NULL, 0, 1);
	} while ((s->got & s->may) != s->may && g_get_monotonic_time() < limit);
	for (unsigned d = 0; d < p->n; d++)
		drain(p, d);
	for (unsigned i = 0; i < run.n; i++)
		for (unsigned d = 0; d < p->n; d++)
			if (run.sent[i].may >> d & ~(run.sent[i].got >> d) & 1)
				mistake(p, &run.sent[i], d, "a frame did not arrive that may", NULL, 0);
	run.first += run.n;
	run.n = 0;
}

static void send_pair(struct proof *p, unsigned a, unsigned b)
{
	const struct end *src = &p->end[a];
	uint16_t own = src->home, other = p->end[b].home;
	uint16_t foreign = p->proto == ETH_P_8021Q ? ETH_P_8021AD : ETH_P_8021Q;
	struct tag t[TAGS_MAX];

#define SEND(kind, ...) \
	do { \
		const struct tag v[] = { __VA_ARGS__ }; \
		send_frame(p, kind, a, b, v, sizeof(v) / sizeof(v[0])); \
	} while (0)
	for (enum kind k = UNICAST; k <= FORGED; k++) {
		unsigned n = 0;

		if (k == FORGED && p->plain_only)
			continue;
		tag_home(p, src, t, &n);
		send_frame(p, k, a, b, t, n);
	}
	SEND(TAGGED, { p->proto, other });
	SEND(DOUBLE_OWN, { p->proto, own }, { p->proto, other });
	SEND(DOUBLE_OTHER, { p->proto, other }, { p->proto, own });
	SEND(DOUBLE_SAME, { p->proto, other }, { p->proto, other });
	SEND(PRIORITY, { p->proto, 0 });
	SEND(PRIORITY_TAGGED, { p->proto, 0 }, { p->proto, other });
	SEND(VLAN_1, { p->proto, 1 });
	SEND(VLAN_1_INNER, { p->proto, 1 }, { p->proto, other });
	SEND(VLAN_4095, { p->proto, 4095 });
	SEND(OTHER_PROTO, { foreign, other });
	/* A frame without a tag, and none of its own: what a native VLAN would be. */
	if (!src->pvid)
		send_frame(p, BROADCAST, a, b, t, 0);
}

unsigned proof_run(struct proof *p, unsigned step)
{
	unsigned pair = 0;

	memset(run.fdb, -1, sizeof(run.fdb));
	run.n = 0;
	/* Everybody in each of his VLANs, so that all addresses are known. */
	for (unsigned a = 0; a < p->n; a++) {
		for (unsigned id = 1; id < 4095; id++) {
			struct tag t = { p->proto, (uint16_t)id };

			if (p->end[a].member[id])
				send_frame(p, HELLO, a, a, &t, p->end[a].pvid == id ? 0 : 1);
		}
		finish_batch(p, a);
	}
	for (unsigned a = 0; a < p->n; a++) {
		for (unsigned b = 0; b < p->n; b++) {
			if (a == b || pair++ % step)
				continue;
			send_pair(p, a, b);
			if (run.n > BATCH_MAX - KINDS - 3)
				finish_batch(p, a);
		}
		finish_batch(p, a);
		if (p->quiet && p->wrong)
			break;
	}
	return p->wrong;
}
