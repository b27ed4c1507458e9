/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the commands of pools and volumes share. */
#ifndef STORE_CMD_H
#define STORE_CMD_H

#include <glib.h>
#include <vhost/sugar.h>
#include "cmd/cmd.h"
#include "store/store.h"

#define CMD_OPT(NAME, TYPE, DOC, ...)                                                                                  \
	&(const struct vh_opt){.size = sizeof(struct vh_opt), .name = NAME, .type = TYPE, .doc = DOC, ##__VA_ARGS__}

/* The free options of a command line ("x=y" behind the arguments) as pairs; kvs_clear. */
void cmd_free_options(const struct cmd_ctx *c, struct kvs *out);
/* "POOL/VOLUME" of an argument, its pool opened. */
struct cmd_volume { struct store_pool *pool; char *pool_name, *name; };
int cmd_volume_open(const char *arg, struct cmd_volume *v, struct vh_err *e);
void cmd_volume_close(struct cmd_volume *v);
/* "10G", "+5G" on top of `now`, "-5G" below it. */
int cmd_size(const char *text, uint64_t now, uint64_t *out, struct vh_err *e);

void js_bytes(JsonBuilder *b, const char *name, uint64_t value); /* UINT64_MAX, unknown: null */
char *size_text(uint64_t bytes); /* "-" when unknown; g_free */
/* The fields of a volume that a listing and `vol info` share. format: "" when none is recorded. */
void js_volume(JsonBuilder *b, const char *pool, const char *name, const struct vh_vol_stat *st, const char *format);
char *time_text(int64_t ns); /* RFC 3339; NULL when unknown; g_free */

#endif
