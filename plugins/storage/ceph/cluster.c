/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The connection: options, keys, the pool and its namespace, what it holds. */
#include <json-glib/json-glib.h>
#include <stdio.h>
#include <stdlib.h>
#include "ceph.h"

#define KEY_MAX 1024
#define ANSWER_MAX (16u << 20)

#define OPT(NAME, TYPE, DOC, ...)                                                                                      \
	&(const struct vh_opt){.size = sizeof(struct vh_opt), .name = NAME, .type = TYPE, .doc = DOC, ##__VA_ARGS__}

const struct vh_opt *const ceph_pool_options[] = {
	OPT("pool", VH_OPT_STR, "The RADOS pool", .flags = VH_OPT_REQUIRED | VH_OPT_MAIN, .min = 1, .max = 128),
	OPT("namespace", VH_OPT_STR, "The namespace in it; without one, the default one", .min = 1, .max = 128),
	OPT("user", VH_OPT_STR, "The client's name, without the word client", .defval = "admin", .min = 1, .max = 128),
	OPT("conf", VH_OPT_PATH, "The cluster's configuration file; without it and without mon, what Ceph finds itself"),
	OPT("mon", VH_OPT_STR, "The monitors, HOST[:PORT] separated by spaces or semicolons, instead of a configuration file", .min = 1,
	    .max = 1024),
	OPT("keyring", VH_OPT_PATH, "The file with the client's key, as Ceph writes it"),
	OPT("key", VH_OPT_SECRET, "The client's key alone, instead of a keyring"),
	OPT("timeout", VH_OPT_DURATION, "After this time without an answer a request of a guest fails; 0: it waits for the cluster",
	    .defval = "0s", .min = 0, .max = INT64_C(86400000000000)),
	OPT("answer-timeout", VH_OPT_DURATION, "How long commands, and the first connection, wait for each answer", .defval = "10s",
	    .min = 1000000000, .max = INT64_C(600000000000)),
	OPT("trash", VH_OPT_BOOL, "Deleted volumes go to the pool's trash", .defval = "off"),
	OPT("trash-time", VH_OPT_DURATION, "How long the trash keeps them from being purged", .defval = "0s", .min = 0,
	    .max = INT64_C(315360000000000000)),
	NULL};

const char *ceph_why(int code)
{
	switch (-code) {
	case ESHUTDOWN: return "this client is blocklisted: its lock was broken";
	case ETIMEDOUT: return "the cluster does not answer";
	case EROFS: return "somebody else has the lock, or it was lost";
	case EDQUOT: return "the pool's quota is used up";
	}
	return strerror(-code);
}

int ceph_errno(struct vh_err *e, int code, const struct ceph_pool *p, const char *name)
{
	if (code == -ENOENT)
		return ceph_fail(e, code, "there is no such volume in the Ceph pool %s%s%s", p->name, p->ns ? "/" : "", p->ns ? p->ns : "");
	if (code == -EPERM || code == -EACCES)
		ceph_hint(e, "give client.%s the right: ceph auth caps client.%s mon 'profile rbd' osd 'profile rbd pool=%s'", p->user,
			  p->user, p->name);
	return ceph_fail(e, code < 0 ? code : -EIO, "%s/%s: %s", p->name, name, ceph_why(code));
}

static void limit(const struct ceph_pool *p, uint64_t osd)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)osd);
	rados_conf_set(p->cluster, "rados_osd_op_timeout", text);
}

void ceph_attached(struct ceph_pool *p, int more)
{
	unsigned was = p->attached;

	p->attached += more ? 1 : -1u;
	if (!was != !p->attached)
		limit(p, p->attached ? p->io_timeout : p->answer_timeout);
}

/* Settings that must hold whatever the file says. */
static int settle(const struct ceph_pool *p, struct vh_err *e)
{
	char wait[32];
	const char *const set[][2] = {
		{"rbd_cache", "false"}, /* librbd's own would acknowledge what it has not written */
		{"rbd_non_blocking_aio", "true"},
		{"rbd_blocklist_on_break_lock", "true"},
		{"rbd_auto_exclusive_lock_until_manual_request", "true"},
		{"log_to_stderr", "false"}, {"err_to_stderr", "false"}, {"clog_to_stderr", "false"}, {"mon_cluster_log_to_stderr", "false"},
		{"client_mount_timeout", wait}, {"rados_mon_op_timeout", wait}, {"rados_osd_op_timeout", wait},
	};

	snprintf(wait, sizeof(wait), "%llu", (unsigned long long)p->answer_timeout);
	for (size_t i = 0; i < sizeof(set) / sizeof(*set); i++) {
		int ret = rados_conf_set(p->cluster, set[i][0], set[i][1]);

		if (ret && ret != -ENOENT) /* an option that this version does not have */
			return ceph_fail(e, ret, "librados refuses %s=%s: %s", set[i][0], set[i][1], strerror(-ret));
	}
	return 0;
}

