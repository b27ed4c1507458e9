/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The control socket over a machine that is faked. */
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/client.h"
#include "ctl/varlink.h"
#include "fake-mach.h"
#include "util/paths.h"

static struct ctl_dir *dir;
static struct ctl_server *server;
static char *sock_path;

static void make(void *unused)
{
	ERR_AUTO(e);

	if (ctl_server_new(NULL, fake.main, dir, &server, &e))
		g_error("%s", e.cause);
	fake.server = server;
}

static void unmake(void *unused)
{
	ctl_server_free(server);
	server = NULL;
}

static void begin(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.state = MACH_RUNNING;
	fake.mem.bytes = 128 << 20;
	fake.input_room = 4096;
	g_assert_cmpint(ctl_dir_claim("web", &dir, NULL), ==, 0);
	g_assert_cmpint(loop_new("main", &fake.main, NULL), ==, 0);
	g_assert_cmpint(loop_start(fake.main, NULL), ==, 0);
	loop_call(fake.main, make, NULL);
	g_free(sock_path);
	sock_path = g_build_filename(ctl_dir_path(dir), "control.sock", NULL);
}

static void end(void)
{
	if (server)
		loop_call(fake.main, unmake, NULL);
	loop_stop(fake.main);
	loop_free(fake.main);
	ctl_dir_release(dir);
	g_assert_cmpint(fake.wrong_thread, ==, 0);
	g_assert_cmpint(access(sock_path, F_OK), <, 0);
}

