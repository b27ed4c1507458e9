/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "guest.h"

#define STATUS_ACK 1
#define STATUS_DRIVER 2
#define STATUS_OK 4
#define STATUS_FEATURES 8
#define F_VERSION_1 (UINT64_C(1) << 32)
#define F_NOEVENT 1

/* Common configuration of virtio-pci. */
enum { C_DFSEL = 0, C_DF = 4, C_GFSEL = 8, C_GF = 12, C_STATUS = 20, C_QSEL = 22, C_QSIZE = 24, C_QENABLE = 28, C_QNOTIFY = 30, C_QDESC = 32,
       C_QAVAIL = 40, C_QUSED = 48 };
/* Registers of virtio-mmio, version 2. */
enum { M_MAGIC = 0, M_VERSION = 4, M_ID = 8, M_DF = 0x10, M_DFSEL = 0x14, M_GF = 0x20, M_GFSEL = 0x24, M_QSEL = 0x30, M_QMAX = 0x34, M_QSIZE = 0x38,
       M_QREADY = 0x44, M_NOTIFY = 0x50, M_STATUS = 0x70, M_QDESC = 0x80, M_QAVAIL = 0x90, M_QUSED = 0xa0, M_CONFIG = 0x100 };

static uint8_t status(struct virtio *v)
{
	return v->mmio ? (uint8_t)mmio_read32(v->common + M_STATUS) : mmio_read8(v->common + C_STATUS);
}

static void set_status(struct virtio *v, uint8_t s)
{
	if (v->mmio)
		mmio_write32(v->common + M_STATUS, s);
	else
		mmio_write8(v->common + C_STATUS, s);
}

static uint64_t offered(struct virtio *v)
{
	uint64_t f = 0;
	for (unsigned i = 0; i < 2; i++) {
		mmio_write32(v->common + (v->mmio ? M_DFSEL : C_DFSEL), i);
		f |= (uint64_t)mmio_read32(v->common + (v->mmio ? M_DF : C_DF)) << (32 * i);
	}
	return f;
}

static int negotiate(struct virtio *v, uint64_t want)
{
	set_status(v, 0);
	for (uint64_t until = tsc() + tsc_hz(); status(v);) {
		if (tsc() > until) /* not a device any more: the guest `hostile` moves BARs over RAM */
			return 0;
		relax();
	}
	set_status(v, STATUS_ACK);
	set_status(v, STATUS_ACK | STATUS_DRIVER);
	v->features = offered(v) & (want | F_VERSION_1);
	for (unsigned i = 0; i < 2; i++) {
		mmio_write32(v->common + (v->mmio ? M_GFSEL : C_GFSEL), i);
		mmio_write32(v->common + (v->mmio ? M_GF : C_GF), (uint32_t)(v->features >> (32 * i)));
	}
	set_status(v, STATUS_ACK | STATUS_DRIVER | STATUS_FEATURES);
	CHECK(status(v) & STATUS_FEATURES, "the device refused features %lx", v->features);
	return 1;
}

static int open_pci(struct virtio *v, unsigned type, unsigned index)
{
	for (unsigned i = 0; pci_find(i, &v->pci); i++) {
		unsigned cap, left = 48;
		if (v->pci.vendor != 0x1af4 || (v->pci.device != 0x1040 + type && v->pci.device != 0x0fff + type) || index--)
			continue;
		for (cap = pci_read(v->pci.bdf, 0x34, 1); cap && left--; cap = pci_read(v->pci.bdf, cap + 1, 1)) {
			unsigned kind = pci_read(v->pci.bdf, cap + 3, 1), bar = pci_read(v->pci.bdf, cap + 4, 1);
			uint64_t at;
			if (pci_read(v->pci.bdf, cap, 1) != 9 || bar > 5)
				continue;
			at = v->pci.bar[bar] + pci_read(v->pci.bdf, cap + 8, 4);
			if (kind == 1 && !v->common)
				v->common = at;
			else if (kind == 2 && !v->notify) {
				v->notify = at;
				v->notify_mult = pci_read(v->pci.bdf, cap + 16, 4);
			} else if (kind == 3 && !v->isr)
				v->isr = at;
			else if (kind == 4 && !v->config)
				v->config = at;
		}
		return v->common && v->notify;
	}
	return 0;
}

