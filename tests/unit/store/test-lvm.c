/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The lvm plugin's reading of lvm's answers, hostile ones too, and that every command ends in bounded time. The lvm here is a script
 * in the PATH. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <glib/gstdio.h>
#include "lvm.h"
#include "small-host.h"

struct vh_job {
	int asked, cancel_at;
};

static int job_cancelled(struct vh_job *j)
{
	return j->cancel_at && ++j->asked >= j->cancel_at;
}

static const struct vh_host host = {.size = sizeof(host), .err = host_err, .verr = host_verr, .remedy = host_remedy};
static const struct vh_job_ops job_ops = {.size = sizeof(job_ops), .cancelled = job_cancelled};
const struct vh_host *lvm_host = &host;
const struct vh_job_ops *lvm_job = &job_ops;
const struct vh_log_ops *lvm_log;

static char *folder;

/* What `lvm` does from now on: the lines of a shell script. */
static void script(const char *text)
{
	g_autofree char *path = g_build_filename(folder, "lvm", NULL), *all = g_strdup_printf("#!/bin/sh\n%s\n", text);

	g_assert_true(g_file_set_contents(path, all, -1, NULL));
	g_assert_cmpint(g_chmod(path, 0755), ==, 0);
}

static int parse(const char *text, const char *table, struct lvm_answer *a, struct vh_err *e)
{
	memset(e, 0, sizeof(*e));
	return lvm_answer_parse(a, text, strlen(text), table, e);
}

static void test_good(void)
{
	/* As lvm 2.03.16 prints it, with what it writes before and its comma too many. */
	static const char text[] = "  Using default stripesize 64.00 KiB.\n{\n    \"report\": [\n        {\n            \"lv\": [\n"
				   "                {\"lv_name\":\"a\", \"lv_size\":\"12582912\", \"data_percent\":\"12.50\"},\n"
				   "                {\"lv_name\":\"b,]\", \"lv_size\":\"4\", \"data_percent\":\"\"},\n"
				   "            ]\n        }\n    ]\n    ,\n    \"log\": [\n"
				   "        {\"log_seq_num\":\"1\", \"log_type\":\"warn\", \"log_message\":\"no matter\"},\n    ]\n}\n";
	struct lvm_answer a;
	struct vh_err e;
	uint64_t n;

	g_assert_cmpint(parse(text, "lv", &a, &e), ==, 0);
	g_assert_null(a.error);
	g_assert_cmpuint(a.rows->len, ==, 2);
	g_assert_cmpstr(lvm_text(a.rows->pdata[0], "lv_name"), ==, "a");
	g_assert_cmpstr(lvm_text(a.rows->pdata[1], "lv_name"), ==, "b,]"); /* a comma in a text stays */
	g_assert_cmpint(lvm_number(a.rows->pdata[0], "lv_size", &n, NULL), ==, 0);
	g_assert_cmpuint(n, ==, 12582912);
	g_assert_cmpfloat(lvm_percent(a.rows->pdata[0], "data_percent"), ==, 12.5);
	g_assert_cmpfloat(lvm_percent(a.rows->pdata[1], "data_percent"), ==, -1);
	lvm_answer_clear(&a);
}

static void test_errors(void)
{
	struct lvm_answer a;
	struct vh_err e;

	g_assert_cmpint(parse("{\"log\":[{\"log_type\":\"error\",\"log_message\":\"first\\nforged: line.\"},{\"log_type\":\"status\","
			      "\"log_message\":\"failure\"},{\"log_type\":\"error\",\"log_message\":\"second.\"}]}", "lv", &a, &e), ==, 0);
	g_assert_cmpstr(a.error, ==, "first forged: line.; second");
	lvm_answer_clear(&a);
	GString *s = g_string_new("{\"log\":[");
	for (int i = 0; i < 1000; i++)
		g_string_append_printf(s, "%s{\"log_type\":\"error\",\"log_message\":\"\xc3\xa4 long message of number %d\"}", i ? "," : "", i);
	g_string_append(s, "]}");
	g_assert_cmpint(parse(s->str, NULL, &a, &e), ==, 0);
	g_assert_cmpuint(strlen(a.error), <=, 403);
	g_assert_true(g_utf8_validate(a.error, -1, NULL));
	lvm_answer_clear(&a);
	g_string_free(s, TRUE);
}

