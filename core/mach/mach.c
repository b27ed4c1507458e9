/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A machine's life: start, pause, reset, power off. Everything here runs on the main loop, but for the two posting calls. */
#include <glib.h>
#include <string.h>
#include <unistd.h>
#include "mach/mach-i.h"
#include "util/log.h"

#define PENDING_IO (1u << 31)
#define FLUSH_WAIT UINT64_C(10000000000) /* ns for a lost storage to come back, when the machine ends */

static void set_state(struct mach *m, enum mach_state s, const char *word, const char *reason)
{
	m->state = s;
	log_debug("mach", "%s: %s%s%s", m->name, word, reason ? ": " : "", reason ? reason : "");
	if (m->changed)
		m->changed(m->changed_ctx, word, reason);
}

static void post(struct mach *m, unsigned bits, char **slot, char *text)
{
	pthread_mutex_lock(&m->lock);
	m->pending |= bits;
	if (slot && !*slot)
		*slot = g_steal_pointer(&text);
	pthread_mutex_unlock(&m->lock);
	g_free(text);
	loop_post(m->main_loop, &m->task);
}

/* What was posted is no longer true. */
static void forget(struct mach *m, unsigned bits)
{
	pthread_mutex_lock(&m->lock);
	m->pending &= ~bits;
	if (bits & PENDING_IO)
		g_clear_pointer(&m->io_text, g_free);
	pthread_mutex_unlock(&m->lock);
}

void mach_vm_event(void *ctx, enum vm_event ev, const char *text)
{
	struct mach *m = ctx;
	if (ev == VM_ERROR)
		post(m, 1u << ev, &m->pending_text, g_strdup(text ? text : "the virtual machine cannot go on"));
	else
		post(m, 1u << ev, NULL, NULL);
}

void mach_io_stopped(void *ctx, const char *label, int error)
{
	struct mach *m = ctx;
	post(m, PENDING_IO, &m->io_text, g_strdup_printf("disk %s: %s", label, strerror(-error)));
}

static void reboot(struct mach *m, const char *why)
{
	ERR_AUTO(e);

	switch (m->on_reboot) {
	case MACH_REBOOT_EXIT:
		mach_quit(m, EXIT_GUEST_RESET, why);
		return;
	case MACH_REBOOT_HALT:
		if (!mach_pause(m, &e))
			log_info("mach", "%s: %s; halted as --on-reboot=halt asks", m->name, why);
		return;
	case MACH_REBOOT_RESET:
		if (mach_reset(m, &e)) {
			err_move(&m->error, &e);
			mach_quit(m, EXIT_FAILED, "the reset failed");
		}
		return;
	}
}

static void handle_pending(struct vh_task *t)
{
	struct mach *m = (struct mach *)((char *)t - offsetof(struct mach, task));
	g_autofree char *text = NULL, *io = NULL;
	unsigned p;

	pthread_mutex_lock(&m->lock);
	p = m->pending;
	m->pending = 0;
	text = g_steal_pointer(&m->pending_text);
	io = g_steal_pointer(&m->io_text);
	pthread_mutex_unlock(&m->lock);
	if (m->state == MACH_STOPPED)
		return;
	/* The gravest first: what is left does not matter once the machine is down. */
	if (p & 1u << VM_ERROR) {
		err_set(&m->error, -EIO, "%s", text);
		mach_quit(m, EXIT_FAILED, text);
	} else if (p & 1u << VM_PANIC) {
		mach_quit(m, EXIT_GUEST_PANIC, "guest panic");
	} else if (p & 1u << VM_SHUTDOWN) {
		mach_quit(m, EXIT_OK, "guest powered off");
	} else if (p & 1u << VM_TRIPLE_FAULT) {
		reboot(m, "triple fault");
	} else if (p & 1u << VM_RESET) {
		reboot(m, "guest reset");
	} else if (p & PENDING_IO && m->state == MACH_RUNNING) {
		vm_pause(m->vm);
		m->io_stopped = 1;
		log_warn("mach", "%s: paused: %s", m->name, io);
		set_state(m, MACH_IO_ERROR, "io-error", io);
	}
}