/* virtio_mmio.device=512@0xfeb00000:5 */
static int open_mmio(struct virtio *v, unsigned type, unsigned index)
{
	char word[64];
	for (unsigned n = 0; arg_next("virtio_mmio.device", n, word, sizeof word); n++) {
		const char *p = word;
		uint64_t base = 0;
		while (*p && *p != '@')
			p++;
		if (*p)
			p++;
		if (p[0] == '0' && p[1] == 'x')
			p += 2;
		for (; (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f'); p++)
			base = base * 16 + (uint64_t)(*p <= '9' ? *p - '0' : *p - 'a' + 10);
		if (mmio_read32(base + M_MAGIC) != 0x74726976 || mmio_read32(base + M_ID) != type || index--)
			continue;
		CHECK(mmio_read32(base + M_VERSION) == 2, "virtio-mmio is a legacy one: -global virtio-mmio.force-legacy=false");
		v->mmio = 1;
		v->common = base;
		v->config = base + M_CONFIG;
		return 1;
	}
	return 0;
}

int virtio_open(struct virtio *v, unsigned type, unsigned index, uint64_t want)
{
	memset(v, 0, sizeof *v);
	if (!open_mmio(v, type, index)) {
		memset(v, 0, sizeof *v);
		if (!open_pci(v, type, index))
			return 0;
	}
	return negotiate(v, want);
}

static void write_addr(struct virtio *v, unsigned mmio_reg, unsigned pci_reg, const volatile void *p)
{
	uint64_t a = v->common + (v->mmio ? mmio_reg : pci_reg);
	mmio_write32(a, (uint32_t)(uintptr_t)p);
	mmio_write32(a + 4, (uint32_t)((uintptr_t)p >> 32));
}

unsigned virtio_queue(struct virtio *v, unsigned n, unsigned max)
{
	struct vq *q = &v->vq[n];

	if (v->mmio) {
		mmio_write32(v->common + M_QSEL, n);
		q->size = mmio_read32(v->common + M_QMAX);
	} else {
		mmio_write16(v->common + C_QSEL, (uint16_t)n);
		q->size = mmio_read16(v->common + C_QSIZE);
	}
	if (!q->size)
		return 0;
	if (max > VQ_MAX)
		max = VQ_MAX;
	if (q->size > max)
		q->size = max;
	q->index = n;
	q->desc = page_alloc(sizeof(struct vring_desc) * q->size);
	q->avail = page_alloc(sizeof *q->avail);
	q->used = page_alloc(sizeof *q->used);
	q->avail->flags = 1; /* polled: no interrupts */
	if (v->features & VIRTIO_F_INDIRECT)
		q->table = page_alloc(sizeof(struct vring_desc) * VQ_INDIRECT * q->size);
	for (unsigned i = 0; i < q->size; i++)
		q->desc[i].next = (uint16_t)(i + 1);
	q->n_free = (uint16_t)q->size;
	if (v->mmio) {
		mmio_write32(v->common + M_QSIZE, q->size);
		q->notify = v->common + M_NOTIFY;
		q->notify32 = 1;
	} else {
		mmio_write16(v->common + C_QSIZE, (uint16_t)q->size);
		q->notify = v->notify + (uint64_t)mmio_read16(v->common + C_QNOTIFY) * v->notify_mult;
	}
	write_addr(v, M_QDESC, C_QDESC, q->desc);
	write_addr(v, M_QAVAIL, C_QAVAIL, q->avail);
	write_addr(v, M_QUSED, C_QUSED, q->used);
	if (v->mmio)
		mmio_write32(v->common + M_QREADY, 1);
	else
		mmio_write16(v->common + C_QENABLE, 1);
	return q->size;
}

void virtio_ok(struct virtio *v)
{
	set_status(v, STATUS_ACK | STATUS_DRIVER | STATUS_FEATURES | STATUS_OK);
	CHECK(status(v) == (STATUS_ACK | STATUS_DRIVER | STATUS_FEATURES | STATUS_OK), "the device went to status %x", status(v));
}

uint32_t virtio_config(struct virtio *v, unsigned off, unsigned len)
{
	uint64_t a = v->config + off;
	return len == 1 ? mmio_read8(a) : len == 2 ? mmio_read16(a) : mmio_read32(a);
}

int vq_add(struct vq *q, const struct vbuf *b, unsigned n, unsigned in)
{
	uint16_t head = q->free_head, i = head;

	if (q->table && n <= VQ_INDIRECT) {
		struct vring_desc *t = q->table + (size_t)head * VQ_INDIRECT;
		if (!q->n_free)
			return -1;
		for (unsigned k = 0; k < n; k++)
			t[k] = (struct vring_desc){(uint64_t)(uintptr_t)b[k].p, b[k].len,
						   (uint16_t)((k + 1 < n ? 1 : 0) | (k >= n - in ? 2 : 0)), (uint16_t)(k + 1)};
		i = q->desc[head].next;
		q->desc[head] = (struct vring_desc){(uint64_t)(uintptr_t)t, (uint32_t)(n * sizeof *t), 4, i};
		n = 1;
		goto link;
	}
	if (q->n_free < n)
		return -1;
	for (unsigned k = 0; k < n; k++) {
		struct vring_desc *d = &q->desc[i];
		d->addr = (uint64_t)(uintptr_t)b[k].p;
		d->len = b[k].len;
		d->flags = (uint16_t)((k + 1 < n ? 1 : 0) | (k >= n - in ? 2 : 0));
		i = d->next;
	}
link:
	q->free_head = i;
	q->n_free = (uint16_t)(q->n_free - n);
	q->avail->ring[q->next_avail % q->size] = head;
	q->next_avail++;
	barrier();
	q->avail->idx = q->next_avail;
	return head;
}

void vq_kick(struct vq *q)
{
	full_barrier();
	if (q->used->flags & F_NOEVENT)
		return;
	if (q->notify32)
		mmio_write32(q->notify, q->index);
	else
		mmio_write16(q->notify, (uint16_t)q->index);
}

int vq_get(struct vq *q, uint32_t *len)
{
	uint32_t id, n = 1;
	uint16_t last;

	if (q->used->idx == q->last_used)
		return -1;
	barrier();
	id = q->used->ring[q->last_used % q->size].id;
	if (len)
		*len = q->used->ring[q->last_used % q->size].len;
	CHECK(id < q->size, "the device returned descriptor %u", id);
	q->last_used++;
	for (last = (uint16_t)id; q->desc[last].flags & 1; n++)
		last = q->desc[last].next;
	q->desc[last].next = q->free_head;
	q->free_head = (uint16_t)id;
	q->n_free = (uint16_t)(q->n_free + n);
	return (int)id;
}