/* Anything is refused with a text, or is read as far as it makes sense: never a crash. */
static void test_hostile(void)
{
	static const char *const refused[] = {
		"", "garbage", "[]", "17", "\"x\"", "null", "{", "{\"report\":", "{\"report\":[{\"lv\":[1]}]}", "{\"report\":[{\"lv\":[null]}]}",
		"{\"report\":[{\"lv\":[[]]}]}", "{}", "{\"report\":{}}", "{\"report\":null}", "{\"report\":\"x\"}", "{\"log\":[]}",
		"{\"report\":[]}{\"report\":[]}", "{\"report\":[]} x"};
	static const char *const empty[] = {"{\"report\":[]}", "{\"report\":[1,null,\"x\",[]]}", "{\"report\":[{}]}", "{\"report\":[{\"lv\":{}}]}",
					    "{\"report\":[{\"lv\":7}]}", "{\"report\":[{\"vg\":[{}]}]}", "{\"report\":[],\"log\":7}",
					    "{\"report\":[],\"log\":[7,[],null,{\"log_type\":9,\"log_message\":[]}]}"};
	static const char *const numbers[] = {"null", "17", "\"\"", "\"-1\"", "\" 1\"", "\"1x\"", "\"0x10\"", "\"99999999999999999999999\"", "{}",
					      "[]", "true", "1.5", "\"1.5\"", "\"+1\""};
	static const char *const percents[] = {"\"nan\"", "\"inf\"", "\"-0.1\"", "\"100.01\"", "\"1e999\"", "3", "null", "\"12%\"", "{}"};
	struct lvm_answer a;
	struct vh_err e;
	uint64_t n;

	for (unsigned i = 0; i < G_N_ELEMENTS(refused); i++) {
		g_test_message("%s", refused[i]);
		g_assert_cmpint(parse(refused[i], "lv", &a, &e), ==, -EPROTO);
		g_assert_cmpstr(e.text, !=, "");
		g_assert_null(a.parser);
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(empty); i++) {
		g_test_message("%s", empty[i]);
		g_assert_cmpint(parse(empty[i], "lv", &a, &e), ==, 0);
		g_assert_cmpuint(a.rows->len, ==, 0);
		g_assert_null(a.error);
		lvm_answer_clear(&a);
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(numbers); i++) {
		g_autofree char *text = g_strdup_printf("{\"report\":[{\"lv\":[{\"n\":%s}]}]}", numbers[i]);

		g_test_message("%s", text);
		g_assert_cmpint(parse(text, "lv", &a, &e), ==, 0);
		g_assert_cmpint(lvm_number(a.rows->pdata[0], "n", &n, &e), ==, -EPROTO);
		g_assert_cmpint(lvm_number(a.rows->pdata[0], "missing", &n, &e), ==, -EPROTO);
		g_assert_cmpstr(lvm_text(a.rows->pdata[0], "missing"), ==, "");
		lvm_answer_clear(&a);
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(percents); i++) {
		g_autofree char *text = g_strdup_printf("{\"report\":[{\"lv\":[{\"n\":%s}]}]}", percents[i]);

		g_assert_cmpint(parse(text, "lv", &a, &e), ==, 0);
		g_assert_cmpfloat(lvm_percent(a.rows->pdata[0], "n"), ==, -1);
		lvm_answer_clear(&a);
	}
	/* A NUL in the middle, and more brackets than a stack has room for. */
	g_assert_cmpint(lvm_answer_parse(&a, "{\"report\":[]\0}", 14, "lv", &e), ==, -EPROTO);
	GString *s = g_string_new("{\"report\":");
	for (int i = 0; i < 1000000; i++)
		g_string_append_c(s, '[');
	g_assert_cmpint(parse(s->str, "lv", &a, &e), ==, -EPROTO);
	g_string_free(s, TRUE);
	/* Every cut, and every byte replaced, of a good one. */
	static const char good[] = "{\"report\":[{\"lv\":[{\"lv_name\":\"a\",\"lv_size\":\"1\"},]}],\"log\":[{\"log_type\":\"error\",\"log_message\":\"m\"}]}";
	for (size_t i = 0; i < sizeof(good); i++) {
		if (!lvm_answer_parse(&a, good, i, "lv", &e))
			lvm_answer_clear(&a);
		for (int c = 0; c < 256; c += 3) {
			char copy[sizeof(good)];

			memcpy(copy, good, sizeof(good));
			copy[MIN(i, sizeof(good) - 2)] = (char)c;
			if (!lvm_answer_parse(&a, copy, sizeof(good) - 1, "lv", &e))
				lvm_answer_clear(&a);
		}
	}
}

