/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the files of core/plug share, and what vhost-plugin-check takes apart. Besides
 * them only `vhost plugin` includes it. */
#ifndef PLUG_IMPL_H
#define PLUG_IMPL_H

#include <sys/stat.h>
#include "plug/plug.h"

/* ---- elf.c: a file, or bytes in memory, read as a hostile ELF object without running any of it ---- */

struct elf_src {
	int fd;             /* -1: the bytes at mem */
	const uint8_t *mem;
	uint64_t len;
	/* The first bytes, read once: headers and notes of nearly every file. */
	uint8_t head[4096];
	uint32_t head_len;
	uint32_t n_ph;
	struct elf_ph { uint32_t type, flags; uint64_t off, vaddr, filesz, align; } *ph;
};
#define ELF_PH_MAX 128u

/* Checks that it is a 64-bit x86 shared object and reads the program headers. -ENOEXEC with text. `fd` is borrowed. */
int elf_open_fd(struct elf_src *s, int fd, struct vh_err *e);
int elf_open_mem(struct elf_src *s, const void *mem, uint64_t len, struct vh_err *e);
void elf_close(struct elf_src *s);
/* 1 when [off, off+len) was read into buf, else 0. */
int elf_read(struct elf_src *s, uint64_t off, void *buf, uint64_t len);

/* The dynamic section: what a file exports, needs and asks for. */
struct elf_dyn {
	char **needed;  /* NULL-terminated sonames */
	char **exports; /* NULL-terminated names of defined, visible symbols */
	char *runpath;  /* DT_RUNPATH or DT_RPATH, or NULL */
	int bind_now, textrel, relro, exec_stack;
};
int elf_dyn_read(struct elf_src *s, struct elf_dyn *out, struct vh_err *e);
void elf_dyn_clear(struct elf_dyn *d);

/* ---- note.c ---- */

struct plug_ident {
	uint32_t major, minor, draft, kinds;
	char id[VH_ID_MAX];
	uint8_t build_id[32];
	uint32_t build_id_len;
	uint32_t majors; /* how many VHOST notes the file has */
};
/* The file's note for this major, or, when it has none, its first one. -ENOEXEC: "not a vhost plugin". */
int note_read(struct elf_src *s, struct plug_ident *out, struct vh_err *e);
/* Whether this host may load it: major and draft. */
int note_check(const struct plug_ident *n, struct vh_err *e);
int note_id_valid(const char *id, size_t cap);

/* ---- tables.c ---- */

struct plug_member {
	const char *name;
	uint16_t off, size;
	uint8_t pointer, mandatory;
	const char *absent; /* optional functions: what happens without it */
};
struct plug_table {
	const char *iid, *word, *folder; /* "vh.pool/1", "pool", "storage" */
	uint32_t kind, size;
	const struct plug_member *members;
	uint32_t n_members;
};
#define PLUG_TABLES 4
extern const struct plug_table plug_tables[PLUG_TABLES];
extern const struct plug_table plug_volume_table; /* kind 0; handed out by attach and filters */
const struct plug_table *plug_table_by_iid(const char *iid);
const struct plug_table *plug_table_by_kind(uint32_t kind);
/* Copies min(their size, ours) of `theirs` into the zeroed `ours` (t->size bytes), presets its size and checks the
 * mandatory members. -EPROTO with text. */
int plug_table_import(const struct plug_table *t, const void *theirs, void *ours, struct vh_err *e);
/* "pool", "pool+format"; g_free. */
char *plug_kinds_text(uint32_t kinds);

/* ---- load.c ---- */

/* A file that may be loaded: opened, its owner, modes and note checked, nothing of it run. */
struct plug_file {
	int fd;
	char *path; /* absolute, without symbolic links */
	struct stat st;
	struct plug_ident note;
};
/* -ENOENT and -ENOTDIR when there is no such file, without text; everything else explains itself. */
int plug_file_open(const char *path, struct plug_file *out, struct vh_err *e);
void plug_file_close(struct plug_file *f);

struct plug_image {
	const struct vh_plugin *theirs;
	struct vh_plugin desc; /* the host's copy */
	void *handle;
	void *entry;
	const void *raw[PLUG_TABLES];
	void *table[PLUG_TABLES]; /* the host's copies, NULL: not offered */
};
/* Maps the file, calls its entry with `host` and takes its tables, all within the time limit. Once per file and process. */
int plug_image_load(const struct plug_file *f, const struct vh_host *host, struct plug_image *out, struct vh_err *e);
/* The second half: checks a descriptor and imports its tables. */
int plug_image_take(const struct plug_ident *note, const struct vh_plugin *theirs, struct plug_image *out,
		    struct vh_err *e);
/* Time limit of mapping and entry; default 5 s. */
extern uint64_t plug_load_timeout_ms;

/* The error of the load that runs on this thread: where vh_host.err(NULL, ...) in an entry goes. */
extern __thread struct vh_err *plug_entry_err;

/* ---- registry.c ---- */

/* Of a loaded plugin. */
const struct plug_image *plug_image_of(const struct plug *p);
const struct plug_ident *plug_ident_of(const struct plug *p);

/* The folders that are searched for a kind (0: all), in order; NULL-terminated, g_strfreev. */
int plug_search_path(uint32_t kind, char ***out, struct vh_err *e);

#endif
