/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * `vhost run --detach`: the child keeps the terminal's standard error until the guest runs, so what goes wrong before is
 * said where the user looks; the parent learns of "running" by one byte through a pipe, of a failure by the exit status.
 */
#include "ctl/ctl-i.h"

#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/log.h"
#include "util/paths.h"

static int running_fd = -1;
static char *log_path;

static int wait_child(pid_t pid, int fd, int *status, struct vh_err *e)
{
	ssize_t n;
	char c;
	int st;

	do
		n = read(fd, &c, 1);
	while (n < 0 && errno == EINTR);
	close(fd);
	if (n == 1) {
		*status = EXIT_OK;
		return 1;
	}
	while (waitpid(pid, &st, 0) < 0)
		if (errno != EINTR)
			return err_set(e, -errno, "cannot wait for the VM's process: %s", g_strerror(errno));
	if (WIFSIGNALED(st)) {
		err_set(e, -ECHILD, "the VM's process %d was ended by signal %d (%s) before its guest ran", (int)pid,
			WTERMSIG(st), strsignal(WTERMSIG(st)));
		return -ECHILD;
	}
	*status = WEXITSTATUS(st);
	return 1;
}

int ctl_detach(const char *name, int *status, struct vh_err *e)
{
	int p[2], err;
	pid_t pid;

	if (name_check("VM", name, e) < 0)
		return -EINVAL;
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_set(e, -errno, "cannot make a pipe: %s", g_strerror(errno));
	pid = fork();
	if (pid < 0) {
		err = errno;
		close(p[0]);
		close(p[1]);
		return err_set(e, -err, "cannot fork: %s", g_strerror(err));
	}
	if (pid) {
		close(p[1]);
		return wait_child(pid, p[0], status, e);
	}
	close(p[0]);
	setsid();
	running_fd = p[1];
	log_path = path_in(PATH_STATE, name, "log", NULL);
	/* Nothing may read the terminal from now on: the session has none. */
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		close(null);
	}
	return 0;
}

int ctl_detached(void)
{
	return running_fd >= 0;
}

void ctl_detach_running(void)
{
	int fd;

	if (running_fd < 0)
		return;
	fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		log_warn("ctl", "cannot open %s: %s; what the VM says is lost", log_path, g_strerror(errno));
		fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	}
	if (fd >= 0) {
		dup2(fd, STDOUT_FILENO);
		dup2(fd, STDERR_FILENO);
		close(fd);
	}
	while (write(running_fd, "r", 1) < 0 && errno == EINTR)
		;
	close(running_fd);
	running_fd = -1;
	g_free(log_path);
	log_path = NULL;
}
