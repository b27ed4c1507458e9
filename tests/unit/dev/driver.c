/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <string.h>
#include "driver.h"

void drv_probe(struct drv *d, struct vm *v, unsigned devfn)
{
	memset(d, 0, sizeof(*d));
	d->v = v;
	d->devfn = devfn;
	g_assert_cmphex(cfg_get(v, devfn, 0, 2), ==, 0x1af4);
	d->bar = cfg_get(v, devfn, 0x20, 4) & ~0xfu;
	d->bar |= (uint64_t)cfg_get(v, devfn, 0x24, 4) << 32;
	for (unsigned at = cfg_get(v, devfn, 0x34, 1); at; at = cfg_get(v, devfn, at + 1, 1)) {
		uint64_t where = d->bar + cfg_get(v, devfn, at + 8, 4);

		if (cfg_get(v, devfn, at, 1) == 0x11)
			d->msix_table = cfg_get(v, devfn, at + 4, 4) & ~7u;
		if (cfg_get(v, devfn, at, 1) != 9)
			continue;
		switch (cfg_get(v, devfn, at + 3, 1)) {
		case VIRTIO_PCI_CAP_COMMON_CFG:
			d->common = where;
			break;
		case VIRTIO_PCI_CAP_ISR_CFG:
			d->isr = where;
			break;
		case VIRTIO_PCI_CAP_DEVICE_CFG:
			d->config = where;
			d->config_len = cfg_get(v, devfn, at + 12, 4);
			break;
		case VIRTIO_PCI_CAP_NOTIFY_CFG:
			d->notify = where;
			d->notify_mult = cfg_get(v, devfn, at + 16, 4);
			break;
		}
	}
	g_assert_true(d->common && d->isr && d->notify);
}

uint32_t drv_get(struct drv *d, unsigned field, unsigned len)
{
	return mmio_get(d->v, d->common + field, len);
}

void drv_set(struct drv *d, unsigned field, uint32_t value, unsigned len)
{
	mmio_set(d->v, d->common + field, value, len);
}

void drv_reset(struct drv *d)
{
	drv_set(d, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	wait_for(drv_get(d, VIRTIO_PCI_COMMON_STATUS, 1) == 0);
}

void drv_negotiate(struct drv *d, uint64_t features)
{
	uint64_t offered;

	drv_reset(d);
	drv_set(d, VIRTIO_PCI_COMMON_STATUS, 1, 1);
	drv_set(d, VIRTIO_PCI_COMMON_STATUS, 3, 1);
	drv_set(d, VIRTIO_PCI_COMMON_DFSELECT, 0, 4);
	offered = drv_get(d, VIRTIO_PCI_COMMON_DF, 4);
	drv_set(d, VIRTIO_PCI_COMMON_DFSELECT, 1, 4);
	offered |= (uint64_t)drv_get(d, VIRTIO_PCI_COMMON_DF, 4) << 32;
	features |= VIRTIO_BIT(VIRTIO_F_VERSION_1);
	g_assert_cmphex(features & ~offered, ==, 0);
	d->features = features;
	drv_set(d, VIRTIO_PCI_COMMON_GFSELECT, 0, 4);
	drv_set(d, VIRTIO_PCI_COMMON_GF, (uint32_t)features, 4);
	drv_set(d, VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
	drv_set(d, VIRTIO_PCI_COMMON_GF, (uint32_t)(features >> 32), 4);
	drv_set(d, VIRTIO_PCI_COMMON_STATUS, 11, 1);
	g_assert_cmphex(drv_get(d, VIRTIO_PCI_COMMON_STATUS, 1), ==, 11);
}

void drv_queue(struct drv *d, unsigned n, unsigned size)
{
	struct drvq *q = &d->q[n];

	memset(q, 0, sizeof(*q));
	q->d = d;
	q->index = n;
	q->size = size;
	q->desc_gpa = fake_alloc(d->v, 16 * size, 16);
	q->avail_gpa = fake_alloc(d->v, 6 + 2 * size, 2);
	q->used_gpa = fake_alloc(d->v, 6 + 8 * size, 4);
	q->desc = fake_at(d->v, q->desc_gpa);
	q->avail = fake_at(d->v, q->avail_gpa);
	q->used = fake_at(d->v, q->used_gpa);
	drv_set(d, VIRTIO_PCI_COMMON_Q_SELECT, n, 2);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), >=, size);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_NOFF, 2), ==, n);
	drv_set(d, VIRTIO_PCI_COMMON_Q_SIZE, size, 2);
	drv_set(d, VIRTIO_PCI_COMMON_Q_DESCLO, (uint32_t)q->desc_gpa, 4);
	drv_set(d, VIRTIO_PCI_COMMON_Q_DESCHI, (uint32_t)(q->desc_gpa >> 32), 4);
	drv_set(d, VIRTIO_PCI_COMMON_Q_AVAILLO, (uint32_t)q->avail_gpa, 4);
	drv_set(d, VIRTIO_PCI_COMMON_Q_AVAILHI, 0, 4);
	drv_set(d, VIRTIO_PCI_COMMON_Q_USEDLO, (uint32_t)q->used_gpa, 4);
	drv_set(d, VIRTIO_PCI_COMMON_Q_USEDHI, 0, 4);
	drv_set(d, VIRTIO_PCI_COMMON_Q_MSIX, n + 1, 2);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_MSIX, 2), ==, n + 1);
	drv_set(d, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), ==, 1);
}

