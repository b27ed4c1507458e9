/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Two VMs never write one volume, whatever path they come by, and neither does a QEMU beside us. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "dirtest.h"

enum { RO = VH_ATTACH_RO, RW = VH_ATTACH_RW_EXCL, SHARED = VH_ATTACH_RW_SHARED, PEEK = VH_ATTACH_PEEK };
static const char *const mode_name[] = {"RO", "RW_EXCL", "RW_SHARED", "PEEK"};
/* Whether the second mode may come while the first is held. */
static const int compatible[4][4] = {
	[RO] = {1, 0, 0, 1},
	[RW] = {0, 0, 0, 1},
	[SHARED] = {0, 0, 1, 1},
	[PEEK] = {1, 1, 1, 1},
};

static char *tmp, *file;
static void *pool;

static void setup(void)
{
	tmp = dirtest_tmp();
	pool = dirtest_open(tmp);
	file = g_build_filename(tmp, "v", NULL);
	g_assert_cmpint(dirtest_create(pool, "v", 1 << 20, 0, NULL, NULL), ==, 0);
}

static void teardown(void)
{
	dir_ops->close(pool);
	dirtest_untmp(tmp);
	g_free(file);
}

/* A process that attaches a volume of the folder `path` and holds it until it is ended. */
struct holder { int pid, in; };

static struct holder hold(const char *path, const char *name, uint32_t mode)
{
	int to[2], from[2];
	struct holder h;
	char c = 0;

