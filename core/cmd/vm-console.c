/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost vm console: this terminal on a VM's serial port. */
#include <glib.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>
#include <vhost/sugar.h>
#include "cmd/vm.h"

#define LEAVE 0x1d /* Ctrl-] */

static volatile sig_atomic_t ended;

static void on_signal(int sig)
{
	ended = 1;
}

static int write_all(int fd, const char *p, size_t n)
{
	ssize_t r;

	for (; n; p += r, n -= (size_t)r) {
		r = write(fd, p, n);
		if (r < 0 && errno == EINTR && !ended)
			r = 0;
		else if (r < 0)
			return -errno;
	}
	return 0;
}

static int send_all(int fd, const char *p, size_t n)
{
	ssize_t r;

	for (; n; p += r, n -= (size_t)r) {
		r = send(fd, p, n, MSG_NOSIGNAL);
		if (r < 0 && errno == EINTR && !ended)
			r = 0;
		else if (r < 0)
			return -errno;
	}
	return 0;
}

/* 1: it goes on; 0: the VM has ended, or the user leaves. */
static int turn(int fd, int tty, int *in)
{
	struct pollfd pf[2] = { { fd, POLLIN, 0 }, { *in, POLLIN, 0 } };
	char buf[4096], *leave;
	ssize_t n;

	if (poll(pf, 2, -1) < 0)
		return errno == EINTR && !ended;
	if (pf[0].revents) {
		n = recv(fd, buf, sizeof(buf), 0);
		if (n <= 0 || write_all(STDOUT_FILENO, buf, (size_t)n))
			return 0;
	}
	if (pf[1].revents) {
		n = read(*in, buf, sizeof(buf));
		if (n <= 0) {
			*in = -1; /* the output goes on */
			return !tty;
		}
		leave = tty ? memchr(buf, LEAVE, (size_t)n) : NULL;
		if (leave)
			n = leave - buf;
		if (send_all(fd, buf, (size_t)n) || leave)
			return 0;
	}
	return 1;
}

static int attach(struct cmd_ctx *c, struct ctl_client *cl, JsonObject *params, struct vh_err *e)
{
	struct termios was, now;
	int tty = isatty(STDIN_FILENO), in = STDIN_FILENO, r;
	struct sigaction sa = { .sa_handler = on_signal };
	char buf[4096];
	size_t n;

	r = ctl_client_call(cl, "Console", params, CTL_UPGRADE, NULL, e);
	if (r < 0)
		return r;
	if (tty && tcgetattr(STDIN_FILENO, &was) < 0)
		tty = 0;
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	if (tty) {
		if (!c->quiet)
			fprintf(stderr, "connected to VM %s; Ctrl-] leaves\r\n", c->args[0]);
		now = was;
		cfmakeraw(&now);
		tcsetattr(STDIN_FILENO, TCSADRAIN, &now);
	}
	while ((n = ctl_client_rest(cl, buf, sizeof(buf))) > 0 && !write_all(STDOUT_FILENO, buf, n))
		;
	while (!ended && turn(ctl_client_fd(cl), tty, &in))
		;
	if (tty) {
		tcsetattr(STDIN_FILENO, TCSADRAIN, &was);
		if (!c->quiet)
			fprintf(stderr, "\n");
	}
	return 0;
}

/* One object a line, data in base64. */
static int follow_json(struct ctl_client *cl, JsonObject *params, struct vh_err *e)
{
	JsonObject *o = NULL;
	int r = ctl_client_call(cl, "Console", params, CTL_MORE, &o, e);

	for (r = r < 0 ? r : 1; r > 0; r = ctl_client_next(cl, &o, e)) {
		vm_print_json(o);
		g_clear_pointer(&o, json_object_unref);
	}
	return r;
}

int vm_run_console(struct cmd_ctx *c, struct vh_err *e)
{
	JsonObject *params;
	struct ctl_client *cl;
	int r = ctl_client_open(c->args[0], c->json ? -1 : 30000, &cl, e);

	if (r < 0)
		return r;
	params = json_object_new();
	json_object_set_boolean_member(params, "replay", vh_opt_num(c->opts, "replay", 1) != 0);
	r = c->json ? follow_json(cl, params, e) : attach(c, cl, params, e);
	ctl_client_free(cl);
	return r;
}