int mach_new(const struct mach_config *c, struct vh_loop *main_loop, struct mach **out, struct vh_err *e)
{
	struct mach *m = g_new0(struct mach, 1);
	int r;

	pthread_mutex_init(&m->lock, NULL);
	m->main_loop = main_loop;
	m->name = g_strdup(c->name);
	m->holder = g_strdup_printf("pid %d vhost run %s", (int)getpid(), c->name);
	m->on_reboot = c->on_reboot;
	m->changed = c->changed;
	m->changed_ctx = c->changed_ctx;
	m->task.fn = handle_pending;
	r = mach_build(m, c, e);
	if (r) {
		mach_free(m);
		return r;
	}
	*out = m;
	return 0;
}

int mach_start(struct mach *m, struct vh_err *e)
{
	int r = vm_start(m->vm, e);
	if (r)
		return r;
	m->started = 1;
	set_state(m, MACH_RUNNING, "running", NULL);
	return 0;
}

void mach_power_button(struct mach *m)
{
	if (m->state == MACH_PAUSED)
		log_warn("mach", "%s is paused: the guest sees the power button when it is resumed", m->name);
	else if (!platform_acpi_enabled(m->platform))
		log_warn("mach", "%s: the guest does not listen to the power button; ask again to end it at once", m->name);
	platform_power_button(m->platform);
}

static void keep_requests(struct mach *m, int keep)
{
	for (unsigned i = 0; i < m->n_disks; i++)
		fmt_keep(m->disks[i]->image, keep);
}

/* A storage that is lost may come back in time. */
static int last_flush(struct disk *d, gint64 until, struct vh_err *e)
{
	unsigned late;
	int ret;

	while ((ret = fmt_flush(d->image, e)) && fmt_trouble(d->image, &late) && g_get_monotonic_time() < until) {
		err_clear(e);
		g_usleep(200000);
	}
	return ret;
}

static void make_durable(struct mach *m, struct disk *d, gint64 until)
{
	struct fmt_info info;
	ERR_AUTO(e);

	fmt_get_info(d->image, &info);
	if (info.read_only || !last_flush(d, until, &e))
		return;
	log_error("mach", "disk %s: %s", d->label, e.cause);
	if (m->status)
		return;
	m->status = EXIT_FAILED;
	err_object(&e, "disk %s", d->label);
	err_move(&m->error, &e);
}

void mach_quit(struct mach *m, int status, const char *reason)
{
	gint64 until;
	g_autofree int *lost = g_new0(int, m->n_disks + 1);
	unsigned late;

	if (m->state == MACH_STOPPED)
		return;
	m->status = status;
	if (m->changed)
		m->changed(m->changed_ctx, "stopping", reason);
	if (m->started)
		vm_stop(m->vm);
	keep_requests(m, 0);
	until = g_get_monotonic_time() + (gint64)(FLUSH_WAIT / 1000);
	for (unsigned i = 0; i < m->n_disks; i++) {
		struct fmt_info info;

		fmt_get_info(m->disks[i]->image, &info);
		fmt_leave(m->disks[i]->image, info.read_only ? 0 : FLUSH_WAIT);
	}
	/* No vCPU runs any more. What the guest was told is written must be durable before we say that it is down. Those whose storage is
	 * there do not wait for the others. */
	for (unsigned i = 0; i < m->n_disks; i++) {
		lost[i] = fmt_trouble(m->disks[i]->image, &late);
		if (!lost[i])
			make_durable(m, m->disks[i], until);
	}
	for (unsigned i = 0; i < m->n_disks; i++)
		if (lost[i])
			make_durable(m, m->disks[i], until);
	for (unsigned i = 0; i < m->n_disks; i++) /* what is under way yet nobody was promised */
		fmt_leave(m->disks[i]->image, 0);
	set_state(m, MACH_STOPPED, "stopped", reason);
	loop_stop(m->main_loop);
}

