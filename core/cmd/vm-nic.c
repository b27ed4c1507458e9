/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost vm limit: NICs of guests that run. */
#include <string.h>
#include "cmd/store-cmd.h"
#include "cmd/vm.h"
#include "net/rate.h"

#define REPLY_MS 30000

#define AMOUNT(NAME, TYPE, DOC) CMD_OPT(NAME, TYPE, DOC, .min = 0, .max = (int64_t)RATE_MAX)
const struct vh_opt *const vm_limit_options[] = {
	AMOUNT("rate-in", VH_OPT_SIZE, "Bytes a second that the guest receives"),
	AMOUNT("burst-in", VH_OPT_SIZE, "Bytes at once after a silence"),
	AMOUNT("packets-in", VH_OPT_SIZE, "Packets a second that the guest receives"),
	AMOUNT("rate-out", VH_OPT_SIZE, "Bytes a second that the guest sends"),
	AMOUNT("burst-out", VH_OPT_SIZE, "Bytes at once after a silence"),
	AMOUNT("packets-out", VH_OPT_SIZE, "Packets a second that the guest sends"),
	NULL,
};

int vm_run_limit(struct cmd_ctx *c, struct vh_err *e)
{
	JsonObject *o;
	int64_t nic;
	int r = parse_int(c->args[1], &nic, e);

	if (r < 0) {
		err_status(e, EXIT_USAGE);
		return r;
	}
	if (!c->opts || !c->opts->n)
		return err_usage(e, "no limit is given: --rate-in, --rate-out ...");
	o = json_object_new();
	json_object_set_int_member(o, "nic", nic);
	for (uint32_t i = 0; i < c->opts->n; i++) {
		g_autofree char *name = g_strdelimit(g_strdup(c->opts->val[i]->name), "-", '_');

		json_object_set_int_member(o, name, c->opts->val[i]->num);
	}
	r = vm_ask(c->args[0], REPLY_MS, "LimitNic", o, &o, e);
	if (!r && c->json)
		vm_print_json(o);
	if (!r)
		json_object_unref(o);
	return r;
}
