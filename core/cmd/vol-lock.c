/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost vol unlock. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cmd/vol.h"
#include "store/lease.h"

const struct vh_opt *const vol_unlock_options[] = {
	CMD_OPT("force", VH_OPT_BOOL, "Do not ask", .defval = "off"), NULL};
const char vol_unlock_help[] =
	"Leases of this host end with the process that holds them: stop that one. Where a lease is kept by the storage itself (ceph), that of\n"
	"a host that died stays; it is broken only after the storage has shut that holder out for good (blocklisted), so that what it\n"
	"still has under way can never reach the volume. It asks first, naming the holder; without a terminal --force is needed.";

/* Who holds it: by trying to take it. 1: somebody, and *who says who, and *here whether on this host. */
static int held(const struct cmd_volume *v, char **who, int *here, struct vh_err *e)
{
	g_autofree char *holder = g_strdup_printf("pid %d vhost vol unlock", (int)getpid());
	struct store_attach a = {.name = v->name, .holder = holder, .mode = VH_ATTACH_RW_EXCL, .flags = VH_ATTACH_BUFFERED};
	struct vh_vol_stat st;
	struct blk_vol *vol;
	ERR_AUTO(why);
	int ret = store_vol_stat(v->pool, v->name, &st, e);

	if (ret)
		return ret;
	*here = lease_look(st.identity, who);
	if (*here)
		return 1;
	ret = store_attach(v->pool, &a, &vol, &why);
	if (!ret) {
		blk_vol_put(vol);
		return 0;
	}
	if (ret != -EBUSY) {
		err_move(e, &why);
		return ret;
	}
	*who = g_strdup(why.cause ? why.cause : "in use");
	return 1;
}

static int agreed(const struct cmd_volume *v, const char *who)
{
	char answer[16] = "";

	printf("volume %s/%s: %s\nIs it certain that this holder is gone? What it still writes is lost. [y/N] ", v->pool_name, v->name, who);
	fflush(stdout);
	return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

int vol_run_unlock(struct cmd_ctx *c, struct vh_err *e)
{
	int force = (int)vh_opt_num(c->opts, "force", 0), here = 0, ret;
	g_autofree char *who = NULL;
	const struct vh_pool_ops *ops;
	struct cmd_volume v;
	struct vh_job j;
	void *pool;

	ret = cmd_volume_open(c->args[0], &v, e);
	if (ret)
		return ret;
	ops = store_pool_ops(v.pool, &pool);
	ret = held(&v, &who, &here, e);
	if (!ret) {
		vol_done(c, &v, "not locked");
	} else if (ret == 1 && (here || !ops->lease_break)) {
		err_remedy(e, "stop it: its lease ends with it");
		ret = err_set(e, -EBUSY, "%s%s", here ? "in use on this host by " : "", who);
	} else if (ret == 1 && !force && (c->json || !isatty(STDIN_FILENO))) {
		err_remedy(e, "make sure that it is gone, then add --force");
		ret = err_set(e, -EBUSY, "%s", who);
	} else if (ret == 1 && !force && !agreed(&v, who)) {
		ret = err_set(e, -ECANCELED, "left as it is");
	} else if (ret == 1) {
		job_begin(&j, "unlocking", c->quiet || c->json);
		ret = ops->lease_break(pool, v.name, &j, e);
		job_end(&j);
		if (!ret && !c->json && !c->quiet)
			printf("volume %s/%s was %s\n", v.pool_name, v.name, who);
		if (!ret)
			vol_done(c, &v, "unlocked");
	}
	if (ret)
		err_object(e, "volume %s/%s", v.pool_name, v.name);
	cmd_volume_close(&v);
	return ret;
}
