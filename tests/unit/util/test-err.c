/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/err.h"
#include "util/job.h"
#include "util/log.h"

static void first_cause_stands(void)
{
	ERR_AUTO(e);

	g_assert_cmpint(err_set(&e, -ENOENT, "no file %s", "x"), ==, -ENOENT);
	g_assert_cmpint(err_set(&e, -EIO, "cannot read the header"), ==, -EIO);
	g_assert_cmpint(err_context(&e, "opening %d", 7), ==, -ENOENT);
	g_assert_cmpstr(e.cause, ==, "opening 7: cannot read the header: no file x");
	g_assert_cmpint(e.code, ==, -ENOENT);
	err_object(&e, "volume a/b");
	err_object(&e, "pool a");
	g_assert_cmpstr(e.object, ==, "volume a/b");
	err_remedy(&e, "one");
	err_remedy(&e, "two");
	g_assert_cmpstr(e.remedy, ==, "two");
	g_assert_cmpint(err_exit_status(&e), ==, EXIT_NOT_FOUND);
	err_status(&e, EXIT_MISSING);
	g_assert_cmpint(err_exit_status(&e), ==, EXIT_MISSING);
}

static void null_is_taken(void)
{
	g_assert_cmpint(err_set(NULL, -EIO, "x"), ==, -EIO);
	g_assert_cmpint(err_usage(NULL, "x"), ==, -EINVAL);
	g_assert_cmpint(err_context(NULL, "x"), <, 0);
	err_object(NULL, "x");
	err_remedy(NULL, "x");
	err_status(NULL, EXIT_USAGE);
	err_clear(NULL);
}

static void bad_code_fails_anyway(void)
{
	ERR_AUTO(e);

	g_assert_cmpint(err_set(&e, 0, "a plugin that forgot its code"), ==, -EIO);
	g_assert_cmpint(err_exit_status(&e), ==, EXIT_FAILED);
}

static void text_is_one_clean_line(void)
{
	ERR_AUTO(e);
	g_autofree char *big = g_strnfill(100000, 'y');

	err_set(&e, -EIO, "a\nb\033[2J\xff%s", "c\r\n");
	g_assert_null(strpbrk(e.cause, "\n\r\033"));
	g_assert_true(g_utf8_validate(e.cause, -1, NULL));
	for (int i = 0; i < 100; i++)
		err_set(&e, -EIO, "%s", big);
	g_assert_cmpuint(strlen(e.cause), <, 40000);
}

static void move_leaves_nothing(void)
{
	ERR_AUTO(a);
	ERR_AUTO(b);

	err_set(&a, -EBUSY, "in use");
	err_set(&b, -EIO, "old");
	err_move(&b, &a);
	g_assert_null(a.cause);
	g_assert_cmpint(a.code, ==, 0);
	g_assert_cmpstr(b.cause, ==, "in use");
	g_assert_cmpint(err_exit_status(&b), ==, EXIT_EXISTS);
	err_move(NULL, &b);
	g_assert_null(b.cause);
}

static void symbols(void)
{
	g_assert_cmpstr(err_symbol(-ENOENT), ==, "ENOENT");
	g_assert_cmpstr(err_symbol(EIO), ==, "EIO");
	g_assert_cmpstr(err_symbol(0), ==, "OK");
	g_assert_cmpstr(err_symbol(-99999), ==, "EUNKNOWN");
}

