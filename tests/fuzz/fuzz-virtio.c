/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A hostile driver against a whole virtio device: register accesses of all kinds, rings and buffers full of anything,
 * doorbells, BAR moves, MSI-X, resets, in the order of the input. The device's queues run on a loop that turns in this very
 * thread, so that an input always does the same. FUZZ_DEVICE says which device it is.
 *
 * The input is a sequence of operations: a byte that chooses, and its arguments.
 */
#include <glib.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "dev/virtio.h"
#include "fake-vm.h"
#include "fuzz-virtio.h"

#define BYTES (4u << 20)
#define DEVFN (1 << 3)
#define RINGS 0x10000u /* where a well-behaved start puts them, 0x4000 each */
#define DATA 0x100000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vm *v;
static struct pci_host *h;
static struct vh_loop *loop;
static struct virtio_dev *dev;
static uint64_t bar;

struct in {
	const uint8_t *p;
	size_t left;
};

static uint32_t take(struct in *in, unsigned n)
{
	uint32_t x = 0;

	if (n > in->left)
		n = (unsigned)in->left;
	memcpy(&x, in->p, n);
	in->p += n;
	in->left -= n;
	return x;
}

static void turns(unsigned n)
{
	while (n--)
		loop_turn(loop, 0);
}

static void set(unsigned field, uint32_t x, unsigned len)
{
	mmio_set(v, bar + field, x, len);
}