static int raw(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = 20 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	g_strlcpy(a.sun_path, sock_path, sizeof(a.sun_path));
	g_assert_cmpint(connect(fd, (struct sockaddr *)&a, sizeof(a)), ==, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	return fd;
}

/* One message, or NULL at the end of the connection. */
static char *get(int fd)
{
	GString *s = g_string_new(NULL);
	char c;

	for (;;) {
		ssize_t n = recv(fd, &c, 1, 0);

		if (n <= 0) {
			g_assert_true(n == 0 || errno == ECONNRESET);
			g_string_free(s, TRUE);
			return NULL;
		}
		if (!c)
			return g_string_free(s, FALSE);
		g_string_append_c(s, c);
	}
}

static void put(int fd, const char *text)
{
	g_assert_cmpint(send(fd, text, strlen(text) + 1, MSG_NOSIGNAL), ==, (ssize_t)strlen(text) + 1);
}

static void expect(int fd, const char *request, const char *part)
{
	g_autofree char *answer = NULL;

	put(fd, request);
	answer = get(fd);
	g_assert_nonnull(answer);
	if (!strstr(answer, part))
		g_error("%s: '%s' is not in '%s'", request, part, answer);
}

static struct ctl_client *client(void)
{
	struct ctl_client *c;
	ERR_AUTO(e);

	if (ctl_client_open("web", 10000, &c, &e))
		g_error("%s", e.cause);
	return c;
}

static JsonObject *ask(struct ctl_client *c, const char *method, JsonObject *params)
{
	JsonObject *o = NULL;
	ERR_AUTO(e);

	if (ctl_client_call(c, method, params, 0, &o, &e))
		g_error("%s: %s", method, e.cause);
	return o;
}

static unsigned threads(void)
{
	g_autoptr(GDir) d = g_dir_open("/proc/self/task", 0, NULL);
	unsigned n = 0;

	while (g_dir_read_name(d))
		n++;
	return n;
}

static void service(void)
{
	struct stat st;
	unsigned n;
	int fd;

	begin();
	g_assert_cmpint(stat(sock_path, &st), ==, 0);
	g_assert_cmpint(st.st_mode & 0777, ==, 0600);
	n = threads();
	ctl_console_output(server, "x", 1);
	g_assert_cmpuint(threads(), ==, n); /* none of its own before somebody asks */
	fd = raw();
	expect(fd, "{\"method\":\"org.varlink.service.GetInfo\"}", "\"interfaces\":[\"org.varlink.service\",\"org.vhost.VM\"]");
	g_assert_cmpuint(threads(), ==, n + 1);
	expect(fd, "{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{\"interface\":\"org.vhost.VM\"}}",
	       "method Console(");
	expect(fd, "{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{\"interface\":\"a.b\"}}",
	       "org.varlink.service.InterfaceNotFound");
	expect(fd, "{\"method\":\"org.varlink.service.GetInterfaceDescription\"}", "org.varlink.service.InvalidParameter");
	expect(fd, "{\"method\":\"org.vhost.VM.Fly\"}", "org.varlink.service.MethodNotFound");
	expect(fd, "{\"method\":\"org.other.Fly\"}", "org.varlink.service.InterfaceNotFound");
	expect(fd, "{\"method\":\"Fly\"}", "InterfaceNotFound");
	expect(fd, "{\"method\":\"org.vhost.VM.Pause\",\"parameters\":{\"hard\":true}}", "\"parameter\":\"hard\"");
	expect(fd, "{\"method\":\"org.vhost.VM.Stop\",\"parameters\":{\"timeout\":\"1s\"}}", "\"parameter\":\"timeout\"");
	expect(fd, "{\"method\":\"org.vhost.VM.Stop\",\"parameters\":{\"timeout\":-1}}", "\"parameter\":\"timeout\"");
	expect(fd, "{\"method\":\"org.vhost.VM.Console\"}", "ExpectedMore");
	expect(fd, " {\"method\" : \"org.vhost.VM.GetState\", \"parameters\": null} ", "\"state\":\"running\"");
	close(fd);
	end();
}

static void machine(void)
{
	struct ctl_client *c;
	JsonObject *o;

	begin();
	c = client();
	json_object_unref(ask(c, "Pause", NULL));
	o = ask(c, "GetState", NULL);
	g_assert_cmpstr(json_object_get_string_member(o, "state"), ==, "paused");
	g_assert_cmpstr(json_object_get_string_member(o, "name"), ==, "web");
	json_object_unref(o);
	json_object_unref(ask(c, "Resume", NULL));
	json_object_unref(ask(c, "Reset", NULL));
	o = ask(c, "Info", NULL);
	g_assert_cmpint(json_object_get_int_member(o, "memory"), ==, 128 << 20);
	g_assert_cmpint(json_object_get_int_member(o, "pid"), ==, getpid());
	g_assert_cmpstr(json_object_get_string_member(o, "state"), ==, "running"); /* a reset is no state */
	json_object_unref(o);
	o = ask(c, "Stats", NULL);
	g_assert_cmpint(json_array_get_length(json_object_get_array_member(o, "cpus")), ==, 2);
	g_assert_cmpint(json_object_get_int_member(json_array_get_object_element(json_object_get_array_member(o, "disks"), 0), "reads"),
			==, 7);
	g_assert_cmpint(json_object_get_int_member(json_object_get_object_member(o, "memory"), "resident"), >, 0);
	json_object_unref(o);
	o = json_object_new();
	json_object_set_int_member(o, "target", 64 << 20);
	o = ask(c, "Balloon", o);
	g_assert_cmpint(json_object_get_int_member(o, "target"), ==, 64 << 20);
	json_object_unref(o);

	ERR_AUTO(e);
	ERR_AUTO(f);
	ERR_AUTO(g);

	fake.fail = 1;
	g_assert_cmpint(ctl_client_call(c, "Pause", NULL, 0, NULL, &e), ==, -EBUSY);
	g_assert_cmpstr(e.cause, ==, "the fake refuses");
	g_assert_cmpstr(e.remedy, ==, "do not ask");
	g_assert_cmpstr(e.object, ==, "VM web");
	o = json_object_new();
	json_object_set_int_member(o, "target", 1LL << 40);
	g_assert_cmpint(ctl_client_call(c, "Balloon", o, 0, NULL, &f), ==, -ERANGE);
	fake.no_balloon = 1;
	o = json_object_new();
	json_object_set_int_member(o, "target", 1);
	g_assert_cmpint(ctl_client_call(c, "Balloon", o, 0, NULL, &g), ==, -EOPNOTSUPP);
	ctl_client_free(c);
	end();
}

static JsonObject *on_disk(const char *disk, const char *name, int64_t bytes)
{
	JsonObject *o = json_object_new();

	if (disk)
		json_object_set_string_member(o, "disk", disk);
	if (name)
		json_object_set_string_member(o, "name", name);
	if (bytes)
		json_object_set_int_member(o, "bytes", bytes);
	return o;
}

static void refused(struct ctl_client *c, const char *method, JsonObject *o, int code)
{
	ERR_AUTO(e);
	int r = ctl_client_call(c, method, o, 0, NULL, &e);

	if (code ? r != code : r >= 0)
		g_error("%s: %d: %s", method, r, e.cause);
}

static void disks(void)
{
	struct ctl_client *c;
	JsonObject *o, *s;

	begin();
	c = client();
	json_object_unref(ask(c, "SnapshotCreate", on_disk("default/web", "one", 0)));
	g_assert_cmpstr(fake.snapshot, ==, "one");
	o = ask(c, "SnapshotList", on_disk("default/web", NULL, 0));
	s = json_array_get_object_element(json_object_get_array_member(o, "snapshots"), 0);
	g_assert_cmpstr(json_object_get_string_member(s, "name"), ==, "one");
	g_assert_cmpstr(json_object_get_string_member(s, "time"), ==, "1970-01-01T00:00:01.000Z");
	g_assert_cmpint(json_object_get_int_member(s, "disk_bytes"), ==, 1 << 20);
	json_object_unref(o);
	refused(c, "SnapshotDelete", on_disk("default/web", "two", 0), -ENOENT);
	json_object_unref(ask(c, "SnapshotDelete", on_disk("default/web", "one", 0)));
	refused(c, "SnapshotList", on_disk("other", NULL, 0), -ENOENT);
	refused(c, "SnapshotCreate", on_disk("default/web", NULL, 0), 0);
	refused(c, "SnapshotCreate", on_disk(NULL, "x", 0), 0);
	refused(c, "SnapshotList", on_disk("default/web", "x", 0), 0);
	o = ask(c, "ResizeDisk", on_disk("default/web", NULL, 4 << 20));
	g_assert_cmpint(json_object_get_int_member(o, "bytes"), ==, 4 << 20);
	json_object_unref(o);
	refused(c, "ResizeDisk", on_disk("default/web", NULL, 1 << 20), -EBUSY);
	refused(c, "ResizeDisk", on_disk("default/web", NULL, -1), 0);
	refused(c, "ResizeDisk", on_disk("default/web", NULL, 0), 0);
	g_assert_cmpint(fake.wrong_thread, ==, 0);
	ctl_client_free(c);
	end();
}

static JsonObject *on_nic(const char *nic, int up)
{
	JsonObject *o = json_object_new();

	if (nic)
		json_object_set_string_member(o, "nic", nic);
	if (up >= 0)
		json_object_set_boolean_member(o, "up", up);
	return o;
}

static void links(void)
{
	struct ctl_client *c;
	JsonObject *o;

	begin();
	c = client();
	for (int up = 0; up < 2; up++) {
		o = ask(c, "SetLink", on_nic("vnet0", up));
		g_assert_cmpint(json_object_get_int_member(o, "nic"), ==, 0);
		g_assert_cmpstr(json_object_get_string_member(o, "ifname"), ==, "vnet0");
		g_assert_cmpint(json_object_get_boolean_member(o, "link"), ==, up);
		g_assert_cmpint(fake.nic.link, ==, up);
		json_object_unref(o);
	}
	refused(c, "SetLink", on_nic("vnet1", 1), -ENOENT);
	refused(c, "SetLink", on_nic(NULL, 1), 0);
	refused(c, "SetLink", on_nic("vnet0", -1), 0);
	o = on_nic("vnet0", 0);
	json_object_set_string_member(o, "up", "down");
	refused(c, "SetLink", o, 0);
	g_assert_cmpint(fake.nic.link, ==, 1);
	g_assert_cmpint(fake.wrong_thread, ==, 0);
	ctl_client_free(c);
	end();
}

/* NAME VALUE ..., NULL */
static JsonObject *numbers(const char *name, ...)
{
	JsonObject *o = json_object_new();
	va_list ap;

	va_start(ap, name);
	for (; name; name = va_arg(ap, const char *))
		json_object_set_int_member(o, name, va_arg(ap, gint64));
	va_end(ap);
	return o;
}
#define N(x) ((gint64)(x))

static void limits(void)
{
	struct ctl_client *c;

	begin();
	c = client();
	refused(c, "LimitNic", numbers("nic", N(0), "rate_in", N(1), NULL), -ENOENT); /* it has none */
	fake.nics = 1;
	json_object_unref(ask(c, "LimitNic", numbers("nic", N(0), "rate_in", N(1000), "burst_in", N(5), "packets_in", N(7), NULL)));
	g_assert_true(fake.limits[0] && !fake.limits[1]);
	g_assert_cmpuint(fake.limit[0].bytes, ==, 1000);
	g_assert_cmpuint(fake.limit[0].burst, ==, 5);
	g_assert_cmpuint(fake.limit[0].packets, ==, 7);
	json_object_unref(ask(c, "LimitNic", numbers("nic", N(0), "packets_out", N(0), NULL)));
	g_assert_true(!fake.limits[0] && fake.limits[1]);
	g_assert_cmpuint(fake.limit[1].packets, ==, 0);
	refused(c, "LimitNic", numbers("nic", N(1), "rate_in", N(1), NULL), -ENOENT);
	refused(c, "LimitNic", numbers("nic", N(-1), "rate_in", N(1), NULL), -ENOENT);
	refused(c, "LimitNic", numbers("rate_in", N(1), NULL), 0);
	refused(c, "LimitNic", numbers("nic", N(0), "rate_in", N(-1), NULL), 0);
	refused(c, "LimitNic", numbers("nic", N(0), "burst_out", N(RATE_MAX) + 1, NULL), 0);
	refused(c, "LimitNic", numbers("nic", N(0), "rate", N(1), NULL), 0);
	g_assert_true(!fake.limits[0] && fake.limits[1]); /* what was refused changed nothing */
	g_assert_cmpint(fake.wrong_thread, ==, 0);
	fake.nics = 0;
	ctl_client_free(c);
	end();
}

static void garbage(void)
{
	static const char *const bad[] = { "", "x", "{", "}", "[]", "null", "1", "\"a\"", "{}", "{\"method\":1}", "{\"method\":null}",
		"{\"method\":{}}", "{\"method\":\"a.b\",\"parameters\":[]}", "{\"method\":\"a.b\",\"parameters\":1}",
		"{\"method\":\"a.b\",\"more\":1}", "{\"method\":\"a.b\"", "{\"method\":\"a.b\"}}", "{'method':'a.b'}",
		"{\"method\":\"a.b\"/**/}", "\xff\xfe", "{\"method\":\"\xff\"}", "{\"method\":\"a.b\",}x",
		"{\"method\":\"a.b\"}{\"method\":\"a.b\"}", "{} {\"method\":{\"a\":1}}", "[][]" };
	GString *deep = g_string_new("{\"method\":\"a.b\",\"parameters\":{\"a\":");
	g_autofree char *huge = g_malloc(200000), *answer = NULL;
	int fd;

	begin();
	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
		fd = raw();
		expect(fd, bad[i], "org.varlink.service.InvalidParameter");
		g_assert_null(get(fd)); /* and that is the end of it */
		close(fd);
	}
	for (int i = 0; i < 20000; i++)
		g_string_append_c(deep, '[');
	fd = raw();
	expect(fd, deep->str, "InvalidParameter");
	close(fd);
	g_string_free(deep, TRUE);
	memset(huge, ' ', 200000);
	fd = raw();
	send(fd, huge, 200000, MSG_NOSIGNAL);
	answer = get(fd);
	g_assert_nonnull(strstr(answer, "longer than 64 KiB"));
	close(fd);
	/* byte by byte, and several at once */
	fd = raw();
	for (const char *p = "{\"method\":\"org.vhost.VM.GetState\"}";; p++) {
		g_assert_cmpint(send(fd, p, 1, MSG_NOSIGNAL), ==, 1);
		if (!*p)
			break;
	}
	char *one = get(fd);

	g_assert_nonnull(strstr(one, "running"));
	g_free(one);
	for (int i = 0; i < 100; i++)
		put(fd, i % 3 ? "{\"method\":\"org.vhost.VM.GetState\"}" : "{\"method\":\"org.vhost.VM.Info\"}");
	for (int i = 0; i < 100; i++) {
		one = get(fd);
		g_assert_true(!strstr(one, "\"cpus\"") == (i % 3 != 0)); /* answered in order */
		g_free(one);
	}
	/* oneway: no answer; the next one is that of the next request */
	put(fd, "{\"method\":\"org.vhost.VM.Pause\",\"oneway\":true}");
	expect(fd, "{\"method\":\"org.vhost.VM.GetState\"}", "paused");
	/* the line half closed: the answer still comes */
	put(fd, "{\"method\":\"org.vhost.VM.Info\"}");
	shutdown(fd, SHUT_WR);
	one = get(fd);
	g_assert_nonnull(strstr(one, "\"cpus\":2"));
	g_free(one);
	g_assert_null(get(fd));
	close(fd);
	end();
}

