/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "brport.h"

#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "plugin.h"

void brport_mac(const uint8_t guest[6], uint8_t mac[6])
{
	memcpy(mac, guest, 6);
	mac[0] = guest[0] == 0xfe ? 0xfa : 0xfe;
}

static void put_isolated(struct nl *nl, int ifindex)
{
	size_t a, b;

	nl_link_begin(nl, RTM_NEWLINK, 0, AF_UNSPEC, ifindex, NULL, -1);
	a = nl_nest(nl, IFLA_LINKINFO);
	nl_put_str(nl, IFLA_INFO_SLAVE_KIND, "bridge");
	b = nl_nest(nl, IFLA_INFO_SLAVE_DATA);
	nl_put_u8(nl, IFLA_BRPORT_ISOLATED, 1);
	nl_nest_end(nl, b);
	nl_nest_end(nl, a);
}

int brport_attach(struct nl *nl, const struct tap *tap, const struct brport_want *w, const struct nl_link *br,
		  struct vh_net_info *info, struct vh_err *e)
{
	unsigned isolated = 0;
	struct ifreq ifr = { 0 };
	uint8_t mac[6];
	int i, r;

	memcpy(ifr.ifr_name, tap->ifname, IFNAMSIZ);
	if (ioctl(nl->fd, SIOCGIFINDEX, &ifr) < 0)
		return net_host->err(e, -errno, "tap %s vanished: %s", tap->ifname, strerror(errno));
	i = ifr.ifr_ifindex;
	info->ifindex = (uint32_t)i;
	info->mtu = w->mtu ? w->mtu : br->mtu;
	brport_mac(w->guest_mac, mac);
	nl_link_no_ipv6(nl, i);
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, i, NULL, -1);
	nl_put(nl, IFLA_ADDRESS, mac, sizeof(mac));
	nl_put_u32(nl, IFLA_MTU, info->mtu);
	nl_put_str(nl, IFLA_IFALIAS, w->owner);
	nl_put_u32(nl, IFLA_MASTER, (uint32_t)br->ifindex);
	if (w->isolated) {
		isolated = nl->n;
		put_isolated(nl, i);
	}
	if (w->extra)
		w->extra(nl, i, w->ctx);
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, i, NULL, 1);
	r = nl_commit_but_first(nl);
	if (!r) {
		info->path = VH_NET_PATH_TAP;
		memcpy(info->ifname, tap->ifname, sizeof(info->ifname));
		info->pairs = tap->n;
		info->vnet_hdr = 12;
		info->offload = tap_probe_offload(tap);
		memcpy(info->mac, w->guest_mac, sizeof(info->mac));
		info->link = 1;
		return 0;
	}
	if (r == -EPERM)
		net_host->remedy(e, "run as root, or give the program CAP_NET_ADMIN");
	if (isolated && nl->result[isolated] && !nl->result[1])
		return net_host->err(e, r, "cannot isolate %s on bridge %s: %s", tap->ifname, br->name,
				     nl->text[0] ? nl->text : strerror(-r));
	return net_host->err(e, r, "cannot attach %s with MTU %u to bridge %s: %s", tap->ifname, info->mtu, br->name,
			     nl->text[0] ? nl->text : strerror(-r));
}

int brport_again(struct nl *nl, const struct vh_net_info *info, const struct brport_want *w, const struct nl_link *br, struct vh_err *e)
{
	int i = (int)info->ifindex, r;
	char why[128];

	/* Down, so that it passes nothing before it is what it shall be. */
	if (w->isolated || w->extra)
		nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, i, NULL, 0);
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, i, NULL, -1);
	nl_put_u32(nl, IFLA_MASTER, (uint32_t)br->ifindex);
	if (w->isolated)
		put_isolated(nl, i);
	if (w->extra)
		w->extra(nl, i, w->ctx);
	if (info->link && (w->isolated || w->extra))
		nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, i, NULL, 1);
	r = nl_commit(nl);
	if (!r)
		return 0;
	snprintf(why, sizeof(why), "%s", nl->text[0] ? nl->text : strerror(-r));
	/* The requests behind one that failed have been done all the same. */
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, i, NULL, -1);
	nl_put_u32(nl, IFLA_MASTER, 0);
	nl_commit(nl);
	return net_host->err(e, r, "cannot attach %s to bridge %s again: %s", info->ifname, br->name, why);
}
