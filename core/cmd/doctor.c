/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost doctor: what of this machine stands in the way, and what to do about it. It changes nothing. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cmd/doctor.h"
#include "cmd/store-cmd.h"

struct finding { enum doctor_level level; char *topic, *text, *remedy; };
struct doctor { GArray *all; };

void doctor_add(struct doctor *d, enum doctor_level level, const char *topic, const char *remedy, const char *fmt, ...)
{
	struct finding f = {.level = level, .topic = g_strdup(topic), .remedy = g_strdup(remedy)};
	va_list ap;

	va_start(ap, fmt);
	f.text = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	g_strdelimit(f.text, "\n", ' ');
	g_array_append_val(d->all, f);
}

static void finding_clear(gpointer p)
{
	struct finding *f = p;

	g_free(f->topic);
	g_free(f->text);
	g_free(f->remedy);
}

char *doctor_blocked(const char *path, int want, char **remedy)
{
	g_autofree char *part = g_strdup(path);

	*remedy = NULL;
	/* Along the path, as the kernel goes: every folder before the last part must let us pass. */
	for (char *c = part + 1;; c++) {
		char saved = *c;

		if (saved && saved != '/')
			continue;
		*c = 0;
		if (faccessat(AT_FDCWD, part, saved ? X_OK : want, AT_EACCESS) < 0) {
			int code = errno;

			if (code == EACCES)
				*remedy = saved ? g_strdup_printf("chmod o+x %s, or run as its owner", part) :
						  g_strdup_printf("give user %d the right to %s", (int)geteuid(), part);
			else if (code == EROFS)
				*remedy = g_strdup("mount the file system writable");
			return g_strdup_printf("%s: %s", part, g_strerror(code));
		}
		if (!saved)
			return NULL;
		*c = saved;
	}
}

static const char *const level_name[] = {"ok", "note", "problem"};

static void print_json(const struct doctor *d, int can_run)
{
	JsonBuilder *b = json_builder_new();

	json_builder_begin_object(b);
	js_bool(b, "can_run", can_run);
	json_builder_set_member_name(b, "findings");
	json_builder_begin_array(b);
	for (guint i = 0; i < d->all->len; i++) {
		const struct finding *f = &g_array_index(d->all, struct finding, i);

		json_builder_begin_object(b);
		js_text(b, "level", level_name[f->level]);
		js_text(b, "topic", f->topic);
		js_text(b, "message", f->text);
		js_text(b, "remedy", f->remedy);
		json_builder_end_object(b);
	}
	json_builder_end_array(b);
	json_builder_end_object(b);
	out_json(b);
}

static int run_doctor(struct cmd_ctx *c, struct vh_err *e)
{
	struct doctor d = {.all = g_array_new(FALSE, FALSE, sizeof(struct finding))};
	unsigned count[3] = {0};

	g_array_set_clear_func(d.all, finding_clear);
	doctor_kvm(&d);
	doctor_limits(&d);
	doctor_net(&d);
	doctor_plugins(&d);
	doctor_folders(&d);
	doctor_pools(&d);
	for (guint i = 0; i < d.all->len; i++)
		count[g_array_index(d.all, struct finding, i).level]++;
	if (c->json) {
		print_json(&d, !count[DOCTOR_PROBLEM]);
	} else {
		for (guint i = 0; i < d.all->len; i++) {
			const struct finding *f = &g_array_index(d.all, struct finding, i);

			if (c->quiet && f->level == DOCTOR_OK)
				continue;
			printf("%-7s  %-10s  %s\n", level_name[f->level], f->topic, f->text);
			if (f->remedy)
				printf("%-7s  %-10s  -> %s\n", "", "", f->remedy);
		}
		printf("%u ok, %u note%s, %u problem%s: vhost run %s\n", count[DOCTOR_OK], count[DOCTOR_NOTE],
		       &"s"[count[DOCTOR_NOTE] == 1], count[DOCTOR_PROBLEM], &"s"[count[DOCTOR_PROBLEM] == 1],
		       count[DOCTOR_PROBLEM] ? "cannot work" : "can work");
	}
	g_array_free(d.all, TRUE);
	return count[DOCTOR_PROBLEM] ? EXIT_FAILED : EXIT_OK;
}

const struct cmd *const cmd_doctor[] = {
	&(const struct cmd){.verb = "doctor", .args = "", .summary = "Tell what this machine lacks, and the remedy", .run = run_doctor,
			    .help = "Looks at KVM, the kernel's features that plugins need, limits, folders, pools and permissions, and\n"
				    "changes nothing. Exit status 1 when `vhost run` cannot work, else 0."},
	NULL};
