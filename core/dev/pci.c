/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The root bus: configuration accesses, adding, removing and resetting functions. */
#include <stdlib.h>
#include "dev/pci-i.h"

static const uint8_t command_writable[2] = {
	PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY,
	(PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE) >> 8,
};

void pci_init_config(struct pci_dev *d, uint16_t vendor, uint16_t device, uint16_t sub_vendor, uint16_t sub_device,
		     uint8_t revision, uint8_t base, uint8_t sub, uint8_t prog_if)
{
	memset(d->config, 0, sizeof(d->config));
	memset(d->wmask, 0, sizeof(d->wmask));
	memset(d->w1c, 0, sizeof(d->w1c));
	pci_put16(d->config + PCI_VENDOR_ID, vendor);
	pci_put16(d->config + PCI_DEVICE_ID, device);
	pci_put16(d->config + PCI_SUBSYSTEM_VENDOR_ID, sub_vendor);
	pci_put16(d->config + PCI_SUBSYSTEM_ID, sub_device);
	d->config[PCI_REVISION_ID] = revision;
	d->config[PCI_CLASS_PROG] = prog_if;
	d->config[PCI_CLASS_DEVICE] = sub;
	d->config[PCI_CLASS_DEVICE + 1] = base;
	memcpy(d->wmask + PCI_COMMAND, command_writable, 2);
	d->w1c[PCI_STATUS + 1] = 0xf9; /* the error bits; nothing here sets them */
	d->wmask[PCI_CACHE_LINE_SIZE] = 0xff;
	d->wmask[PCI_LATENCY_TIMER] = 0xff;
	d->wmask[PCI_INTERRUPT_LINE] = 0xff;
	d->cap_end = 0x40;
}

unsigned pci_add_cap(struct pci_dev *d, uint8_t id, const void *body, unsigned len, const void *wmask)
{
	unsigned at = (d->cap_end + 3) & ~3u;

	if (at + 2 + len > 256)
		return 0;
	d->config[at] = id;
	d->config[at + 1] = d->config[PCI_CAPABILITY_LIST];
	memcpy(d->config + at + 2, body, len);
	if (wmask)
		memcpy(d->wmask + at + 2, wmask, len);
	d->config[PCI_CAPABILITY_LIST] = (uint8_t)at;
	d->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	d->cap_end = at + 2 + len;
	return at;
}

static int overlaps(unsigned off, unsigned len, unsigned from, unsigned n)
{
	return off < from + n && from < off + len;
}

void pci_config_read(struct pci_host *h, unsigned devfn, unsigned off, void *data, unsigned len)
{
	struct pci_dev *d;

	memset(data, 0xff, len);
	pthread_mutex_lock(&h->lock);
	pci_place_all(h);
	d = devfn < 256 ? h->dev[devfn] : NULL;
	if (d && off < 4096 && len <= 4096 - off) {
		if (d->config_read)
			d->config_read(d, off, len);
		if (overlaps(off, len, PCI_STATUS, 1))
			d->config[PCI_STATUS] = (uint8_t)((d->config[PCI_STATUS] & ~PCI_STATUS_INTERRUPT) |
							  (__atomic_load_n(&d->intx, __ATOMIC_RELAXED) ? PCI_STATUS_INTERRUPT : 0));
		memcpy(data, d->config + off, len);
	}
	pthread_mutex_unlock(&h->lock);
}

void pci_config_write(struct pci_host *h, unsigned devfn, unsigned off, const void *data, unsigned len)
{
	const uint8_t *p = data;
	struct pci_dev *d;

	pthread_mutex_lock(&h->lock);
	pci_place_all(h);
	d = devfn < 256 ? h->dev[devfn] : NULL;
	if (!d || off >= 4096 || len > 4096 - off)
		goto out;
	for (unsigned i = 0; i < len; i++) {
		unsigned o = off + i;
		uint8_t w = d->wmask[o], v = (uint8_t)((d->config[o] & ~w) | (p[i] & w));

		d->config[o] = (uint8_t)(v & ~(p[i] & d->w1c[o]));
	}
	if (overlaps(off, len, PCI_COMMAND, 2)) {
		pci_bar_update(d);
		pci_intx_update(d);
	} else if (overlaps(off, len, PCI_BASE_ADDRESS_0, 24)) {
		pci_bar_update(d);
	}
	if (d->msix_cap && overlaps(off, len, d->msix_cap + PCI_MSIX_FLAGS, 2)) {
		pci_msix_control(d);
		pci_intx_update(d);
	}
	if (d->config_write)
		d->config_write(d, off, len);
out:
	pthread_mutex_unlock(&h->lock);
}

