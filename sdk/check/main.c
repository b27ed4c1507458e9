/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* vhost-plugin-check FILE: does a plugin keep the rules of the ABI? */
#include <glib.h>
#include <json-glib/json-glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "check.h"

const struct check_group *const check_groups[] = {&group_load, &group_skew, &group_io, &group_map, &group_crash, &group_pool, &group_net, NULL};

static gboolean opt_list, opt_in_process, opt_json, opt_valgrind, opt_verbose;
static char **opt_only, **opt_set, *opt_net_setup;
static gint64 opt_seed;

static const GOptionEntry entries[] = {
	{"list", 'l', 0, G_OPTION_ARG_NONE, &opt_list, "Show the checks and their rules", NULL},
	{"only", 'o', 0, G_OPTION_ARG_STRING_ARRAY, &opt_only, "Run this check or group (may be repeated)", "ID"},
	{"seed", 's', 0, G_OPTION_ARG_INT64, &opt_seed, "The seed of random checks; a failure prints the one it had", "N"},
	{"set", 0, 0, G_OPTION_ARG_STRING_ARRAY, &opt_set, "An option for opening (KEY=VALUE) or creating (create.KEY=VALUE)",
	 "KEY=VALUE"},
	{"net-setup", 0, 0, G_OPTION_ARG_STRING, &opt_net_setup, "What a network backend needs: run in each check's network namespace", "COMMAND"},
	{"in-process", 0, 0, G_OPTION_ARG_NONE, &opt_in_process, "No child processes, no deadlines: for a debugger", NULL},
	{"valgrind", 0, 0, G_OPTION_ARG_NONE, &opt_valgrind, "Run under valgrind; what it finds is a failure", NULL},
	{"json", 0, 0, G_OPTION_ARG_NONE, &opt_json, "One JSON object instead of TAP", NULL},
	{"verbose", 'v', 0, G_OPTION_ARG_NONE, &opt_verbose, "Show what passing checks wrote, too", NULL},
	{0},
};

static int selected(const struct check_group *g, const struct check *k)
{
	if (!opt_only)
		return 1;
	for (unsigned i = 0; opt_only[i]; i++)
		if (!strcmp(opt_only[i], k->id) || !g_ascii_strcasecmp(opt_only[i], g->name))
			return 1;
	return 0;
}

static int known(const char *word)
{
	for (unsigned g = 0; check_groups[g]; g++) {
		if (!g_ascii_strcasecmp(word, check_groups[g]->name))
			return 1;
		for (const struct check *k = check_groups[g]->checks; k->id; k++)
			if (!strcmp(word, k->id))
				return 1;
	}
	return 0;
}

static void list(void)
{
	for (unsigned g = 0; check_groups[g]; g++) {
		printf("%s: %s\n", check_groups[g]->name, check_groups[g]->about);
		for (const struct check *k = check_groups[g]->checks; k->id; k++)
			if (selected(check_groups[g], k))
				printf("  %-26s %s (%s)\n", k->id, k->rule, k->doc);
	}
}

static void yaml_lines(const char *key, const char *text)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

	printf("  %s: |\n", key);
	for (unsigned i = 0; lines[i]; i++)
		if (*lines[i])
			printf("    %s\n", lines[i]);
}

static void print_tap(unsigned n, const struct check *k, const struct check_outcome *o, const struct check_ctx *c)
{
	int bad = o->result != CHECK_PASS && o->result != CHECK_SKIPPED;

	printf("%sok %u - %s: %s%s%s\n", bad ? "not " : "", n, k->id, k->rule, o->result == CHECK_SKIPPED ? " # SKIP " : "",
	       o->result == CHECK_SKIPPED ? o->text : "");
	if (bad || (opt_verbose && *o->output)) {
		puts("  ---");
		if (bad) {
			yaml_lines("message", o->text);
			printf("  result: %s\n  doc: %s\n", check_result_name(o->result), k->doc);
			printf("  repeat: vhost-plugin-check --only %s --seed %" G_GUINT64_FORMAT " '%s'\n", k->id, c->seed, c->path);
		}
		if (*o->output)
			yaml_lines("output", o->output);
		puts("  ...");
	}
	fflush(stdout);
}

static void add_json(JsonBuilder *b, const struct check *k, const struct check_outcome *o)
{
	json_builder_begin_object(b);
	json_builder_set_member_name(b, "id");
	json_builder_add_string_value(b, k->id);
	json_builder_set_member_name(b, "rule");
	json_builder_add_string_value(b, k->rule);
	json_builder_set_member_name(b, "doc");
	json_builder_add_string_value(b, k->doc);
	json_builder_set_member_name(b, "result");
	json_builder_add_string_value(b, check_result_name(o->result));
	json_builder_set_member_name(b, "seconds");
	json_builder_add_double_value(b, o->seconds);
	if (*o->text) {
		g_autofree char *t = g_utf8_make_valid(o->text, -1);

		json_builder_set_member_name(b, "message");
		json_builder_add_string_value(b, t);
	}
	if (*o->output) {
		g_autofree char *t = g_utf8_make_valid(o->output, -1);

		json_builder_set_member_name(b, "output");
		json_builder_add_string_value(b, t);
	}
	json_builder_end_object(b);
}

