/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Net backend "vlan": a tap in a VLAN of an uplink, or a trunk of several. */
#include "vlan.h"

#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vhost/sugar.h>

#include "brport.h"
#include "journal.h"
#include "plugin.h"
#include "told.h"

const struct vh_host *net_host;

static int vlan_plan(const struct vh_net_open *o, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct plan p = { fn, ctx };
	struct vlan_shared s;
	struct vlan_want w;
	char ids[160], native[32] = "";
	uint8_t mac[6];
	struct nl nl;
	int r = vlan_want(o->opts, o, &w, e);

	if (r < 0)
		return r;
	r = told_nl(&nl, e);
	if (r < 0)
		return r;
	r = shared_find(&nl, &w, &s, e);
	if (!r)
		r = shared_check(&nl, &w, &s, e);
	nl_release(&nl);
	if (r < 0)
		return r;
	shared_plan(&p, &w, &s);
	brport_mac(o->mac, mac);
	step(&p, "create tap %s, %u queue pair%s", o->ifname ? o->ifname : "vnetN", o->pairs, o->pairs == 1 ? "" : "s");
	step(&p, "set its MAC to %02x:%02x:%02x:%02x:%02x:%02x and its MTU to %u", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5],
	     w.mtu ? w.mtu : shared_mtu(&w, &s));
	step(&p, "attach it to bridge %s%s", s.bridge.name, w.isolated ? ", isolated from other isolated ports" : "");
	if (w.trunk) {
		snprintf(native, sizeof(native), w.native ? ", and VLAN %u untagged" : "", w.native);
		step(&p, "give it the VLANs %s tagged%s", vlan_text(&w.tagged, ids, sizeof(ids)), native);
	} else {
		step(&p, "give it VLAN %u untagged", w.id);
	}
	if (w.filter)
		step(&p, "let uplink %s carry VLAN %s tagged", w.uplink, vlan_text(&w.ids, ids, sizeof(ids)));
	step(&p, "set it up");
	return 0;
}

void put_vlans(struct nl *nl, int ifindex, void *ctx)
{
	const struct port_vlans *v = ctx;
	unsigned from = 0;

	if (v->w->trunk)
		brvlan_put(nl, RTM_SETLINK, ifindex, &v->w->tagged, &from);
	if (v->w->native)
		brvlan_put_one(nl, RTM_SETLINK, ifindex, BRVLAN_UNTAGGED, v->w->native);
	from = 0;
	if (v->uplink)
		brvlan_put(nl, RTM_SETLINK, v->uplink, &v->w->ids, &from);
}

int vlan_journal(const char *state, const char *owner, const char *tmp_bridge, const char *tmp_dev, struct vh_err *e)
{
	char text[64];

	snprintf(text, sizeof(text), "vlan %s %s\n", tmp_bridge, tmp_dev);
	return told_write(state, owner, text, e);
}

static void port_free(struct vlan_port *p)
{
	heard_close(&p->watch.heard);
	tapport_drop(&p->t);
	free(p);
}

/* Backwards. [locked exclusively] what is shared goes with its last user. */
static void take_down(struct nl *nl, struct vlan_port *p, int locked)
{
	/* The VM's process has copies of the fds, and may be slow to die: with the device itself gone it holds no port. */
	if (locked && p->t.info.ifindex)
		nl_link_delete(nl, (int)p->t.info.ifindex, NULL);
	tap_close(&p->t.tap);
	if (locked)
		shared_drop(nl, &p->want, NULL);
}

static int attach(struct nl *nl, const struct vh_net_open *o, struct vlan_port *p, const struct vlan_shared *s, struct vh_err *e)
{
	const struct vlan_want *w = &p->want;
	struct port_vlans vlans = { w, s->uplink.ifindex };
	struct brport_want port_want = { .owner = o->owner, .guest_mac = o->mac, .isolated = w->isolated };
	struct nl_link br = s->bridge;
	int r;

	port_want.mtu = w->mtu ? w->mtu : (uint16_t)shared_mtu(w, s);
	if (w->filter) {
		port_want.extra = put_vlans;
		port_want.ctx = &vlans;
	}
	r = tap_open(&p->t.tap, net_host, o->ifname, o->pairs, e);
	return r < 0 ? r : brport_attach(nl, &p->t.tap, &port_want, &br, &p->t.info, e);
}

