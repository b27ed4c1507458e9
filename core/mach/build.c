/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Putting a machine together. KVM's slow calls, the plugins with their disks, and the NICs are opened side by side, each
 * in a thread of its own: they wait for the kernel most of the time, and a VM's start is as long as the longest of them.
 */
#include <glib.h>
#include <string.h>
#include <unistd.h>
#include "mach/mach-i.h"
#include "plug/plug.h"
#include "util/log.h"

struct opening {
	pthread_t thread;
	int threaded, result;
	struct vh_err err;
	struct mach *m;
	const struct mach_config *c;
	unsigned index;
	void (*fn)(struct opening *o);
};

static void open_disk(struct opening *o)
{
	o->result = disk_open(&o->c->disks[o->index], o->m->holder, mach_io_stopped, o->m, &o->m->disks[o->index], &o->err);
}

static void open_nic(struct opening *o)
{
	struct optset *opts = NULL;
	struct net_config nc;

	o->result = mach_nic_config(&o->c->nics[o->index], o->m->name, o->index, &nc, &opts, &o->err);
	nc.offload = VH_NET_CSUM | VH_NET_TSO4 | VH_NET_TSO6 | VH_NET_ECN | VH_NET_UFO | VH_NET_USO;
	nc.state = o->c->state_dir;
	if (!o->result)
		o->result = net_port_open(&nc, &o->m->ports[o->index], &o->err);
	optset_free(opts);
}

static void open_boot(struct opening *o)
{
	o->result = boot_open(&o->c->boot, &o->m->boot, &o->err);
}

static void *opening_thread(void *arg)
{
	struct opening *o = arg;
	o->fn(o);
	return NULL;
}

/* Opens the disks, NICs and boot files; the last one in the calling thread. */
static int open_all(struct mach *m, const struct mach_config *c, struct vh_err *e)
{
	unsigned n = c->n_disks + c->n_nics + 1, k = 0;
	g_autofree struct opening *o = g_new0(struct opening, n);
	int r = 0;

	for (unsigned i = 0; i < c->n_disks; i++, k++)
		o[k] = (struct opening){.m = m, .c = c, .index = i, .fn = open_disk};
	for (unsigned i = 0; i < c->n_nics; i++, k++)
		o[k] = (struct opening){.m = m, .c = c, .index = i, .fn = open_nic};
	o[k] = (struct opening){.m = m, .c = c, .fn = open_boot};
	for (unsigned i = 0; i < n; i++) {
		/* A thread that cannot be made is no error: its work is done here. */
		o[i].threaded = i + 1 < n && !pthread_create(&o[i].thread, NULL, opening_thread, &o[i]);
		if (!o[i].threaded)
			o[i].fn(&o[i]);
	}
	for (unsigned i = 0; i < n; i++) {
		if (o[i].threaded)
			pthread_join(o[i].thread, NULL);
		if (o[i].result && !r) {
			r = o[i].result;
			err_move(e, &o[i].err);
		} else {
			err_clear(&o[i].err);
		}
	}
	return r;
}

static int make_loops(struct mach *m, const struct mach_config *c, struct vh_err *e)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = c->io_threads ? c->io_threads : MIN(c->cpus, (unsigned)MAX(cores, 1));

	m->loops = g_new0(struct vh_loop *, n);
	for (; m->n_loops < n; m->n_loops++) {
		g_autofree char *name = g_strdup_printf("io%u", m->n_loops);
		int r = loop_new(name, &m->loops[m->n_loops], e);
		if (r)
			return r;
		r = loop_start(m->loops[m->n_loops], e);
		if (r) {
			loop_free(m->loops[m->n_loops]);
			m->loops[m->n_loops] = NULL;
			return r;
		}
	}
	return 0;
}

/* The loops, the i-th first: so that the first queues of several devices do not share one thread. */
static struct vh_loop **rotated(struct mach *m, unsigned i)
{
	struct vh_loop **l = g_new(struct vh_loop *, m->n_loops);
	for (unsigned k = 0; k < m->n_loops; k++)
		l[k] = m->loops[(i + k) % m->n_loops];
	return l;
}

static struct virtio_dev **next_dev(struct mach *m)
{
	return &m->devs[m->n_devs];
}

