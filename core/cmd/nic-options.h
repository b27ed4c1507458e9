/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The parts of --net that every NIC has, whatever its network: guard, limits, vhost. */
#ifndef CMD_NIC_OPTIONS_H
#define CMD_NIC_OPTIONS_H

#include "mach/mach.h"

extern const char *const nic_option_names[]; /* for "did you mean" */
/* 1: it was one of them and n has it; 0: it is the network's; < 0. */
int nic_option(const char *key, const char *val, struct mach_nic *n, struct vh_err *e);
/* When all are read: what does not go together. */
int nic_options_check(const struct mach_nic *n, struct vh_err *e);

#endif
