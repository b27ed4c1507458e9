/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "cmd/cli.h"
#include "plug/plug.h"

/* Weak, so that the program links whichever of the commands are built in. */
#define WEAK __attribute__((weak))
extern const struct cmd *const cmd_run[] WEAK, *const cmd_vm[] WEAK, *const cmd_pool[] WEAK, *const cmd_vol[] WEAK,
	*const cmd_net[] WEAK, *const cmd_plugin[] WEAK, *const cmd_doctor[] WEAK;

int main(int argc, char **argv)
{
	const struct cmd *const *const all[] = { cmd_run, cmd_vm, cmd_pool, cmd_vol, cmd_net, cmd_plugin, cmd_doctor, cmd_help };
	const struct cmd *const *present[G_N_ELEMENTS(all) + 1];
	unsigned n = 0;
	int status;

	for (unsigned i = 0; i < G_N_ELEMENTS(all); i++)
		if (all[i])
			present[n++] = all[i];
	present[n] = NULL;
	status = cli_run(present, argc, argv);
	plug_fini();
	return status;
}
