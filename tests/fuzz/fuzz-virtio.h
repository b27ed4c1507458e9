/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What fuzz-virtio.c needs of the file that makes the device. */
#ifndef FUZZ_VIRTIO_H
#define FUZZ_VIRTIO_H

#include "dev/virtio.h"

struct virtio_dev *fuzz_device(struct vm *v, struct pci_host *h, struct vh_loop *l);
void fuzz_device_gone(void);                             /* it was freed */
void fuzz_input(const uint8_t **p, size_t *left);        /* something happens on the host's side */

#endif
