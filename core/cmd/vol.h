/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#ifndef CMD_VOL_H
#define CMD_VOL_H

#include "cmd/store-cmd.h"

int vol_done(struct cmd_ctx *c, const struct cmd_volume *v, const char *what);
/* vol-data.c */
int vol_run_wipe(struct cmd_ctx *c, struct vh_err *e);
extern const struct vh_opt *const vol_wipe_options[];
extern const char vol_wipe_help[];
int vol_run_upload(struct cmd_ctx *c, struct vh_err *e);
int vol_run_download(struct cmd_ctx *c, struct vh_err *e);
extern const struct vh_opt *const vol_upload_options[], *const vol_download_options[];

/* vol-snap.c */
int vol_run_snapshot(struct cmd_ctx *c, struct vh_err *e);
extern const struct vh_opt *const vol_snapshot_options[];
extern const char vol_snapshot_help[];
/* vol-lock.c */
int vol_run_unlock(struct cmd_ctx *c, struct vh_err *e);
extern const struct vh_opt *const vol_unlock_options[];
extern const char vol_unlock_help[];

#endif
