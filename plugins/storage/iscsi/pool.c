/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A target as a pool. Nothing about it is remembered: each call asks the target. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "iscsi.h"

const struct vh_host *is_host;
const struct vh_log_ops *is_log;
const struct vh_secret_ops *is_secret;
const struct vh_loop_ops *is_loop;
const struct vh_io_ops *is_io;
const struct vh_event_ops *is_event;

#define NO_LUNS "iSCSI has no way to %s LUNs from here: that is done on the storage system"

int pool_session(struct pool *p, struct session **out, struct why *w)
{
	struct nexus x = nexus_random();
	int ret;

	if (p->ctl && session_dead(p->ctl))
		pool_session_drop(p);
	ret = p->ctl ? 0 : session_open(&p->cfg, &x, 0, -1, &p->ctl, w);
	if (ret)
		p->ctl = NULL;
	*out = p->ctl;
	return ret;
}

void pool_session_drop(struct pool *p)
{
	session_close(p->ctl, SECOND);
	p->ctl = NULL;
}

static int no_target(struct pool *p, struct vh_err *e)
{
	char targets[480];
	struct why w = {0};
	int ret = session_discover(&p->cfg, targets, sizeof(targets), &w);

	if (ret)
		return is_fail(e, ret, &w);
	if (!targets[0]) {
		is_host->remedy(e, "allow the initiator %s at the target", p->cfg.initiator);
		return is_host->err(e, -ENOENT, "the portal %s:%u offers no target to this host", p->cfg.host, p->cfg.port);
	}
	is_host->remedy(e, "define the pool with one of them: --target NAME");
	return is_host->err(e, -ENOENT, "no target is chosen; the portal %s:%u offers: %s", p->cfg.host, p->cfg.port, targets);
}

static void is_close(void *pool)
{
	struct pool *p = pool;

	pool_session_drop(p);
	config_clear(&p->cfg);
	free(p);
}

static int is_open(const struct vh_opts *opts, struct vh_object *o, void **pool, struct vh_err *e)
{
	struct pool *p = calloc(1, sizeof(*p));
	struct why w = {0};
	struct session *s;
	int ret;

	(void)o;
	if (!p)
		return is_host->err(e, -ENOMEM, "no memory");
	ret = config_read(&p->cfg, opts, e);
	if (ret) {
		free(p);
		return ret;
	}
	if (!p->cfg.target[0]) {
		ret = no_target(p, e);
	} else {
		ret = pool_session(p, &s, &w);
		if (ret)
			is_fail(e, ret, &w);
	}
	if (ret) {
		is_close(p);
		return ret;
	}
	*pool = p;
	return 0;
}

/* All disks of the target, probed; *out for free(). */
static int disks(struct pool *p, struct lun **out, unsigned *n, struct vh_err *e)
{
	struct session *s;
	struct why w = {0};
	int ret = pool_session(p, &s, &w);

	*out = NULL;
	if (!ret)
		ret = luns_read(s, out, n, &w);
	if (!ret)
		ret = luns_probe(s, *out, *n, &w);
	if (ret) {
		free(*out);
		*out = NULL;
		return is_fail(e, ret, &w);
	}
	return 0;
}

static int is_info(void *pool, struct vh_pool_info *i, struct vh_err *e)
{
	struct vh_pool_info mine = {.size = i->size, .available = 0, .allocated = UINT64_MAX};
	struct pool *p = pool;
	struct lun *l;
	unsigned n = 0, bad = 0;
	int ret = disks(p, &l, &n, e);

	if (ret)
		return ret;
	mine.caps = p->cfg.reserve ? VH_POOL_LEASE_HOSTS : 0;
	for (unsigned k = 0; k < n; k++) {
		if (l[k].type)
			continue;
		if (!l[k].bytes || mine.capacity + l[k].bytes < mine.capacity)
			bad++;
		else
			mine.capacity += l[k].bytes;
	}
	free(l);
	mine.allocated = mine.capacity; /* every LUN is there; how much of it is backed the target does not tell */
	if (bad) {
		mine.health = 1;
		snprintf(mine.detail, sizeof(mine.detail), "%u LUNs do not tell a size that makes sense", bad);
	}
	memcpy(i, &mine, i->size < sizeof(mine) ? i->size : sizeof(mine));
	return 0;
}

static void stat_fill(const struct lun *l, struct vh_vol_stat *st)
{
	struct vh_vol_stat mine = {.size = st->size, .bytes = l->bytes, .allocated = UINT64_MAX};

	mine.flags = l->thin ? VH_STAT_SPARSE : 0;
	memcpy(mine.identity, l->identity, sizeof(mine.identity));
	memcpy(st, &mine, st->size < sizeof(mine) ? st->size : sizeof(mine));
}