	g_assert_cmpint(pipe2(to, O_CLOEXEC) | pipe2(from, O_CLOEXEC), ==, 0);
	h.pid = fork();
	g_assert_cmpint(h.pid, >=, 0);
	if (!h.pid) {
		struct vh_err e = {0};
		void *p = dirtest_open(path), *v = dirtest_attach(p, name, mode, NULL, &e);

		close(to[1]);
		if (!v)
			fprintf(stderr, "# holder: %s\n", e.text);
		if (write(from[1], v ? "1" : "0", 1) != 1 || read(to[0], &c, 1) < 0)
			_exit(1);
		if (v)
			dirtest_detach(v);
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	g_assert_cmpint(read(from[0], &c, 1), ==, 1);
	close(from[0]);
	g_assert_cmpint(c, ==, '1');
	h.in = to[1];
	return h;
}

static void release(struct holder h, int kill_it)
{
	if (kill_it)
		kill(h.pid, SIGKILL);
	close(h.in);
	waitpid(h.pid, NULL, 0);
}

static void test_matrix(void)
{
	setup();
	for (uint32_t a = 0; a < 4; a++)
		for (uint32_t b = 0; b < 4; b++) {
			struct holder h = hold(tmp, "v", a);
			struct vh_err e = {0};
			void *v = dirtest_attach(pool, "v", b, NULL, &e);

			if ((v != NULL) != compatible[a][b])
				g_error("%s while %s is held: %s", mode_name[b], mode_name[a], v ? "allowed" : e.text);
			if (!v) {
				g_autoptr(GDateTime) now = g_date_time_new_now_utc();
				g_autofree char *today = g_date_time_format(now, " since %Y-%m-%dT%H:");
				g_assert_cmpint(e.code, ==, -EBUSY);
				if (g_date_time_get_minute(now)) /* not at the turn of the hour */
					g_assert_nonnull(strstr(e.text, today));
				g_assert_nonnull(strstr(e.text, "testvm"));
				g_assert_cmpstr(e.remedy, !=, "");
			} else {
				dirtest_detach(v);
			}
			/* Inside one process as well: locks go by open file description. */
			void *x = dirtest_attach(pool, "v", PEEK, NULL, NULL);
			g_assert_nonnull(x);
			dirtest_detach(x);
			release(h, b & 1);
			v = dirtest_attach(pool, "v", RW, NULL, &e);
			g_assert_nonnull(v); /* all gone with the process */
			g_assert_null(dirtest_attach(pool, "v", RO, NULL, NULL));
			dirtest_detach(v);
		}
	teardown();
}

static void test_links(void)
{
	g_autofree char *other = dirtest_tmp(), *hard = g_build_filename(other, "hard", NULL), *way = g_build_filename(other, "way", NULL);
	struct vh_err e = {0};
	struct holder h;
	void *p2;

	setup();
	if (link(file, hard) < 0) {
		g_test_skip("cannot make a hard link between two temporary folders");
		goto out;
	}
	p2 = dirtest_open(other);
	h = hold(tmp, "v", RW);
	g_assert_null(dirtest_attach(p2, "hard", RW, NULL, &e));
	g_assert_cmpint(e.code, ==, -EBUSY);
	g_assert_nonnull(strstr(e.text, "testvm")); /* the record is the inode's, not the name's */
	g_assert_null(dirtest_attach(p2, "hard", RO, NULL, NULL));
	struct vh_vol_stat a = {.size = sizeof(a)}, b = {.size = sizeof(b)};
	g_assert_cmpint(dir_ops->stat(pool, "v", &a, NULL), ==, 0);
	g_assert_cmpint(dir_ops->stat(p2, "hard", &b, NULL), ==, 0);
	g_assert_cmpstr(a.identity, ==, b.identity);
	g_assert_true(a.flags & b.flags & VH_STAT_IN_USE);
	/* A folder reached by a symlink is the same folder. */
	g_assert_cmpint(symlink(tmp, way), ==, 0);
	void *p3 = dirtest_open(way);
	g_assert_null(dirtest_attach(p3, "v", RW, NULL, NULL));
	dir_ops->close(p3);
	dir_ops->close(p2);
	release(h, 0);
out:
	teardown();
	dirtest_untmp(g_steal_pointer(&other));
}

static void test_control_calls(void)
{
	struct vh_err e = {0};
	struct holder h;

	setup();
	h = hold(tmp, "v", RW);
	g_assert_cmpint(dir_ops->remove(pool, "v", NULL, &e), ==, -EBUSY);
	g_assert_nonnull(strstr(e.text, "testvm"));
	g_assert_cmpint(dir_ops->resize(pool, "v", 4096, 0, NULL, NULL), ==, -EBUSY);
	g_assert_cmpint(dir_ops->clone(pool, "v", NULL, "w", 0, NULL, NULL), ==, -EBUSY);
	release(h, 0);
	h = hold(tmp, "v", RO);
	g_assert_cmpint(dir_ops->remove(pool, "v", NULL, NULL), ==, -EBUSY);
	g_assert_cmpint(dir_ops->resize(pool, "v", 4096, 0, NULL, NULL), ==, -EBUSY);
	g_assert_cmpint(dir_ops->clone(pool, "v", NULL, "w", 0, NULL, NULL), ==, 0); /* readers share */
	release(h, 1);
	g_assert_cmpint(dir_ops->remove(pool, "v", NULL, &e), ==, 0);
	teardown();
}

static void test_reattach(void)
{
	struct vh_volume_info i = {.size = sizeof(i)};
	struct vh_err e = {0};
	struct holder h;
	void *v;
	int fd;
	static char buf[4096] __attribute__((aligned(4096)));

	setup();
	v = dirtest_attach(pool, "v", RO, &i, &e);
	g_assert_nonnull(v);
	fd = i.fd;
	g_assert_cmpint(pwrite(fd, buf, 4096, 0), ==, -1);
	/* Another reader stands against a writer; the lease stays as it was. */
	h = hold(tmp, "v", RO);
	g_assert_cmpint(dir_ops->reattach(pool, v, RW, &e), ==, -EBUSY);
	g_assert_null(dirtest_attach(pool, "v", RW, NULL, NULL));
	release(h, 0);
	g_assert_cmpint(dir_ops->reattach(pool, v, RW, &e), ==, 0);
	g_assert_cmpint(pwrite(fd, buf, 4096, 0), ==, 4096); /* the same number, writable now */
	g_assert_null(dirtest_attach(pool, "v", RO, NULL, NULL));
	g_assert_cmpint(dir_ops->reattach(pool, v, RO, &e), ==, 0);
	void *w = dirtest_attach(pool, "v", RO, NULL, &e);
	g_assert_nonnull(w);
	g_assert_null(dirtest_attach(pool, "v", RW, NULL, NULL));
	g_assert_null(dirtest_attach(pool, "v", SHARED, NULL, NULL));
	dirtest_detach(w);
	dirtest_detach(v);
	v = dirtest_attach(pool, "v", RW, &i, &e);
	g_assert_cmpint(dir_ops->reattach(pool, v, SHARED, &e), ==, 0);
	w = dirtest_attach(pool, "v", SHARED, NULL, &e);
	g_assert_nonnull(w);
	g_assert_cmpint(dir_ops->reattach(pool, v, RW, &e), ==, -EBUSY);
	dirtest_detach(w);
	g_assert_cmpint(dir_ops->reattach(pool, v, RW, &e), ==, 0);
	g_assert_null(dirtest_attach(pool, "v", SHARED, NULL, NULL));
	dirtest_detach(v);
	teardown();
}

/* Without a record the holder is found by searching /proc. */
static void test_holder_search(void)
{
	struct vh_err e = {0};
	struct holder h;

	setup();
	h = hold(tmp, "v", RW);
	g_assert_cmpint(removexattr(file, "user.vhost.holder"), ==, 0);
	g_assert_null(dirtest_attach(pool, "v", RO, NULL, &e));
	g_autofree char *pid = g_strdup_printf("pid %d ", h.pid);
	g_assert_nonnull(strstr(e.text, pid));
	/* A record that is left from a dead one is not believed. */
	g_assert_cmpint(setxattr(file, "user.vhost.holder", "host 999999 2026-01-01T00:00:00Z ghost", 38, 0), ==, 0);
	char host[65] = "", text[128];
	g_assert_cmpint(gethostname(host, sizeof(host) - 1), ==, 0);
	snprintf(text, sizeof(text), "%s 999999 2026-01-01T00:00:00Z ghost", host);
	g_assert_cmpint(setxattr(file, "user.vhost.holder", text, strlen(text), 0), ==, 0);
	memset(&e, 0, sizeof(e));
	g_assert_null(dirtest_attach(pool, "v", RO, NULL, &e));
	g_assert_nonnull(strstr(e.text, pid));
	g_assert_null(strstr(e.text, "ghost"));
	release(h, 1);
	/* Locked by something else altogether: named too. */
	int fd = open(file, O_RDWR | O_CLOEXEC);
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
	g_assert_cmpint(fcntl(fd, F_SETLK, &l), ==, 0); /* virtlockd's kind */
	memset(&e, 0, sizeof(e));
	g_assert_null(dirtest_attach(pool, "v", RW, NULL, &e));
	g_assert_cmpint(e.code, ==, -EBUSY);
	g_assert_nonnull(strstr(e.text, "this process"));
	close(fd);
	teardown();
}

static int no_locks(void *ctx)
{
	struct vh_volume_info i;

	for (int cmd = F_OFD_GETLK; cmd <= F_OFD_SETLK; cmd++)
		if (dirtest_break_syscall(SYS_fcntl, ENOLCK, 1, 0xffffffff, (uint64_t)cmd))
			return 77;
	void *v = dirtest_attach(pool, "v", RW, &i, NULL);
	return !v || i.caps & VH_VOL_LEASED;
}

static void test_no_locks(void)
{
	setup();
	/* A file system without locks: it works, and says that there is no lease. */
	g_assert_cmpint(dirtest_child(no_locks, NULL), ==, 0);
	teardown();
}

static int race_one(void *ctx)
{
	int *won = ctx;

	for (int i = 0; i < 300; i++) {
		struct vh_err e = {0};
		void *v = dirtest_attach(pool, "v", i % 3 ? RW : SHARED, NULL, &e);

		if (!v) {
			g_assert_cmpint(e.code, ==, -EBUSY);
			continue;
		}
		if (i % 3) { /* nobody else is inside now */
			g_assert_cmpint(__atomic_add_fetch(&won[0], 1, __ATOMIC_SEQ_CST), ==, 1);
			__atomic_add_fetch(&won[1], 1, __ATOMIC_SEQ_CST);
			__atomic_sub_fetch(&won[0], 1, __ATOMIC_SEQ_CST);
		}
		dirtest_detach(v);
	}
	return 0;
}

static void test_race(void)
{
	int pids[4], status;
	int *won;

	setup();
	won = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < 4; i++) {
		pids[i] = fork();
		if (!pids[i])
			_exit(race_one(won));
	}
	for (int i = 0; i < 4; i++) {
		waitpid(pids[i], &status, 0);
		g_assert_cmpint(status, ==, 0);
	}
	g_assert_cmpint(won[1], >, 0);
	munmap(won, 4096);
	teardown();
}