/* What a proper driver does to reach DRIVER_OK, with the features that were drawn: deep code is reached from here. */
static void start(uint64_t features, unsigned size)
{
	set(VIRTIO_PCI_COMMON_STATUS, 0, 1);
	turns(2);
	set(VIRTIO_PCI_COMMON_STATUS, 3, 1);
	features &= dev->features;
	features |= VIRTIO_BIT(VIRTIO_F_VERSION_1);
	for (unsigned i = 0; i < 2; i++) {
		set(VIRTIO_PCI_COMMON_GFSELECT, i, 4);
		set(VIRTIO_PCI_COMMON_GF, (uint32_t)(features >> 32 * i), 4);
	}
	set(VIRTIO_PCI_COMMON_STATUS, 11, 1);
	for (unsigned i = 0; i < dev->n_queues; i++) {
		set(VIRTIO_PCI_COMMON_Q_SELECT, i, 2);
		set(VIRTIO_PCI_COMMON_Q_SIZE, size, 2);
		set(VIRTIO_PCI_COMMON_Q_DESCLO, RINGS + 0x4000 * i, 4);
		set(VIRTIO_PCI_COMMON_Q_AVAILLO, RINGS + 0x4000 * i + 0x1000, 4);
		set(VIRTIO_PCI_COMMON_Q_USEDLO, RINGS + 0x4000 * i + 0x2000, 4);
		set(VIRTIO_PCI_COMMON_Q_MSIX, i + 1, 2);
		set(VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
		memset(fake_at(v, RINGS + 0x4000 * i), 0, 0x4000);
	}
	set(VIRTIO_PCI_COMMON_STATUS, 15, 1);
}

/* A chain of up to four buffers in queue q, made available. */
static void chain(struct in *in, unsigned q)
{
	struct virtio_queue *vq = &dev->queue[q];
	uint64_t at = RINGS + 0x4000 * q;
	struct vring_desc *d = fake_at(v, at);
	struct vring_avail *a = fake_at(v, at + 0x1000);
	unsigned size = vq->vq.size ? vq->vq.size : 8, n = 1 + (take(in, 1) & 3), first;

	if (q >= 16 || size > 64)
		return;
	first = a->idx * 4u % size;
	for (unsigned i = 0; i < n; i++) {
		uint32_t how = take(in, 1), len = take(in, 2), fill = take(in, 1);
		uint64_t to = how & 0x80 ? (uint64_t)take(in, 4) << (how & 7) : DATA + 0x1000 * (q * 4 + i);

		if (how & 0x40)
			len <<= 8;
		if (how & 0x20) {
			uint32_t head[4] = {take(in, 4), take(in, 4), take(in, 2), 0};

			memset(fake_at(v, DATA + 0x1000 * (q * 4 + i)), (int)fill, 64);
			memcpy(fake_at(v, DATA + 0x1000 * (q * 4 + i)), head, 16);
		}
		d[(first + i) % size] = (struct vring_desc){to, len, (uint16_t)((how & VRING_DESC_F_WRITE) | (how & 4) | (i + 1 < n)),
							    (uint16_t)((first + i + 1) % size)};
	}
	a->ring[a->idx % size] = (uint16_t)first;
	__atomic_store_n(&a->idx, (uint16_t)(a->idx + 1), __ATOMIC_SEQ_CST);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct in in = {data, size};

	v = fake_vm(BYTES, 40);
	v->next_gpa = 0x1000;
	if (pci_host_new(v, &h, NULL) || loop_new("fuzz", &loop, NULL))
		abort();
	loop_set_poll_max(loop, 0);
	dev = fuzz_device(v, h, loop);
	cfg_set(v, DEVFN, 4, 6, 2);
	bar = dev->pci.bar[4].addr;
	for (unsigned i = 0; in.left && i < 400; i++) {
		uint32_t op = take(&in, 1), a = take(&in, 2), b;
		unsigned len = 1u << (op >> 6), q = a % dev->n_queues;
		uint64_t wide;

		switch (op & 0xf) {
		case 0: /* common registers */
			set(a % 64, take(&in, len > 4 ? 4 : len), len > 4 ? 4 : len);
			break;
		case 1: /* the whole BAR */
			wide = take(&in, 4);
			bus_write(v->mmio, bar + a % 0x8000, &wide, len);
			bus_read(v->mmio, bar + take(&in, 2) % 0x8000, &wide, len);
			break;
		case 2: /* device configuration */
			wide = take(&in, 4);
			bus_write(v->mmio, bar + 0x2000 + a % 64, &wide, len);
			bus_read(v->mmio, bar + 0x2000 + a % 64, &wide, len);
			break;
		case 3: /* configuration space, header and capabilities */
			cfg_set(v, DEVFN, a % 256, take(&in, 4), len > 4 ? 4 : len);
			cfg_get(v, DEVFN, a % 256, len > 4 ? 4 : len);
			break;
		case 4: /* bytes of guest memory: rings, mostly */
			b = RINGS + a % 0x14000;
			wide = (uint64_t)take(&in, 4) | (uint64_t)take(&in, 4) << 32;
			memcpy((uint8_t *)fake_at(v, b), &wide, 8);
			break;
		case 5:
		case 6:
		case 7:
			chain(&in, q);
			if (op & 0x10)
				set(0x3000 + 4 * q, q, 2);
			break;
		case 8:
			set(0x3000 + 4 * q, q, 2);
			break;
		case 9:
		case 10:
			start((uint64_t)take(&in, 4) << 1 | (uint64_t)a << 28 | take(&in, 1), 8u << (op >> 6));
			break;
		case 11:
			set(VIRTIO_PCI_COMMON_STATUS, 0, 1);
			break;
		case 12: /* bring it back where we look for it */
			cfg_set(v, DEVFN, 0x24, (uint32_t)(bar >> 32), 4);
			cfg_set(v, DEVFN, 0x20, (uint32_t)bar, 4);
			cfg_set(v, DEVFN, 4, 6, 2);
			break;
		case 13:
			fuzz_input(&in.p, &in.left);
			break;
		case 14:
			pci_host_reset(h);
			break;
		default:
			turns(1 + (a & 3));
		}
		turns(op >> 5 & 1);
	}
	turns(2);
	virtio_free(dev);
	fuzz_device_gone();
	loop_free(loop);
	pci_host_free(h);
	fake_vm_free(v);
	return 0;
}
