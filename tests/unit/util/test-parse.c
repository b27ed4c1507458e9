/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <string.h>

#include "util/parse.h"

static void sizes(void)
{
	static const struct { const char *s; uint64_t v; } good[] = {
		{ "0", 0 }, { "512", 512 }, { "4K", 4096 }, { "4k", 4096 }, { "4KiB", 4096 }, { "10G", UINT64_C(10) << 30 },
		{ "1.5T", UINT64_C(3) << 39 }, { "0.5K", 512 }, { "1.0000000000009K", 1024 },
		{ "18446744073709551615", UINT64_MAX }, { "15E", UINT64_C(15) << 60 },
	};
	static const char *const bad[] = { "", "K", "-1", "1.5", "1,5K", "4 K", "4KB", "4KiBs", "0x10", "1.K", "ten", "1KK" };
	static const char *const large[] = { "18446744073709551616", "16E", "99999999999T", "999999999999999999999999K" };
	uint64_t v;

	for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
		g_assert_cmpint(parse_size(good[i].s, &v, NULL), ==, 0);
		g_assert_cmpuint(v, ==, good[i].v);
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
		ERR_AUTO(e);

		g_assert_cmpint(parse_size(bad[i], &v, &e), ==, -EINVAL);
		g_assert_nonnull(strstr(e.cause, bad[i]));
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(large); i++)
		g_assert_cmpint(parse_size(large[i], &v, NULL), ==, -ERANGE);
}

static void ints(void)
{
	static const char *const bad[] = { "", "-", "0x", "1.0", "1e3", "0xg", " 1", "1 ", "--1", "+1" };
	int64_t v;

	g_assert_cmpint(parse_int("-9223372036854775808", &v, NULL), ==, 0);
	g_assert_cmpint(v, ==, INT64_MIN);
	g_assert_cmpint(parse_int("9223372036854775807", &v, NULL), ==, 0);
	g_assert_cmpint(v, ==, INT64_MAX);
	g_assert_cmpint(parse_int("0x1F", &v, NULL), ==, 0);
	g_assert_cmpint(v, ==, 31);
	g_assert_cmpint(parse_int("010", &v, NULL), ==, 0); /* no octal surprises */
	g_assert_cmpint(v, ==, 10);
	g_assert_cmpint(parse_int("9223372036854775808", &v, NULL), ==, -ERANGE);
	g_assert_cmpint(parse_int("-9223372036854775809", &v, NULL), ==, -ERANGE);
	g_assert_cmpint(parse_int("99999999999999999999999999", &v, NULL), ==, -ERANGE);
	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
		g_assert_cmpint(parse_int(bad[i], &v, NULL), ==, -EINVAL);
}

static void bools(void)
{
	int v;

	g_assert_cmpint(parse_bool("on", &v, NULL), ==, 0);
	g_assert_true(v);
	g_assert_cmpint(parse_bool("No", &v, NULL), ==, 0);
	g_assert_false(v);
	g_assert_cmpint(parse_bool("1", &v, NULL), ==, 0);
	g_assert_true(v);
	g_assert_cmpint(parse_bool("", &v, NULL), ==, -EINVAL);
	g_assert_cmpint(parse_bool("2", &v, NULL), ==, -EINVAL);
}

static void durations(void)
{
	static const char *const bad[] = { "", "5", "s", "5 s", "5m", "-1s", "5sec", "1.s" };
	uint64_t v;

	g_assert_cmpint(parse_duration("10ms", &v, NULL), ==, 0);
	g_assert_cmpuint(v, ==, 10000000);
	g_assert_cmpint(parse_duration("1.5s", &v, NULL), ==, 0);
	g_assert_cmpuint(v, ==, 1500000000);
	g_assert_cmpint(parse_duration("2min", &v, NULL), ==, 0);
	g_assert_cmpuint(v, ==, UINT64_C(120000000000));
	g_assert_cmpint(parse_duration("0", &v, NULL), ==, 0);
	g_assert_cmpuint(v, ==, 0);
	g_assert_cmpint(parse_duration("99999999999999h", &v, NULL), ==, -ERANGE);
	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
		g_assert_cmpint(parse_duration(bad[i], &v, NULL), ==, -EINVAL);
}

