/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* `vhost run`: one VM in this process, until it ends. */
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "cmd/cmd.h"
#include "cmd/run-options.h"
#include "cmd/console.h"
#include "ctl/ctl.h"
#include "plug/plug.h"
#include "util/log.h"


struct run {
	struct run_spec spec;
	struct vh_loop *loop;
	struct mach *mach;
	struct ctl_dir *dir;
	struct ctl_server *server;
	struct sink *sink; /* of the serial port, or NULL */
	struct term *term;
	int serial_fd, console_fd, signal_fd, impatient;
	int terms; /* atomic */
	struct vh_watch *signal_watch, *helper_watch;
};

static void serial_out(void *ctx, const void *data, size_t len)
{
	struct run *r = ctx;
	if (r->sink)
		sink_write(r->sink, data, len);
	if (r->server)
		ctl_console_output(r->server, data, len);
}

static void serial_room(void *ctx)
{
	struct run *r = ctx;
	if (r->term)
		term_room(r->term);
	if (r->server)
		ctl_console_room(r->server);
}

static size_t typed(void *ctx, const void *data, size_t len)
{
	struct run *r = ctx;
	return serial_input(mach_serial(r->mach), data, len);
}

static void typed_quit(void *ctx)
{
	struct run *r = ctx;
	mach_quit(r->mach, EXIT_OK, "ended at the console");
}

static void typed_power(void *ctx)
{
	struct run *r = ctx;
	mach_power_button(r->mach);
}

static const struct term_ops typing = {typed, typed_quit, typed_power};

/* The first SIGTERM (or SIGINT, SIGHUP) presses the power button, a second one ends the machine with its volumes flushed. */
static void signalled(void *ctx, uint32_t events)
{
	struct run *r = ctx;
	struct signalfd_siginfo si;

	while (read(r->signal_fd, &si, sizeof si) == sizeof si) {
		if (!__atomic_fetch_add(&r->terms, 1, __ATOMIC_RELAXED)) {
			log_info("run", "%s: %s: pressing the power button", r->spec.name, strsignal((int)si.ssi_signo));
			mach_power_button(r->mach);
		} else {
			mach_quit(r->mach, EXIT_OK, "ended by a second signal");
		}
	}
}

/* While the machine ends, the main loop may wait for storage that never answers: a third signal does not. What the guest
 * has flushed is safe all the same. */
static void *impatient_main(void *arg)
{
	struct run *r = arg;
	struct pollfd p = {.fd = r->signal_fd, .events = POLLIN};
	struct signalfd_siginfo si;

	for (;;) {
		poll(&p, 1, -1);
		if (read(r->signal_fd, &si, sizeof si) != sizeof si || __atomic_add_fetch(&r->terms, 1, __ATOMIC_RELAXED) < 3)
			continue;
		log_error("run", "ended by a third signal, without waiting for its disks");
		_exit(EXIT_FAILED);
	}
	return NULL;
}

static void no_more_patience(struct run *r)
{
	pthread_t t;

	if (r->impatient || r->signal_fd < 0 || pthread_create(&t, NULL, impatient_main, r))
		return;
	pthread_detach(t);
	r->impatient = 1;
}

static int watch_signals(struct run *r, struct vh_err *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL); /* before any thread is made: all inherit it */
	signal(SIGPIPE, SIG_IGN);
	r->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (r->signal_fd < 0)
		return err_set(e, -errno, "cannot make a signalfd: %s", strerror(errno));
	return loop_watch(r->loop, r->signal_fd, VH_IN, signalled, r, &r->signal_watch);
}