/* ---- beside a real QEMU ---- */

static int have(const char *program)
{
	g_autofree char *p = g_find_program_in_path(program);

	if (!p)
		g_test_skip("qemu-utils is not installed");
	return p != NULL;
}

static void test_qemu_respects_us(void)
{
	g_autofree char *out = NULL;
	struct holder h;

	if (!have("qemu-io") || !have("qemu-img"))
		return;
	setup();
	h = hold(tmp, "v", RW);
	g_assert_cmpint(dirtest_run(&out, "qemu-io", "-f", "raw", "-c", "write 0 4k", file, NULL), !=, 0);
	g_assert_nonnull(strstr(out, "lock"));
	g_assert_cmpint(dirtest_run(NULL, "qemu-img", "convert", "-f", "raw", "-O", "raw", file, "/dev/null", NULL), !=, 0);
	g_assert_cmpint(dirtest_run(NULL, "qemu-img", "info", "-U", "-f", "raw", file, NULL), ==, 0); /* a peek */
	g_assert_cmpint(dirtest_run(NULL, "qemu-img", "resize", "-f", "raw", file, "2M", NULL), !=, 0);
	release(h, 0);

	h = hold(tmp, "v", RO);
	g_assert_cmpint(dirtest_run(NULL, "qemu-io", "-f", "raw", "-c", "write 0 4k", file, NULL), !=, 0);
	g_assert_cmpint(dirtest_run(NULL, "qemu-img", "resize", "-f", "raw", file, "2M", NULL), !=, 0);
	g_assert_cmpint(dirtest_run(NULL, "qemu-io", "-r", "-f", "raw", "-c", "read 0 4k", file, NULL), ==, 0);
	g_assert_cmpint(dirtest_run(NULL, "qemu-img", "info", "-f", "raw", file, NULL), ==, 0);
	release(h, 0);

	h = hold(tmp, "v", PEEK);
	g_assert_cmpint(dirtest_run(NULL, "qemu-io", "-f", "raw", "-c", "write 0 4k", file, NULL), ==, 0);
	release(h, 0);
	teardown();
}