static void test_random(void)
{
	static const char *const parts[] = {"{", "}", "[", "]", ",", ":", "\"report\"", "\"lv\"", "\"log\"", "\"", "\\", "1", "null", "\"x\"", " ", "\n"};
	struct lvm_answer a;

	for (int i = 0; i < 20000; i++) {
		GString *s = g_string_new(g_test_rand_bit() ? "{\"report\":[{\"lv\":[" : "{");

		for (int k = g_test_rand_int_range(0, 24); k > 0; k--)
			g_string_append(s, parts[g_test_rand_int_range(0, G_N_ELEMENTS(parts))]);
		if (!lvm_answer_parse(&a, s->str, s->len, "lv", NULL)) {
			for (guint k = 0; k < a.rows->len; k++)
				g_assert_nonnull(lvm_text(a.rows->pdata[k], "lv"));
			lvm_answer_clear(&a);
		}
		g_string_free(s, TRUE);
	}
}

static void test_rows(void)
{
	struct lvm_pool p = {.vg = (char *)"vg", .timeout = UINT64_C(20000000000)};
	GPtrArray *list;
	struct vh_err e = {0};
	struct lvm_vg vg;

	/* A volume whose name would lead elsewhere, or be an option of the next command, is not handed on. */
	script("echo '{\"report\":[{\"lv\":[{\"lv_name\":\"-f\",\"lv_uuid\":\"u\",\"lv_size\":\"1\"}]}]}'");
	g_assert_cmpint(lvm_lvs(&p, NULL, 0, &list, &e), ==, -EPROTO);
	script("echo '{\"report\":[{\"lv\":[{\"lv_name\":\"../x\",\"lv_uuid\":\"u\",\"lv_size\":\"1\"}]}]}'");
	g_assert_cmpint(lvm_lvs(&p, NULL, 0, &list, &e), ==, -EPROTO);
	script("echo '{\"report\":[{\"lv\":[{\"lv_name\":\"ok\",\"lv_size\":\"1\"}]}]}'"); /* no uuid */
	g_assert_cmpint(lvm_lvs(&p, NULL, 0, &list, &e), ==, -EPROTO);
	script("echo '{\"report\":[{\"lv\":[{\"lv_name\":\"ok\",\"lv_uuid\":\"u\",\"lv_size\":\"9223372036854775808\"}]}]}'");
	g_assert_cmpint(lvm_lvs(&p, NULL, 0, &list, &e), ==, -EPROTO);
	script("echo '{\"report\":[{\"lv\":[{\"lv_name\":\"ok\",\"lv_uuid\":\"u\",\"lv_size\":\"4\",\"lv_layout\":\"thin,sparse\",\"lv_time\":\"-5\"}]}]}'");
	g_assert_cmpint(lvm_lvs(&p, NULL, 0, &list, &e), ==, 0);
	g_assert_cmpuint(list->len, ==, 1);
	g_assert_true(lvm_is_thin(list->pdata[0]) && !lvm_is_thin_pool(list->pdata[0]) && lvm_is_volume(list->pdata[0]));
	g_assert_cmpint(((struct lvm_lv *)list->pdata[0])->time, ==, 0);
	g_ptr_array_unref(list);
	/* Another group than the one that was asked for. */
	script("echo '{\"report\":[{\"vg\":[{\"vg_name\":\"other\",\"vg_uuid\":\"u\",\"vg_size\":\"1\",\"vg_free\":\"1\",\"vg_extent_size\":\"1\","
	       "\"vg_missing_pv_count\":\"0\"}]}]}'");
	g_assert_cmpint(lvm_vg_get(&p, &vg, &e), ==, -EPROTO);
	script("echo '{\"report\":[{\"vg\":[]}]}'");
	g_assert_cmpint(lvm_vg_get(&p, &vg, &e), ==, -ENOENT);
}

