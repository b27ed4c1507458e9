/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The host table and the services of this layer, used as a plugin uses them. */
#include <fcntl.h>
#include <pty.h>
#include <sys/wait.h>
#include "stage.h"
#include "plug/object.h"
#include "plug/secret.h"
#include "util/paths.h"

static void test_table(void)
{
	static const char *const ids[] = {VH_SVC_LOG, VH_SVC_LOOP, VH_SVC_EVENT, VH_SVC_JOB, VH_SVC_SECRET, VH_SVC_STATS};
	static const uint32_t mine[2] = {8, 0}, other[2] = {8, 0};

	g_assert_cmpuint(plug_host.size, ==, sizeof(struct vh_host));
	for (unsigned i = 0; i < G_N_ELEMENTS(ids); i++) {
		const uint32_t *size = plug_host.service(&plug_host, ids[i]);

		g_assert_nonnull(size);
		g_assert_cmpuint(*size, >=, 16);
		/* Every pointer of a table is there. */
		for (uint32_t o = 8; o < *size; o += 8)
			g_assert_nonnull(*(void *const *)((const char *)size + o));
	}
	g_assert_null(plug_host.service(&plug_host, "vh.teleport/3"));
	g_assert_null(plug_host.service(&plug_host, NULL));
	g_assert_cmpint(plug_service_register("vh.test/1", mine), ==, 0);
	g_assert_true(plug_host.service(&plug_host, "vh.test/1") == mine);
	g_assert_cmpint(plug_service_register("vh.test/1", mine), ==, 0);
	g_assert_cmpint(plug_service_register("vh.test/1", other), ==, -EEXIST);
}

static void test_err(void)
{
	ERR_AUTO(e);

	g_assert_cmpint(plug_host.err(&e, -ENOSPC, "no room for %d", 7), ==, -ENOSPC);
	plug_host.remedy(&e, "free %s", "some");
	g_assert_cmpstr(e.cause, ==, "no room for 7");
	g_assert_cmpstr(e.remedy, ==, "free some");
	g_assert_cmpint(plug_host.err(NULL, -EIO, "to nobody"), ==, -EIO);
	plug_host.remedy(NULL, "to nobody");
}

struct seen { unsigned n; uint32_t event; uint64_t value; };
static void on_event(void *ctx, uint32_t event, uint64_t value)
{
	struct seen *s = ctx;

	s->n++;
	s->event = event;
	s->value = value;
}

static void on_counter(void *ctx, const char *object, const char *name, uint64_t value)
{
	struct seen *s = ctx;

	s->n++;
	g_assert_cmpstr(object, ==, "volume a/b");
	g_assert_cmpstr(name, ==, "retries");
	s->value = value;
}

static void test_object(void)
{
	const struct vh_event_ops *ev = plug_service(VH_SVC_EVENT);
	const struct vh_stats_ops *st = plug_service(VH_SVC_STATS);
	struct vh_object *o = plug_object_new();
	struct seen s = {0};
	uint64_t *c;

	ev->post(o, VH_EVENT_SIZE, 4096); /* before anybody listens: kept */
	plug_object_bind(o, "volume a/b", on_event, &s);
	g_assert_cmpuint(s.n, ==, 1);
	g_assert_cmpuint(s.value, ==, 4096);
	ev->post(o, VH_EVENT_DEGRADED, 0);
	g_assert_cmpuint(s.n, ==, 2);
	ev->post(NULL, VH_EVENT_DEGRADED, 0);
	c = st->counter(o, "retries");
	g_assert_nonnull(c);
	g_assert_true(st->counter(o, "retries") == c);
	__atomic_fetch_add(c, 3, __ATOMIC_RELAXED);
	s.n = 0;
	plug_counters(on_counter, &s);
	g_assert_cmpuint(s.n, ==, 1);
	g_assert_cmpuint(s.value, ==, 3);
	g_assert_null(st->counter(NULL, "x"));
	plug_object_free(o);
	s.n = 0;
	plug_counters(on_counter, &s);
	g_assert_cmpuint(s.n, ==, 0);
}

static void write_secret(const char *dir, const char *name, const char *text, unsigned mode)
{
	g_autofree char *p = g_build_filename(dir, name, NULL);

	g_assert_true(g_file_set_contents(p, text, -1, NULL));
	g_chmod(p, (int)mode);
}