static int set_one(const struct ceph_pool *p, const char *option, const char *value, struct vh_err *e)
{
	int ret = value ? rados_conf_set(p->cluster, option, value) : 0;

	return ret ? ceph_fail(e, ret, "librados refuses the value of %s: %s", option, strerror(-ret)) : 0;
}

static int set_key(const struct ceph_pool *p, const char *secret, struct vh_err *e)
{
	const struct vh_secret_ops *s = vh_service(ceph_host, VH_SVC_SECRET, VH_END(s, get));
	char key[KEY_MAX + 1];
	int64_t n;
	int ret = 0;

	if (!secret)
		return 0;
	if (!s)
		return ceph_fail(e, -EOPNOTSUPP, "this host has no service for secrets");
	n = s->get(secret, key, KEY_MAX, e);
	if (n < 0)
		return (int)n;
	key[n] = 0;
	if (!n || strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") != (size_t)n) {
		ceph_hint(e, "ceph auth print-key client.%s prints it; a whole keyring goes with keyring=FILE", p->user);
		ret = ceph_fail(e, -EINVAL, "the secret is no key of Ceph's");
	} else if (rados_conf_set(p->cluster, "key", key)) {
		ret = ceph_fail(e, -EINVAL, "librados refuses the key");
	}
	explicit_bzero(key, sizeof(key));
	return ret;
}

static int configure(struct ceph_pool *p, const struct vh_opts *o, struct vh_err *e)
{
	const char *conf = vh_opt_str(o, "conf", NULL), *mon = vh_opt_str(o, "mon", NULL), *keyring = vh_opt_str(o, "keyring", NULL);
	int ret = 0;

	if (keyring && vh_opt_str(o, "key", NULL))
		return ceph_fail(e, -EINVAL, "keyring and key are two ways to say the same: give one of them");
	if (conf || !mon) {
		ret = rados_conf_read_file(p->cluster, conf);
		if (ret && !conf)
			ceph_hint(e, "give conf=FILE, or mon=HOST");
		if (ret)
			return ceph_fail(e, ret == -ENOENT ? -EINVAL : ret, "%s%s: %s", conf ? "the configuration file " : "no configuration file of Ceph", conf ? conf : "",
					 strerror(-ret));
	}
	ret = set_one(p, "mon_host", mon, e);
	if (!ret)
		ret = set_one(p, "keyring", keyring, e);
	if (!ret)
		ret = set_key(p, vh_opt_str(o, "key", NULL), e);
	return ret ? ret : settle(p, e);
}

static int refused(struct ceph_pool *p, int code, struct vh_err *e)
{
	char mon[128] = "";

	switch (-code) {
	case EACCES:
	case EPERM:
	case EKEYREJECTED:
		ceph_hint(e, "check the key: ceph auth get client.%s", p->user);
		return ceph_fail(e, -EACCES, "the cluster refuses client.%s: its key is wrong, or there is no such client", p->user);
	case ENOENT:
		ceph_hint(e, "give keyring=FILE or key=SECRET");
		return ceph_fail(e, -EACCES, "there is no key for client.%s", p->user);
	case EOPNOTSUPP:
		return ceph_fail(e, code, "client.%s and the cluster have no way of authentication in common", p->user);
	case ETIMEDOUT:
		rados_conf_get(p->cluster, "mon_host", mon, sizeof(mon));
		ceph_hint(e, "start the monitors, or correct their addresses");
		return ceph_fail(e, code, "no monitor answered within %llu s (%s)", (unsigned long long)p->answer_timeout, mon);
	}
	return ceph_fail(e, code, "the cluster cannot be reached: %s", strerror(-code));
}

struct shutting { struct ceph_call call; rados_t cluster; };

static void shutting_fn(struct ceph_call *call)
{
	rados_shutdown(((struct shutting *)call)->cluster);
}

static void shutting_gone(struct ceph_call *call)
{
	free(call);
}

static void pool_free(struct ceph_pool *p)
{
	struct shutting *s = calloc(1, sizeof(*s));

	if (p->io)
		rados_ioctx_destroy(p->io);
	if (p->cluster && !p->given_up && s) {
		s->call.fn = shutting_fn;
		s->call.gone = shutting_gone;
		s->cluster = p->cluster;
		if (!ceph_bounded(p, &s->call, 10))
			s = NULL; /* the thread's */
	}
	free(s);
	free(p->name);
	free(p->ns);
	free(p->user);
	free(p);
}