static int vlan_open(const struct vh_net_open *o, void **port, struct vh_err *e)
{
	char tmp_bridge[16], tmp_dev[16];
	struct vlan_shared s;
	struct vlan_port *p;
	int lock, made, r;
	struct nl nl;

	if (o->flags & VH_NET_OPEN_DRY_RUN) {
		*port = NULL;
		return vlan_plan(o, NULL, NULL, e);
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return net_host->err(e, -ENOMEM, "no memory for a port");
	r = vlan_want(o->opts, o, &p->want, e);
	if (!r && !o->state)
		r = net_host->err(e, -EINVAL, "the host gave no folder for the journal");
	if (!r && tapport_keep(&p->t, o))
		r = net_host->err(e, -ENOMEM, "no memory for a port");
	if (r < 0) {
		port_free(p);
		return r;
	}
	r = told_nl(&nl, e);
	if (r < 0)
		goto no_lock;
	lock = told_lock(o->state, 1, e);
	if (lock < 0) {
		r = lock;
		goto no_lock;
	}
	r = shared_find(&nl, &p->want, &s, e);
	if (!r)
		r = shared_check(&nl, &p->want, &s, e);
	bridgedev_tmp_name(tmp_bridge);
	bridgedev_tmp_name(tmp_dev);
	if (!r)
		r = vlan_journal(o->state, o->owner, tmp_bridge, tmp_dev, e);
	if (r < 0)
		goto unlock;
	r = shared_make(&nl, &p->want, tmp_bridge, tmp_dev, &s, &made, e);
	if (!r) {
		r = attach(&nl, o, p, &s, e);
		if (r < 0)
			take_down(&nl, p, 1);
		vlan_seen(p, &s);
	}
	if (r < 0)
		journal_remove(o->state, o->owner);
unlock:
	close(lock);
no_lock:
	nl_release(&nl);
	p->want.owner = NULL;
	if (r < 0)
		port_free(p);
	else
		*port = p;
	return r;
}

static void vlan_close(void *port)
{
	struct vlan_port *p = port;
	int lock = -1;
	struct nl nl;

	/* Without lock or netlink the tap still goes with its fds; gc() finds the rest. */
	if (!nl_open(&nl)) {
		lock = journal_lock(p->t.state, 1);
		take_down(&nl, p, lock >= 0);
	} else {
		tap_close(&p->t.tap);
	}
	nl_release(&nl);
	journal_remove(p->t.state, p->t.owner);
	if (lock >= 0)
		close(lock);
	port_free(p);
}

static const char *const modes[] = { "device", "filter", NULL };
static const char *const protocols[] = { "802.1q", "802.1ad", NULL };
static const struct vh_opt opt_uplink = { sizeof(struct vh_opt), VH_OPT_STR, VH_OPT_REQUIRED | VH_OPT_MAIN, "uplink",
	"The host's interface that carries the VLAN to other hosts", NULL, NULL, 1, 15 };
static const struct vh_opt opt_id = { sizeof(struct vh_opt), VH_OPT_INT, 0, "id",
	"The VLAN, 1 to 4094; none for trunks", NULL, NULL, 0, 0 };
static const struct vh_opt opt_mode = { sizeof(struct vh_opt), VH_OPT_ENUM, 0, "mode",
	"How it is built: device, a VLAN device and a bridge for each VLAN; filter, one VLAN-filtering bridge that the uplink is a port of",
	"device", modes, 0, 0 };
static const struct vh_opt opt_protocol = { sizeof(struct vh_opt), VH_OPT_ENUM, 0, "protocol",
	"The tag: 802.1q, or 802.1ad (the service tag of QinQ, around the guests' own tags)", "802.1q", protocols, 0, 0 };
static const struct vh_opt opt_bridge = { sizeof(struct vh_opt), VH_OPT_STR, 0, "bridge",
	"The name of the bridge that is made; by default brvlanID, or br-UPLINK with mode=filter", NULL, NULL, 1, 63 };
static const struct vh_opt opt_trunk = { sizeof(struct vh_opt), VH_OPT_STR, VH_OPT_NIC, "trunk",
	"The VLANs for which the guest tags its frames itself, as 10-20:30 (mode=filter)", NULL, NULL, 1, 255 };
static const struct vh_opt opt_native = { sizeof(struct vh_opt), VH_OPT_INT, VH_OPT_NIC, "native",
	"The VLAN of a trunk's untagged frames; none by default", NULL, NULL, 0, 0 };
static const struct vh_opt opt_isolated = { sizeof(struct vh_opt), VH_OPT_BOOL, VH_OPT_NIC, "isolated",
	"Reach only the uplink and ports that are not isolated themselves", "off", NULL, 0, 0 };
static const struct vh_opt *const options[] = { &opt_uplink, &opt_id, &opt_mode, &opt_protocol, &opt_bridge, &opt_trunk, &opt_native,
	&opt_isolated, NULL };
static const char *const kinds[] = { "vlan", NULL };

static const struct vh_net_ops vlan_ops = {
	.size = sizeof(struct vh_net_ops),
	.caps = VH_NET_MULTI_QUEUE | VH_NET_SET_LINK,
	.kind = "vlan",
	.options = options,
	.open = vlan_open,
	.plan = vlan_plan,
	.info = tapport_info,
	.queue_fd = tapport_queue_fd,
	.set_link = tapport_set_link,
	.close = vlan_close,
	.gc = vlan_gc,
	.kinds = kinds,
	.start = vlan_start,
	.stop = vlan_stop,
	.plan_start = vlan_plan_start,
	.describe = vlan_describe,
	.watch = vlan_watch,
	.repair = vlan_repair,
};

VH_PLUGIN_NOTE("vlan", VH_KIND_NET);

static const void *vlan_get(const char *iid)
{
	return strcmp(iid, VH_IID_NET) ? NULL : &vlan_ops;
}

static const char *const iids[] = { VH_IID_NET, NULL };
static const struct vh_plugin desc = {
	sizeof(struct vh_plugin), VH_ABI_MINOR, "vlan", "1.0", "Taps in VLANs of an uplink", "LGPL-2.1-or-later",
	VH_PLUGIN_NEEDS_ROOT, iids, vlan_get, NULL,
};

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	net_host = host;
	*out = &desc;
	return 0;
}