static void random_bytes(void)
{
	static const char *const seed[] = { "{\"method\":\"org.vhost.VM.GetState\",\"parameters\":{}}",
		"{\"method\":\"org.vhost.VM.Balloon\",\"parameters\":{\"target\":1000000}}",
		"{\"method\":\"org.vhost.VM.Stats\",\"more\":true,\"oneway\":false}",
		"{\"method\":\"org.vhost.VM.Events\",\"more\":true}", "{\"method\":\"org.vhost.VM.Console\",\"upgrade\":true}",
		"{\"method\":\"org.vhost.VM.ConsoleInput\",\"parameters\":{\"data\":\"aGFsbG8=\"}}" };
	char buf[4096];

	begin();
	for (int i = 0; i < 600; i++) {
		int fd = raw();

		for (int k = g_test_rand_int_range(1, 6); k; k--) {
			const char *s = seed[g_test_rand_int_range(0, G_N_ELEMENTS(seed))];
			size_t n = strlen(s) + 1;

			memcpy(buf, s, n);
			for (int m = g_test_rand_int_range(0, 4); m; m--)
				buf[g_test_rand_int_range(0, (int)n)] = (char)(g_test_rand_bit() ? g_test_rand_int() : "{}[],:\"\\"[g_test_rand_int_range(0, 8)]);
			if (send(fd, buf, g_test_rand_bit() ? n : (size_t)g_test_rand_int_range(1, (int)n + 1), MSG_NOSIGNAL) < 0)
				break;
		}
		while (g_test_rand_bit() && recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
			;
		close(fd);
	}
	struct ctl_client *c = client();

	json_object_unref(ask(c, "GetState", NULL));
	ctl_client_free(c);
	end();
}

static void many_clients(void)
{
	int fd[100], open = 0, refused = 0;
	char c;

	begin();
	for (int i = 0; i < 100; i++)
		fd[i] = raw();
	for (int i = 0; i < 100; i++) {
		/* The refused ones are at their end, also while we write. */
		const char *q = "{\"method\":\"org.vhost.VM.GetState\"}";

		if (send(fd[i], q, strlen(q) + 1, MSG_NOSIGNAL) < 0 || recv(fd[i], &c, 1, 0) <= 0)
			refused++;
		else
			open++;
	}
	g_assert_cmpint(open, ==, 64);
	g_assert_cmpint(refused, ==, 36);
	for (int i = 0; i < 100; i++)
		close(fd[i]);
	for (int i = 0; i < 200; i++) { /* room again */
		int again = raw();
		const char *q = "{\"method\":\"org.vhost.VM.GetState\"}";

		if (send(again, q, strlen(q) + 1, MSG_NOSIGNAL) > 0 && recv(again, &c, 1, 0) > 0) {
			close(again);
			end();
			return;
		}
		close(again);
		g_usleep(10000);
	}
	g_assert_not_reached();
}

static void set_running(void *unused)
{
	fake_set(MACH_RUNNING, "running", "a text that fills the sockets of those who do not read");
}

/* Nobody waits for a client that does not read: neither the machine nor the other clients. */
static void slow_clients(void)
{
	char block[4096];
	int ev, con, busy;
	struct ctl_client *c;
	gint64 start;

	begin();
	memset(block, 'x', sizeof(block));
	ev = raw();
	expect(ev, "{\"method\":\"org.vhost.VM.Events\",\"more\":true}", "continues");
	con = raw();
	put(con, "{\"method\":\"org.vhost.VM.Console\",\"upgrade\":true}");
	busy = raw(); /* asks and does not read */
	for (int i = 0; i < 3000; i++) {
		static const char q[] = "{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{\"interface\":\"org.vhost.VM\"}}";

		if (send(busy, q, sizeof(q), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			break;
	}
	start = g_get_monotonic_time();
	for (int i = 0; i < 20000; i++) {
		loop_call(fake.main, set_running, NULL);
		if (i % 10 == 0)
			ctl_console_output(server, block, sizeof(block));
	}
	g_assert_cmpint(g_get_monotonic_time() - start, <, 20 * G_TIME_SPAN_SECOND);
	c = client();
	json_object_unref(ask(c, "Info", NULL));
	ctl_client_free(c);
	close(ev);
	close(con);
	close(busy);
	end();
}

static void console(void)
{
	g_autofree char *big = g_malloc(100001);
	struct ctl_client *c;
	char buf[65536 + 4096];
	size_t n = 0;
	JsonObject *o;

	begin();
	for (int i = 0; i < 100000; i++)
		big[i] = (char)('a' + i % 26);
	big[100000] = '\0';
	for (int i = 0; i < 100000; i += 1000)
		ctl_console_output(server, big + i, 1000);
	/* raw: the last 64 KiB, then what comes */
	c = client();
	g_assert_cmpint(ctl_client_call(c, "Console", NULL, CTL_UPGRADE, NULL, NULL), ==, 0);
	n = ctl_client_rest(c, buf, sizeof(buf));
	while (n < 65536) {
		ssize_t r = recv(ctl_client_fd(c), buf + n, sizeof(buf) - n, 0);

		g_assert_cmpint(r, >, 0);
		n += (size_t)r;
	}
	g_assert_cmpmem(buf, 65536, big + 100000 - 65536, 65536);
	ctl_console_output(server, "login: ", 7);
	for (n = 0; n < 7;) {
		ssize_t r = recv(ctl_client_fd(c), buf + n, sizeof(buf) - n, 0);

		g_assert_cmpint(r, >, 0);
		n += (size_t)r;
	}
	g_assert_cmpmem(buf, n, "login: ", 7);
	/* input, more than the port takes at first */
	fake.input_room = 3;
	g_assert_cmpint(send(ctl_client_fd(c), "root\npassword\n", 14, MSG_NOSIGNAL), ==, 14);
	for (int i = 0; i < 1000 && fake.input_room; i++)
		g_usleep(1000);
	g_usleep(20000);
	g_assert_cmpint(fake.input_room, ==, 0);
	fake.input_room = 100;
	ctl_console_room(server);
	for (int i = 0; i < 5000 && fake.input_room != 100 - 11; i++)
		g_usleep(1000);
	g_assert_cmpint(fake.input_room, ==, 100 - 11);
	g_assert_cmpmem(fake.input, 14, "root\npassword\n", 14);
	ctl_client_free(c);
	/* replies, and without the past */
	c = client();
	o = json_object_new();
	json_object_set_boolean_member(o, "replay", FALSE);
	int fd = raw();

	put(fd, "{\"method\":\"org.vhost.VM.Console\",\"more\":true,\"parameters\":{\"replay\":false}}");
	json_object_unref(o);
	json_object_unref(ask(c, "GetState", NULL));
	g_usleep(50000);
	ctl_console_output(server, "hello", 5);
	char *one = get(fd);

	g_assert_nonnull(strstr(one, "\"data\":\"aGVsbG8=\""));
	g_assert_nonnull(strstr(one, "\"continues\":true"));
	g_free(one);
	close(fd);
	o = json_object_new();
	json_object_set_string_member(o, "data", "aGVsbG8=");
	o = ask(c, "ConsoleInput", o);
	g_assert_cmpint(json_object_get_int_member(o, "taken"), ==, 5);
	json_object_unref(o);
	ctl_client_free(c);
	end();
}

static void stop_by_guest(void *unused)
{
	fake_set(MACH_STOPPED, "stopped", "guest powered off");
}

static void stop(void)
{
	struct ctl_client *c, *w;
	JsonObject *o;
	int ev;

	begin();
	c = client();
	json_object_unref(ask(c, "Stop", NULL)); /* at once */
	g_assert_cmpint(fake.buttons, ==, 1);
	ev = raw();
	expect(ev, "{\"method\":\"org.vhost.VM.Events\",\"more\":true}", "\"state\":\"running\"");
	w = client();
	int wait = raw();

	put(wait, "{\"method\":\"org.vhost.VM.Stop\",\"parameters\":{\"wait\":true}}");
	for (int i = 0; i < 5000 && fake.buttons < 2; i++)
		g_usleep(1000);
	g_assert_cmpint(fake.buttons, ==, 2);
	g_usleep(20000);
	g_assert_cmpint(recv(wait, &(char){ 0 }, 1, MSG_DONTWAIT), <, 0); /* not yet */
	loop_call(fake.main, stop_by_guest, NULL);
	char *one = get(wait);

	g_assert_nonnull(one);
	g_assert_null(strstr(one, "error"));
	g_free(one);
	one = get(ev);
	g_assert_nonnull(strstr(one, "guest powered off"));
	g_assert_null(strstr(one, "continues"));
	g_free(one);
	o = ask(w, "GetState", NULL);
	g_assert_cmpstr(json_object_get_string_member(o, "state"), ==, "stopped");
	g_assert_cmpstr(json_object_get_string_member(o, "reason"), ==, "guest powered off");
	json_object_unref(o);
	loop_call(fake.main, unmake, NULL);
	g_assert_cmpint(ctl_client_wait_end(w, 5000), ==, 0);
	ctl_client_free(c);
	ctl_client_free(w);
	close(ev);
	close(wait);
	end();
}

static void stop_forced(void)
{
	struct ctl_client *c;
	JsonObject *o;

	begin();
	c = client();
	o = json_object_new();
	json_object_set_int_member(o, "timeout", 50);
	json_object_set_boolean_member(o, "wait", TRUE);
	json_object_unref(ask(c, "Stop", o));
	g_assert_cmpint(fake.state, ==, MACH_STOPPED);
	g_assert_cmpint(fake.buttons, ==, 1);
	ctl_client_free(c);
	end();
	begin();
	c = client();
	json_object_unref(ask(c, "Kill", NULL));
	g_assert_cmpint(fake.state, ==, MACH_STOPPED);
	ctl_client_free(c);
	end();
}

static void block_main(void *ctx)
{
	g_usleep(100000);
}

static void *caller(void *unused)
{
	loop_call(fake.main, block_main, NULL);
	loop_call(fake.main, unmake, NULL);
	return NULL;
}

/* Down with calls under way, streams attached, and a client that waits for the end. */
static void freed_while_busy(void)
{
	for (int round = 0; round < 20; round++) {
		int fd[8];

		begin();
		for (int i = 0; i < 8; i++)
			fd[i] = raw();
		expect(fd[0], "{\"method\":\"org.vhost.VM.GetState\"}", "running");
		GThread *t = g_thread_new("end", caller, NULL);

		put(fd[1], "{\"method\":\"org.vhost.VM.Console\",\"upgrade\":true}");
		put(fd[2], "{\"method\":\"org.vhost.VM.Events\",\"more\":true}");
		put(fd[3], "{\"method\":\"org.vhost.VM.Stop\",\"parameters\":{\"wait\":true,\"timeout\":90}}");
		for (int i = 4; i < 8; i++)
			put(fd[i], "{\"method\":\"org.vhost.VM.Stats\"}");
		g_thread_join(t);
		for (int i = 0; i < 8; i++) {
			char *one;

			while ((one = get(fd[i])))
				g_free(one);
			close(fd[i]);
		}
		end();
	}
}

static void not_running(void)
{
	struct ctl_client *c;
	ERR_AUTO(e);
	ERR_AUTO(f);

	g_assert_cmpint(ctl_client_open("nosuch", 1000, &c, &e), ==, -ENOENT);
	g_assert_cmpint(err_exit_status(&e), ==, EXIT_NOT_FOUND);
	g_assert_cmpint(ctl_client_open("../x", 1000, &c, &f), ==, -EINVAL);
}

static void foreign_user(void)
{
	int st;

	if (geteuid()) {
		g_test_skip("needs root");
		return;
	}
	begin();
	/* Even if the files let them: who they are is asked of the kernel. */
	g_autofree char *cmd = g_strdup_printf("chmod 0711 $(dirname '%s') $(dirname $(dirname '%s')) '%s' && chmod 0666 '%s'", sock_path, sock_path,
					       g_getenv("VHOST_ROOT"), sock_path);

	g_assert_cmpint(system(cmd), ==, 0);
	pid_t pid = fork();

	if (!pid) {
		struct sockaddr_un a = { .sun_family = AF_UNIX };
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		const char *q = "{\"method\":\"org.vhost.VM.GetState\"}";
		char c;

		g_strlcpy(a.sun_path, sock_path, sizeof(a.sun_path));
		if (setgid(65534) || setuid(65534) || connect(fd, (struct sockaddr *)&a, sizeof(a)))
			_exit(2);
		(void)!send(fd, q, strlen(q) + 1, MSG_NOSIGNAL);
		_exit(recv(fd, &c, 1, 0) > 0);
	}
	g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
	g_assert_cmpint(st, ==, 0);
	end();
}

static void long_path(void)
{
	g_autofree char *old = g_strdup(g_getenv("VHOST_ROOT")), *deep = g_strdup_printf("%s/%0100d", old, 7);
	struct ctl_client *c;

	g_setenv("VHOST_ROOT", deep, TRUE);
	begin();
	c = client();
	json_object_unref(ask(c, "GetState", NULL));
	ctl_client_free(c);
	end();
	g_setenv("VHOST_ROOT", old, TRUE);
}

int main(int argc, char **argv)
{
	g_autofree char *root = NULL, *rm = NULL;
	GError *err = NULL;
	int r;

	g_test_init(&argc, &argv, NULL);
	alarm(200);
	root = g_dir_make_tmp("vhost-ctl-XXXXXX", &err);
	g_assert_no_error(err);
	g_setenv("VHOST_ROOT", root, TRUE);
	g_test_add_func("/server/describes-itself", service);
	g_test_add_func("/server/machine-calls-run-on-the-main-loop", machine);
	g_test_add_func("/server/disks", disks);
	g_test_add_func("/server/links", links);
	g_test_add_func("/server/limits-of-nics", limits);
	g_test_add_func("/server/garbage-is-refused", garbage);
	g_test_add_func("/server/random-bytes", random_bytes);
	g_test_add_func("/server/many-clients", many_clients);
	g_test_add_func("/server/slow-clients-stop-nobody", slow_clients);
	g_test_add_func("/server/console", console);
	g_test_add_func("/server/stop-and-events", stop);
	g_test_add_func("/server/stop-forced-and-kill", stop_forced);
	g_test_add_func("/server/freed-while-busy", freed_while_busy);
	g_test_add_func("/server/not-running", not_running);
	g_test_add_func("/server/foreign-users-are-refused", foreign_user);
	g_test_add_func("/server/long-path", long_path);
	r = g_test_run();
	g_free(sock_path);
	rm = g_strdup_printf("rm -rf '%s'", root);
	return system(rm) ? 1 : r;
}