static uint64_t seconds(const struct vh_opts *o, const char *name)
{
	return ((uint64_t)vh_opt_num(o, name, 0) + 999999999) / 1000000000; /* what librados counts in */
}

static int connect_cluster(const struct vh_opts *o, struct ceph_pool **out, struct vh_err *e)
{
	const char *user = vh_opt_str(o, "user", "admin"), *ns = vh_opt_str(o, "namespace", NULL), *name = vh_opt_str(o, "pool", NULL);
	struct ceph_pool *p = calloc(1, sizeof(*p));
	char client[160];
	int ret;

	if (!name || !*name) {
		free(p);
		return ceph_fail(e, -EINVAL, "the option pool, a RADOS pool, is missing");
	}
	if (!p || !(p->name = strdup(name)) || !(p->user = strdup(user)) || (ns && !(p->ns = strdup(ns)))) {
		if (p)
			pool_free(p);
		return -ENOMEM;
	}
	p->io_timeout = seconds(o, "timeout");
	p->answer_timeout = seconds(o, "answer-timeout");
	if (!p->answer_timeout)
		p->answer_timeout = 10;
	p->trash = (int)vh_opt_num(o, "trash", 0);
	p->trash_time = seconds(o, "trash-time");
	snprintf(client, sizeof(client), "client.%s", user);
	if (!strncmp(user, "client.", 7))
		ret = ceph_fail(e, -EINVAL, "the user is named without \"client.\"");
	else if ((ret = rados_create2(&p->cluster, "ceph", client, 0)) < 0)
		ret = ceph_fail(e, ret, "librados does not start: %s", strerror(-ret));
	else
		ret = configure(p, o, e);
	if (!ret) {
		ret = rados_connect(p->cluster);
		if (ret)
			ret = refused(p, ret, e);
	}
	if (ret) {
		pool_free(p);
		return ret;
	}
	*out = p;
	return 0;
}

static int open_ioctx(struct ceph_pool *p, struct vh_err *e)
{
	int ret = rados_ioctx_create(p->cluster, p->name, &p->io);

	if (ret == -ENOENT) {
		ceph_hint(e, "ceph osd pool ls shows the pools that exist");
		return ceph_fail(e, ret, "the cluster has no pool %s", p->name);
	}
	if (ret)
		return ceph_fail(e, ret, "the pool %s: %s", p->name, ceph_why(ret));
	p->id = rados_ioctx_get_id(p->io);
	return 0;
}

int ceph_make(const struct vh_opts *opts, struct vh_job *j, struct vh_err *e)
{
	struct ceph_pool *p;
	int ret = connect_cluster(opts, &p, e);

	if (ret)
		return ret;
	if (rados_pool_lookup(p->cluster, p->name) == -ENOENT) {
		ret = rados_pool_create(p->cluster, p->name);
		if (ret && ret != -EEXIST) {
			ceph_hint(e, "have an administrator make it: ceph osd pool create %s && rbd pool init %s", p->name, p->name);
			ret = ceph_fail(e, ret, "the pool %s cannot be made: %s", p->name, ceph_why(ret));
		} else {
			ret = 0;
		}
	}
	if (!ret)
		ret = open_ioctx(p, e);
	if (!ret && (ret = rbd_pool_init(p->io, 0)) < 0 && ret != -EPERM && ret != -EACCES)
		ret = ceph_fail(e, ret, "the pool %s cannot be prepared for images: %s", p->name, ceph_why(ret));
	else
		ret = 0; /* without the right to mark the pool as RBD's it works all the same */
	if (!ret && p->ns && (ret = rbd_namespace_create(p->io, p->ns)) < 0)
		ret = ret == -EEXIST ? 0 : ceph_fail(e, ret, "the namespace %s cannot be made: %s", p->ns, ceph_why(ret));
	pool_free(p);
	return ret;
}