static int open_file(const char *sink, int *fd, struct vh_err *e)
{
	*fd = -1;
	if (!g_str_has_prefix(sink, "file:"))
		return 0;
	*fd = open(sink + 5, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
	if (*fd < 0)
		return err_set(e, -errno, "cannot open %s: %s", sink + 5, strerror(errno));
	return 0;
}

static int open_consoles(struct run *r, struct vh_err *e)
{
	struct mach_config *m = &r->spec.mach;
	int ret = open_file(r->spec.serial, &r->serial_fd, e);

	if (!ret && r->spec.console)
		ret = open_file(r->spec.console, &r->console_fd, e);
	if (ret)
		return ret;
	if (r->spec.console && !strcmp(r->spec.console, "stdio")) {
		m->console_in = STDIN_FILENO;
		m->console_out = STDOUT_FILENO;
	} else if (r->console_fd >= 0) {
		m->console_out = r->console_fd;
	}
	if (!strcmp(r->spec.serial, "stdio"))
		ret = sink_new(r->loop, STDOUT_FILENO, &r->sink, e);
	else if (r->serial_fd >= 0)
		ret = sink_new(r->loop, r->serial_fd, &r->sink, e);
	return ret;
}

static void changed(void *ctx, const char *state, const char *reason)
{
	struct run *r = ctx;
	if (!strcmp(state, "stopping"))
		no_more_patience(r);
	else if (r->server)
		ctl_server_event(r->server, state, reason);
}

static void print_step(void *ctx, const char *text)
{
	printf("  %s\n", text);
}

static int dry_run(struct run_spec *s, struct vh_err *e)
{
	struct mach_config *m = &s->mach;
	g_autofree char *memory = format_size(m->mem.bytes);
	struct boot_image *image;
	int r = boot_open(&m->boot, &image, e);

	if (r)
		return r;
	boot_close(image);
	printf("VM %s: %u vCPU%s, %s\n", s->name, m->cpus, m->cpus == 1 ? "" : "s", memory);
	printf("boot: %s%s%s\n", m->boot.kernel, m->boot.initrd ? " with " : "", m->boot.initrd ? m->boot.initrd : "");
	for (unsigned i = 0; i < m->n_disks; i++) {
		printf("disk %u:\n", i);
		r = disk_plan(&m->disks[i], print_step, NULL, e);
		if (r)
			return err_context(e, "disk %u", i);
	}
	for (unsigned i = 0; i < m->n_nics; i++) {
		const struct mach_nic *n = &m->nics[i];
		struct optset *o = NULL;
		struct net_config c;

		if (n->network)
			printf("NIC %u, network %s of kind %s, type %s:\n", i, n->network->name, n->network->kind, n->type);
		else
			printf("NIC %u, network type %s:\n", i, n->type);
		r = mach_nic_config(n, s->name, i, &c, &o, e);
		if (!r)
			r = net_port_plan(&c, print_step, NULL, e);
		optset_free(o);
		if (r)
			return err_context(e, "NIC %u", i);
	}
	printf("devices:%s%s%s serial rtc i8042\n", m->rng ? " virtio-rng" : "", m->balloon ? " virtio-balloon" : "",
	       m->console ? " virtio-console" : "");
	return EXIT_OK;
}

static int serve(struct run *r, struct vh_err *e)
{
	int ret = loop_new("main", &r->loop, e);

	if (!ret)
		ret = watch_signals(r, e);
	if (!ret)
		ret = open_consoles(r, e);
	if (ret)
		return ret;
	r->spec.mach.serial_out = serial_out;
	r->spec.mach.serial_ctx = r;
	r->spec.mach.changed = changed;
	r->spec.mach.changed_ctx = r;
	r->spec.mach.state_dir = ctl_dir_path(r->dir);
	ret = ctl_privs_prepare(r->spec.mach.n_nics, e);
	if (!ret)
		ret = mach_new(&r->spec.mach, r->loop, &r->mach, e);
	if (ret)
		return ret;
	serial_on_room(mach_serial(r->mach), serial_room, r);
	if (!strcmp(r->spec.serial, "stdio"))
		ret = term_new(r->loop, &typing, r, &r->term, e);
	if (!ret)
		ret = ctl_server_new(r->mach, r->loop, r->dir, &r->server, e);
	/* The last moment with privileges: from here on the guest may run. */
	if (!ret)
		ret = ctl_privs_drop(e);
	if (!ret)
		ctl_privs_follow(r->loop, &r->helper_watch);
	if (!ret && !r->spec.paused)
		ret = mach_start(r->mach, e);
	if (ret)
		return ret;
	if (r->spec.detach)
		ctl_detach_running();
	loop_run(r->loop);
	ret = mach_exit_status(r->mach);
	if (ret == EXIT_FAILED && mach_error(r->mach)->code) {
		const struct vh_err *why = mach_error(r->mach);
		if (why->object)
			err_object(e, "%s", why->object);
		err_set(e, why->code, "%s", why->cause);
		if (why->remedy)
			err_remedy(e, "%s", why->remedy);
		return why->code;
	}
	return ret;
}

static void clean_up(struct run *r)
{
	term_free(r->term);
	if (r->server)
		ctl_server_free(r->server);
	r->server = NULL;
	mach_free(r->mach);
	sink_free(r->sink);
	if (r->signal_watch)
		loop_unwatch(r->signal_watch);
	if (r->helper_watch)
		loop_unwatch(r->helper_watch);
	if (r->signal_fd >= 0 && !r->impatient) /* else it goes with the process */
		close(r->signal_fd);
	if (r->loop)
		loop_free(r->loop);
	if (r->serial_fd >= 0)
		close(r->serial_fd);
	if (r->console_fd >= 0)
		close(r->console_fd);
	ctl_privs_end();
	if (r->dir)
		ctl_dir_release(r->dir);
	run_spec_clear(&r->spec);
}

static int run(struct cmd_ctx *c, struct vh_err *e)
{
	static struct run r; /* outlives this function: see impatient_main */
	int ret;

	r = (struct run){.serial_fd = -1, .console_fd = -1, .signal_fd = -1};
	ret = run_spec_read(c->n_args ? c->args[0] : NULL, c->opts, &r.spec, e);

	if (ret)
		return ret;
	if (r.spec.dry_run) {
		ret = dry_run(&r.spec, e);
		if (ret < 0)
			err_object(e, "VM %s", r.spec.name); /* where nothing below has named what failed */
		run_spec_clear(&r.spec);
		return ret;
	}
	if (r.spec.detach) {
		int status;
		ret = ctl_detach(r.spec.name, &status, e); /* 1 in the parent, once the child runs or has failed */
		if (ret) {
			if (ret < 0)
				err_object(e, "VM %s", r.spec.name);
			run_spec_clear(&r.spec);
			return ret < 0 ? ret : status;
		}
	}
	ret = ctl_dir_claim(r.spec.name, &r.dir, e);
	if (!ret) {
		err_clear(e); /* the claim has named the VM: what fails from here on has nearer names */
		ret = serve(&r, e);
	}
	if (ret < 0)
		err_object(e, "VM %s", r.spec.name);
	clean_up(&r);
	return ret;
}

static const struct cmd cmd_run_one = {
	.noun = NULL,
	.verb = "run",
	.args = "[NAME]",
	.summary = "Run a virtual machine, described by options, by a file, or both",
	.help = "NAME reads the machine from vms/NAME.conf in the configuration folder; options on the command\n"
		"line stand before its values, disks and NICs are added. The exit status is the guest's:\n"
		"0 power-off, 10 reset with --on-reboot exit, 11 panic. SIGTERM presses the power button,\n"
		"a second one ends the machine at once, a third one does not "
		"even wait for its disks.",
	.options = run_options,
	.run = run,
};

const struct cmd *const cmd_run[] = {&cmd_run_one, NULL};
