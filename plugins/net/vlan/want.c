/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Options, and the names that follow from them. */
#include "vlan.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/sugar.h>

#include "hash.h"
#include "journal.h"
#include "plugin.h"

static int check_id(const char *what, int64_t id, struct vh_err *e)
{
	if (id >= 1 && id <= VLAN_ID_MAX)
		return 0;
	net_host->remedy(e, "use 1 to 4094");
	if (!id)
		return net_host->err(e, -ERANGE, "%s 0 is no VLAN: a tag with 0 carries only a priority", what);
	if (id == 4095)
		return net_host->err(e, -ERANGE, "%s 4095 is reserved by IEEE 802.1Q and never on a wire", what);
	return net_host->err(e, -ERANGE, "%s %lld is no VLAN: a tag has 12 bits for it", what, (long long)id);
}

/* A number of at most 6 digits. */
static const char *number(const char *s, int64_t *out)
{
	const char *p = s;

	for (*out = 0; *p >= '0' && *p <= '9' && p - s < 6; p++)
		*out = *out * 10 + *p - '0';
	return p == s ? NULL : p;
}

/* "10-20:30"; a comma (doubled on the command line) does as well. */
static int parse_trunk(const char *text, struct vlan_set *out, struct vh_err *e)
{
	int64_t a, b;
	int r;

	for (const char *p = text;; p++) {
		p = number(p, &a);
		b = a;
		if (p && *p == '-')
			p = number(p + 1, &b);
		if (!p || (*p && *p != ':' && *p != ',')) {
			net_host->remedy(e, "write ids and ranges with colons between, as 10-20:30");
			return net_host->err(e, -EINVAL, "trunk '%s' is no list of VLANs", text);
		}
		r = check_id("trunk id", a, e);
		r = r ? r : check_id("trunk id", b, e);
		if (r)
			return r;
		if (a > b) {
			net_host->remedy(e, "write it as %lld-%lld", (long long)b, (long long)a);
			return net_host->err(e, -EINVAL, "trunk range %lld-%lld is backwards", (long long)a, (long long)b);
		}
		for (int64_t i = a; i <= b; i++)
			vlan_add(out, (unsigned)i);
		if (!*p)
			return 0;
	}
}

static unsigned hash(const char *s)
{
	unsigned h = hash32(HASH32, s, strlen(s));

	return h ^ h >> 15;
}

/* A long name's first characters and a hash of all of it. */
static void shorten(const char *name, const char *tail, char out[16])
{
	snprintf(out, 16, "%.*s~%03x%s", (int)(11 - strlen(tail)), name, hash(name) & 0xfff, tail);
}

void vlan_dev_name(const struct vlan_want *w, unsigned tries, char out[16], char full[32])
{
	char tail[8];

	snprintf(tail, sizeof(tail), ".%u", w->id);
	snprintf(full, 32, "%s%s", w->uplink, tail);
	if (strlen(full) < 16 && !tries)
		snprintf(out, 16, "%.15s", full);
	else
		shorten(w->proto == ETH_P_8021AD ? w->dev_mark : full, tail, out);
}

const char *vlan_called(const struct vlan_want *w, char *out, size_t cap)
{
	if (w->id)
		snprintf(out, cap, "%s %u of %s", w->proto == ETH_P_8021AD ? "service VLAN" : "VLAN", w->id, w->uplink);
	else
		snprintf(out, cap, "a trunk on %s", w->uplink);
	return out;
}

static int bridge_name(const char *name, struct vlan_want *w, struct vh_err *e)
{
	if (!name && w->filter) {
		char full[32];

		snprintf(full, sizeof(full), "br-%s", w->uplink);
		if (strlen(full) < 16) {
			snprintf(w->bridge, sizeof(w->bridge), "%.15s", full);
		} else {
			shorten(full, "", w->bridge);
			snprintf(w->altname, sizeof(w->altname), "%s", full);
		}
		return 0;
	}
	if (!name) {
		snprintf(w->bridge, sizeof(w->bridge), "brvlan%u", w->id);
		return 0;
	}
	w->named = 1;
	/* The rules of short names hold for long ones too. */
	if (!*name || strlen(name) >= sizeof(w->altname) || strpbrk(name, "/%: \t\n") || !strcmp(name, ".") || !strcmp(name, "..") ||
	    !strncmp(name, "vhost.", 6)) {
		net_host->remedy(e, "use at most 63 letters, digits, '-', '_' and '.'");
		return net_host->err(e, -EINVAL, "'%s' cannot be the name of a bridge", name);
	}
	if (strlen(name) < sizeof(w->bridge)) {
		snprintf(w->bridge, sizeof(w->bridge), "%.15s", name);
	} else {
		shorten(name, "", w->bridge);
		snprintf(w->altname, sizeof(w->altname), "%s", name);
	}
	return 0;
}