static void report(gconstpointer arg)
{
	int json = GPOINTER_TO_INT(arg);

	if (g_test_subprocess()) {
		ERR_AUTO(e);

		err_set(&e, -ENOENT, "no \"such\" volume");
		err_object(&e, "volume default/web");
		err_remedy(&e, "make it with `vhost vol create`");
		exit(err_report(&e, json) == EXIT_NOT_FOUND ? 0 : 1);
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_passed();
	if (json)
		g_test_trap_assert_stderr("{\"error\":\"ENOENT\",\"object\":\"volume default/web\",\"message\":\"no \\\"such\\\" "
					  "volume\",\"remedy\":\"make it with `vhost vol create`\"}\n");
	else
		g_test_trap_assert_stderr(
			"vhost: volume default/web: no \"such\" volume (make it with `vhost vol create`)\n");
	g_test_trap_assert_stdout("");
}

static void log_levels(void)
{
	g_assert_cmpint(log_configure("error,blk=trace,blk.engine=info,net=debug"), ==, 0);
	g_assert_true(log_enabled(VH_LOG_ERROR, "x"));
	g_assert_false(log_enabled(VH_LOG_WARN, "x"));
	g_assert_true(log_enabled(VH_LOG_TRACE, "blk"));
	g_assert_true(log_enabled(VH_LOG_TRACE, "blk.aio"));
	g_assert_false(log_enabled(VH_LOG_TRACE, "blkx"));
	g_assert_false(log_enabled(VH_LOG_DEBUG, "blk.engine"));
	g_assert_true(log_enabled(VH_LOG_DEBUG, "net"));
	g_assert_true(log_enabled(VH_LOG_ERROR, NULL));
	g_assert_cmpint(log_configure("loud"), ==, -EINVAL);
	g_assert_cmpint(log_configure("blk=loud"), ==, -EINVAL);
	g_assert_cmpint(log_configure("a-topic-that-is-far-longer-than-any=info"), ==, -EINVAL);
	g_assert_cmpint(log_configure("error,blk=error,blk.engine=error,net=error"), ==, 0);
	g_assert_false(log_enabled(VH_LOG_WARN, "blk"));
}

static void log_is_bounded(void)
{
	if (g_test_subprocess()) {
		for (int i = 0; i < 1000; i++)
			log_warn("guest", "line\n%d\033[2J", i);
		log_warn("other", "still heard");
		return;
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_passed();
	g_test_trap_assert_stderr("vhost: warning: guest: line 0 [2J\n*vhost: warning: other: still heard\n");
	g_test_trap_assert_stderr_unmatched("*line 100 *");
}

static unsigned shown;
static void job_shown(struct vh_job *j)
{
	shown++;
}

static void job_counts_and_cancels(void)
{
	struct vh_job j;

	job_begin(&j, "copying", 1);
	g_assert_null(j.changed); /* quiet */
	j.changed = job_shown;
	for (unsigned i = 0; i < 100000; i++)
		job_service.progress(&j, i, 100000);
	g_assert_cmpuint(shown, <, 50);
	g_usleep(110000);
	job_progress(&j, 5, 10);
	g_assert_cmpuint(shown, >, 0);
	g_assert_cmpuint(j.done, ==, 5);
	g_assert_cmpuint(j.total, ==, 10);
	g_assert_false(job_cancelled(&j));
	g_assert_cmpint(raise(SIGINT), ==, 0);
	g_assert_true(job_service.cancelled(&j));
	job_end(&j);
	job_progress(NULL, 1, 2);
	g_assert_false(job_cancelled(NULL));
}

int main(int argc, char **argv)
{
	g_unsetenv("VHOST_LOG");
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/err/first-cause-stands", first_cause_stands);
	g_test_add_func("/err/null-is-taken", null_is_taken);
	g_test_add_func("/err/bad-code-fails-anyway", bad_code_fails_anyway);
	g_test_add_func("/err/text-is-one-clean-line", text_is_one_clean_line);
	g_test_add_func("/err/move-leaves-nothing", move_leaves_nothing);
	g_test_add_func("/err/symbols", symbols);
	g_test_add_data_func("/err/report-text", GINT_TO_POINTER(0), report);
	g_test_add_data_func("/err/report-json", GINT_TO_POINTER(1), report);
	g_test_add_func("/log/levels", log_levels);
	g_test_add_func("/log/is-bounded", log_is_bounded);
	g_test_add_func("/job/counts-and-cancels", job_counts_and_cancels);
	return g_test_run();
}
