/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <stdlib.h>
#include "fuzz-virtio.h"

static struct virtio_dev *dev;

struct virtio_dev *fuzz_device(struct vm *v, struct pci_host *h, struct vh_loop *l)
{
	if (virtio_balloon_new(v, h, l, &dev, NULL))
		abort();
	return dev;
}

void fuzz_device_gone(void)
{
}

void fuzz_input(const uint8_t **p, size_t *left)
{
	struct balloon_stats s;

	if (*left) {
		virtio_balloon_set(dev, (uint64_t)**p << 15);
		(*p)++;
		(*left)--;
	}
	virtio_balloon_get(dev, &s);
}
