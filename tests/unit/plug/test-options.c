/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <string.h>
#include <vhost/sugar.h>
#include "plug/options.h"

static const char *const colours[] = {"red", "green", "blue", NULL};
static const struct vh_opt o_path = {sizeof(struct vh_opt), VH_OPT_PATH, VH_OPT_REQUIRED | VH_OPT_MAIN, "path",
	"the folder", NULL, NULL, 0, 0};
static const struct vh_opt o_size = {sizeof(struct vh_opt), VH_OPT_SIZE, 0, "size", "how large", "64K", NULL, 512, 1 << 20};
static const struct vh_opt o_int = {sizeof(struct vh_opt), VH_OPT_INT, 0, "count", "how many", NULL, NULL, -4, 4};
static const struct vh_opt o_bool = {sizeof(struct vh_opt), VH_OPT_BOOL, 0, "sync", "wait for it", "off", NULL, 0, 0};
static const struct vh_opt o_enum = {sizeof(struct vh_opt), VH_OPT_ENUM, 0, "colour", "which one", "green", colours, 0, 0};
static const struct vh_opt o_str = {sizeof(struct vh_opt), VH_OPT_STR, VH_OPT_REPEAT, "tag", "a word", NULL, NULL, 1, 8};
static const struct vh_opt o_host = {sizeof(struct vh_opt), VH_OPT_HOSTPORT, 0, "portal", "where", NULL, NULL, 0, 0};
static const struct vh_opt o_mac = {sizeof(struct vh_opt), VH_OPT_MAC, 0, "mac", "the address", NULL, NULL, 0, 0};
static const struct vh_opt o_time = {sizeof(struct vh_opt), VH_OPT_DURATION, 0, "timeout", "how long", NULL, NULL,
	1000000, 60000000000};
static const struct vh_opt o_secret = {sizeof(struct vh_opt), VH_OPT_SECRET, VH_OPT_DEPRECATED, "password", "a secret",
	NULL, NULL, 0, 0};
static const struct vh_opt *const schema[] = {&o_path, &o_size, &o_int, &o_bool, &o_enum, &o_str, &o_host, &o_mac, &o_time,
	&o_secret, NULL};

static int parse(const char *text, struct optset **s, struct vh_err *e)
{
	struct kvs k = {0};
	int r = kvs_parse(text, &k, e);

	if (!r)
		r = optset_parse(schema, &k, "pool type test", s, e);
	kvs_clear(&k);
	return r;
}

static void bad(const char *text, const char *want)
{
	struct optset *s = NULL;
	ERR_AUTO(e);
	int r = parse(text, &s, &e);

	g_assert_cmpint(r, <, 0);
	g_assert_cmpint(err_exit_status(&e), ==, EXIT_USAGE);
	g_assert_cmpstr(e.object, ==, "pool type test");
	if (!strstr(e.cause, want) && !(e.remedy && strstr(e.remedy, want)))
		g_error("%s: '%s' is neither in '%s' nor in '%s'", text, want, e.cause, e.remedy ? e.remedy : "");
}

static void test_values(void)
{
	struct optset *s;
	const struct vh_opts *o;
	ERR_AUTO(e);

	if (parse("/a//b/../c,size=128K,count=-4,sync=yes,colour=blue,tag=x,tag=y,,z,portal=[fe80::1]:3260,mac=52:54:00:12:34:56,"
		  "timeout=5s", &s, &e) < 0)
		g_error("%s", e.cause);
	o = optset_get(s);
	g_assert_cmpstr(vh_opt_str(o, "path", ""), ==, "/a/c");
	g_assert_cmpint(vh_opt_num(o, "size", 0), ==, 131072);
	g_assert_cmpint(vh_opt_num(o, "count", 0), ==, -4);
	g_assert_cmpint(vh_opt_num(o, "sync", 0), ==, 1);
	g_assert_cmpint(vh_opt_num(o, "colour", -1), ==, 2);
	g_assert_cmpstr(vh_opt_str(o, "colour", ""), ==, "blue");
	g_assert_cmpstr(vh_opt_str(o, "portal", ""), ==, "[fe80::1]:3260");
	g_assert_cmpint(vh_opt_num(o, "mac", 0), ==, 0x525400123456);
	g_assert_cmpint(vh_opt_num(o, "timeout", 0), ==, 5000000000);
	g_assert_null(vh_opt_get(o, "password"));
	/* Repeated ones in order, at their option's place. */
	g_assert_cmpuint(o->n, ==, 10);
	g_assert_cmpstr(o->val[5]->str, ==, "x");
	g_assert_cmpstr(o->val[6]->str, ==, "y,z");
	g_assert_cmpuint(o->val[0]->size, ==, sizeof(struct vh_val));
	optset_free(s);
}

static void test_defaults(void)
{
	struct optset *s;
	ERR_AUTO(e);

	g_assert_cmpint(parse("path=rel/x", &s, &e), ==, 0);
	g_assert_true(*vh_opt_str(optset_get(s), "path", "") == '/');
	g_assert_cmpint(vh_opt_num(optset_get(s), "size", 0), ==, 65536);
	g_assert_cmpint(vh_opt_num(optset_get(s), "sync", 7), ==, 0);
	g_assert_cmpstr(vh_opt_str(optset_get(s), "colour", ""), ==, "green");
	g_assert_cmpint(vh_opt_num(optset_get(s), "count", 99), ==, 99);
	g_assert_cmpuint(optset_get(s)->n, ==, 4);
	optset_free(s);
	g_assert_cmpint(optset_parse(NULL, NULL, "nothing", &s, &e), ==, 0);
	g_assert_cmpuint(optset_get(s)->n, ==, 0);
	optset_free(s);
}