static int make_devices(struct mach *m, const struct mach_config *c, struct vh_err *e)
{
	unsigned turn = 0;
	int r;

	m->devs = g_new0(struct virtio_dev *, c->n_disks + c->n_nics + 3);
	for (unsigned i = 0; i < c->n_disks; i++) {
		struct disk *d = m->disks[i];
		g_autofree struct vh_loop **loops = rotated(m, turn);
		unsigned queues = d->queues ? d->queues : MIN(c->cpus, m->n_loops);
		struct virtio_blk_config b = {.image = d->image, .serial = d->serial, .queues = queues, .loops = loops,
					      .n_loops = m->n_loops, .label = d->label};
		turn += queues;
		r = virtio_blk_new(m->vm, m->pci, &b, next_dev(m), e);
		if (r)
			return err_context(e, "disk %s", d->label);
		m->n_devs++;
	}
	for (unsigned i = 0; i < c->n_nics; i++) {
		const struct vh_net_info *p = net_port_info(m->ports[i]);
		g_autofree struct vh_loop **loops = rotated(m, turn);
		struct virtio_net_config n = {.port = m->ports[i], .pairs = p->pairs, .mtu = (uint16_t)MIN(p->mtu, 65535u),
					      .loops = loops, .n_loops = m->n_loops, .label = p->ifname,
					      .guard = &c->nics[i].guard, .in = &c->nics[i].in, .out = &c->nics[i].out, .vhost = c->nics[i].vhost};
		memcpy(n.mac, p->mac, 6);
		turn += p->pairs;
		r = virtio_net_new(m->vm, m->pci, &n, next_dev(m), e);
		if (r)
			return err_context(e, "NIC %u (%s)", i, p->ifname);
		m->n_devs++;
	}
	if (c->rng) {
		r = virtio_rng_new(m->vm, m->pci, m->loops[0], next_dev(m), e);
		if (r)
			return r;
		m->n_devs++;
	}
	if (c->balloon) {
		r = virtio_balloon_new(m->vm, m->pci, m->loops[0], next_dev(m), e);
		if (r)
			return r;
		m->balloon = m->devs[m->n_devs++];
	}
	if (c->console) {
		r = virtio_console_new(m->vm, m->pci, m->loops[0], c->console_in, c->console_out, next_dev(m), e);
		if (r)
			return r;
		m->n_devs++;
	}
	return 0;
}

int mach_build(struct mach *m, const struct mach_config *c, struct vh_err *e)
{
	struct vm_config vc = {.cpus = c->cpus, .mem = c->mem, .pin = c->pin, .event = mach_vm_event, .event_ctx = m};
	struct vm_boot start;
	int r;

	m->disks = g_new0(struct disk *, c->n_disks + 1);
	m->ports = g_new0(struct net_port *, c->n_nics + 1);
	m->n_disks = c->n_disks;
	m->n_ports = c->n_nics;
	r = vm_new(&vc, &m->vm, e);
	if (r)
		return r;
	r = open_all(m, c, e);
	if (r)
		return r;
	r = make_loops(m, c, e);
	if (r)
		return r;
	r = vm_ready(m->vm, e);
	if (r)
		return r;
	r = pci_host_new(m->vm, &m->pci, e);
	if (r)
		return r;
	r = platform_new(m->vm, &m->platform, e);
	if (r)
		return r;
	r = serial_new(m->vm, c->serial_out, c->serial_ctx, &m->serial, e);
	if (r)
		return r;
	r = make_devices(m, c, e);
	if (r)
		return r;
	r = boot_load(m->boot, m->vm, m->pci, &start, e);
	if (r)
		return r;
	vm_set_boot(m->vm, &start);
	return 0;
}

void mach_unbuild(struct mach *m)
{
	while (m->n_devs)
		virtio_free(m->devs[--m->n_devs]);
	g_free(m->devs);
	if (m->serial)
		serial_free(m->serial);
	if (m->platform)
		platform_free(m->platform);
	if (m->pci)
		pci_host_free(m->pci);
	for (unsigned i = 0; i < m->n_loops; i++) {
		loop_stop(m->loops[i]);
		loop_free(m->loops[i]);
	}
	g_free(m->loops);
	for (unsigned i = 0; i < m->n_disks; i++)
		if (m->disks[i])
			disk_close(m->disks[i]);
	g_free(m->disks);
	for (unsigned i = 0; i < m->n_ports; i++)
		if (m->ports[i])
			net_port_close(m->ports[i]);
	g_free(m->ports);
	if (m->boot)
		boot_close(m->boot);
	if (m->vm)
		vm_free(m->vm);
}
