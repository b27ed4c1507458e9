/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What the guest wants to receive. The kernel hands a macvtap unicast frames to its MAC address, and multicast frames only
 * to addresses that it was told (IPv6 neighbour discovery is such). Further unicast addresses and promiscuous mode it does
 * not have, except in mode passthru, where everything arrives. Hostile: the addresses are the guest's.
 */
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include "fault.h"
#include "macvtap.h"
#include "plugin.h"
#include "told.h"

static int in(const uint8_t mac[6], const uint8_t (*table)[6], unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!memcmp(mac, table[i], 6))
			return 1;
	return 0;
}

static int multicast(struct nl *nl, unsigned long request, const char *name, const uint8_t mac[6])
{
	struct ifreq ifr = { 0 };
	int r = NET_FAULT("multicast");

	memcpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	ifr.ifr_hwaddr.sa_family = AF_UNSPEC;
	memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
	if (!r && ioctl(nl->fd, request, &ifr) < 0)
		r = -errno;
	return r;
}

/* 1: not all of them could be, so all multicast frames must pass. */
static int add_missing(struct nl *nl, struct macvtap_port *p, const struct vh_net_filter *f, const char *name)
{
	for (uint32_t i = 0; i < f->n_multicast; i++) {
		const uint8_t *mac = f->multicast[i];

		if (!(mac[0] & 1) || in(mac, p->multicast, p->n_multicast))
			continue;
		if (p->n_multicast == sizeof(p->multicast) / 6 || multicast(nl, SIOCADDMULTI, name, mac) < 0)
			return 1;
		memcpy(p->multicast[p->n_multicast++], mac, 6);
	}
	return 0;
}

/* One that stays although it should go is only received, and dropped behind the port. */
static void drop_others(struct nl *nl, struct macvtap_port *p, const struct vh_net_filter *f, unsigned wanted, const char *name)
{
	for (unsigned i = 0; i < p->n_multicast;) {
		if (in(p->multicast[i], f->multicast, wanted) || multicast(nl, SIOCDELMULTI, name, p->multicast[i]) < 0)
			i++;
		else
			memmove(p->multicast[i], p->multicast[--p->n_multicast], 6);
	}
}

static int set_link_parts(struct nl *nl, struct macvtap_port *p, const uint8_t *mac, int allmulti, struct vh_err *e)
{
	int moved = mac && memcmp(mac, p->mac, 6), r;

	if (!moved && allmulti == p->allmulti)
		return 0;
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, (int)p->t.info.ifindex, NULL, -1);
	if (moved)
		nl_put(nl, IFLA_ADDRESS, mac, 6);
	nl_link_flags(nl, allmulti ? IFF_ALLMULTI : 0, IFF_ALLMULTI);
	r = nl_commit(nl);
	if (!r) {
		if (moved)
			memcpy(p->mac, mac, 6);
		p->allmulti = allmulti;
		return 0;
	}
	if (moved && r == -EADDRINUSE)
		return net_host->err(e, r, "the guest's new MAC address %02x:%02x:%02x:%02x:%02x:%02x is in use on the uplink of %s",
				     mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], p->t.tap.ifname);
	return net_host->err(e, r, "cannot set what %s receives: %s", p->t.tap.ifname, nl->text[0] ? nl->text : strerror(-r));
}

int filter_set(struct macvtap_port *p, const struct vh_net_filter *f, struct vh_err *e)
{
	int all = (f->mode & (VH_NET_RX_PROMISC | VH_NET_RX_ALLMULTI)) != 0, none = (f->mode & VH_NET_RX_NOMULTI) && !all, r;
	const uint8_t *mac = f->size >= offsetof(struct vh_net_filter, mac) + 6 && !(f->mac[0] & 1) ? f->mac : NULL;
	static const uint8_t zero[6];
	struct ifreq ifr = { 0 };
	struct nl nl;

	if (mac && !memcmp(mac, zero, 6))
		mac = NULL;
	r = told_nl(&nl, e);
	if (r < 0)
		return r;
	ifr.ifr_ifindex = (int)p->t.info.ifindex; /* it may have been renamed */
	if (ioctl(nl.fd, SIOCGIFNAME, &ifr) < 0) {
		r = net_host->err(e, -errno, "macvtap %s is gone: %s", p->t.tap.ifname, strerror(errno));
		goto out;
	}
	if (!all && !none)
		all = f->n_multicast > FILTER_MAX || add_missing(&nl, p, f, ifr.ifr_name);
	r = set_link_parts(&nl, p, mac, all, e);
	if (!r)
		drop_others(&nl, p, f, all || none ? 0 : f->n_multicast, ifr.ifr_name);
out:
	nl_release(&nl);
	return r;
}