static void test_refused(void)
{
	bad("size=1K", "option path is missing");
	bad("/x,sise=1K", "did you mean size?");
	bad("/x,zzzzzzzzzz=1", "options are: path, size");
	bad("/x,size=1K,size=2K", "given twice");
	bad("/x,path=/y", "given twice");
	bad("path=", "the path is empty");
	bad("/x,size=511", "512 to 1M");
	bad("/x,size=2M", "out of range");
	bad("/x,size=9999999999T", "size");
	bad("/x,size=1.5", "size");
	bad("/x,count=5", "-4 to 4");
	bad("/x,count=-5", "-4 to 4");
	bad("/x,count=two", "count");
	bad("/x,sync=maybe", "sync");
	bad("/x,colour=gren", "did you mean green?");
	bad("/x,colour=", "red, green, blue");
	bad("/x,tag=123456789", "1 to 8 bytes");
	bad("/x,tag=", "1 to 8 bytes");
	bad("/x,portal=host", "host:port");
	bad("/x,portal=:1", "no host");
	bad("/x,portal=h:0", "no port");
	bad("/x,portal=h:65536", "no port");
	bad("/x,portal=h:0x10000", "no port");
	bad("/x,portal=fe80::1:3260", "several colons");
	bad("/x,portal=[fe80::1]", "host:port");
	bad("/x,portal=a b:1", "character");
	bad("/x,mac=01:00:00:00:00:01", "mac");
	bad("/x,timeout=0s", "1ms to 60s");
	bad("/x,timeout=2min", "1ms to 60s");
	bad("/x,password=../etc", "password");
}

static void test_no_main(void)
{
	static const struct vh_opt *const s2[] = {&o_size, NULL};
	struct kvs k = {0};
	struct optset *s;
	ERR_AUTO(e);

	g_assert_cmpint(kvs_parse("foo", &k, &e), ==, 0);
	g_assert_cmpint(optset_parse(s2, &k, "x", &s, &e), ==, -EINVAL);
	g_assert_nonnull(strstr(e.cause, "'foo' is not of the form key=value"));
	err_clear(&e);
	g_assert_cmpint(optset_parse(NULL, &k, "x", &s, &e), ==, -EINVAL);
	g_assert_cmpstr(e.remedy, ==, "it takes no options");
	kvs_clear(&k);
}

static void test_prefix(void)
{
	struct kvs k = {0}, p;
	ERR_AUTO(e);

	g_assert_cmpint(kvs_parse("main,pool.path=/x,format.a=1,pool.=y,poolx=2", &k, &e), ==, 0);
	kvs_with_prefix(&k, "pool.", &p);
	g_assert_cmpuint(p.n, ==, 2);
	g_assert_cmpstr(p.v[0].key, ==, "path");
	g_assert_cmpstr(p.v[0].value, ==, "/x");
	g_assert_cmpstr(p.v[1].key, ==, "");
	g_free(p.v);
	kvs_clear(&k);
}

static void test_schema(void)
{
	struct vh_opt o = o_size;
	const struct vh_opt *const one[] = {&o, NULL}, *const twice[] = {&o_size, &o_size, NULL};
	ERR_AUTO(e);

	g_assert_cmpint(schema_check(schema, &e), ==, 0);
	g_assert_cmpint(schema_check(NULL, &e), ==, 0);
	g_assert_cmpint(schema_check(twice, &e), <, 0);
	g_assert_cmpstr(e.cause, ==, "option size: it is there twice");
#define WRONG(change, text) \
	do { \
		o = o_size; \
		change; \
		err_clear(&e); \
		g_assert_cmpint(schema_check(one, &e), <, 0); \
		g_assert_nonnull(strstr(e.cause, text)); \
	} while (0)
	WRONG(o.name = "Size", "a name is made of");
	WRONG(o.doc = "Ends.", "full stop");
	WRONG(o.doc = NULL, "no text");
	WRONG(o.type = 99, "type 99 is unknown");
	WRONG(o.flags = 1u << 31, "unknown flags");
	WRONG(o.type = VH_OPT_ENUM, "without choices");
	WRONG(o.max = 0; o.min = 5, "below its lowest");
	WRONG(o.flags = VH_OPT_REQUIRED, "required and yet");
	WRONG(o.defval = "1", "the default of option size");
	WRONG(o.size = 8, "shorter");
}

/* A plugin whose vh_opt is longer than ours, or shorter. */
static void test_skew(void)
{
	struct { struct vh_opt o; char tail[64]; } big = {o_size, {0}};
	struct vh_opt small = o_int;
	const struct vh_opt *const s2[] = {&big.o, &small, NULL};
	struct kvs k = {0};
	struct optset *s;
	ERR_AUTO(e);

	memset(big.tail, 0xdb, sizeof(big.tail));
	big.o.size = sizeof(big);
	small.size = offsetof(struct vh_opt, min); /* no bounds */
	g_assert_cmpint(kvs_parse("size=1K,count=1000", &k, &e), ==, 0);
	g_assert_cmpint(optset_parse(s2, &k, "x", &s, &e), ==, 0);
	g_assert_cmpint(vh_opt_num(optset_get(s), "count", 0), ==, 1000);
	optset_free(s);
	kvs_clear(&k);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/plug/options/values", test_values);
	g_test_add_func("/plug/options/defaults", test_defaults);
	g_test_add_func("/plug/options/refused", test_refused);
	g_test_add_func("/plug/options/no-main-option", test_no_main);
	g_test_add_func("/plug/options/prefix", test_prefix);
	g_test_add_func("/plug/options/schema", test_schema);
	g_test_add_func("/plug/options/skew", test_skew);
	return g_test_run();
}
