/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The options of `vhost run` and of a VM's file, and the machine that they describe. */
#ifndef CMD_RUN_OPTIONS_H
#define CMD_RUN_OPTIONS_H

#include "mach/mach.h"

extern const struct vh_opt *const run_options[];

struct run_spec {
	char *name;
	struct mach_config mach; /* pointers below */
	char *serial, *console;  /* "stdio", "null", "file:PATH", "none" */
	int dry_run, detach, paused;
	struct kvs *disks;
	struct mach_nic *nics;
	int *pin;
	char *kernel, *initrd, *cmdline;
};

/* From the command line (`given`, without defaults) over the VM's file, when `vm` names one or `file` is set. */
int run_spec_read(const char *vm, const struct vh_opts *given, struct run_spec *s, struct vh_err *e);
void run_spec_clear(struct run_spec *s);

#endif
