/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The VLANs of a bridge's ports, and of the bridge itself. */
#ifndef NET_COMMON_BRVLAN_H
#define NET_COMMON_BRVLAN_H

#include "nl.h"

#define VLAN_ID_MAX 4094u

struct vlan_set {
	uint64_t w[64];
};

static inline int vlan_has(const struct vlan_set *s, unsigned id)
{
	return s->w[id / 64] >> (id % 64) & 1;
}

static inline void vlan_add(struct vlan_set *s, unsigned id)
{
	s->w[id / 64] |= UINT64_C(1) << (id % 64);
}

static inline void vlan_del(struct vlan_set *s, unsigned id)
{
	s->w[id / 64] &= ~(UINT64_C(1) << (id % 64));
}

/* The first range at or behind *from: its first and last id; 0: there is none. *from goes on. */
int vlan_range(const struct vlan_set *s, unsigned *from, unsigned *first, unsigned *last);
/* "10-20, 30", cut with "..." where it does not fit. */
const char *vlan_text(const struct vlan_set *s, char *out, size_t cap);

#define BRVLAN_SELF 0x1u     /* of the bridge itself, not of a port */
#define BRVLAN_UNTAGGED 0x2u /* its frames leave without a tag, and those without one are of it (one id only) */
/* Adds (RTM_SETLINK) or takes away (RTM_DELLINK) ids, as one request of a batch. At most BRVLAN_RANGES ranges from *from on, which
 * goes on; 1: there are more. */
#define BRVLAN_RANGES 200u
int brvlan_put(struct nl *nl, uint16_t type, int ifindex, const struct vlan_set *s, unsigned *from);
void brvlan_put_one(struct nl *nl, uint16_t type, int ifindex, unsigned flags, uint16_t id);
/* All of a set, in as many batches as it takes. */
int brvlan_change(struct nl *nl, uint16_t type, int ifindex, const struct vlan_set *s);

/* What a port has, or the bridge itself: then ifindex is master. */
struct brvlan_port {
	int ifindex, master;
	uint16_t pvid; /* 0: none */
	struct vlan_set all, untagged;
};
/* Every port of every bridge (bridge 0), or of one. -EAGAIN as with nl_link_dump. */
int brvlan_dump(struct nl *nl, int bridge, void (*fn)(void *ctx, const struct brvlan_port *p), void *ctx);
/* The ids that the ports of a bridge but this one use. Tries again while they change. */
int brvlan_used(struct nl *nl, int bridge, int but, struct vlan_set *used, struct vlan_set *has);
/* Takes those from the uplink that no other port uses. */
int brvlan_prune(struct nl *nl, int bridge, int uplink);

#endif
