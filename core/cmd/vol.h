/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#ifndef CMD_VOL_H
#define CMD_VOL_H

#include "cmd/store-cmd.h"

int vol_done(struct cmd_ctx *c, const struct cmd_volume *v, const char *what);
/* vol-data.c */
int vol_run_upload(struct cmd_ctx *c, struct vh_err *e);
int vol_run_download(struct cmd_ctx *c, struct vh_err *e);
extern const struct vh_opt *const vol_upload_options[], *const vol_download_options[];

#endif
