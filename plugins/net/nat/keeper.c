/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * dnsmasq's keeper: a small process whose life is its bridge's. Who takes a network down may be the sealed helper of a VM, which
 * can remove a bridge but signal nobody, least of all a process of another user; so this one waits for the bridge's end. It
 * is the first of a process namespace of its own where the kernel allows that: then not even its SIGKILL leaves dnsmasq
 * behind. Its parent may have threads, so from the fork on there are only system calls, no memory is taken.
 */
#include "nat.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS 20000 /* dnsmasq's start */
#define END_MS 2000    /* its orderly end */
#define REPORT_FD 3

static void say(int result, const char *text)
{
	struct keeper_report r = { .result = result };

	if (text)
		strncpy(r.text, text, sizeof(r.text) - 1);
	while (write(REPORT_FD, &r, sizeof(r)) < 0 && errno == EINTR)
		;
}

static void fail(int result, const char *text)
{
	say(result, text);
	_exit(1);
}

/* Everything of the parent's but the pipe is closed, the parent's locks with it. */
static void leave_parent(int report)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
		_exit(1);
	if (report != REPORT_FD && dup2(report, REPORT_FD) < 0)
		_exit(1);
	fcntl(REPORT_FD, F_SETFD, FD_CLOEXEC);
	if (syscall(SYS_close_range, REPORT_FD + 1U, ~0U, 0U) < 0 || chdir("/") < 0)
		_exit(1);
	prctl(PR_SET_NAME, "vhost-dhcp");
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* where it is no first process anyway */
}

/* Held until this process ends; says to everybody that it lives. */
static void take_lock(const char *path)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 || fcntl(fd, F_SETLK, &lock) < 0)
		fail(-errno, NULL);
}

static int watch_links(void)
{
	struct sockaddr_nl a = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		fail(-errno, NULL);
	return fd;
}

/* By its number, which no other interface of this namespace gets while this one's is remembered: asked, not deduced. */
static int bridge_there(int ifindex)
{
	char name[IF_NAMESIZE];

	return if_indextoname((unsigned)ifindex, name) != NULL;
}

static int watch_signals(void)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		fail(-errno, NULL);
	return fd;
}

static void __attribute__((noreturn)) become_dnsmasq(const struct keeper *k, int err)
{
	static char *const env[] = { (char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", (char *)"LC_ALL=C", NULL };
	static const char opt[] = "--conf-file=";
	char arg[PATH_MAX + sizeof(opt)];
	char *argv[] = { (char *)"dnsmasq", arg, NULL };
	sigset_t none;

	strcpy(arg, opt);
	strcat(arg, k->conf);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(err, 2);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(k->program, argv, env);
	_exit(127);
}

/* Takes in the dead: 1, no child is left. */
static int reap(void)
{
	int st;

	while (waitpid(-1, &st, WNOHANG) > 0)
		;
	return waitpid(-1, &st, WNOHANG) < 0 && errno == ECHILD;
}

/* dnsmasq goes into the background when it serves: its first process ends then, and before that has said what is wrong. */
static void start_dnsmasq(const struct keeper *k)
{
	struct keeper_report r = { 0 };
	size_t len = 0;
	int p[2], st = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		fail(-errno, NULL);
	pid = fork();
	if (pid < 0)
		fail(-errno, NULL);
	if (!pid)
		become_dnsmasq(k, p[1]);
	close(p[1]);
	while (len < sizeof(r.text) - 1) {
		n = read(p[0], r.text + len, sizeof(r.text) - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	close(p[0]);
	while (waitpid(pid, &st, 0) < 0 && errno == EINTR)
		;
	r.text[len] = '\0';
	/* "\ndnsmasq: failed to ...\n" */
	char *text = r.text + strspn(r.text, "\n");

	if (!strncmp(text, "dnsmasq: ", 9))
		text += 9;
	text[strcspn(text, "\n")] = '\0';
	if (!WIFEXITED(st) || WEXITSTATUS(st))
		fail(WIFEXITED(st) && WEXITSTATUS(st) == 2 ? -EADDRINUSE : -EIO, text[0] ? text : "it ended without a word");
	if (reap())
		fail(-EIO, "it ended at once");
}

/* What the pid file says is only believed of a child that has not ended. */
static pid_t read_pid(const char *path)
{
	siginfo_t info = { 0 };
	char text[16];
	ssize_t n;
	pid_t pid;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	pid = atoi(text);
	return pid > 1 && !waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) && !info.si_pid ? pid : 0;
}

/* It may signal its child, which is another user's; it needs nothing else. */
static void drop_capabilities(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { 0 } };

	data[0].permitted = data[0].effective = 1U << CAP_KILL;
	syscall(SYS_capset, &head, data);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static void wait_for_end(int links, int signals, int ifindex)
{
	struct pollfd p[] = { { .fd = links, .events = POLLIN }, { .fd = signals, .events = POLLIN } };
	struct signalfd_siginfo s;
	char buf[8192];

	while (bridge_there(ifindex)) {
		poll(p, 2, -1);
		/* What has changed is asked, not read; messages that did not fit are no loss. */
		while (recv(links, buf, sizeof(buf), 0) > 0 || errno == ENOBUFS)
			;
		while (read(signals, &s, sizeof(s)) == sizeof(s))
			if (s.ssi_signo == SIGTERM)
				return;
		if (reap())
			return;
	}
}

static void __attribute__((noreturn)) keep(const struct keeper *k, int report)
{
	struct pollfd p = { .events = POLLIN };
	struct signalfd_siginfo s;
	int links;
	pid_t pid;

	leave_parent(report);
	p.fd = watch_signals();
	links = watch_links();
	take_lock(k->lock);
	if (!bridge_there(k->ifindex))
		fail(-ENODEV, NULL);
	start_dnsmasq(k);
	pid = read_pid(k->pid);
	drop_capabilities();
	say(0, NULL);
	close(REPORT_FD);
	wait_for_end(links, p.fd, k->ifindex);
	if (pid)
		kill(pid, SIGTERM);
	for (int ms = 0; !reap(); ms += 10) {
		if (ms == END_MS && pid)
			kill(pid, SIGKILL);
		if (ms >= 2 * END_MS)
			break;
		poll(&p, 1, 10);
		while (read(p.fd, &s, sizeof(s)) > 0)
			;
	}
	_exit(0);
}

static int read_report(int fd, struct keeper_report *r)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;
	int ready;

	do
		ready = poll(&p, 1, START_MS);
	while (ready < 0 && errno == EINTR);
	if (ready == 0)
		return -ETIMEDOUT;
	do
		n = read(fd, r, sizeof(*r));
	while (n < 0 && errno == EINTR);
	if (n != sizeof(*r))
		return -EIO;
	r->text[sizeof(r->text) - 1] = '\0';
	return r->result;
}

int keeper_start(const struct keeper *k, struct keeper_report *report)
{
	sigset_t all, old;
	int p[2], st, r;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	/* The children take no signal that somebody else's handler waits for. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (!pid) {
		setsid();
		unshare(CLONE_NEWPID); /* without the right to, a plain process does */
		pid = fork();
		if (!pid)
			keep(k, p[1]);
		_exit(pid < 0);
	}
	r = pid < 0 ? -errno : 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(p[1]);
	if (!r) {
		while (waitpid(pid, &st, 0) < 0 && errno == EINTR)
			;
		r = read_report(p[0], report);
	}
	close(p[0]);
	return r;
}
