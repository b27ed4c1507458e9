/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "cmd/cli.h"
#include "plug/plug.h"

int main(int argc, char **argv)
{
	const struct cmd *const *const all[] = {cmd_run, cmd_vm, cmd_pool, cmd_vol, cmd_img, cmd_crashtest, cmd_net, cmd_plugin,
						cmd_autostart, cmd_doctor, cmd_help, NULL};
	int status = cli_run(all, argc, argv);

	plug_fini();
	return status;
}
