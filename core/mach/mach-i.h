/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The machine's own parts, shared by build.c (assembly) and mach.c (life). */
#ifndef MACH_MACH_I_H
#define MACH_MACH_I_H

#include <pthread.h>
#include "mach/mach.h"


struct mach {
	struct vh_loop *main_loop;
	char *name;
	char *holder; /* who holds the volumes' leases */
	enum mach_reboot on_reboot;
	void (*changed)(void *ctx, const char *state, const char *reason);
	void *changed_ctx;

	struct vm *vm;
	struct boot_image *boot;
	struct pci_host *pci;
	struct platform *platform;
	struct serial *serial;
	struct vh_loop **loops;
	unsigned n_loops;
	struct disk **disks;
	struct net_port **ports;
	struct virtio_dev **devs; /* every virtio device: disks, NICs, then the others */
	struct virtio_dev *balloon;
	unsigned n_disks, n_ports, n_devs;

	enum mach_state state;
	int started;
	int status;
	struct vh_err error;

	/* Posted from any thread, handled on the main loop. */
	pthread_mutex_t lock;
	struct vh_task task;
	unsigned pending;       /* bits of enum vm_event, under lock */
	char *pending_text;     /* of VM_ERROR */
	int io_stopped;         /* a disk's error policy stopped the guest */
	char *io_text;
};

int mach_build(struct mach *m, const struct mach_config *c, struct vh_err *e);
void mach_unbuild(struct mach *m);
void mach_vm_event(void *ctx, enum vm_event ev, const char *text);       /* [any] */
void mach_io_stopped(void *ctx, const char *label, int error);           /* [any] */

#endif
