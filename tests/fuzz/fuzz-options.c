/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What a person types as options, through splitting and a schema with every type: valid values or a text, in bounds. */
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include "plug/options.h"
#include "util/log.h"

#define O(NAME, TYPE, FLAGS, MIN, MAX) \
	static const struct vh_opt o_##NAME = {sizeof(struct vh_opt), TYPE, FLAGS, #NAME, "one", NULL, choices, MIN, MAX}
static const char *const choices[] = {"one", "two", NULL};
O(str, VH_OPT_STR, VH_OPT_MAIN, 0, 16);
O(path, VH_OPT_PATH, 0, 0, 0);
O(size, VH_OPT_SIZE, 0, 512, 1 << 30);
O(int, VH_OPT_INT, VH_OPT_REPEAT, -5, 5);
O(bool, VH_OPT_BOOL, 0, 0, 0);
O(enum, VH_OPT_ENUM, VH_OPT_DEPRECATED, 0, 0);
O(secret, VH_OPT_SECRET, 0, 0, 0);
O(host, VH_OPT_HOSTPORT, 0, 0, 0);
O(mac, VH_OPT_MAC, 0, 0, 0);
O(time, VH_OPT_DURATION, 0, 0, 0);
static const struct vh_opt *const schema[] = {&o_str, &o_path, &o_size, &o_int, &o_bool, &o_enum, &o_secret, &o_host,
	&o_mac, &o_time, NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = g_strndup((const char *)data, size);
	struct optset *s = NULL;
	struct kvs k = {0};
	struct vh_err e = {0};

	log_configure("error");
	if (!kvs_parse(text, &k, &e) && !optset_parse(schema, &k, "fuzz", &s, &e)) {
		const struct vh_opts *o = optset_get(s);

		for (uint32_t i = 0; i < o->n; i++) {
			const struct vh_val *v = o->val[i];

			if (v->type == VH_OPT_SIZE && (v->num < 512 || v->num > 1 << 30))
				abort();
			if (v->type == VH_OPT_INT && (v->num < -5 || v->num > 5))
				abort();
			if (v->type == VH_OPT_BOOL && v->num != 0 && v->num != 1)
				abort();
			if (v->type == VH_OPT_PATH && *v->str != '/')
				abort();
			if (v->type == VH_OPT_STR && strlen(v->str) > 16)
				abort();
		}
		optset_free(s);
	} else if (!e.cause) {
		abort(); /* refused without a reason */
	}
	kvs_clear(&k);
	err_clear(&e);
	g_free(text);
	return 0;
}