/* QMP commands are answered by the main loop: the disk has all its locks then. Before, QEMU goes through weaker states. */
static int answers(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = 60};
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), ok;
	static const char ask[] = "{\"execute\":\"qmp_capabilities\"}\n";
	char text[2048] = "";
	size_t n = 0;

	g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	ok = !connect(s, (struct sockaddr *)&un, sizeof(un)) && write(s, ask, strlen(ask)) > 0;
	while (ok && !strstr(text, "\"return\"")) {
		ssize_t got = read(s, text + n, sizeof(text) - 1 - n);

		ok = got > 0;
		n += ok ? (size_t)got : 0;
	}
	close(s);
	return ok;
}

/* A QEMU virtual machine (never started) that has `file` as its disk; or a daemon that shares it with other writers. */
static int start_qemu(int read_only, int shared)
{
	g_autofree char *drive = g_strdup_printf("file=%s,format=raw,if=virtio,readonly=%s,file.locking=on", file,
						 read_only ? "on" : "off");
	g_autofree char *node = g_strdup_printf("driver=file,node-name=f,filename=%s,locking=on", file);
	g_autofree char *export = g_strdup_printf("type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=%s/.sock,"
						  "writable=on", tmp);
	g_autofree char *pidfile = g_build_filename(tmp, ".qemu.pid", NULL);
	g_autofree char *logfile = g_build_filename(tmp, ".qemu.log", NULL), *sock = g_build_filename(tmp, ".qmp", NULL);
	g_autofree char *qmp = g_strdup_printf("unix:%s,server=on,wait=off", sock);
	int pid;

	unlink(sock);
	pid = fork();

	if (!pid) {
		int log = open(logfile, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		dup2(log, 1);
		dup2(log, 2);
		if (shared)
			execlp("qemu-storage-daemon", "qemu-storage-daemon", "--blockdev", node, "--export", export, "--pidfile",
			       pidfile, NULL);
		else
			execlp("qemu-system-x86_64", "qemu-system-x86_64", "-M", "q35,accel=tcg", "-m", "16", "-nodefaults", "-S",
			       "-display", "none", "-drive", drive, "-pidfile", pidfile, "-qmp", qmp, NULL);
		_exit(127);
	}
	for (int i = 0; i < 1500; i++) {
		g_autofree char *text = NULL;

		if (g_file_get_contents(pidfile, &text, NULL, NULL) && atoi(text) == pid && (shared || answers(sock))) {
			unlink(pidfile);
			return pid;
		}
		if (waitpid(pid, NULL, WNOHANG) == pid)
			return -1;
		g_usleep(20000);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return -1;
}

static void test_we_respect_qemu(void)
{
	static const struct { const char *what; int ro, shared, may[4]; } c[] = {
		{"a QEMU that writes", 0, 0, {0, 0, 0, 1}},
		{"a QEMU that reads", 1, 0, {1, 0, 0, 1}},
		{"a QEMU that writes and lets others write", 0, 1, {0, 0, 1, 1}},
	};

	if (!have("qemu-storage-daemon") || !have("qemu-system-x86_64"))
		return;
	setup();
	for (unsigned i = 0; i < G_N_ELEMENTS(c); i++) {
		int pid = start_qemu(c[i].ro, c[i].shared);

		if (pid < 0)
			g_error("%s does not start", c[i].what);
		struct vh_vol_stat st = {.size = sizeof(st)};
		g_assert_cmpint(dir_ops->stat(pool, "v", &st, NULL), ==, 0);
		g_assert_true(st.flags & VH_STAT_IN_USE);
		for (uint32_t m = 0; m < 4; m++) {
			struct vh_err e = {0};
			void *v = dirtest_attach(pool, "v", m, NULL, &e);

			if ((v != NULL) != c[i].may[m])
				g_error("%s beside %s: %s", mode_name[m], c[i].what, v ? "allowed" : e.text);
			if (v) {
				dirtest_detach(v);
			} else {
				g_autofree char *who = g_strdup_printf("pid %d qemu-s", pid);
				g_assert_cmpint(e.code, ==, -EBUSY);
				g_assert_nonnull(strstr(e.text, who));
			}
		}
		kill(pid, SIGTERM);
		waitpid(pid, NULL, 0);
	}
	void *v = dirtest_attach(pool, "v", RW, NULL, NULL);
	g_assert_nonnull(v);
	dirtest_detach(v);
	teardown();
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	dirtest_load();
	g_test_add_func("/dir-locks/modes-between-processes", test_matrix);
	g_test_add_func("/dir-locks/links-collide", test_links);
	g_test_add_func("/dir-locks/control-calls-take-the-lease", test_control_calls);
	g_test_add_func("/dir-locks/reattach-keeps-the-lease", test_reattach);
	g_test_add_func("/dir-locks/holder-found-without-record", test_holder_search);
	g_test_add_func("/dir-locks/file-system-without-locks", test_no_locks);
	g_test_add_func("/dir-locks/race-has-one-winner", test_race);
	g_test_add_func("/dir-locks/qemu-respects-us", test_qemu_respects_us);
	g_test_add_func("/dir-locks/we-respect-qemu", test_we_respect_qemu);
	return g_test_run();
}