static int port_options(const struct vh_net_open *o, struct vlan_want *w, struct vh_err *e)
{
	const char *trunk = vh_opt_str(o->opts, "trunk", NULL);
	int64_t native = vh_opt_num(o->opts, "native", INT64_MIN);
	int r;

	if (!journal_owner_ok(o->owner))
		return net_host->err(e, -EINVAL, "the host gave the owner tag '%s'", o->owner ? o->owner : "");
	if (o->ifname && (tap_name_check(o->ifname) || !strcmp(o->ifname, w->bridge) || !strcmp(o->ifname, w->uplink))) {
		net_host->remedy(e, "choose another ifname, or leave it out");
		return net_host->err(e, -EINVAL, "'%s' cannot be the name of the tap", o->ifname);
	}
	w->isolated = vh_opt_num(o->opts, "isolated", 0) != 0;
	w->mtu = o->mtu;
	w->owner = o->owner;
	if (!trunk && native != INT64_MIN) {
		net_host->remedy(e, "say id=%lld, or add trunk=", (long long)native);
		return net_host->err(e, -EINVAL, "native= is for trunks");
	}
	if (!trunk && !w->id) {
		net_host->remedy(e, "add id=10, or trunk=10-20:30 for a guest that tags its frames itself");
		return net_host->err(e, -EINVAL, "no VLAN is given");
	}
	if (!trunk) {
		w->native = w->id;
		vlan_add(&w->ids, w->id);
		return 0;
	}
	if (w->id) {
		net_host->remedy(e, "leave out id=, or use a network without one");
		return net_host->err(e, -EINVAL, "trunk= is for networks of all VLANs, but this one is VLAN %u", w->id);
	}
	if (!w->filter) {
		net_host->remedy(e, "add mode=filter");
		return net_host->err(e, -EINVAL, "trunks are made by mode=filter only: a bridge of one VLAN has no other");
	}
	r = parse_trunk(trunk, &w->tagged, e);
	if (!r && native != INT64_MIN)
		r = check_id("native", native, e);
	if (r < 0)
		return r;
	w->trunk = 1;
	w->ids = w->tagged;
	if (native > 0) {
		w->native = (uint16_t)native;
		vlan_add(&w->ids, w->native);
		vlan_del(&w->tagged, w->native);
	}
	return 0;
}

int vlan_want(const struct vh_opts *opts, const struct vh_net_open *o, struct vlan_want *w, struct vh_err *e)
{
	const char *uplink = vh_opt_str(opts, "uplink", NULL);
	int64_t id = vh_opt_num(opts, "id", INT64_MIN);
	int r;

	memset(w, 0, sizeof(*w));
	if (o && (o->flags & VH_MUST_UNDERSTAND) & ~VH_NET_OPEN_DRY_RUN)
		return net_host->err(e, -EOPNOTSUPP, "a flag of this open is unknown to this plugin");
	if (!uplink || tap_name_check(uplink)) {
		net_host->remedy(e, "name an interface of the host, of at most 15 characters");
		return net_host->err(e, -EINVAL, "'%s' cannot be the name of the uplink", uplink ? uplink : "");
	}
	snprintf(w->uplink, sizeof(w->uplink), "%s", uplink);
	r = id == INT64_MIN ? 0 : check_id("id", id, e);
	if (r < 0)
		return r;
	w->id = id > 0 ? (uint16_t)id : 0;
	w->filter = vh_opt_num(opts, "mode", 0) == 1;
	w->proto = vh_opt_num(opts, "protocol", 0) == 1 ? ETH_P_8021AD : ETH_P_8021Q;
	r = bridge_name(vh_opt_str(opts, "bridge", NULL), w, e);
	if (!r && o)
		r = port_options(o, w, e);
	if (r < 0)
		return r;
	if (!w->id && !w->filter) {
		net_host->remedy(e, "add id=10, or mode=filter for a network of all VLANs");
		return net_host->err(e, -EINVAL, "no VLAN is given");
	}
	if (w->filter) {
		snprintf(w->bridge_mark, sizeof(w->bridge_mark), "vhost.trunk.%s", w->uplink);
		return 0;
	}
	snprintf(w->bridge_mark, sizeof(w->bridge_mark), "vhost.%svlan.%s.%u", w->proto == ETH_P_8021AD ? "s" : "", w->uplink, w->id);
	snprintf(w->dev_mark, sizeof(w->dev_mark), "vhost.%sdev.%s.%u", w->proto == ETH_P_8021AD ? "s" : "", w->uplink, w->id);
	return 0;
}