static int is_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	struct vh_vol_stat st = {.size = sizeof(st)};
	struct lun *l;
	unsigned n = 0;
	char name[16];
	int ret = disks(pool, &l, &n, e);

	for (unsigned i = 0; !ret && i < n; i++) {
		if (l[i].type || !l[i].bytes)
			continue;
		stat_fill(&l[i], &st);
		lun_name(name, sizeof(name), &l[i]);
		ret = fn(ctx, name, with_stat ? &st : NULL) ? 1 : 0;
	}
	free(l);
	return ret;
}

static int find(struct pool *p, const char *name, struct lun *l, struct session **s, struct vh_err *e)
{
	struct why w = {0};
	unsigned number;
	int ret;

	if (lun_parse(name, &number)) {
		is_host->remedy(e, "volumes of an iscsi pool are its LUNs: lun1, lun2, ...; vhost vol list shows them");
		return is_host->err(e, -ENOENT, "there is no volume %s", name);
	}
	ret = pool_session(p, s, &w);
	if (!ret)
		ret = lun_find(*s, number, l, &w);
	return ret ? is_fail(e, ret, &w) : 0;
}

static int is_stat(void *pool, const char *name, struct vh_vol_stat *st, struct vh_err *e)
{
	struct session *s;
	struct lun l;
	int ret = find(pool, name, &l, &s, e);

	if (!ret)
		stat_fill(&l, st);
	return ret;
}

static int is_create(void *pool, struct vh_vol_spec *v, struct vh_job *j, struct vh_err *e)
{
	struct session *s;
	struct lun l;

	(void)j;
	/* What is there already, in the size that is wanted, has been made, whoever did it. */
	if (!find(pool, v->name, &l, &s, NULL)) {
		if (l.bytes != v->bytes)
			return is_host->err(e, -EEXIST, "%s exists and has %llu bytes", v->name, (unsigned long long)l.bytes);
		if (VH_KNOWS(v, zeroed))
			v->zeroed = 0;
		return 0;
	}
	is_host->remedy(e, "make a LUN of that size there; vhost vol list shows it at once");
	return is_host->err(e, -EOPNOTSUPP, NO_LUNS, "make");
}

static int is_remove(void *pool, const char *name, struct vh_job *j, struct vh_err *e)
{
	(void)pool, (void)name, (void)j;
	is_host->remedy(e, "remove it there");
	return is_host->err(e, -EOPNOTSUPP, NO_LUNS, "delete");
}

static int is_resize(void *pool, const char *name, uint64_t bytes, uint32_t prealloc, struct vh_job *j, struct vh_err *e)
{
	struct session *s;
	struct lun l;

	(void)prealloc, (void)j;
	if (!find(pool, name, &l, &s, NULL) && l.bytes == bytes)
		return 0;
	is_host->remedy(e, "change its size there; a running guest notices that a LUN has grown");
	return is_host->err(e, -EOPNOTSUPP, NO_LUNS, "resize");
}

static int is_lease_break(void *pool, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct why w = {0};
	struct session *s;
	struct lun l;
	int ret = find(pool, name, &l, &s, e);

	(void)j;
	if (ret)
		return ret;
	ret = reserve_break(s, &l, &w);
	return ret ? is_fail(e, ret, &w) : 0;
}

static const struct vh_pool_ops is_ops = {
	.size = sizeof(is_ops),
	.caps = VH_POOL_LEASE_HOSTS,
	.scheme = "iscsi",
	.pool_options = is_pool_options,
	.open = is_open,
	.close = is_close,
	.info = is_info,
	.list = is_list,
	.stat = is_stat,
	.create = is_create,
	.remove = is_remove,
	.resize = is_resize,
	.attach = volume_attach,
	.lease_break = is_lease_break,
};

VH_PLUGIN_NOTE("iscsi", VH_KIND_POOL);
static const char *const ids[] = {VH_IID_POOL, NULL};

static const void *get(const char *iid)
{
	return strcmp(iid, VH_IID_POOL) ? NULL : &is_ops;
}

static const struct vh_plugin plugin = {.size = sizeof(struct vh_plugin), .built_minor = VH_ABI_MINOR, .id = "iscsi", .version = "1.0",
	.summary = "LUNs of iSCSI targets, by libiscsi", .license = "LGPL-2.1-or-later", .interfaces = ids, .get = get};

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	is_host = host;
	is_log = vh_service(is_host, VH_SVC_LOG, VH_END(is_log, log));
	is_secret = vh_service(is_host, VH_SVC_SECRET, VH_END(is_secret, get));
	is_loop = vh_service(is_host, VH_SVC_LOOP, VH_END(is_loop, now));
	is_io = vh_service(is_host, VH_SVC_IO, VH_END(is_io, done));
	is_event = vh_service(is_host, VH_SVC_EVENT, VH_END(is_event, post));
	*out = &plugin;
	return 0;
}
