/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "ctl/client.h"

#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "ctl/varlink.h"
#include "util/paths.h"

#define REPLY_MAX (16u << 20)

struct ctl_client {
	char *vm;
	int fd, timeout_ms, more;
	GByteArray *in;
};

static int connect_to(const char *vm, struct vh_err *e)
{
	g_autofree char *dir = path_in(PATH_STATE, vm, NULL), *path = g_build_filename(dir, "control.sock", NULL);
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, dir_fd = -1, r = 0, pid = 0;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(e, -errno, "cannot make a socket: %s", g_strerror(errno));
	if (strlen(path) < sizeof(a.sun_path)) {
		strcpy(a.sun_path, path);
	} else {
		dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/control.sock", dir_fd);
	}
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		r = -errno;
	if (dir_fd >= 0)
		close(dir_fd);
	if (!r)
		return fd;
	close(fd);
	if (r == -ENOENT || r == -ECONNREFUSED || r == -ENOTDIR) {
		if (!ctl_dir_running(vm, &pid)) {
			err_remedy(e, "try again when it has started");
			return err_set(e, -EAGAIN, "process %d does not answer yet: it is starting or ending", pid);
		}
		err_status(e, EXIT_NOT_FOUND);
		err_remedy(e, "`vhost vm list` shows those that run");
		return err_set(e, -ENOENT, "no VM of this name runs");
	}
	if (r == -EACCES || r == -EPERM)
		err_remedy(e, "only the VM's owner and root control it");
	return err_set(e, r, "cannot connect to %s: %s", path, g_strerror(-r));
}

int ctl_client_open(const char *vm, int timeout_ms, struct ctl_client **out, struct vh_err *e)
{
	struct ctl_client *c;
	int fd, r;

	err_object(e, "VM %s", vm);
	r = name_check("VM", vm, e);
	if (r < 0)
		return r;
	fd = connect_to(vm, e);
	if (fd < 0)
		return fd;
	c = g_new0(struct ctl_client, 1);
	c->vm = g_strdup(vm);
	c->fd = fd;
	c->timeout_ms = timeout_ms;
	c->in = g_byte_array_new();
	*out = c;
	return 0;
}

