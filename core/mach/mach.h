/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A whole machine: VM, devices, boot image, disks, NICs, its loops and its life: start, pause, reset, power off. */
#ifndef MACH_MACH_H
#define MACH_MACH_H

#include "boot/boot.h"
#include "dev/platform.h"
#include "dev/virtio.h"
#include "net/network.h"
#include "net/guard.h"
#include "net/port.h"
#include "net/rate.h"
#include "store/store.h"
#include "util/loop.h"

struct mach;
enum mach_reboot { MACH_REBOOT_RESET, MACH_REBOOT_EXIT, MACH_REBOOT_HALT };
struct mach_nic {
	const char *type, *ifname; /* ifname NULL: the kernel's next vnetN */
	const struct network *network; /* a defined one, whose type this is and whose options are added; NULL: none */
	struct kvs options;        /* the plugin's own, as given with the NIC */
	uint8_t mac[6];
	int have_mac; /* else derived from the VM's name and the index */
	unsigned queues;
	uint16_t mtu;
	struct guard guard;
	struct rate_limit in, out; /* what the guest receives, and sends */
	int vhost;                 /* VIRTIO_NET_VHOST_* */
};
struct mach_config {
	const char *name;
	const char *state_dir; /* the VM's folder of running state */
	unsigned cpus;
	struct mem_config mem;
	const int *pin;
	struct boot_config boot;
	const struct kvs *disks;
	const struct mach_nic *nics;
	unsigned n_disks, n_nics;
	int rng, balloon, console; /* virtio-console instead of nothing */
	enum mach_reboot on_reboot;
	unsigned io_threads; /* 0: min(cpus, host cores) */
	void (*serial_out)(void *ctx, const void *data, size_t len);
	void *serial_ctx;
	int console_in, console_out; /* fds of the virtio console or -1 */
	/* [main loop] state changes: "running", "paused", "io-error", "reset", "stopping" (it may wait
	 * for disks now), "stopped"; reason: text or NULL */
	void (*changed)(void *ctx, const char *state, const char *reason);
	void *changed_ctx;
};
enum mach_state { MACH_NEW, MACH_RUNNING, MACH_PAUSED, MACH_IO_ERROR, MACH_STOPPED };
/* Everything that can be refused is refused here; kernel objects are made; loads plugins in parallel with KVM's set-up. */
int mach_new(const struct mach_config *c, struct vh_loop *main_loop, struct mach **out, struct vh_err *e);
int mach_start(struct mach *m, struct vh_err *e);  /* [main] */
void mach_power_button(struct mach *m);             /* [main] */
void mach_quit(struct mach *m, int status, const char *reason); /* [main] power off now; loop_stop(main_loop) when down */
int mach_pause(struct mach *m, struct vh_err *e);
int mach_resume(struct mach *m, struct vh_err *e);
int mach_reset(struct mach *m, struct vh_err *e);
enum mach_state mach_get_state(const struct mach *m);
int mach_exit_status(const struct mach *m);
const struct vh_err *mach_error(const struct mach *m); /* why it ended, when status is 1 */
const char *mach_name(const struct mach *m);
struct serial *mach_serial(struct mach *m);
struct vm *mach_vm(struct mach *m);
struct virtio_dev *mach_balloon(struct mach *m);
unsigned mach_disks(struct mach *m);
struct disk *mach_disk(struct mach *m, unsigned i);
/* [main] What can be done while the guest runs; its requests wait meanwhile. disks.c. By label, serial number or number. */
int mach_disk_find(struct mach *m, const char *name, struct disk **out, struct vh_err *e);
int mach_snapshot_create(struct mach *m, struct disk *d, const char *name, struct vh_err *e);
int mach_snapshot_list(struct mach *m, struct disk *d, vh_snapshot_fn *fn, void *ctx, struct vh_err *e);
int mach_snapshot_remove(struct mach *m, struct disk *d, const char *name, struct vh_err *e);
int mach_resize_disk(struct mach *m, struct disk *d, uint64_t bytes, struct vh_err *e); /* grows; durable when it returns */
unsigned mach_nics(struct mach *m);
/* [any] What the NIC's port is opened with, or planned; opts is what c->opts points into. nics.c */
int mach_nic_config(const struct mach_nic *n, const char *vm, unsigned index, struct net_config *c, struct optset **opts, struct vh_err *e);
/* [main] By interface or number: the guest sees it, and the port takes part. Tells which it is, and how it is now. */
int mach_set_link(struct mach *m, const char *nic, int up, unsigned *index, const struct vh_net_info **now, struct vh_err *e);
struct net_port *mach_port(struct mach *m, unsigned i);
struct virtio_dev *mach_nic_dev(struct mach *m, unsigned i);
void mach_free(struct mach *m); /* flushes and closes everything */

#endif