static int run_all(const struct check_ctx *c)
{
	g_autoptr(JsonBuilder) b = json_builder_new();
	unsigned n = 0, total = 0, failed = 0;

	for (unsigned g = 0; check_groups[g]; g++)
		for (const struct check *k = check_groups[g]->checks; k->id; k++)
			total += (unsigned)selected(check_groups[g], k);
	json_builder_begin_object(b);
	json_builder_set_member_name(b, "plugin");
	json_builder_add_string_value(b, c->note.id);
	json_builder_set_member_name(b, "path");
	json_builder_add_string_value(b, c->path);
	json_builder_set_member_name(b, "seed");
	json_builder_add_int_value(b, (gint64)c->seed);
	json_builder_set_member_name(b, "checks");
	json_builder_begin_array(b);
	if (!opt_json)
		printf("1..%u\n# %s, seed %" G_GUINT64_FORMAT "\n", total, c->path, c->seed);
	for (unsigned g = 0; check_groups[g]; g++)
		for (const struct check *k = check_groups[g]->checks; k->id; k++) {
			struct check_outcome o;

			if (!selected(check_groups[g], k))
				continue;
			check_run(k, c, opt_in_process, &o);
			failed += o.result != CHECK_PASS && o.result != CHECK_SKIPPED;
			n++;
			if (opt_json)
				add_json(b, k, &o);
			else
				print_tap(n, k, &o, c);
		}
	json_builder_end_array(b);
	json_builder_set_member_name(b, "failed");
	json_builder_add_int_value(b, failed);
	json_builder_end_object(b);
	if (opt_json) {
		g_autoptr(JsonGenerator) gen = json_generator_new();
		g_autoptr(JsonNode) root = json_builder_get_root(b);
		g_autofree char *text = NULL;

		json_generator_set_root(gen, root);
		text = json_generator_to_data(gen, NULL);
		puts(text);
	}
	return failed ? 1 : 0;
}

/* The same command under valgrind, which ends a process in which it found something with status 99. */
static int under_valgrind(char **argv)
{
	g_autoptr(GPtrArray) a = g_ptr_array_new();

	g_ptr_array_add(a, (char *)"valgrind");
	g_ptr_array_add(a, (char *)"-q");
	g_ptr_array_add(a, (char *)"--error-exitcode=99");
	g_ptr_array_add(a, (char *)"--child-silent-after-fork=no");
	for (unsigned i = 0; argv[i]; i++)
		if (strcmp(argv[i], "--valgrind"))
			g_ptr_array_add(a, argv[i]);
	g_ptr_array_add(a, NULL);
	execvp("valgrind", (char **)a->pdata);
	fprintf(stderr, "vhost-plugin-check: valgrind cannot be run: %s\n", g_strerror(errno));
	return 2;
}

static int take_set(struct kvs *set)
{
	unsigned n = opt_set ? g_strv_length(opt_set) : 0;

	set->v = g_new0(struct kv, n + 1);
	for (unsigned i = 0; i < n; i++) {
		char *eq = strchr(opt_set[i], '=');

		if (!eq) {
			fprintf(stderr, "vhost-plugin-check: --set %s: write KEY=VALUE\n", opt_set[i]);
			return -EINVAL;
		}
		*eq = 0;
		set->v[set->n++] = (struct kv){opt_set[i], eq + 1};
	}
	return 0;
}

/* What the note says; a file without one still runs the LOAD group, which says what is wrong. */
static void read_note(struct check_ctx *c)
{
	struct plug_file f;

	if (plug_file_open(c->path, &f, NULL) < 0)
		g_strlcpy(f.note.id, "?", sizeof(f.note.id));
	c->note = f.note;
	plug_file_close(&f);
}

int main(int argc, char **argv)
{
	g_autoptr(GOptionContext) o = g_option_context_new("FILE");
	g_autoptr(GError) error = NULL;
	g_auto(GStrv) args = g_strdupv(argv);
	static struct check_ctx c;
	static struct kvs set;
	int r;

	g_option_context_add_main_entries(o, entries, NULL);
	g_option_context_set_summary(o, "Checks that a plugin keeps the rules of the vhost plugin ABI. Exit status: 0 it does, "
					"1 it does not, 2 usage.");
	if (!g_option_context_parse(o, &argc, &argv, &error)) {
		fprintf(stderr, "vhost-plugin-check: %s\n", error->message);
		return 2;
	}
	for (unsigned i = 0; opt_only && opt_only[i]; i++)
		if (!known(opt_only[i])) {
			fprintf(stderr, "vhost-plugin-check: there is no check or group '%s' (see --list)\n", opt_only[i]);
			return 2;
		}
	if (opt_list) {
		list();
		return 0;
	}
	if (argc != 2) {
		fprintf(stderr, "vhost-plugin-check: name one plugin file (see --help)\n");
		return 2;
	}
	if (opt_valgrind)
		return under_valgrind(args);
	if (take_set(&set) < 0)
		return 2;
	c.path = realpath(argv[1], NULL);
	if (!c.path) {
		fprintf(stderr, "vhost-plugin-check: %s: %s\n", argv[1], g_strerror(errno));
		return 2;
	}
	c.seed = opt_seed ? (uint64_t)opt_seed : (uint64_t)g_get_real_time() % 1000000007;
	c.set = &set;
	c.net_setup = opt_net_setup;
	read_note(&c);
	r = run_all(&c);
	free((char *)c.path);
	g_free(set.v);
	g_strfreev(opt_only);
	g_strfreev(opt_set);
	g_free(opt_net_setup);
	return r;
}
