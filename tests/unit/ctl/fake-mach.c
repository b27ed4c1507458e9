/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "fake-mach.h"

#include <glib.h>

#include <string.h>

struct fake fake;
static struct disk the_disk = { .label = (char *)"default/web", .serial = "abc" };

static void on_main(void)
{
	if (!loop_is_current(fake.main))
		fake.wrong_thread++;
}

void fake_set(enum mach_state s, const char *word, const char *reason)
{
	fake.state = s;
	ctl_server_event(fake.server, word, reason);
}

static int change(enum mach_state s, const char *word, struct vh_err *e)
{
	on_main();
	if (fake.fail) {
		err_remedy(e, "do not ask");
		return err_set(e, -EBUSY, "the fake refuses");
	}
	fake_set(s, word, NULL);
	return 0;
}

enum mach_state mach_get_state(const struct mach *m) { return fake.state; }
void mach_power_button(struct mach *m) { on_main(); fake.buttons++; }
int mach_pause(struct mach *m, struct vh_err *e) { return change(MACH_PAUSED, "paused", e); }
int mach_resume(struct mach *m, struct vh_err *e) { return change(MACH_RUNNING, "running", e); }
int mach_reset(struct mach *m, struct vh_err *e) { return change(fake.state, "reset", e); }
struct serial *mach_serial(struct mach *m) { return NULL; }
struct vm *mach_vm(struct mach *m) { return NULL; }
struct virtio_dev *mach_balloon(struct mach *m) { return fake.no_balloon ? NULL : (struct virtio_dev *)&fake; }
unsigned mach_disks(struct mach *m) { return 1; }
struct disk *mach_disk(struct mach *m, unsigned i) { return &the_disk; }
unsigned mach_nics(struct mach *m) { return fake.nics; }
struct net_port *mach_port(struct mach *m, unsigned i) { return NULL; }

int mach_set_link(struct mach *m, const char *nic, int up, unsigned *index, const struct vh_net_info **now, struct vh_err *e)
{
	on_main();
	*index = 0;
	*now = &fake.nic;
	if (strcmp(nic, "vnet0"))
		return err_set(e, -ENOENT, "there is no NIC %s", nic);
	fake.nic = (struct vh_net_info){ .ifname = "vnet0", .link = up != 0 };
	return 0;
}

int mach_disk_find(struct mach *m, const char *name, struct disk **out, struct vh_err *e)
{
	on_main();
	*out = &the_disk;
	return strcmp(name, the_disk.label) ? err_set(e, -ENOENT, "there is no disk %s", name) : 0;
}

int mach_snapshot_create(struct mach *m, struct disk *d, const char *name, struct vh_err *e)
{
	on_main();
	g_strlcpy(fake.snapshot, name, sizeof(fake.snapshot));
	return 0;
}

int mach_snapshot_remove(struct mach *m, struct disk *d, const char *name, struct vh_err *e)
{
	on_main();
	if (strcmp(fake.snapshot, name))
		return err_set(e, -ENOENT, "there is no snapshot %s", name);
	fake.snapshot[0] = 0;
	return 0;
}

int mach_snapshot_list(struct mach *m, struct disk *d, vh_snapshot_fn *fn, void *ctx, struct vh_err *e)
{
	struct vh_snapshot s = { .size = sizeof(s), .name = fake.snapshot, .id = "1", .bytes = 1 << 20, .when = 1000000000 };

	on_main();
	return fake.snapshot[0] ? fn(ctx, &s) : 0;
}

int mach_resize_disk(struct mach *m, struct disk *d, uint64_t bytes, struct vh_err *e)
{
	on_main();
	if (bytes < fake.disk_bytes)
		return err_set(e, -EBUSY, "a disk does not shrink");
	fake.disk_bytes = bytes;
	return 0;
}

struct mem *vm_mem(struct vm *v) { return &fake.mem; }
unsigned vm_cpus(const struct vm *v) { return 2; }
void vm_vcpu_stats(struct vm *v, unsigned i, struct vm_cpu_stats *out) { *out = (struct vm_cpu_stats){ 10 + i, 1, 2, 3 }; }

void mach_quit(struct mach *m, int status, const char *reason)
{
	on_main();
	if (fake.state != MACH_STOPPED)
		fake_set(MACH_STOPPED, "stopped", reason);
}

void fmt_get_stats(const struct fmt_image *i, struct fmt_stats *out)
{
	on_main();
	*out = (struct fmt_stats){ .ops = { 0, 7 }, .bytes = { 0, 4096 } };
}

int fmt_trouble(const struct fmt_image *i, unsigned *late)
{
	*late = 0;
	return 0;
}

void fmt_get_info(const struct fmt_image *i, struct fmt_info *out)
{
	*out = (struct fmt_info){ .bytes = fake.disk_bytes ? fake.disk_bytes : 1 << 20 };
}

void virtio_balloon_set(struct virtio_dev *d, uint64_t target) { on_main(); fake.balloon = target; }

void virtio_balloon_get(struct virtio_dev *d, struct balloon_stats *out)
{
	*out = (struct balloon_stats){ .actual = fake.mem.bytes, .target = fake.balloon, .have = 1, .free = UINT64_MAX };
}

size_t serial_input(struct serial *s, const void *data, size_t len)
{
	size_t n = (size_t)atomic_load(&fake.input_room);

	n = n < len ? n : len;
	n = n < sizeof(fake.input) - fake.input_n ? n : sizeof(fake.input) - fake.input_n;
	memcpy(fake.input + fake.input_n, data, n);
	fake.input_n += (unsigned)n;
	fake.input_room -= (int)n;
	return n;
}

struct virtio_dev *mach_nic_dev(struct mach *m, unsigned i) { return NULL; }
void virtio_net_get_stats(struct virtio_dev *d, struct virtio_net_stats *out) { *out = (struct virtio_net_stats){ 0 }; }
void virtio_net_set_rates(struct virtio_dev *d, const struct rate_limit *in, const struct rate_limit *out)
{
	on_main();
	fake.limits[0] = in != NULL;
	fake.limits[1] = out != NULL;
	fake.limit[0] = in ? *in : (struct rate_limit){ 0 };
	fake.limit[1] = out ? *out : (struct rate_limit){ 0 };
}