void drv_msix(struct drv *d)
{
	unsigned n, at;

	for (at = cfg_get(d->v, d->devfn, 0x34, 1); cfg_get(d->v, d->devfn, at, 1) != 0x11; at = cfg_get(d->v, d->devfn, at + 1, 1))
		;
	n = (cfg_get(d->v, d->devfn, at + 2, 2) & 0x7ff) + 1;
	cfg_set(d->v, d->devfn, at + 2, 0x8000, 2);
	for (unsigned i = 0; i < n; i++) {
		uint64_t e = d->bar + d->msix_table + 16 * i;

		mmio_set(d->v, e, 0xfee00000, 4);
		mmio_set(d->v, e + 4, 0, 4);
		mmio_set(d->v, e + 8, 0x40 + i, 4);
		mmio_set(d->v, e + 12, 0, 4);
	}
	drv_set(d, VIRTIO_PCI_COMMON_MSIX, 0, 2);
}

void drv_ok(struct drv *d)
{
	drv_set(d, VIRTIO_PCI_COMMON_STATUS, 15, 1);
	g_assert_cmphex(drv_get(d, VIRTIO_PCI_COMMON_STATUS, 1), ==, 15);
}

void drv_start(struct drv *d, struct vm *v, unsigned devfn, uint64_t features, unsigned queues, unsigned size)
{
	drv_probe(d, v, devfn);
	drv_negotiate(d, features);
	drv_msix(d);
	for (unsigned i = 0; i < queues; i++)
		drv_queue(d, i, size);
	drv_ok(d);
}

uint16_t drv_fill(struct drvq *q, const struct buf *b, unsigned n)
{
	uint16_t head = q->next_desc;

	for (unsigned i = 0; i < n; i++) {
		uint16_t at = (uint16_t)(q->next_desc & (q->size - 1));

		q->next_desc = (uint16_t)((at + 1) & (q->size - 1));
		q->desc[at] = (struct vring_desc){b[i].gpa, b[i].len,
						  (uint16_t)((b[i].in ? VRING_DESC_F_WRITE : 0) | (i + 1 < n ? VRING_DESC_F_NEXT : 0)),
						  q->next_desc};
	}
	q->avail->ring[q->avail_idx & (q->size - 1)] = head;
	q->avail_idx++;
	return head;
}

void drv_publish(struct drvq *q)
{
	__atomic_store_n(&q->avail->idx, q->avail_idx, __ATOMIC_SEQ_CST);
}

uint16_t drv_put(struct drvq *q, const struct buf *b, unsigned n)
{
	uint16_t head = drv_fill(q, b, n);

	drv_publish(q);
	return head;
}

void drv_kick(struct drvq *q)
{
	mmio_set(q->d->v, q->d->notify + q->d->notify_mult * q->index, q->index, 2);
}

int drv_poll(struct drvq *q, struct done *out)
{
	const struct vring_used_elem *u;

	if (__atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE) == q->used_idx)
		return 0;
	u = &q->used->ring[q->used_idx++ & (q->size - 1)];
	*out = (struct done){u->id, u->len};
	return 1;
}

struct done drv_wait(struct drvq *q)
{
	struct done r;

	wait_for(drv_poll(q, &r));
	return r;
}

int drv_wants_kick(struct drvq *q)
{
	return !(__atomic_load_n(&q->used->flags, __ATOMIC_SEQ_CST) & VRING_USED_F_NO_NOTIFY);
}

unsigned drv_signals(struct virtio_dev *dev, unsigned vector)
{
	struct vm_msi *m = dev->pci.msix[vector].msi;

	return m ? __atomic_load_n(&m->signals, __ATOMIC_SEQ_CST) : 0;
}
