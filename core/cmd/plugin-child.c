/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Loading in a child process, for commands that only want to know something: a bad plugin costs that child. */
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cmd/plugin.h"

#define ANSWER_MAX (4u << 20)
#define SECONDS 20

const char *plugin_text(JsonObject *o, const char *member)
{
	JsonNode *n = json_object_get_member(o, member);

	return n && JSON_NODE_HOLDS_VALUE(n) ? json_node_get_string(n) : NULL;
}

void plugin_print_json(JsonNode *n)
{
	g_autoptr(JsonGenerator) gen = json_generator_new();
	g_autofree char *text = NULL;

	json_generator_set_root(gen, n);
	text = json_generator_to_data(gen, NULL);
	puts(text);
}

static int load(const char *name, struct plug **p, struct vh_err *e)
{
	struct plug_file f;
	char id[VH_ID_MAX];
	int r;

	if (!strchr(name, '/'))
		return plug_load(name, p, e);
	r = plug_add_file(name, e);
	if (!r)
		r = plug_file_open(name, &f, e);
	if (r < 0)
		return r;
	memcpy(id, f.note.id, sizeof(id));
	plug_file_close(&f);
	return plug_load(id, p, e);
}

/* {"ok": what build made} or {"code", "status", "object", "cause", "remedy"}. */
static void answer(const char *name, void (*build)(JsonBuilder *b, const struct plug *p), int fd)
{
	JsonBuilder *b = json_builder_new();
	JsonGenerator *gen = json_generator_new();
	struct vh_err e = {0};
	struct plug *p;
	char *text;
	gsize len;
	int r = load(name, &p, &e);

	json_builder_begin_object(b);
	if (!r) {
		json_builder_set_member_name(b, "ok");
		build(b, p);
	} else {
		plugin_json_int(b, "code", e.code ? e.code : r);
		plugin_json_int(b, "status", e.status);
		js_text(b, "object", e.object);
		js_text(b, "cause", e.cause);
		js_text(b, "remedy", e.remedy);
	}
	json_builder_end_object(b);
	json_generator_set_root(gen, json_builder_get_root(b));
	text = json_generator_to_data(gen, &len);
	for (gsize at = 0; at < len;) {
		ssize_t n = write(fd, text + at, len - at);

		if (n < 0 && errno != EINTR)
			_exit(1);
		at += n > 0 ? (gsize)n : 0;
	}
	_exit(0); /* without the plugin's exit handlers */
}

static void child(const char *name, void (*build)(JsonBuilder *b, const struct plug *p), int fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	/* Results are the parent's to print; what a plugin writes to standard error is let through for its author. */
	dup2(null, 0);
	dup2(2, 1);
	answer(name, build, fd);
}

/* Reads until the end, an error, or the deadline. Returns 0 at the end. */
static int read_answer(int fd, GString *s)
{
	gint64 until = g_get_monotonic_time() + SECONDS * G_USEC_PER_SEC;
	char buf[4096];

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		gint64 left = (until - g_get_monotonic_time()) / 1000;
		ssize_t n;

		if (left <= 0 || s->len > ANSWER_MAX)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)left) <= 0)
			continue;
		n = read(fd, buf, sizeof(buf));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return 0;
		g_string_append_len(s, buf, n);
	}
}

static int take_answer(const char *text, JsonNode **out, struct vh_err *e)
{
	g_autoptr(JsonNode) n = json_from_string(text, NULL);
	JsonObject *o = n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
	int code;

	if (!o)
		return -EPROTO;
	if (json_object_has_member(o, "ok")) {
		*out = json_node_copy(json_object_get_member(o, "ok"));
		return 0;
	}
	code = (int)json_object_get_int_member(o, "code");
	if (plugin_text(o, "object"))
		err_object(e, "%s", plugin_text(o, "object"));
	err_set(e, code, "%s", plugin_text(o, "cause") ? plugin_text(o, "cause") : "it could not be loaded");
	if (plugin_text(o, "remedy"))
		err_remedy(e, "%s", plugin_text(o, "remedy"));
	err_status(e, (enum exit_status)json_object_get_int_member(o, "status"));
	return code < 0 ? code : -EIO;
}

int plugin_child(const char *name, void (*build)(JsonBuilder *b, const struct plug *p), JsonNode **out, struct vh_err *e)
{
	g_autoptr(GString) s = g_string_new(NULL);
	int p[2], status = 0, r;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_set(e, -errno, "no pipe: %s", g_strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		close(p[0]);
		close(p[1]);
		return err_set(e, -errno, "no child process: %s", g_strerror(errno));
	}
	if (!pid) {
		close(p[0]);
		child(name, build, p[1]);
	}
	close(p[1]);
	r = read_answer(p[0], s);
	close(p[0]);
	if (r < 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!r && !WIFSIGNALED(status)) {
		r = take_answer(s->str, out, e);
		if (r != -EPROTO || e->cause)
			return r;
	}
	err_object(e, "plugin %s", name);
	err_status(e, EXIT_REFUSED);
	if (r == -ETIMEDOUT)
		return err_set(e, r, "it hung while it was being asked");
	if (WIFSIGNALED(status))
		return err_set(e, -EPROTO, "it crashed while it was being loaded: %s", strsignal(WTERMSIG(status)));
	return err_set(e, -EPROTO, "it ended the process while it was being loaded (exit status %d)", WEXITSTATUS(status));
}