static void test_secret(void)
{
	const struct vh_secret_ops *s = plug_service(VH_SVC_SECRET);
	g_autofree char *root = stage_folder(), *dir = NULL, *lnk = NULL, *to = NULL;
	char buf[16];
	ERR_AUTO(e);

	g_setenv("VHOST_ROOT", root, 1);
	dir = path_in(PATH_CONFIG, "secrets", NULL);
	g_assert_cmpint(path_make(dir, 0700, &e), ==, 0);
	write_secret(dir, "chap", "hunter2\n", 0600);
	write_secret(dir, "open", "hunter2\n", 0644);
	write_secret(dir, "long", "12345678901234567", 0600);
	lnk = g_build_filename(dir, "link", NULL);
	to = g_build_filename(dir, "chap", NULL);
	g_assert_cmpint(symlink(to, lnk), ==, 0);

	memset(buf, 'x', sizeof(buf));
	g_assert_cmpint(s->get("chap", buf, sizeof(buf), &e), ==, 7);
	g_assert_cmpint(memcmp(buf, "hunter2x", 8), ==, 0);
	g_assert_cmpint(s->get("chap", buf, 7, &e), ==, 7);
	g_assert_cmpint(s->get("chap", buf, 6, &e), ==, -ENOSPC);
	err_clear(&e);
	g_assert_cmpint(s->get("open", buf, sizeof(buf), &e), ==, -EACCES);
	g_assert_null(strstr(e.cause, "hunter2"));
	err_clear(&e);
	g_assert_cmpint(s->get("long", buf, sizeof(buf), &e), ==, -ENOSPC);
	err_clear(&e);
	g_assert_cmpint(s->get("none", buf, sizeof(buf), &e), ==, -ENOENT);
	err_clear(&e);
	g_assert_cmpint(s->get("link", buf, sizeof(buf), &e), ==, -ELOOP);
	err_clear(&e);
	g_assert_cmpint(s->get("../chap", buf, sizeof(buf), &e), ==, -EINVAL);
}

/* The other forms: a file anywhere, an inherited descriptor; what is wrong with each is said, and never what is in it. */
static void test_secret_forms(void)
{
	const struct vh_secret_ops *s = plug_service(VH_SVC_SECRET);
	g_autofree char *root = stage_folder(), *value = NULL, *open_value = NULL, *path = NULL, *key = NULL, *fd_value = NULL;
	g_autofree char *none = NULL;
	static const uint8_t binary[] = {'a', 0, 200, 'b', '\n'};
	char buf[64];
	int p[2], fd, high;
	ERR_AUTO(e);

	g_setenv("VHOST_ROOT", root, 1);
	write_secret(root, "pw", "hunter2\n", 0600);
	write_secret(root, "open", "hunter2\n", 0640);
	path = g_build_filename(root, "pw", NULL);
	value = g_strconcat("file:", path, NULL);
	open_value = g_strconcat("file:", root, "/open", NULL);
	none = g_strconcat("file:", root, "/none", NULL);
	g_assert_cmpint(s->get(value, buf, sizeof(buf), &e), ==, 7);
	g_assert_cmpint(memcmp(buf, "hunter2", 7), ==, 0);
	g_assert_cmpint(s->get(open_value, buf, sizeof(buf), &e), ==, -EACCES);
	g_assert_null(strstr(e.cause, "hunter2"));
	err_clear(&e);
	g_assert_cmpint(s->get(none, buf, sizeof(buf), &e), ==, -ENOENT);
	err_clear(&e);
	g_assert_cmpint(s->get("file:/dev/zero", buf, sizeof(buf), &e), ==, -EACCES);
	err_clear(&e);

	/* A key of random bytes is all its bytes, also when the last one looks like a newline. */
	key = g_build_filename(root, "key", NULL);
	g_assert_true(g_file_set_contents(key, (const char *)binary, sizeof(binary), NULL));
	g_chmod(key, 0600);
	g_free(value);
	value = g_strconcat("file:", key, NULL);
	g_assert_cmpint(s->get(value, buf, sizeof(buf), &e), ==, sizeof(binary));
	g_assert_cmpint(memcmp(buf, binary, sizeof(binary)), ==, 0);

	/* A file's descriptor is read from its beginning each time; a pipe gives once, and is remembered until it is forgotten. */
	fd = open(path, O_RDONLY);
	g_assert_cmpint(fd, >=, 0);
	fd_value = g_strdup_printf("fd:%d", fd);
	for (int k = 0; k < 2; k++)
		g_assert_cmpint(s->get(fd_value, buf, sizeof(buf), &e), ==, 7);
	fcntl(fd, F_SETFD, FD_CLOEXEC); /* one of our own: not for secrets */
	g_assert_cmpint(s->get(fd_value, buf, sizeof(buf), &e), ==, -EBADF);
	err_clear(&e);
	close(fd);
	g_assert_cmpint(s->get(fd_value, buf, sizeof(buf), &e), ==, -EBADF);
	err_clear(&e);
	g_assert_cmpint(pipe(p), ==, 0);
	g_assert_cmpint(write(p[1], "piped\n", 6), ==, 6);
	close(p[1]);
	high = dup2(p[0], 57);
	close(p[0]);
	g_assert_cmpint(high, ==, 57);
	for (int k = 0; k < 2; k++) {
		memset(buf, 0, sizeof(buf));
		g_assert_cmpint(s->get("fd:57", buf, sizeof(buf), &e), ==, 5);
		g_assert_cmpstr(buf, ==, "piped");
	}
	secret_forget();
	g_assert_cmpint(s->get("fd:57", buf, sizeof(buf), &e), ==, 0); /* the pipe is empty */
	close(57);
	for (const char *const *bad = (const char *const[]){"fd:", "fd:x", "fd:-1", "fd:99999999", "file:", "prompt:\n", "", NULL}; *bad; bad++) {
		g_assert_cmpint(s->get(*bad, buf, sizeof(buf), &e), ==, -EINVAL);
		err_clear(&e);
	}
}