static void test_bounded(void)
{
	struct lvm_pool p = {.vg = (char *)"vg", .timeout = 300000000};
	struct vh_job j = {0, 3};
	struct vh_err e = {0};
	struct lvm_answer a;
	gint64 start = g_get_monotonic_time();

	script("sleep 600");
	g_assert_cmpint(lvm_run(&p, NULL, "lv", &a, &e, "lvs", NULL), ==, -ETIMEDOUT);
	g_assert_nonnull(strstr(e.text, "has not ended"));
	/* One that does not listen, and one that leaves a child with its pipes behind. */
	memset(&e, 0, sizeof(e));
	script("trap '' TERM\nwhile :; do sleep 1; done");
	g_assert_cmpint(lvm_run(&p, NULL, "lv", &a, &e, "lvs", NULL), ==, -ETIMEDOUT);
	p.timeout = UINT64_C(60000000000);
	script("sleep 30 &\necho '{\"report\":[]}'");
	g_assert_cmpint(lvm_run(&p, NULL, "lv", &a, &e, "lvs", NULL), ==, 0);
	lvm_answer_clear(&a);
	script("sleep 600");
	g_assert_cmpint(lvm_run(&p, &j, NULL, NULL, &e, "lvremove", NULL), ==, -ECANCELED);
	g_assert_cmpint(g_get_monotonic_time() - start, <, 20 * G_USEC_PER_SEC);
}

static void test_status(void)
{
	struct lvm_pool p = {.vg = (char *)"vg", .timeout = UINT64_C(20000000000)};
	struct vh_err e = {0};
	struct lvm_answer a;

	script("echo '{\"log\":[{\"log_type\":\"error\",\"log_message\":\"said in the log\"}]}'; echo noise >&2; exit 5");
	g_assert_cmpint(lvm_run(&p, NULL, NULL, NULL, &e, "lvcreate", NULL), ==, -EIO);
	g_assert_cmpstr(e.text, ==, "lvm lvcreate: said in the log");
	memset(&e, 0, sizeof(e));
	script("printf 'one\\n\\033[31mtwo\\n' >&2; exit 3");
	g_assert_cmpint(lvm_run(&p, NULL, NULL, NULL, &e, "lvcreate", NULL), ==, -EIO);
	g_assert_cmpstr(e.text, ==, "lvm lvcreate: one; [31mtwo");
	memset(&e, 0, sizeof(e));
	script("kill -SEGV $$");
	g_assert_cmpint(lvm_run(&p, NULL, NULL, NULL, &e, "lvcreate", NULL), ==, -EIO);
	g_assert_nonnull(strstr(e.text, "signal 11"));
	memset(&e, 0, sizeof(e));
	script("head -c 100000 /dev/zero >&2; exit 1"); /* much on standard error does not stop it */
	g_assert_cmpint(lvm_run(&p, NULL, "lv", &a, &e, "lvs", NULL), ==, -EIO);
	script("echo '{\"report\":['; exit 0");
	g_assert_cmpint(lvm_run(&p, NULL, "lv", &a, &e, "lvs", NULL), ==, -EPROTO);
	script("[ \"$LC_ALL\" = C ] && [ ! -t 0 ] && [ -z \"$(cat)\" ] && echo '{\"report\":[]}'"); /* what it finds around it */
	g_setenv("LC_ALL", "de_DE.UTF-8", TRUE);
	g_assert_cmpint(lvm_run(&p, NULL, "lv", &a, &e, "lvs", NULL), ==, 0);
	lvm_answer_clear(&a);
}

