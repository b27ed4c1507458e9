/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "plug/optfile.h"

#include <string.h>
#include "plug/secret.h"

#define GROUP "options"

static int put(GKeyFile *kf, const struct vh_opt *opt, const char *value, struct vh_err *e)
{
	g_autofree char *form = NULL, *key = g_strdup(opt->name);
	unsigned n = 1;

	if (opt->type == VH_OPT_PATH)
		form = g_canonicalize_filename(value, NULL);
	if (opt->type == VH_OPT_SECRET) {
		int ret = secret_parse(value, &form, e);

		if (ret)
			return ret;
		if (g_str_has_prefix(form, "fd:")) {
			err_remedy(e, "put it into a file of its own, mode 0600, and give that file's name");
			return err_usage(e, "%s: a file descriptor is only this command's", opt->name);
		}
	}
	while (opt->flags & VH_OPT_REPEAT && g_key_file_has_key(kf, GROUP, key, NULL)) {
		g_free(key);
		key = g_strdup_printf("%s#%u", opt->name, ++n);
	}
	g_key_file_set_string(kf, GROUP, key, form ? form : value);
	return 0;
}

int optfile_put(GKeyFile *kf, vh_schema s, const struct kvs *options, struct vh_err *e)
{
	g_autofree struct vh_opt *opt = NULL;
	unsigned n = schema_import(s, &opt);
	int ret = 0;

	for (unsigned i = 0; i < options->n; i++) {
		const struct kv *kv = &options->v[i];

		for (unsigned j = 0; j < n && !ret; j++)
			if (kv->key ? !strcmp(kv->key, opt[j].name) : !!(opt[j].flags & VH_OPT_MAIN))
				ret = put(kf, &opt[j], kv->value, e);
	}
	return ret;
}

void optfile_get(GKeyFile *kf, struct kvs *out)
{
	g_auto(GStrv) keys = g_key_file_get_keys(kf, GROUP, NULL, NULL);
	unsigned n = keys ? g_strv_length(keys) : 0;

	out->v = g_new0(struct kv, n + 1);
	for (out->n = 0; out->n < n; out->n++) {
		char *key = keys[out->n], *v = g_key_file_get_string(kf, GROUP, key, NULL);

		out->v[out->n] = (struct kv){g_strndup(key, strcspn(key, "#")), v ? v : g_strdup("")};
	}
}

int optfile_same(GKeyFile *a, GKeyFile *b)
{
	g_auto(GStrv) keys = g_key_file_get_keys(a, GROUP, NULL, NULL), others = g_key_file_get_keys(b, GROUP, NULL, NULL);
	int same = (keys ? g_strv_length(keys) : 0) == (others ? g_strv_length(others) : 0);

	for (unsigned i = 0; same && keys && keys[i]; i++) {
		g_autofree char *x = g_key_file_get_string(a, GROUP, keys[i], NULL), *y = g_key_file_get_string(b, GROUP, keys[i], NULL);

		same = !g_strcmp0(x, y);
	}
	return same;
}
