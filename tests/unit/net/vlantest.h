/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* An uplink in a namespace of its own, and ports and networks on it. */
#ifndef TEST_VLANTEST_H
#define TEST_VLANTEST_H

#include "plugtest.h"

static inline int begin(void)
{
	const char *why;

	if (!net_begin())
		return 0;
	why = no_vlans();
	if (why)
		g_test_skip(why);
	return !why;
}

static inline void veth(const char *name, const char *far)
{
	run_ok("printf 'link add %s type veth peer name %s\\nlink set %s addrgenmode none\\nlink set %s addrgenmode none\\n"
	       "link set %s up\\nlink set %s up\\n' | ip -batch -",
	       name, far, name, far, name, far);
}

static inline void *uplink(void)
{
	veth("up0", "far0");
	return NULL;
}

static inline void *uplink_device_port(void)
{
	uplink();
	return must_open(&(struct spec){ "up0,id=10", .owner = "vhost:keep:1:1:0" });
}

static inline void *uplink_filter_port(void)
{
	uplink();
	return must_open(&(struct spec){ "up0,id=9,mode=filter", .owner = "vhost:keep:1:1:0" });
}

static inline int network(int (*fn)(const struct vh_network *n, struct vh_err *e), const char *options, const char *owner, struct vh_err *e)
{
	struct vh_network n = { .size = sizeof(n), .name = "lan", .kind = "vlan", .owner = owner, .state = state };
	struct optset *set;
	struct kvs kvs;
	int r;

	g_assert_cmpint(kvs_parse(options, &kvs, NULL), ==, 0);
	g_assert_cmpint(optset_parse(ops->options, &kvs, "net", &set, NULL), ==, 0);
	n.opts = optset_get(set);
	r = fn(&n, e);
	optset_free(set);
	kvs_clear(&kvs);
	return r;
}

static inline void must(int (*fn)(const struct vh_network *n, struct vh_err *e), const char *options, const char *owner)
{
	ERR_AUTO(e);
	int r = network(fn, options, owner, &e);

	g_assert_cmpstr(e.cause, ==, NULL);
	g_assert_cmpint(r, ==, 0);
}

#endif