int mach_pause(struct mach *m, struct vh_err *e)
{
	if (m->state == MACH_STOPPED)
		return err_set(e, -ESHUTDOWN, "the machine is down");
	if (m->state != MACH_RUNNING)
		return 0;
	vm_pause(m->vm);
	set_state(m, MACH_PAUSED, "paused", NULL);
	return 0;
}

int mach_resume(struct mach *m, struct vh_err *e)
{
	if (m->state == MACH_STOPPED)
		return err_set(e, -ESHUTDOWN, "the machine is down");
	if (!m->started)
		return mach_start(m, e);
	if (m->state == MACH_RUNNING)
		return 0;
	m->state = MACH_RUNNING; /* a request that fails again stops us again */
	/* Also when it was paused for another reason: a request may have failed since, and is kept. */
	m->io_stopped = 0;
	forget(m, PENDING_IO);
	for (unsigned i = 0; i < m->n_disks; i++)
		fmt_resume(m->disks[i]->image);
	vm_resume(m->vm);
	for (unsigned i = 0; i < m->n_ports; i++) /* switches have forgotten who was silent */
		virtio_net_announce(mach_nic_dev(m, i));
	set_state(m, MACH_RUNNING, "running", NULL);
	return 0;
}

int mach_reset(struct mach *m, struct vh_err *e)
{
	struct vm_boot start;
	enum mach_state was = m->state;
	int r;

	if (was == MACH_STOPPED)
		return err_set(e, -ESHUTDOWN, "the machine is down");
	if (!m->started)
		return 0;
	if (was == MACH_RUNNING)
		vm_pause(m->vm);
	/* A guest may ask for its reset in several ways at once, from several vCPUs: one is enough. */
	forget(m, 1u << VM_RESET | 1u << VM_TRIPLE_FAULT);
	/* Every request must end before its queue can be reset, those that a policy keeps as well. */
	m->io_stopped = 0;
	keep_requests(m, 0);
	pci_host_reset(m->pci);
	forget(m, PENDING_IO); /* of requests that are gone */
	keep_requests(m, 1);
	platform_reset(m->platform);
	serial_reset(m->serial);
	r = mem_zero_all(vm_mem(m->vm));
	if (r)
		return err_set(e, r, "cannot clear the guest's memory: %s", strerror(-r));
	r = boot_load(m->boot, m->vm, m->pci, &start, e);
	if (r)
		return r;
	vm_set_boot(m->vm, &start);
	r = vm_reset(m->vm, e);
	if (r)
		return r;
	if (m->changed)
		m->changed(m->changed_ctx, "reset", NULL);
	if (was == MACH_PAUSED)
		return 0;
	vm_resume(m->vm);
	set_state(m, MACH_RUNNING, "running", NULL);
	return 0;
}

enum mach_state mach_get_state(const struct mach *m)
{
	return m->state;
}

int mach_exit_status(const struct mach *m)
{
	return m->status;
}

const struct vh_err *mach_error(const struct mach *m)
{
	return &m->error;
}

const char *mach_name(const struct mach *m)
{
	return m->name;
}

struct serial *mach_serial(struct mach *m)
{
	return m->serial;
}

struct vm *mach_vm(struct mach *m)
{
	return m->vm;
}

struct virtio_dev *mach_balloon(struct mach *m)
{
	return m->balloon;
}

unsigned mach_disks(struct mach *m)
{
	return m->n_disks;
}

struct disk *mach_disk(struct mach *m, unsigned i)
{
	return m->disks[i];
}

unsigned mach_nics(struct mach *m)
{
	return m->n_ports;
}

struct net_port *mach_port(struct mach *m, unsigned i)
{
	return m->ports[i];
}

struct virtio_dev *mach_nic_dev(struct mach *m, unsigned i)
{
	return m->devs[m->n_disks + i];
}

void mach_free(struct mach *m)
{
	if (!m)
		return;
	if (m->started && m->state != MACH_STOPPED)
		vm_stop(m->vm);
	m->state = MACH_STOPPED;
	mach_unbuild(m);
	err_clear(&m->error);
	pthread_mutex_destroy(&m->lock);
	g_free(m->pending_text);
	g_free(m->io_text);
	g_free(m->name);
	g_free(m->holder);
	g_free(m);
}
