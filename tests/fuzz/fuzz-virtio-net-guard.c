/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* fuzz-virtio-net with a guard and with limits that hold packets up. */
#define FUZZ_GUARD 1
#include "fuzz-virtio-net.c"