/* Offsets are bus << 20 | devfn << 12 | register. */
static void ecam_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	if (off >> 20)
		return; /* no other bus: the data stay all ones */
	pci_config_read(ctx, (unsigned)(off >> 12), off & 0xfff, data, len);
}

static void ecam_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	if (!(off >> 20))
		pci_config_write(ctx, (unsigned)(off >> 12), off & 0xfff, data, len);
}

static const struct bus_ops ecam_ops = {ecam_read, ecam_write};

/*
 * Mechanism 1: the address is a dword at 0xcf8, the data are at 0xcfc. A byte access at 0xcf9 is no part of it but the reset
 * control register; since a bus region holds whole accesses, it is answered here.
 */
static void cf8_address(struct pci_host *h, uint64_t off, void *data, unsigned len, int write)
{
	uint32_t a = __atomic_load_n(&h->address, __ATOMIC_RELAXED);
	uint8_t *byte = data, was;

	if (off == 0 && len == 4) {
		if (!write) {
			memcpy(data, &a, 4);
			return;
		}
		memcpy(&a, data, 4);
		__atomic_store_n(&h->address, a & 0x80fffffcu, __ATOMIC_RELAXED);
	} else if (off == 1 && len == 1) {
		if (!write) {
			*byte = __atomic_load_n(&h->reset_control, __ATOMIC_RELAXED);
			return;
		}
		was = __atomic_exchange_n(&h->reset_control, *byte & 0xe, __ATOMIC_RELAXED);
		if (*byte & 4 && !(was & 4))
			vm_post_event(h->vm, VM_RESET, "reset control register");
	}
}

static void cf8_data(struct pci_host *h, unsigned off, void *data, unsigned len, int write)
{
	uint32_t a = __atomic_load_n(&h->address, __ATOMIC_RELAXED);
	unsigned reg = (a & 0xfc) + off;

	if (!(a >> 31) || (a >> 16 & 0xff) || off + len > 4)
		return;
	if (write)
		pci_config_write(h, a >> 8 & 0xff, reg, data, len);
	else
		pci_config_read(h, a >> 8 & 0xff, reg, data, len);
}

static void cf8_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	if (off < 4)
		cf8_address(ctx, off, data, len, 0);
	else
		cf8_data(ctx, (unsigned)off - 4, data, len, 0);
}

static void cf8_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	if (off < 4)
		cf8_address(ctx, off, (void *)data, len, 1);
	else
		cf8_data(ctx, (unsigned)off - 4, (void *)data, len, 1);
}

static const struct bus_ops cf8_ops = {cf8_read, cf8_write};

/* Under the lock. Where the 64-bit window lies follows from the CPU's address bits, which KVM's set-up finds out at its
 * leisure: devices of the start are placed when somebody first wants to see where they are. */
void pci_place_all(struct pci_host *h)
{
	if (h->placed)
		return;
	h->placed = 1;
	pci_window_init(h);
	for (unsigned i = 0; i < 256; i++) {
		ERR_AUTO(e);
		struct pci_dev *d = h->dev[i];

		if (!d)
			continue;
		if (pci_bar_place(h, d, &e)) {
			log_error("pci", "%s", e.cause ? e.cause : "a device cannot be placed");
			h->dev[i] = NULL;
			continue;
		}
		pci_bar_home(d);
		pci_bar_update(d);
	}
}

/* Slots first, then further functions of slots that have a function 0. */
static int free_devfn(struct pci_host *h)
{
	for (unsigned fn = 0; fn < 8; fn++)
		for (unsigned slot = 1; slot < PCI_SLOT_LPC; slot++)
			if (!h->dev[slot << 3 | fn] && (!fn || h->dev[slot << 3]))
				return (int)(slot << 3 | fn);
	return -1;
}

/* On a slot with several functions, each says so. */
static void mark_multifunction(struct pci_host *h, unsigned slot)
{
	int many = 0;

	for (unsigned fn = 1; fn < 8; fn++)
		many |= h->dev[slot << 3 | fn] != NULL;
	for (unsigned fn = 0; fn < 8; fn++) {
		struct pci_dev *d = h->dev[slot << 3 | fn];

		if (d && d != &h->lpc)
			d->config[PCI_HEADER_TYPE] = (uint8_t)((d->config[PCI_HEADER_TYPE] & 0x7f) | (many ? 0x80 : 0));
	}
}

