/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Making and removing a bridge. It is made under a random name and tagged in the same batch, so that there is never an
 * untagged one of ours that could be taken for somebody's, and then gets its name and goes up in one step.
 */
#include "bridgedev.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "brvlan.h"
#include "hash.h"
#include "plugin.h"
#include "tag.h"

void bridgedev_tmp_name(char tmp[16])
{
	uint8_t r[6] = { 0 };

	if (getrandom(r, sizeof(r), GRND_NONBLOCK) != sizeof(r)) {
		uint64_t mix = (uint64_t)getpid() * UINT64_C(0x9e3779b97f4a7c15) ^ (uintptr_t)tmp;

		memcpy(r, &mix, sizeof(r));
	}
	snprintf(tmp, 16, "vhb%02x%02x%02x%02x%02x%02x", r[0], r[1], r[2], r[3], r[4], r[5]);
}

/* The same on this host whenever a bridge of this name is made, another one on other hosts. */
void bridgedev_mac(const char *name, uint8_t mac[6])
{
	uint64_t h = HASH64;
	char id[64];
	ssize_t n = 0;
	int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		n = read(fd, id, sizeof(id));
		close(fd);
	}
	if (n > 0)
		h = hash64(h, id, (size_t)n);
	h = hash64(h, name, strlen(name));
	h ^= h >> 33;
	h *= UINT64_C(0xff51afd7ed558ccd);
	h ^= h >> 33;
	mac[0] = 0x02;
	for (int i = 1; i < 6; i++)
		mac[i] = (uint8_t)(h >> (8 * i));
}

static int explain(struct nl *nl, int r, const struct bridgedev_want *w, const char *what, struct vh_err *e)
{
	if (r == -EOPNOTSUPP && w->proto) /* a kernel whose bridges filter no VLANs: what to do then is for the caller to say */
		return r;
	if (r == -EPERM || r == -EACCES)
		net_host->remedy(e, "run as root, or give the program CAP_NET_ADMIN");
	else if (r == -EOPNOTSUPP)
		net_host->remedy(e, "load the module with 'modprobe bridge'");
	return net_host->err(e, r, "cannot %s bridge %s: %s", what, w->name, nl->text[0] ? nl->text : strerror(-r));
}

static void put_address(struct nl *nl, uint16_t type, const struct bridgedev_want *w, int ifindex)
{
	nl_addr(nl, type, w->address.family, w->address.addr, w->address.prefix, ifindex);
}

int bridgedev_add_address(struct nl *nl, const struct bridgedev_want *w, int ifindex, int *added, struct vh_err *e)
{
	int r;

	put_address(nl, RTM_NEWADDR, w, ifindex);
	r = nl_commit(nl);
	*added = r != -EEXIST; /* also when its answer was lost */
	return !r || r == -EEXIST ? 0 : explain(nl, r, w, "give an address to", e);
}

void bridgedev_drop_address(struct nl *nl, const struct bridgedev_want *w, int ifindex)
{
	put_address(nl, RTM_DELADDR, w, ifindex);
	nl_commit(nl);
}

/* Without the kernel's word for it (before Linux 5.5) the long name is left out. */
void bridgedev_want_mac(const struct bridgedev_want *w, uint8_t mac[6])
{
	static const uint8_t none[6];

	if (memcmp(w->mac, none, sizeof(none)))
		memcpy(mac, w->mac, 6);
	else
		bridgedev_mac(w->name, mac);
}

int bridgedev_make(struct nl *nl, const struct bridgedev_want *w, const char *tmp, struct nl_link *out, struct vh_err *e)
{
	size_t info, data, spec, inet6;
	uint8_t mac[6];
	int r;

	bridgedev_want_mac(w, mac);
	nl_link_begin(nl, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, AF_UNSPEC, 0, tmp, -1);
	nl_put(nl, IFLA_ADDRESS, mac, sizeof(mac));
	if (w->mtu)
		nl_put_u32(nl, IFLA_MTU, w->mtu);
	info = nl_nest(nl, IFLA_LINKINFO);
	nl_put_str(nl, IFLA_INFO_KIND, "bridge");
	data = nl_nest(nl, IFLA_INFO_DATA);
	nl_put_u32(nl, IFLA_BR_FORWARD_DELAY, 0);
	nl_put_u32(nl, IFLA_BR_STP_STATE, 0);
	if (w->proto) {
		nl_put_u16(nl, IFLA_BR_VLAN_PROTOCOL, htons(w->proto));
		nl_put_u16(nl, IFLA_BR_VLAN_DEFAULT_PVID, w->pvid);
		nl_put_u8(nl, IFLA_BR_VLAN_FILTERING, 1);
	}
	nl_nest_end(nl, data);
	nl_nest_end(nl, info);
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, 0, tmp, -1);
	nl_put_str(nl, IFLA_IFALIAS, w->owner);
	if (w->no_addrgen) {
		spec = nl_nest(nl, IFLA_AF_SPEC);
		inet6 = nl_nest(nl, AF_INET6);
		nl_put_u8(nl, IFLA_INET6_ADDR_GEN_MODE, 1); /* IN6_ADDR_GEN_MODE_NONE */
		nl_nest_end(nl, inet6);
		nl_nest_end(nl, spec);
	}
	if (w->mark)
		nl_altname(nl, 0, tmp, w->mark);
	if (w->altname)
		nl_altname(nl, 0, tmp, w->altname);
	r = nl_commit(nl);
	if (r < 0) {
		r = explain(nl, r, w, "make", e);
		goto undo;
	}
	r = nl_link_get(nl, 0, tmp, out);
	if (r < 0) {
		r = explain(nl, r, w, "find the new", e);
		goto undo;
	}
	/* Named before it is given an address, so that hooks of the host see its real name first. */
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, out->ifindex, w->name, -1);
	r = nl_commit(nl);
	if (r < 0) {
		r = explain(nl, r, w, "name the new", e);
		goto undo;
	}
	if (w->address.family)
		put_address(nl, RTM_NEWADDR, w, out->ifindex);
	if (w->pvid && out->filtering)
		brvlan_put_one(nl, RTM_DELLINK, out->ifindex, BRVLAN_SELF, w->pvid);
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, out->ifindex, NULL, 1);
	r = nl_commit(nl);
	if (r < 0) {
		r = explain(nl, r, w, "set up", e);
		goto undo;
	}
	snprintf(out->name, sizeof(out->name), "%s", w->name);
	return 0;
undo:
	/* An answer may have been lost: by the number where it is known, else by the name that nobody else has. */
	nl_link_delete(nl, out->ifindex, out->ifindex ? NULL : tmp);
	out->ifindex = 0;
	return r;
}

struct ports {
	int master;
	unsigned n;
};

static void count_port(void *ctx, const struct nl_link *l)
{
	struct ports *p = ctx;

	p->n += l->master == p->master;
}

int bridgedev_remove_unused(struct nl *nl, int ifindex, const char *held)
{
	struct ports p = { .master = ifindex };
	struct nl_link l;
	int r = nl_link_get(nl, ifindex, NULL, &l);

	if (r == -ENODEV)
		return 0;
	if (r < 0)
		return r;
	if (strcmp(l.kind, "bridge") || !tag_removable(l.alias, held))
		return 0;
	for (int tries = 0; tries < 20; tries++) {
		p.n = 0;
		r = nl_link_dump(nl, ifindex, count_port, &p);
		if (r != -EAGAIN)
			break;
	}
	if (r < 0 || p.n)
		return r;
	r = nl_link_delete(nl, ifindex, NULL);
	return r < 0 ? r : 1;
}