static void test_names(void)
{
	static const char *const bad[] = {"", "-a", ".", "..", "a/b", "a b", "a\nb", "a\"b", "a@b", "\xc3\xa4"};
	static const char *const not_new[] = {"snapshot1", "pvmove0", "a_tdata", "a_rimage_0", "lvol0", "a+b", ".a", "+a",
					      "0123456789012345678901234567890123456789012345678901234567890123"};
	struct vh_err e;

	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
		memset(&e, 0, sizeof(e));
		g_assert_cmpint(lvm_name_ok(bad[i], &e), ==, -EINVAL);
		g_assert_cmpstr(e.text, !=, "");
		g_assert_null(strchr(e.text, '\n'));
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(not_new); i++)
		g_assert_cmpint(lvm_name_new_ok(not_new[i], &e), ==, -EINVAL);
	g_assert_cmpint(lvm_name_new_ok("web-1.root_a", &e), ==, 0);
}

static void test_tags(void)
{
	static const char *const values[] = {"raw", "", "a b,c", "ä=\"'\\&%26", "&41", "x&", "&4", "../..", "@*"};
	char every[256];

	for (int i = 1; i < 256; i++)
		every[i - 1] = (char)i;
	every[255] = 0;
	for (unsigned i = 0; i <= G_N_ELEMENTS(values); i++) {
		const char *v = i < G_N_ELEMENTS(values) ? values[i] : every;
		g_autofree char *tag = lvm_tag("format", v), *tags = g_strdup_printf("x,vhost.form=1,%s,y=z", tag), *got = NULL, *whole = NULL;

		g_assert_cmpuint(strlen(tag), <, 1024);
		g_assert_cmpuint(strspn(tag, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-/=!:&#"), ==, strlen(tag));
		got = lvm_tag_get(tags, "format");
		whole = lvm_tag_find(tags, "format");
		g_assert_cmpstr(got, ==, v);
		g_assert_cmpstr(whole, ==, tag);
	}
	g_assert_null(lvm_tag_get("vhost.formats=1,avhost.format=2,vhost.format", "format"));
	g_assert_null(lvm_tag_get("", "format"));
	g_assert_null(lvm_tag_get(NULL, "format"));
}

static void test_maker(void)
{
	g_autofree char *me = lvm_maker(), *tag = lvm_tag(LVM_CREATING, me), *back = lvm_tag_get(tag, LVM_CREATING), *theirs = NULL;
	int pid = fork(), status;

	g_assert_cmpstr(me, ==, back);
	if (!pid)
		_exit(0);
	g_assert_false(lvm_maker_gone(me));
	g_assert_true(lvm_maker_gone(""));
	g_assert_true(lvm_maker_gone("x y z"));
	g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
	/* Our own pid, but another process's time: it was taken again. */
	theirs = g_strdup_printf("%d 1 %s", (int)getpid(), strchr(strchr(me, ' ') + 1, ' ') + 1);
	g_assert_true(lvm_maker_gone(theirs));
	g_free(theirs);
	theirs = g_strdup_printf("%d 1 0 another-host", (int)getpid());
	g_assert_false(lvm_maker_gone(theirs));
}

int main(int argc, char **argv)
{
	g_autofree char *path = NULL, *program = NULL;
	int ret;

	g_test_init(&argc, &argv, NULL);
	folder = g_dir_make_tmp("vhost-lvm-XXXXXX", NULL);
	path = g_strdup_printf("%s:%s", folder, g_getenv("PATH"));
	g_setenv("PATH", path, TRUE);
	g_test_add_func("/lvm/good", test_good);
	g_test_add_func("/lvm/errors", test_errors);
	g_test_add_func("/lvm/hostile", test_hostile);
	g_test_add_func("/lvm/random", test_random);
	g_test_add_func("/lvm/rows", test_rows);
	g_test_add_func("/lvm/bounded", test_bounded);
	g_test_add_func("/lvm/status", test_status);
	g_test_add_func("/lvm/names", test_names);
	g_test_add_func("/lvm/tags", test_tags);
	g_test_add_func("/lvm/maker", test_maker);
	ret = g_test_run();
	program = g_build_filename(folder, "lvm", NULL);
	g_unlink(program);
	g_rmdir(folder);
	g_free(folder);
	return ret;
}
