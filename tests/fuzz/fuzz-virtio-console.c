/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "fuzz-virtio.h"

static int in[2], out[2];

struct virtio_dev *fuzz_device(struct vm *v, struct pci_host *h, struct vh_loop *l)
{
	struct virtio_dev *d;

	if (pipe2(in, O_CLOEXEC | O_NONBLOCK) || pipe2(out, O_CLOEXEC | O_NONBLOCK) ||
	    virtio_console_new(v, h, l, in[0], out[1], &d, NULL))
		abort();
	return d;
}

void fuzz_device_gone(void)
{
	close(in[0]);
	close(in[1]);
	close(out[0]);
	close(out[1]);
}

/* Input, and room for output. */
void fuzz_input(const uint8_t **p, size_t *left)
{
	char buf[4096];
	size_t n = *left < 20 ? *left : 20;

	if (write(in[1], *p, n) < 0)
		n = 0;
	*p += n;
	*left -= n;
	while (read(out[0], buf, sizeof(buf)) > 0)
		;
}
