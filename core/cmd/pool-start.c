/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost pool start. */
#include <string.h>
#include "cmd/pool.h"

const struct vh_opt *const pool_start_options[] = {
	CMD_OPT("make", VH_OPT_BOOL, "Build the pool's storage if it is missing", .defval = "off"), NULL};

/* Whether it works: it is opened (which connects and logs in, where that is needed) and asked about itself. */
static int works(const char *name, struct vh_err *e)
{
	struct vh_pool_info info = {.size = sizeof(info)};
	struct store_pool *p;
	void *pool;
	int ret = store_pool_open(name, &p, e);

	if (ret)
		return ret;
	ret = store_pool_ops(p, &pool)->info(pool, &info, e);
	info.detail[sizeof(info.detail) - 1] = 0;
	if (!ret && info.health > 1)
		ret = err_set(e, -EIO, "it cannot be used: %s", info.detail[0] ? info.detail : "its storage does not say why");
	if (ret)
		err_object(e, "pool %s", name);
	store_pool_close(p);
	return ret;
}

int pool_start(const char *name, int was, struct vh_err *e)
{
	int ret = store_pool_set_active(name, 1, e);

	if (!ret)
		ret = works(name, e);
	if (ret && !was)
		store_pool_set_active(name, 0, NULL);
	return ret;
}

int pool_run_start(struct cmd_ctx *c, struct vh_err *e)
{
	struct store_def d;
	int ret = store_def_load(c->args[0], &d, e), was;

	if (ret)
		return ret;
	was = d.active;
	store_def_clear(&d);
	if (vh_opt_num(c->opts, "make", 0))
		ret = store_pool_make(c->args[0], e);
	if (!ret)
		ret = pool_start(c->args[0], was, e);
	return ret ? ret : out_done(c, "pool", "started");
}