static void macs(void)
{
	static const char *const bad[] = { "", "52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:56:", "52-54-00-12-34-56",
		"525400123456", "5g:54:00:12:34:56", "01:00:5e:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "52:54:00:12:34:56x" };
	uint8_t m[6];

	g_assert_cmpint(parse_mac("52:54:00:aB:34:56", m, NULL), ==, 0);
	g_assert_cmpmem(m, 6, "\x52\x54\x00\xab\x34\x56", 6);
	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
		g_assert_cmpint(parse_mac(bad[i], m, NULL), ==, -EINVAL);
}

static void formatted(void)
{
	static const struct { uint64_t v; const char *s; } t[] = {
		{ 0, "0 B" }, { 1023, "1023 B" }, { 1024, "1 KiB" }, { 1536, "1.5 KiB" }, { UINT64_C(3) << 29, "1.5 GiB" },
		{ UINT64_C(150) << 20 | 1 << 19, "150 MiB" }, { UINT64_MAX, "15.9 EiB" },
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(t); i++) {
		g_autofree char *s = format_size(t[i].v);

		g_assert_cmpstr(s, ==, t[i].s);
	}
}

static void near_words(void)
{
	static const char *const list[] = { "pool", "plugin", "vol", "net", "vm", "run", "doctor", "memory", NULL };

	g_assert_cmpstr(nearest("plugn", list), ==, "plugin");
	g_assert_cmpstr(nearest("memroy", list), ==, "memory");
	g_assert_cmpstr(nearest("pol", list), ==, "pool");
	g_assert_cmpstr(nearest("vn", list), ==, "vm");
	g_assert_cmpstr(nearest("run", list), ==, "run");
	g_assert_null(nearest("banana", list));
	g_assert_null(nearest("", list));
	g_assert_null(nearest("x", NULL));
	g_autofree char *big = g_strnfill(5000, 'm');

	g_assert_null(nearest(big, list));
}

static void assert_kvs(const char *s, const char *want)
{
	g_autoptr(GString) got = g_string_new(NULL);
	struct kvs k;
	ERR_AUTO(e);

	g_assert_cmpint(kvs_parse(s, &k, &e), ==, 0);
	for (unsigned i = 0; i < k.n; i++)
		g_string_append_printf(got, "<%s|%s>", k.v[i].key ? k.v[i].key : "", k.v[i].value);
	g_assert_cmpstr(got->str, ==, want);
	kvs_clear(&k);
	kvs_clear(&k);
}

static void kvs(void)
{
	static const char *const bad[] = { ",", "a=1,", ",a=1", "a=1,b", "main,other", "a=1,=2", "a=1, b=2" };
	struct kvs k;

	assert_kvs("", "");
	assert_kvs("default/web", "<|default/web>");
	assert_kvs("default/web,format=qcow2,readonly=on", "<|default/web><format|qcow2><readonly|on>");
	assert_kvs("type=bridge,name=br0", "<type|bridge><name|br0>");
	assert_kvs("path=a,,b,x=,,", "<path|a,b><x|,>");
	assert_kvs("a=b=c,d=", "<a|b=c><d|>");
	assert_kvs("/tmp/x=y,format=raw", "<|/tmp/x=y><format|raw>");
	assert_kvs("a=1,a=2", "<a|1><a|2>");
	assert_kvs("pool.host=h:1", "<pool.host|h:1>");
	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
		ERR_AUTO(e);

		g_assert_cmpint(kvs_parse(bad[i], &k, &e), ==, -EINVAL);
		g_assert_nonnull(e.cause);
		g_assert_null(k.v);
	}
	g_assert_cmpint(kvs_parse("m,a=1,a=2", &k, NULL), ==, 0);
	g_assert_cmpstr(kvs_get(&k, "a"), ==, "1");
	g_assert_cmpstr(kvs_get(&k, NULL), ==, "m");
	g_assert_null(kvs_get(&k, "b"));
	kvs_clear(&k);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/parse/sizes", sizes);
	g_test_add_func("/parse/ints", ints);
	g_test_add_func("/parse/bools", bools);
	g_test_add_func("/parse/durations", durations);
	g_test_add_func("/parse/macs", macs);
	g_test_add_func("/parse/formatted-sizes", formatted);
	g_test_add_func("/parse/near-words", near_words);
	g_test_add_func("/parse/key-value-lists", kvs);
	return g_test_run();
}
