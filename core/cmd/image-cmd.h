/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the commands of images share. `vhost img` names files, `vhost vol` volumes of pools; all else is the same. */
#ifndef IMAGE_CMD_H
#define IMAGE_CMD_H

#include "cmd/store-cmd.h"

/* What an argument names. Of a file: its folder is the pool, ad hoc. must_exist: only for a better text. */
int cmd_target_open(const struct cmd_ctx *c, const char *arg, int must_exist, struct cmd_volume *v, struct vh_err *e);
void js_target(JsonBuilder *b, const struct cmd_ctx *c, const struct cmd_volume *v); /* "image", or "pool" and "name" */
/* Says that it is done; extra: members more, or NULL. */
void cmd_target_done(const struct cmd_ctx *c, const struct cmd_volume *v, const char *what,
		     void (*extra)(JsonBuilder *b, void *ctx), void *ctx);
int cmd_target_error(const struct cmd_ctx *c, const struct cmd_volume *v, int ret, struct vh_err *e); /* names it */

/* The image of a target by the options format, allow and format.*: given, else the recorded format. */
struct cmd_image {
	struct store_image *image;
	struct fmt_image *fmt;
	struct kvs free, open; /* the command's free options; those of the format */
	char **allow;
};
#define CMD_IMAGE_ALONE 1 /* without its backing image */
#define CMD_IMAGE_REPAIR 2
int cmd_image_open(const struct cmd_ctx *c, const struct cmd_volume *v, uint32_t mode, int flags, struct cmd_image *i,
		   struct vh_err *e);
void cmd_image_close(struct cmd_image *i);
void kvs_add(struct kvs *k, const char *key, const char *value);
/* What --options (-o a=b,c_d=e, several times as in qemu-img) says, c-d for c_d, and --allow-insecure; kvs_clear. */
int cmd_dash_options(const struct cmd_ctx *c, struct kvs *out, struct vh_err *e);

#define CMD_OPT_FORMAT CMD_OPT("format", VH_OPT_STR, "The image's format, where none is recorded")
#define CMD_OPT_INSECURE CMD_OPT("allow-insecure", VH_OPT_BOOL, "Make it with weak encryption (qcow2's encrypt=aes)", .defval = "off")
#define CMD_OPT_ALLOW                                                                                                  \
	CMD_OPT("allow", VH_OPT_PATH, "A folder beside the image's whose files it may refer to", .flags = VH_OPT_REPEAT)
#define CMD_OPT_PROGRESS CMD_OPT("progress", VH_OPT_BOOL, "As with qemu-img; bars are shown on terminals anyway", .defval = "on")

/* probe.c: every format that the first bytes of a volume could be, the surest first. */
struct probe_hit { char format[32]; int certainty; };
struct probe { struct probe_hit hit[32]; unsigned n; int ambiguous; }; /* raw, which anything is, comes last */
int image_probe(const struct cmd_volume *v, struct probe *out, struct vh_err *e);

void js_snapshot(JsonBuilder *b, const char *id, const char *name, uint64_t bytes, int64_t when, uint64_t vm_state, uint64_t clock);

int img_run_create(struct cmd_ctx *c, struct vh_err *e);
int img_run_resize(struct cmd_ctx *c, struct vh_err *e);
int img_run_info(struct cmd_ctx *c, struct vh_err *e);
int img_run_check(struct cmd_ctx *c, struct vh_err *e);
int img_run_map(struct cmd_ctx *c, struct vh_err *e);
int img_run_snapshot(struct cmd_ctx *c, struct vh_err *e);
int img_run_rebase(struct cmd_ctx *c, struct vh_err *e);
int img_run_commit(struct cmd_ctx *c, struct vh_err *e);
int img_run_set(struct cmd_ctx *c, struct vh_err *e);
int img_run_amend(struct cmd_ctx *c, struct vh_err *e);
extern const struct vh_opt *const img_create_options[], *const img_resize_options[], *const img_info_options[],
	*const img_check_options[], *const img_map_options[], *const img_snapshot_options[], *const img_rebase_options[],
	*const img_commit_options[], *const img_amend_options[], *const vol_create_options[], *const vol_resize_options[], *const img_set_options[];
extern const char img_create_help[], img_info_help[], img_check_help[], img_map_help[], img_snapshot_help[], img_rebase_help[],
	img_commit_help[], img_amend_help[], img_set_help[];
/* img-convert.c, img-compare.c, img-bench.c */
int img_run_convert(struct cmd_ctx *c, struct vh_err *e);
int img_run_dd(struct cmd_ctx *c, struct vh_err *e);
int img_run_compare(struct cmd_ctx *c, struct vh_err *e);
int img_run_measure(struct cmd_ctx *c, struct vh_err *e);
int img_run_bench(struct cmd_ctx *c, struct vh_err *e);
extern const struct vh_opt *const img_convert_options[], *const img_dd_options[], *const img_compare_options[],
	*const img_measure_options[], *const img_bench_options[];
extern const char img_convert_help[], img_compare_help[];
#define IMG_CONVERT_LETTERS                                                                                            \
	"f=source-format O=format o=options B=backing F=backing-format c=compress n=no-create l=snapshot S=sparse m=parallel "   \
	"W=unordered r=rate-limit t=cache U=force-share p=progress"
#define IMG_COMPARE_LETTERS "f=format F=other-format s=strict U=force-share p=progress"
#define IMG_MEASURE_LETTERS "f=source-format O=format o=options l=snapshot U=force-share"
#define IMG_BENCH_LETTERS "f=format c=count d=depth s=buffer-size S=step-size o=offset w=write t=cache"

#define IMG_CREATE_LETTERS "f=format o=options b=backing F=backing-format u=backing-unchecked p=progress"
#define IMG_LETTERS "f=format p=progress"

#endif
