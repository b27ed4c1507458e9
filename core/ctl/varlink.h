/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Varlink messages (varlink.org): JSON objects, each ended by a NUL. */
#ifndef CTL_VARLINK_H
#define CTL_VARLINK_H

#include <json-glib/json-glib.h>
#include "util/err.h"

#define VARLINK_MAX 65536u /* bytes of a request with its NUL */
#define VARLINK_DEPTH 16u  /* nested arrays and objects */

struct varlink_call {
	JsonParser *parser; /* owns what follows */
	const char *method;
	JsonObject *params; /* NULL: none given */
	int more, oneway, upgrade;
};
/* Whether s is shaped like one object and nested no deeper than VARLINK_DEPTH: what json-glib may be given. */
int varlink_shape_ok(const char *s, size_t n);
/* One request of n bytes, without the NUL: -EPROTO when it is none. Hostile input. */
int varlink_parse(const char *s, size_t n, struct varlink_call *out);
void varlink_clear(struct varlink_call *c);

/* Parameters: 1 and the value, 0 when there is none (or null), -EINVAL for another type. */
int varlink_int(const struct varlink_call *c, const char *name, int64_t *out);
int varlink_bool(const struct varlink_call *c, const char *name, int *out);
int varlink_str(const struct varlink_call *c, const char *name, const char **out);
/* A parameter that is not in the NULL-terminated list, or NULL. */
const char *varlink_unknown(const struct varlink_call *c, const char *const *known);

/* A message with its NUL; takes params (NULL: an empty object). error NULL: a reply. g_free. */
char *varlink_message(const char *error, JsonObject *params, int continues, size_t *len);

extern const char varlink_service_idl[], varlink_vm_idl[];
#define VARLINK_SERVICE "org.varlink.service"
#define VARLINK_VM "org.vhost.VM"

#endif