int ceph_open(const struct vh_opts *opts, struct vh_object *o, void **pool, struct vh_err *e)
{
	struct ceph_pool *p;
	int ret = connect_cluster(opts, &p, e);

	if (ret)
		return ret;
	ret = rados_cluster_fsid(p->cluster, p->fsid, sizeof(p->fsid));
	ret = ret < 0 ? ceph_fail(e, ret, "the cluster does not tell its id: %s", strerror(-ret)) : open_ioctx(p, e);
	if (!ret && p->ns) {
		bool there = false;

		ret = rbd_namespace_exists(p->io, p->ns, &there);
		/* A client of one namespace may not look into the default one, where the list of them is. */
		if (ret == -EPERM || ret == -EACCES)
			ret = 0, there = true;
		if (ret)
			ret = ceph_fail(e, ret, "the namespaces of pool %s: %s", p->name, ceph_why(ret));
		else if (!there)
			ret = ceph_fail(e, -ENOENT, "the pool %s has no namespace %s", p->name, p->ns);
		rados_ioctx_set_namespace(p->io, p->ns);
	}
	if (ret) {
		pool_free(p);
		return ret;
	}
	*pool = p;
	return 0;
}

void ceph_close(void *pool)
{
	pool_free(pool);
}

/* ---- info ---- */

static JsonNode *command(const struct ceph_pool *p, const char *text)
{
	JsonParser *parser;
	JsonNode *root = NULL;
	char *out = NULL, *status = NULL;
	size_t n = 0, status_n = 0;

	if (!rados_mon_command(p->cluster, &text, 1, NULL, 0, &out, &n, &status, &status_n) && n && n <= ANSWER_MAX) {
		parser = json_parser_new_immutable();
		if (json_parser_load_from_data(parser, out, (gssize)n, NULL) && json_parser_get_root(parser))
			root = json_node_copy(json_parser_get_root(parser));
		g_object_unref(parser);
	}
	rados_buffer_free(out);
	rados_buffer_free(status);
	return root;
}

static JsonObject *object_of(JsonNode *n)
{
	return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

static JsonNode *member(JsonObject *o, const char *name)
{
	return o ? json_object_get_member(o, name) : NULL;
}

static uint64_t number(JsonObject *o, const char *name)
{
	JsonNode *n = member(o, name);

	return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_INT64 && json_node_get_int(n) >= 0 ?
	       (uint64_t)json_node_get_int(n) : UINT64_MAX;
}

/* What is stored in the pool and what would still fit, replicas counted once: the monitors' own figures. */
static void space(const struct ceph_pool *p, struct vh_pool_info *i)
{
	JsonNode *root = command(p, "{\"prefix\":\"df\",\"format\":\"json\"}"), *list = member(object_of(root), "pools");
	JsonArray *a = list && JSON_NODE_HOLDS_ARRAY(list) ? json_node_get_array(list) : NULL;

	for (guint k = 0; a && k < json_array_get_length(a); k++) {
		JsonObject *o = object_of(json_array_get_element(a, k)), *stats = object_of(member(o, "stats"));

		if (number(o, "id") != (uint64_t)p->id)
			continue;
		i->allocated = number(stats, "stored");
		i->available = number(stats, "max_avail");
		if (i->allocated != UINT64_MAX && i->available != UINT64_MAX)
			i->capacity = i->allocated + i->available;
	}
	if (root)
		json_node_free(root);
	/* Without a manager the monitors know nothing, and say so or say 0. */
	if (i->capacity == UINT64_MAX || !i->capacity) {
		i->capacity = i->allocated = i->available = UINT64_MAX;
		snprintf(i->detail, sizeof(i->detail), "the cluster does not know its sizes: it has no manager, or has just started");
	}
}

int ceph_info(void *pool, struct vh_pool_info *i, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	struct vh_pool_info r = {.size = i->size, .capacity = UINT64_MAX, .allocated = UINT64_MAX, .available = UINT64_MAX};
	JsonNode *root = command(p, "{\"prefix\":\"health\",\"format\":\"json\"}"), *status = member(object_of(root), "status");

	r.caps = VH_POOL_CREATE | VH_POOL_REMOVE | VH_POOL_GROW | VH_POOL_SHRINK | VH_POOL_CLONE_FULL | VH_POOL_CLONE_COW |
		 VH_POOL_SNAPSHOT | VH_POOL_LEASE | VH_POOL_LEASE_HOSTS | VH_POOL_META | VH_POOL_MAKE;
	space(p, &r);
	if (status && JSON_NODE_HOLDS_VALUE(status) && json_node_get_value_type(status) == G_TYPE_STRING &&
	    !strcmp(json_node_get_string(status), "HEALTH_ERR")) {
		r.health = 1;
		snprintf(r.detail, sizeof(r.detail), "the cluster's health is HEALTH_ERR (ceph health detail)");
	}
	if (root)
		json_node_free(root);
	memcpy(i, &r, r.size < sizeof(r) ? r.size : sizeof(r));
	return 0;
}
