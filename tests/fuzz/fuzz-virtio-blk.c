/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <stdlib.h>
#include "fake-fmt.h"
#include "fuzz-virtio.h"

static struct fmt_image *image;

struct virtio_dev *fuzz_device(struct vm *v, struct pci_host *h, struct vh_loop *l)
{
	struct virtio_blk_config c = {.queues = 2, .loops = &l, .n_loops = 1, .label = "disk"};
	struct virtio_dev *d;

	c.image = image = fake_image(1 << 16);
	if (virtio_blk_new(v, h, &c, &d, NULL))
		abort();
	return d;
}

void fuzz_device_gone(void)
{
	fake_image_free(image);
}

/* Completions fail, or the size changes. (They are not held back here: removal would wait for ever on one thread.) */
void fuzz_input(const uint8_t **p, size_t *left)
{
	uint8_t x = *left ? **p : 0;

	if (*left) {
		(*p)++;
		(*left)--;
	}
	image->fail = x & 1 ? -EIO : 0;
	if (x & 2 && image->listener)
		image->listener(image->listener_ctx, (uint64_t)(x >> 2) << 10);
}
