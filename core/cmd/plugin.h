/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the files of `vhost plugin` share. */
#ifndef CMD_PLUGIN_H
#define CMD_PLUGIN_H

#include "cmd/cmd.h"
#include "plug/impl.h"

/* Loads a plugin, by name or by path, in a child process, and has `build` describe it there as a JSON object. A plugin
 * that crashes or hangs is an error like any other. */
int plugin_child(const char *name, void (*build)(JsonBuilder *b, const struct plug *p), JsonNode **out, struct vh_err *e);
void plugin_build_info(JsonBuilder *b, const struct plug *p);
void plugin_build_help(JsonBuilder *b, const struct plug *p);
void plugin_print_json(JsonNode *n);

int plugin_new(struct cmd_ctx *c, struct vh_err *e);

void plugin_json_int(JsonBuilder *b, const char *name, gint64 value);
void plugin_json_kinds(JsonBuilder *b, uint32_t kinds);
const char *plugin_text(JsonObject *o, const char *member); /* NULL: absent or null */

#endif