/* A person at a terminal: asked once, nothing that is typed is shown, corrections count. */
static void test_secret_prompt(void)
{
	const struct vh_secret_ops *s = plug_service(VH_SVC_SECRET);
	char out[400] = "", buf[64];
	size_t n = 0;
	int tty, status;
	pid_t pid = forkpty(&tty, NULL, NULL, NULL);

	g_assert_cmpint(pid, >=, 0);
	if (!pid) {
		int64_t a = s->get("prompt:Passphrase of disk web", buf, sizeof(buf), NULL);
		int ok = a == 7 && !memcmp(buf, "hunter2", 7) && s->get("prompt:Passphrase of disk web", buf, sizeof(buf), NULL) == 7;

		secret_forget();
		ok = ok && s->get("prompt:", buf, sizeof(buf), NULL) == -ECANCELED;
		_exit(ok ? 42 : 1);
	}
	for (int typed = 0; n + 1 < sizeof(out);) {
		ssize_t k = read(tty, out + n, sizeof(out) - 1 - n);

		if (k <= 0)
			break;
		n += (size_t)k;
		out[n] = 0;
		if (!typed && strstr(out, "disk web: ")) {
			g_assert_cmpint(write(tty, "wrong\025huntx\177er2\r", 16), ==, 16);
			typed = 1;
		} else if (typed == 1 && strstr(out, "Passphrase: ")) {
			g_assert_cmpint(write(tty, "secr\003", 5), ==, 5);
			typed = 2;
		}
	}
	g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
	g_assert_true(WIFEXITED(status));
	g_assert_cmpint(WEXITSTATUS(status), ==, 42);
	g_assert_null(strstr(out, "hunt"));
	g_assert_null(strstr(out, "secr"));
	g_assert_cmpint(strstr(out, "disk web") == g_strrstr(out, "disk web"), ==, 1);
	close(tty);
	/* Without a terminal: an error at once, no wait. */
	pid = fork();
	g_assert_cmpint(pid, >=, 0);
	if (!pid) {
		setsid();
		_exit(s->get("prompt:", buf, sizeof(buf), NULL) == -ENOTTY ? 42 : 1);
	}
	g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
	g_assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

int main(int argc, char **argv)
{
	int r;

	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/plug/services/table", test_table);
	g_test_add_func("/plug/services/err", test_err);
	g_test_add_func("/plug/services/object", test_object);
	g_test_add_func("/plug/services/secret", test_secret);
	g_test_add_func("/plug/services/secret-forms", test_secret_forms);
	g_test_add_func("/plug/services/secret-prompt", test_secret_prompt);
	r = g_test_run();
	stage_done();
	return r;
}