/* 1: something came; 0: the end; -errno. */
static int fill(struct ctl_client *c, int timeout_ms)
{
	struct pollfd pf = { c->fd, POLLIN, 0 };
	uint8_t buf[16384];
	ssize_t n;
	int r;

	do
		r = poll(&pf, 1, timeout_ms);
	while (r < 0 && errno == EINTR);
	if (r <= 0)
		return r < 0 ? -errno : -ETIMEDOUT;
	do
		n = recv(c->fd, buf, sizeof(buf), 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? 0 : -errno;
	g_byte_array_append(c->in, buf, (guint)n);
	return n > 0;
}

static const char *text_of(JsonObject *o, const char *name)
{
	JsonNode *n = o ? json_object_get_member(o, name) : NULL;

	return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_STRING ? json_node_get_string(n) : NULL;
}

static int take_error(const char *error, JsonObject *params, struct vh_err *e)
{
	const char *message = text_of(params, "message"), *remedy = text_of(params, "remedy");
	int code = -EIO;
	JsonNode *n;

	if (!strcmp(error, VARLINK_VM ".Failed") && message) {
		n = json_object_get_member(params, "code");
		if (n && JSON_NODE_HOLDS_VALUE(n))
			code = -(int)json_node_get_int(n);
		if (remedy)
			err_remedy(e, "%s", remedy);
		return err_set(e, code < 0 && code > -4096 ? code : -EIO, "%s", message);
	}
	if (!strcmp(error, VARLINK_VM ".NoBalloon")) {
		err_remedy(e, "start it with --balloon on");
		return err_set(e, -EOPNOTSUPP, "the VM has no balloon");
	}
	if (!strcmp(error, VARLINK_VM ".ShuttingDown"))
		return err_set(e, -ESHUTDOWN, "the VM is going down");
	if (!strcmp(error, VARLINK_SERVICE ".MethodNotFound")) {
		err_remedy(e, "it runs an older vhost: restart it to use this");
		return err_set(e, -EOPNOTSUPP, "the VM does not know method %s", text_of(params, "method"));
	}
	if (!strcmp(error, VARLINK_SERVICE ".InvalidParameter"))
		return err_set(e, -EINVAL, "the VM refuses parameter '%s'", text_of(params, "parameter"));
	return err_set(e, -EIO, "the VM answers %s", error);
}

static int next(struct ctl_client *c, JsonObject **reply, int *continues, struct vh_err *e)
{
	g_autoptr(JsonParser) parser = NULL;
	const char *error;
	JsonObject *o, *params;
	uint8_t *end;
	JsonNode *n;
	int r;

	while (!c->in->len || !(end = memchr(c->in->data, 0, c->in->len))) {
		if (c->in->len > REPLY_MAX)
			return err_set(e, -EMSGSIZE, "the VM's answer has no end");
		r = fill(c, c->timeout_ms);
		if (r == -ETIMEDOUT)
			return err_set(e, r, "the VM does not answer within %d s", c->timeout_ms / 1000);
		if (r < 0)
			return err_set(e, r, "cannot read the VM's answer: %s", g_strerror(-r));
		if (!r)
			return err_set(e, -ECONNRESET, "the VM has ended");
	}
	parser = json_parser_new();
	if (!varlink_shape_ok((char *)c->in->data, (size_t)(end - c->in->data)) ||
	    !json_parser_load_from_data(parser, (char *)c->in->data, (gssize)(end - c->in->data), NULL) ||
	    !(n = json_parser_get_root(parser)) || !JSON_NODE_HOLDS_OBJECT(n))
		return err_set(e, -EPROTO, "the VM's answer is not Varlink");
	g_byte_array_remove_range(c->in, 0, (guint)(end - c->in->data) + 1);
	o = json_node_get_object(n);
	n = json_object_get_member(o, "parameters");
	params = n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
	error = text_of(o, "error");
	n = json_object_get_member(o, "continues");
	*continues = !error && n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_boolean(n);
	if (error)
		return take_error(error, params, e);
	if (reply)
		*reply = params ? json_object_ref(params) : json_object_new();
	return 0;
}

int ctl_client_call(struct ctl_client *c, const char *method, JsonObject *params, unsigned flags, JsonObject **reply,
		    struct vh_err *e)
{
	g_autoptr(JsonGenerator) gen = json_generator_new();
	g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);
	JsonObject *o = json_object_new();
	g_autofree char *text = NULL, *name = NULL;
	gsize len, at = 0;
	ssize_t n;
	int r;

	err_object(e, "VM %s", c->vm);
	name = strchr(method, '.') ? g_strdup(method) : g_strconcat(VARLINK_VM ".", method, NULL);
	json_object_set_string_member(o, "method", name);
	if (params)
		json_object_set_object_member(o, "parameters", params);
	if (flags & CTL_MORE)
		json_object_set_boolean_member(o, "more", TRUE);
	if (flags & CTL_UPGRADE)
		json_object_set_boolean_member(o, "upgrade", TRUE);
	json_node_take_object(root, o);
	json_generator_set_root(gen, root);
	text = json_generator_to_data(gen, &len);
	while (at < len + 1) {
		n = send(c->fd, text + at, len + 1 - at, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(e, -errno, "cannot ask the VM: %s", g_strerror(errno));
		at += (gsize)n;
	}
	r = next(c, reply, &c->more, e);
	return r;
}

int ctl_client_next(struct ctl_client *c, JsonObject **reply, struct vh_err *e)
{
	ERR_AUTO(own);
	int r;

	if (!c->more)
		return 0;
	r = next(c, reply, &c->more, &own);
	if (r == -ECONNRESET)
		return 0;
	if (r < 0)
		err_move(e, &own);
	return r < 0 ? r : 1;
}

int ctl_client_fd(const struct ctl_client *c)
{
	return c->fd;
}

size_t ctl_client_rest(struct ctl_client *c, void *buf, size_t cap)
{
	size_t n = MIN(c->in->len, cap);

	if (n) {
		memcpy(buf, c->in->data, n);
		g_byte_array_remove_range(c->in, 0, (guint)n);
	}
	return n;
}

int ctl_client_wait_end(struct ctl_client *c, int timeout_ms)
{
	gint64 end = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
	int r;

	do {
		r = fill(c, timeout_ms < 0 ? -1 : (int)MAX((end - g_get_monotonic_time()) / 1000, 0));
		g_byte_array_set_size(c->in, 0);
	} while (r > 0);
	return r;
}

void ctl_client_free(struct ctl_client *c)
{
	if (!c)
		return;
	close(c->fd);
	g_byte_array_unref(c->in);
	g_free(c->vm);
	g_free(c);
}
