/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* NICs: what a port is opened with, and their links while the guest runs. */
#include <glib.h>
#include <string.h>
#include "mach/mach-i.h"
#include "plug/plug.h"

int mach_nic_config(const struct mach_nic *n, const char *vm, unsigned index, struct net_config *c, struct optset **opts, struct vh_err *e)
{
	g_autofree char *what = g_strdup_printf("network type %s", n->type);
	int r;

	*c = (struct net_config){.type = n->type, .pairs = n->queues ? n->queues : 1, .mtu = n->mtu, .ifname = n->ifname, .vm = vm, .index = index};
	*opts = NULL;
	r = plug_net(n->type, &c->ops, e);
	if (!r && n->network)
		r = network_kind_check(c->ops, n->type, n->network->kind, e);
	if (!r)
		r = n->network ? network_nic_options(n->network, c->ops, &n->options, opts, e) :
				 optset_parse(c->ops->options, &n->options, what, opts, e);
	if (r)
		return r;
	c->opts = optset_get(*opts);
	if (n->network) {
		c->network = n->network->name;
		c->kind = n->network->kind;
	}
	if (n->have_mac)
		memcpy(c->mac, n->mac, 6);
	else
		net_mac_derive(vm, index, c->mac);
	return 0;
}

static int find(struct mach *m, const char *name, struct vh_err *e)
{
	char *end;
	guint64 at;

	for (unsigned i = 0; i < m->n_ports; i++)
		if (!strcmp(net_port_info(m->ports[i])->ifname, name))
			return (int)i;
	at = g_ascii_strtoull(name, &end, 10);
	if (*name && !*end && at < m->n_ports)
		return (int)at;
	if (m->n_ports)
		err_remedy(e, "name its interface, or its number: 0 to %u", m->n_ports - 1);
	else
		err_remedy(e, "the VM has no NICs");
	return err_set(e, -ENOENT, "there is no NIC %s", name);
}

int mach_set_link(struct mach *m, const char *nic, int up, unsigned *index, const struct vh_net_info **now, struct vh_err *e)
{
	struct virtio_dev *d;
	int i, r;

	if (m->state == MACH_STOPPED)
		return err_set(e, -ESHUTDOWN, "the machine is down");
	i = find(m, nic, e);
	if (i < 0)
		return i;
	d = m->devs[m->n_disks + (unsigned)i];
	/* The interface first when it goes up, the device first when it goes down: nothing is sent into a link that is down. */
	if (!up)
		virtio_net_set_link(d, 0);
	r = net_port_set_link(m->ports[i], up, e);
	if (r == -EOPNOTSUPP && (!e || !e->cause)) /* the device alone does it */
		r = 0;
	if (r < 0 && !up)
		virtio_net_set_link(d, 1);
	if (!r && up)
		virtio_net_set_link(d, 1);
	*index = (unsigned)i;
	*now = net_port_info(m->ports[i]);
	if (r < 0)
		err_object(e, "NIC %d (%s)", i, net_port_info(m->ports[i])->ifname);
	return r;
}
