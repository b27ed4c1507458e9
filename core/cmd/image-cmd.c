/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Files and volumes as the commands of images name them, and opening what is in them. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cmd/image-cmd.h"

static int is_vol(const struct cmd_ctx *c)
{
	return !g_strcmp0(c->cmd->noun, "vol");
}

int cmd_target_open(const struct cmd_ctx *c, const char *arg, int must_exist, struct cmd_volume *v, struct vh_err *e)
{
	int ret;

	if (is_vol(c))
		return cmd_volume_open(arg, v, e);
	memset(v, 0, sizeof(*v));
	if (must_exist && access(arg, F_OK) < 0) {
		ret = -errno;
		err_object(e, "file %s", arg);
		return err_set(e, ret, "%s", g_strerror(-ret));
	}
	ret = store_file_pool(arg, &v->pool, &v->name, e);
	if (ret) {
		cmd_volume_close(v);
		return ret;
	}
	v->pool_name = g_strdup(store_pool_name(v->pool));
	return 0;
}

void js_target(JsonBuilder *b, const struct cmd_ctx *c, const struct cmd_volume *v)
{
	g_autofree char *path = g_build_filename(v->pool_name, v->name, NULL);

	if (is_vol(c)) {
		js_text(b, "pool", v->pool_name);
		js_text(b, "name", v->name);
	} else {
		js_text(b, "image", path);
	}
}

void cmd_target_done(const struct cmd_ctx *c, const struct cmd_volume *v, const char *what,
		     void (*extra)(JsonBuilder *b, void *ctx), void *ctx)
{
	if (c->json) {
		JsonBuilder *b = json_builder_new();

		json_builder_begin_object(b);
		js_target(b, c, v);
		js_text(b, "result", what);
		if (extra)
			extra(b, ctx);
		json_builder_end_object(b);
		out_json(b);
	} else if (!c->quiet) {
		printf("%s %s/%s %s\n", is_vol(c) ? "volume" : "image", v->pool_name, v->name, what);
	}
}

int cmd_target_error(const struct cmd_ctx *c, const struct cmd_volume *v, int ret, struct vh_err *e)
{
	if (ret == -ENOSPC && e && !e->remedy && v->pool && is_vol(c))
		err_remedy(e, "free space in the pool; where the image has outgrown its volume: vhost vol resize %s/%s +SIZE --volume", v->pool_name,
			   v->name);
	if (ret < 0 && v->pool)
		err_object(e, "%s %s/%s", is_vol(c) ? "volume" : "image", v->pool_name, v->name);
	return ret;
}

void kvs_add(struct kvs *k, const char *key, const char *value)
{
	k->v = g_renew(struct kv, k->v, k->n + 1);
	k->v[k->n++] = (struct kv){g_strdup(key), g_strdup(value)};
}

int cmd_dash_options(const struct cmd_ctx *c, struct kvs *out, struct vh_err *e)
{
	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < c->opts->n; i++) {
		const struct vh_val *v = c->opts->val[i];
		struct kvs one;
		int ret;

		if (strcmp(v->name, "options") || !v->str)
			continue;
		ret = kvs_parse(v->str, &one, e);
		for (unsigned n = 0; n < one.n && !ret; n++) {
			if (!one.v[n].key) {
				ret = err_usage(e, "'%s' in the options has no value", one.v[n].value);
				err_remedy(e, "write NAME=VALUE,NAME=VALUE");
				break;
			}
			g_strdelimit(one.v[n].key, "_", '-');
			kvs_add(out, one.v[n].key, one.v[n].value);
		}
		kvs_clear(&one);
		if (ret) {
			err_status(e, EXIT_USAGE);
			return ret;
		}
	}
	if (vh_opt_num(c->opts, "allow-insecure", 0))
		kvs_add(out, "allow-insecure", "on");
	return 0;
}

int cmd_image_open(const struct cmd_ctx *c, const struct cmd_volume *v, uint32_t mode, int flags, struct cmd_image *i,
		   struct vh_err *e)
{
	g_autofree char *holder = g_strdup_printf("pid %d vhost %s %s", (int)getpid(), c->cmd->noun, c->cmd->verb);
	struct store_image_spec s = {.pool = v->pool, .volume = v->name, .format = vh_opt_str(c->opts, "format", NULL),
				     .holder = holder, .mode = mode, .no_backing = !!(flags & CMD_IMAGE_ALONE),
				     .repair = !!(flags & CMD_IMAGE_REPAIR)};
	int ret;

	memset(i, 0, sizeof(*i));
	i->allow = store_allow(c->opts);
	cmd_free_options(c, &i->free);
	kvs_with_prefix(&i->free, "format.", &i->open);
	if (i->open.n != i->free.n) {
		err_remedy(e, "the format's own options are --format.NAME VALUE");
		ret = err_usage(e, "there is an option that this command does not have");
	} else {
		s.allow = (const char *const *)i->allow;
		s.options = &i->open;
		ret = store_image_open(&s, &i->image, e);
		if (ret == -EINVAL && !s.format && e && e->remedy && strstr(e->remedy, "format=raw"))
			err_remedy(e, "add --format FORMAT; `vhost img probe FILE` says what it looks like");
	}
	if (ret) {
		i->image = NULL;
		cmd_image_close(i);
		return cmd_target_error(c, v, ret, e);
	}
	i->fmt = store_image_fmt(i->image);
	return 0;
}

void cmd_image_close(struct cmd_image *i)
{
	store_image_close(i->image);
	g_free(i->open.v);
	kvs_clear(&i->free);
	g_strfreev(i->allow);
	memset(i, 0, sizeof(*i));
}