int pci_add(struct pci_host *h, struct pci_dev *d, int devfn, struct vh_err *e)
{
	int r = 0;

	pthread_mutex_lock(&h->lock);
	if (devfn < 0)
		devfn = free_devfn(h);
	if (devfn < 0 || devfn > 255) {
		r = err_set(e, -ENOSPC, "the PCI bus is full");
		goto out;
	}
	if (h->dev[devfn]) {
		r = err_set(e, -EBUSY, "PCI address 00:%02x.%x is taken by %s", devfn >> 3, devfn & 7, h->dev[devfn]->name);
		goto out;
	}
	d->host = h;
	d->devfn = (unsigned)devfn;
	d->intx = d->irq_level = d->intx_off = 0;
	if (d->cap_end > 0x40 || d->n_msix) /* plain bridges have no interrupt of their own */
		d->config[PCI_INTERRUPT_PIN] = (uint8_t)((devfn & 3) + 1);
	r = h->placed ? pci_bar_place(h, d, e) : 0;
	if (r)
		goto out;
	h->dev[devfn] = d;
	mark_multifunction(h, (unsigned)devfn >> 3);
	if (h->placed) {
		pci_bar_home(d);
		pci_bar_update(d);
	}
out:
	pthread_mutex_unlock(&h->lock);
	return r;
}

void pci_hide(struct pci_host *h, struct pci_dev *d)
{
	pthread_mutex_lock(&h->lock);
	if (h->dev[d->devfn] == d) {
		h->dev[d->devfn] = NULL;
		mark_multifunction(h, d->devfn >> 3);
		pci_bar_unmap_all(d);
	}
	pthread_mutex_unlock(&h->lock);
}

void pci_remove(struct pci_host *h, struct pci_dev *d)
{
	if (!d->host)
		return;
	pci_hide(h, d);
	pci_intx(d, 0);
	pci_msix_exit(d);
	d->host = NULL;
}

void pci_host_reset(struct pci_host *h)
{
	pthread_mutex_lock(&h->lock);
	pci_place_all(h);
	pthread_mutex_unlock(&h->lock);
	for (unsigned i = 0; i < 256; i++) {
		struct pci_dev *d = h->dev[i]; /* [main] alone changes dev[] */

		if (!d)
			continue;
		if (d->reset)
			d->reset(d);
		pci_intx(d, 0);
		pthread_mutex_lock(&h->lock);
		if (d->msix)
			pci_msix_reset(d);
		d->config[PCI_INTERRUPT_LINE] = d->config[PCI_CACHE_LINE_SIZE] = d->config[PCI_LATENCY_TIMER] = 0;
		pci_bar_home(d);
		pci_bar_update(d);
		pci_intx_update(d);
		pthread_mutex_unlock(&h->lock);
	}
	pci_chipset_reset(h);
	__atomic_store_n(&h->address, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&h->reset_control, 0, __ATOMIC_RELAXED);
}

int pci_host_new(struct vm *v, struct pci_host **out, struct vh_err *e)
{
	struct pci_host *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return err_set(e, -ENOMEM, "no memory for the PCI bus");
	h->vm = v;
	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_init(&h->irq_lock, NULL);
	h->ecam = (struct bus_region){PCI_ECAM_BASE, PCI_ECAM_SIZE, &ecam_ops, h};
	h->cf8 = (struct bus_region){0xcf8, 8, &cf8_ops, h};
	r = bus_add(vm_mmio(v), &h->ecam);
	if (r) {
		err_set(e, r, "cannot place the PCI configuration space at 0x%x", PCI_ECAM_BASE);
		goto free_host;
	}
	r = bus_add(vm_pio(v), &h->cf8);
	if (r) {
		err_set(e, r, "cannot claim the PCI configuration ports at 0xcf8");
		goto remove_ecam;
	}
	r = pci_chipset_init(h, e);
	if (r)
		goto remove_cf8;
	*out = h;
	return 0;
remove_cf8:
	bus_remove(vm_pio(v), &h->cf8);
remove_ecam:
	bus_remove(vm_mmio(v), &h->ecam);
free_host:
	pthread_mutex_destroy(&h->lock);
	pthread_mutex_destroy(&h->irq_lock);
	free(h);
	return r;
}

void pci_host_free(struct pci_host *h)
{
	if (!h)
		return;
	bus_remove(vm_pio(h->vm), &h->cf8);
	bus_remove(vm_mmio(h->vm), &h->ecam);
	pci_remove(h, &h->lpc);
	pci_remove(h, &h->mch);
	pthread_mutex_destroy(&h->lock);
	pthread_mutex_destroy(&h->irq_lock);
	free(h);
}
