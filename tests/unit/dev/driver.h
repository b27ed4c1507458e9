/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A virtio driver over the fake machine: what a guest's kernel would do, by ECAM and MMIO. */
#ifndef TEST_DRIVER_H
#define TEST_DRIVER_H

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include "dev/virtio.h"
#include "fake-vm.h"

struct drv;
struct drvq {
	struct drv *d;
	unsigned index, size;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t avail_idx, used_idx, next_desc;
};
struct drv {
	struct vm *v;
	unsigned devfn;
	uint64_t bar, common, isr, notify, config;
	uint32_t notify_mult, config_len, msix_table;
	uint64_t features;
	struct drvq q[16];
};
struct buf {
	uint64_t gpa;
	uint32_t len;
	int in;
};
struct done {
	uint32_t id, len;
};

void drv_probe(struct drv *d, struct vm *v, unsigned devfn); /* finds the registers */
uint32_t drv_get(struct drv *d, unsigned field, unsigned len);
void drv_set(struct drv *d, unsigned field, uint32_t value, unsigned len);
void drv_negotiate(struct drv *d, uint64_t features); /* reset to FEATURES_OK with VERSION_1; asserts */
void drv_queue(struct drv *d, unsigned q, unsigned size);   /* rings and enable; vector q + 1 */
void drv_msix(struct drv *d); /* all vectors unmasked, data = vector */
void drv_ok(struct drv *d);
void drv_start(struct drv *d, struct vm *v, unsigned devfn, uint64_t features, unsigned queues, unsigned size);
void drv_reset(struct drv *d); /* waits until it reads 0 */
uint16_t drv_fill(struct drvq *q, const struct buf *b, unsigned n); /* a chain, not yet visible */
void drv_publish(struct drvq *q);
uint16_t drv_put(struct drvq *q, const struct buf *b, unsigned n); /* a chain, made visible; its head */
void drv_kick(struct drvq *q);  /* always */
int drv_poll(struct drvq *q, struct done *out); /* 1: one more used entry */
struct done drv_wait(struct drvq *q);           /* within 10 s */
int drv_wants_kick(struct drvq *q); /* the device asked for a doorbell (no event_idx) */
unsigned drv_signals(struct virtio_dev *dev, unsigned vector);
#define wait_for(cond)                                                                                                 \
	do {                                                                                                           \
		for (int _i = 0; !(cond); _i++) {                                                                      \
			g_assert_cmpint(_i, <, 20000);                                                                 \
			g_usleep(500);                                                                                 \
		}                                                                                                      \
	} while (0)

#endif
