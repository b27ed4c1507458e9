/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A net plugin built into its test, with the fault hook: opening ports by options as people write them, and what is left behind. */
#ifndef TEST_PLUGTEST_H
#define TEST_PLUGTEST_H

#include <sys/wait.h>

#include "faults.h"
#include "left.h"
#include "nlstate.h"

struct spec {
	const char *options, *ifname, *owner;
	unsigned pairs;
	uint16_t mtu;
	uint8_t mac[6];
};

static inline int try_open(const struct spec *s, void **port, struct vh_err *e)
{
	struct optset *set;
	struct kvs kvs;
	struct vh_net_open o = {
		.size = sizeof(o), .pairs = s->pairs ? s->pairs : 1, .owner = s->owner ? s->owner : "vhost:t:1:1:0",
		.ifname = s->ifname, .state = state, .mac = { 0x52, 0x54, 0, 1, 2, 3 }, .mtu = s->mtu, .offload = ~UINT64_C(0),
	};
	int r;

	if (s->mac[0])
		memcpy(o.mac, s->mac, 6);
	g_assert_cmpint(kvs_parse(s->options, &kvs, NULL), ==, 0);
	g_assert_cmpint(optset_parse(ops->options, &kvs, "net", &set, NULL), ==, 0);
	o.opts = optset_get(set);
	*port = NULL;
	r = ops->open(&o, port, e);
	optset_free(set);
	kvs_clear(&kvs);
	return r;
}

static inline void *must_open(const struct spec *s)
{
	ERR_AUTO(e);
	void *port;
	int r = try_open(s, &port, &e);

	g_assert_cmpstr(e.cause, ==, NULL);
	g_assert_cmpint(r, ==, 0);
	return port;
}

static inline void explained(const struct vh_err *e, const char *cause, const char *remedy)
{
	g_assert_nonnull(e->cause);
	if (!strstr(e->cause, cause))
		g_error("'%s' is not in '%s'", cause, e->cause);
	if (remedy && (!e->remedy || !strstr(e->remedy, remedy)))
		g_error("'%s' is not in the remedy '%s' of '%s'", remedy, e->remedy, e->cause);
}

static inline void refused(const struct spec *s, int code, const char *cause, const char *remedy)
{
	g_autofree char *before = net_state();
	ERR_AUTO(e);
	void *port;
	int r = try_open(s, &port, &e);

	g_assert_cmpint(r, <, 0);
	explained(&e, cause, remedy);
	g_assert_cmpint(r, ==, code);
	same_state(before);
}

/* What each_step's setup makes lives on. */
static inline int keepers(void *ctx, const char *owner)
{
	return g_str_has_prefix(owner, "vhost:keep:") || g_str_has_prefix(owner, "vhost:@keep:");
}

static inline int has(const char *text, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static inline int has(const char *text, const char *fmt, ...)
{
	g_autofree char *cmd = NULL, *out = NULL;
	va_list ap;

	va_start(ap, fmt);
	cmd = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	out = sh("%s 2>/dev/null", cmd);
	return strstr(out, text) != NULL;
}

/* In a fresh namespace, without a fault. */
static inline int net_begin(void)
{
	if (!netns_fresh())
		return 0;
	net_fault_hook = NULL;
	return 1;
}

/* Whether this kernel has VLANs and bridges that filter them: what the lab's kernel has. NULL or the reason. */
static inline const char *no_vlans(void)
{
	static const char *why;
	static int known;

	if (known)
		return why;
	known = 1;
	if (!has("id 5", "ip link add vl0 type veth peer name vl1; ip link add link vl0 name vl0.5 type vlan id 5; ip -d link show vl0.5"))
		why = "this kernel has no VLAN devices (8021q)";
	else if (!has("vlan_filtering 1", "ip link add vlb type bridge vlan_filtering 1; ip -d link show vlb"))
		why = "this kernel's bridges filter no VLANs";
	run_ok("ip link del vlb 2>/dev/null; ip link del vl0 2>/dev/null");
	return why;
}

/* Everything that a spec's open does, each step refused, answered falsely, or the last: the namespace must be as before. setup makes
 * what is there before, and close() what it returns. */
static inline void each_step(const struct spec *spec, void *(*setup)(void), int sticky, int killing)
{
	unsigned n, steps = 0;
	void *first;

	first = setup();
	g_autofree char *before = net_state();
	unsigned entries = journals();

	for (n = 1;; n++) {
		void *port = NULL;
		int r, st = 0;
		pid_t pid;

		fault(n, sticky, killing);
		if (killing) {
			pid = fork();
			if (!pid) {
				r = try_open(spec, &port, NULL);
				_exit(fault_count >= n ? 1 : 0);
			}
			g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
			net_fault_hook = NULL;
			if (!WIFSIGNALED(st)) {
				g_assert_cmpint(WEXITSTATUS(st), ==, 0);
				break;
			}
		} else {
			ERR_AUTO(e);

			r = try_open(spec, &port, &e);
			net_fault_hook = NULL;
			if (fault_count < n) {
				g_assert_cmpstr(e.cause, ==, NULL);
				ops->close(port);
				break;
			}
			if (r >= 0) /* a step that may fail */
				ops->close(port);
			else
				g_assert_nonnull(e.cause);
		}
		if (!sticky && !killing) /* undone at once, no gc needed */
			same_state(before);
		gc(keepers);
		same_state(before);
		g_assert_cmpuint(journals(), ==, entries);
		steps++;
	}
	/* the child that lived to its end has left everything to gc as well */
	gc(keepers);
	same_state(before);
	g_test_message("%s: %u steps", spec->options, steps);
	g_assert_cmpuint(steps, >=, 6);
	if (first)
		ops->close(first);
}

/* What close() does, each step the last. */
static inline void close_killed(const struct spec *spec, void *(*setup)(void))
{
	void *first = setup();
	unsigned entries = journals();
	g_autofree char *before = net_state();

	for (unsigned n = 1;; n++) {
		int st;
		pid_t pid = fork();

		if (!pid) {
			void *port = must_open(spec);

			fault(n, 0, 1);
			ops->close(port);
			_exit(0);
		}
		g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
		gc(keepers);
		same_state(before);
		g_assert_cmpuint(journals(), ==, entries);
		if (!WIFSIGNALED(st))
			break;
	}
	if (first)
		ops->close(first);
}

static inline void plugtest_init(int *argc, char ***argv, const char *name)
{
	const struct vh_plugin *p;

	g_test_init(argc, argv, NULL);
	g_setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", TRUE);
	state = temp_folder(name);
	g_assert_cmpint(vh_plugin_entry_v1(&plug_host, &p), ==, 0);
	ops = p->get(VH_IID_NET);
}

static inline int plugtest_run(void)
{
	int r = g_test_run();

	run_ok("rm -rf %s", state);
	g_free(state);
	return r;
}

#endif
